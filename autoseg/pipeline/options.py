"""The options of planning: parsed, checked, and completed by what the machine offers."""

import json
import re
from dataclasses import replace

from pydantic import JsonValue

from autoseg.errors import ArtifactError, UsageError
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.monai_names import is_monai
from autoseg.planning.cpu_preset import CPU_PRESET
from autoseg.planning.machine_speed import MachineSpeed
from autoseg.planning.patch_growth import PATCHES_NAMES
from autoseg.planning.planner import PlanningOptions
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.presets import PRESETS, RULES, USEFUL_BYTES
from autoseg.runtime.json_text import find_key_twice
from autoseg.runtime.machine import identify_machine, may_have_gpu
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.units import describe_memory, parse_memory
from autoseg.workspace import DatasetFolders


def resolve_options(
    folders: DatasetFolders,
    *,
    memory: str | None,
    preset: str | None,
    rules: str,
    network: str | None = None,
    patches: str | None = None,
    reporter: Reporter,
) -> PlanningOptions:
    """Returns the options of planning from the options of the user, and the GPU of this machine.

    If neither memory nor preset is given, the memory is that of the GPU, but no more than has been shown to be useful;
    without a CUDA GPU, the preset is `small`, for a machine of the speed that `add_speed` measures.

    Args:
        folders: The folders of the dataset.
        memory: Memory of the device, such as "8GB"; None if it is not given.
        preset: Name of the preset; None if it is not given.
        rules: Name of the planning rules.
        network: Name of a network, with settings behind a colon; None for the network of the preset.
        patches: "growing" or "fixed"; None leaves it to the preset.
        reporter: Is told what was assumed.

    Raises:
        UsageError: There are no such rules, they have no such preset, there is no such network, patches are neither
            growing nor fixed, or the memory cannot be read.
    """
    plugin = None if network is None else _find_network(network, rules)
    if rules not in RULES:
        raise UsageError(f"there are no rules {rules!r}", f"choose from {', '.join(RULES)}")
    presets = RULES[rules].presets
    if preset is None and rules == "nnunet":
        preset = presets[0]
    if preset is not None and preset not in presets:
        raise UsageError(f"there is no preset {preset!r} in the rules {rules!r}", f"choose from {', '.join(presets)}")
    if patches is not None and patches not in PATCHES_NAMES:
        raise UsageError(f"patches cannot be {patches!r}", f"choose from {', '.join(PATCHES_NAMES)}")
    options = PlanningOptions(
        dataset=folders.raw.name,
        memory_budget_bytes=PRESETS[CPU_PRESET].memory_bytes,
        rules=rules,
        network=plugin,
        patches=patches,
    )
    if memory is not None:
        return replace(options, memory_budget_bytes=parse_memory(memory), preset=preset)
    if preset is not None:
        return replace(options, memory_budget_bytes=PRESETS[preset].memory_bytes, preset=preset)
    total = _gpu_memory_bytes() if may_have_gpu() else None
    if total is not None:
        return replace(options, memory_budget_bytes=_limit_memory(total, reporter))
    reporter.say(
        f"there is no CUDA GPU here: planned for this machine, by preset {CPU_PRESET}; for a GPU elsewhere, as on a "
        "login node, state its memory: --memory 24GB"
    )
    return replace(options, preset=CPU_PRESET)


def add_speed(
    options: PlanningOptions, folders: DatasetFolders, *, memory: str | None, preset: str | None
) -> PlanningOptions:
    """Returns the options with the speed of this machine if the plan is for its processor, because no other was named.

    It may be measured, and is then written; so call this when nothing else can be wrong.

    Args:
        options: The options, from `resolve_options`.
        folders: The folders of the dataset.
        memory: Memory of the device as the user gave it.
        preset: Name of the preset as the user gave it.
    """
    if memory is None and preset is None and options.preset == CPU_PRESET:
        return replace(options, speed=load_or_measure_speed(folders))
    return options


def load_or_measure_speed(folders: DatasetFolders) -> MachineSpeed:
    """Returns the speed of this machine in coarse steps: as it was measured for this dataset, else measured now.

    A machine is measured once for each dataset, since every measurement differs a little. It is measured anew if the
    dataset has moved to another machine, if cores or instruction set are limited otherwise, or if machine_speed.json is
    damaged or removed.
    """
    try:
        speed = MachineSpeed.load(folders.machine_speed)
    except (ArtifactError, OSError):
        speed = None
    if speed is None or speed.machine != identify_machine():
        speed = _measure_speed()
        speed.save(folders.machine_speed)
    return speed.rounded


def _find_network(option: str, rules: str) -> Plugin:
    """Returns the network that ``--network`` names: the settings of its paper, changed by those behind the colon.

    In "unet:padded=false,depth=4", the network is "unet"; the values are read as JSON. In "monai:SwinUNETR:depth=2",
    it is "monai:SwinUNETR".
    """
    first, colon, rest = option.partition(":")
    prefix = f"{first}{colon}" if is_monai(option) else ""
    short_name, _, settings_text = (rest if prefix else option).partition(":")
    name = f"{prefix}{short_name}"
    if not prefix and name not in NETWORKS:
        fix = f"choose from {', '.join(NETWORKS)} (autoseg networks tells them); one of your own is named in plan.json"
        raise UsageError(f"there is no network {name!r}", fix)
    if rules == "nnunet":
        raise UsageError("the rules 'nnunet' plan for nnU-Net's own networks", "leave --rules or --network out")
    try:
        settings = _read_settings(settings_text)
        if prefix:
            return _complete_monai(name, settings)
        return Plugin(name=name, settings=NETWORKS[name].complete(settings))
    except ValueError as error:
        raise UsageError(f"--network {option}: {error}", "write it as in unet:padded=false,depth=4") from error


def _complete_monai(name: str, changed: dict[str, JsonValue]) -> Plugin:
    """Returns a network of MONAI with all its settings; MONAI states the defaults."""
    from autoseg.models.monai_networks import check_settings, list_settings

    check_settings(Plugin(name=name, settings=changed))
    return Plugin(name=name, settings={**list_settings(name), **changed})


def _read_settings(text: str) -> dict[str, JsonValue]:
    """Parses settings such as "padded=false,patch=[64,64]"; a comma divides them where a name and "=" follow.

    Raises:
        ValueError: A value is no JSON, or a name or a key is there twice.
    """
    settings = {}
    for setting in re.split(r",(?=\w+=)", text) if text else ():
        key, _, value = setting.partition("=")
        if key in settings:
            raise ValueError(f"it has {key} twice")
        if (twice := find_key_twice(value)) is not None:
            raise ValueError(f"the value of {key} has the key {twice!r} twice")
        settings[key] = json.loads(value)
    return settings


def _limit_memory(total: int, reporter: Reporter) -> int:
    """Returns the memory to plan for on a GPU with this memory, in bytes."""
    if total > USEFUL_BYTES:
        reporter.say(
            f"the GPU has {describe_memory(total)}: planned for {describe_memory(USEFUL_BYTES)}, because more has cost "
            f"time and gained next to nothing; --memory {total // 10**9}GB uses all of it"
        )
    return min(total, USEFUL_BYTES)


def _gpu_memory_bytes() -> int | None:
    from autoseg.runtime.device import gpu_memory_bytes

    return gpu_memory_bytes()


def _measure_speed() -> MachineSpeed:
    from autoseg.models.speed import measure_potential
    from autoseg.runtime.device import resolve_device

    return measure_potential(resolve_device("auto"))
