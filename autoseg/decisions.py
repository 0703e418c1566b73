"""The plan of a dataset on disk: made from its fingerprint within a blink, without torch or images."""

import json
import os
import re

from pydantic import JsonValue

from autoseg.errors import UsageError
from autoseg.extensions import Own
from autoseg.fingerprint import Fingerprint
from autoseg.importing.nnunet import read_fingerprint
from autoseg.info import DatasetInfo
from autoseg.lock import run_alone
from autoseg.machine import may_have_gpu
from autoseg.networks.monai import is_monai
from autoseg.networks.table import NETWORKS
from autoseg.plan import Plan, PresetName, RulesName
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.presets import PRESETS, RULES, USEFUL_BYTES
from autoseg.reporting import SILENT, Reporter
from autoseg.units import describe_memory, parse_memory
from autoseg.workspace import DatasetFolders, find_workspace


def plan_configurations(
    number: int,
    *,
    memory: str | None = None,
    preset: PresetName | None = None,
    rules: RulesName = "autoseg",
    network: str | None = None,
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Plan:
    """Decides how to segment a dataset, from its dataset.json and its fingerprint alone; no image is needed.

    The fingerprint may be nnU-Net's dataset_fingerprint.json. A plan that stood there and was another one is kept as
    plan_before.json.

    Args:
        number: Of the dataset.
        memory: Device memory that training may use, such as "8GB"; by default what the GPU has, up to 24 GB, or that
            of the preset.
        preset: Size of the network; by default as large as pays for the memory.
        rules: "autoseg", or "nnunet" for the plans of the reference method.
        network: One of the literature, by its name in `networks.table`, and settings that are not the paper's, as in
            "unet:padded=false,depth=4"; or one of MONAI, such as "monai:SwinUNETR"; by default the usual one.
        plan_name: Of a plan beside the usual one.
        workspace: See `find_workspace`.
        reporter: States what is not as usual.

    Returns:
        The plan, as it stands in plan.json.

    Raises:
        UsageError: There is no fingerprint, no such preset, rules or network, the memory is too small, the name
            impossible, or the network does not take such images.
        DatasetError: There is no such dataset, or its images are too small for any network.
        ArtifactError: dataset.json or the fingerprint is damaged.
    """
    folders = find_workspace(workspace).dataset(number, plan_name)
    info = DatasetInfo.load(folders.raw / "dataset.json")
    options = settle_options(
        folders.raw.name, memory=memory, preset=preset, rules=rules, network=network, reporter=reporter
    )
    with run_alone(folders.preprocessed):
        made = make_plan(load_fingerprint(number, folders), info, options)
        save_plan(made, folders, reporter)
    return made


def settle_options(
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


def _find_network(wanted: str, rules: str) -> Own:
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
        return _complete_monai(name, given) if prefix else Own(name=name, settings=NETWORKS[name].complete(given))
    except ValueError as error:
        raise UsageError(f"--network {wanted}: {error}", "write it as in unet:padded=false,depth=4") from error


def _complete_monai(name: str, given: dict[str, JsonValue]) -> Own:
    """A network of MONAI with all its settings, of which MONAI itself is asked."""
    from autoseg.network.monai import check_settings, list_settings  # noqa: PLC0415 - takes torch, and MONAI

    check_settings(Own(name=name, settings=given))
    return Own(name=name, settings={**list_settings(name), **given})


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
    from autoseg.device import gpu_memory_bytes  # noqa: PLC0415 - see may_have_gpu

    return gpu_memory_bytes()


def load_fingerprint(number: int, folders: DatasetFolders) -> Fingerprint:
    """The fingerprint that was taken here, else the one that nnU-Net took.

    Raises:
        UsageError: There is none.
        ArtifactError: It is damaged.
    """
    if folders.fingerprint.is_file():
        return Fingerprint.load(folders.fingerprint)
    if folders.nnunet_fingerprint.is_file():
        return read_fingerprint(folders.nnunet_fingerprint)
    raise UsageError(f"{folders.raw.name} has no fingerprint", f"run 'autoseg fingerprint -d {number}' first")


def save_plan(plan: Plan, folders: DatasetFolders, reporter: Reporter) -> None:
    """Writes plan.json; one that stood there and was another is kept beside it, because it may have been edited."""
    if folders.plan.is_file() and folders.plan.read_bytes() != plan.to_json().encode():
        folders.plan.replace(folders.former_plan)
        reporter.say(f"the plan that stood there is now {folders.former_plan}")
    plan.save(folders.plan)
