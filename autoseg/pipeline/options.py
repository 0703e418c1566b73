"""The options of planning, as planning takes them."""

import json
import re

from pydantic import JsonValue

from autoseg.errors import UsageError
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.monai import is_monai
from autoseg.planning.planner import PlanningOptions
from autoseg.planning.plugins import Plugin
from autoseg.planning.presets import PRESETS, RULES, USEFUL_BYTES
from autoseg.runtime.machine import may_have_gpu
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.units import describe_memory, parse_memory


def resolve_options(
    dataset: str, *, memory: str | None, preset: str | None, rules: str, network: str | None = None, reporter: Reporter
) -> PlanningOptions:
    """What is to be decided by, from what the user said and what the GPU reports.

    Without memory and preset, the memory is that of the GPU, though no more than has been shown to be of use; without a
    GPU, it is that of the preset "8gb".

    Raises:
        UsageError: There are no such rules, they have no such preset, there is no such network, or the memory is no
            amount.
    """
    named = None if network is None else _find_network(network, rules)
    if rules not in RULES:
        raise UsageError(f"there are no rules {rules!r}", f"choose from {', '.join(RULES)}")
    known = RULES[rules].presets
    if preset is None and rules == "nnunet":
        preset = known[0]
    if preset is not None and preset not in known:
        raise UsageError(f"there is no preset {preset!r} in the rules {rules!r}", f"choose from {', '.join(known)}")
    if memory is not None:
        budget_bytes = parse_memory(memory)
    elif preset is not None:
        budget_bytes = PRESETS[preset].memory_bytes
    else:
        budget_bytes = _usual_memory(reporter)
    return PlanningOptions(dataset=dataset, memory_budget_bytes=budget_bytes, preset=preset, rules=rules, network=named)


def _find_network(wanted: str, rules: str) -> Plugin:
    """A network of the literature with the settings of its paper, but for those that stand behind a colon.

    Example: "unet:padded=false,depth=4". Values are read as JSON.
    """
    first, colon, rest = wanted.partition(":")
    prefix = f"{first}{colon}" if is_monai(wanted) else ""
    short, _, stated = (rest if prefix else wanted).partition(":")
    name = f"{prefix}{short}"
    if not prefix and name not in NETWORKS:
        fix = f"choose from {', '.join(NETWORKS)} (autoseg networks tells them); one of your own is named in plan.json"
        raise UsageError(f"there is no network {name!r}", fix)
    if rules == "nnunet":
        raise UsageError("the rules 'nnunet' plan for nnU-Net's own networks", "leave --rules or --network out")
    try:
        given = _read_settings(stated)
        return _complete_monai(name, given) if prefix else Plugin(name=name, settings=NETWORKS[name].complete(given))
    except ValueError as error:
        raise UsageError(f"--network {wanted}: {error}", "write it as in unet:padded=false,depth=4") from error


def _complete_monai(name: str, given: dict[str, JsonValue]) -> Plugin:
    """A network of MONAI with all its settings, of which MONAI itself is asked."""
    from autoseg.models.monai_networks import check_settings, list_settings

    check_settings(Plugin(name=name, settings=given))
    return Plugin(name=name, settings={**list_settings(name), **given})


def _read_settings(stated: str) -> dict[str, JsonValue]:
    """Settings such as "padded=false,patch=[64,64]"; a comma divides them where a name and "=" follow."""
    settings = {}
    for one in re.split(r",(?=\w+=)", stated) if stated else ():
        key, _, value = one.partition("=")
        settings[key] = json.loads(value)
    return settings


def _usual_memory(reporter: Reporter) -> int:
    total = _gpu_memory_bytes() if may_have_gpu() else None
    if total is None:
        reporter.say(
            "there is no CUDA GPU here: planned for one of 8 GB; --memory states another, --preset small suits a CPU"
        )
        return PRESETS["8gb"].memory_bytes
    if total > USEFUL_BYTES:
        reporter.say(
            f"the GPU has {describe_memory(total)}: planned for {describe_memory(USEFUL_BYTES)}, because more has cost "
            f"time and gained next to nothing; --memory {total // 10**9}GB uses all of it"
        )
    return min(total, USEFUL_BYTES)


def _gpu_memory_bytes() -> int | None:
    from autoseg.runtime.device import gpu_memory_bytes

    return gpu_memory_bytes()
