"""The preset for a machine without a CUDA GPU: `small`, and smaller still where the machine is slow.

A network that is too large for a machine takes so few steps in an evening that it has hardly learned its labels; a
smaller one has learned them.
"""

from collections.abc import Iterator
from dataclasses import replace

from autoseg.planning.machine_speed import (
    MachineSpeed,
    count_patch_work,
    describe_roughly,
    fold_seconds,
    mean_step_seconds,
    validation_seconds,
)
from autoseg.planning.plan import Configuration, ConfigurationName, Plan, PresetName
from autoseg.planning.presets import PRESETS, Preset
from autoseg.planning.settings import TrainingSettings

CPU_PRESET: PresetName = "small"
COARSE: ConfigurationName = "3d_lowres"

TWO_AVX2_CORES = 32e9
"""Multiply-adds per second in training from which on a machine gets the whole preset `small`. Source: two cores with
AVX2 reach 79 billion in float32 (tests/benchmarks/RESULTS.md); laptops that reach half of it count as such, too."""

FOLD_SECONDS = 3 * 3600.0
"""Time in which a slower machine is to train a fold. Decision: what begins after work is then trained before the night,
with the time that preprocessing, validation and prediction take besides."""

LONG_SCAN_SECONDS = 600.0
"""Time to predict a typical image from which on a coarser configuration is recommended. Decision: validation alone
takes hours then, for the held-out cases of a fold."""

SMALLER: tuple[tuple[int, int, int], ...] = ((64, 192, 8), (48, 128, 8), (32, 96, 8))
"""Edges in voxels of the largest patch of volumes and of slices, and features at full resolution, in the order in which
they are tried. In 3D they take 0.25, 0.11 and 0.03 of the multiply-adds of `small`, which has 64, 192 and 16. Decision:
features are halved first, because of the same multiply-adds, half the features made more (tests/benchmarks/RESULTS.md,
"Learning from the same work"); no fewer than 8, which is what a CPU calculates at once."""


def list_cpu_presets() -> Iterator[Preset]:
    """Yields the preset `small`, and then ever smaller ones.

    >>> [(preset.base_features, preset.volume.patch_voxels) for preset in list_cpu_presets()]
    [(16, 262144), (8, 262144), (8, 110592), (8, 32768)]
    """
    whole = PRESETS[CPU_PRESET]
    yield whole
    for volume_edge, plane_edge, features in SMALLER:
        share = features / whole.base_features
        yield replace(
            whole,
            base_features=features,
            plane=replace(whole.plane, features=round(whole.plane.features * share), patch_voxels=plane_edge**2),
            volume=replace(whole.volume, features=round(whole.volume.features * share), patch_voxels=volume_edge**3),
        )


def suits_speed(plan: Plan, speed: MachineSpeed) -> bool:
    """Returns whether a machine is as fast as two AVX2 cores, or trains a fold of each configuration in time.

    The networks of MONAI and of packages, whose work is not known here, do not count.
    """
    if speed.training >= TWO_AVX2_CORES:
        return True
    seconds = [_fold_seconds(configuration, plan.training, speed) for configuration in plan.configurations.values()]
    return all(value is None or value <= FOLD_SECONDS for value in seconds)


def explain_speed(plan: Plan, preset: Preset, speed: MachineSpeed) -> Iterator[str]:
    """Yields sentences on what the speed of the machine decided, and what each configuration takes on it.

    Args:
        plan: The plan.
        preset: The preset that it was made by, one of `list_cpu_presets`.
        speed: The speed of the machine.
    """
    hours = f"{FOLD_SECONDS / 3600:g} hours"
    machine = f"This machine has no CUDA GPU, and calculates about {speed.describe()} in training ({speed.machine})"
    if any(configuration.network is not None for configuration in plan.configurations.values()):
        yield f"{machine}; the network that was named stays as it is, however long it takes."
    elif preset == PRESETS[CPU_PRESET]:
        enough = "as fast as two cores with AVX2" if speed.training >= TWO_AVX2_CORES else f"a fold takes up to {hours}"
        yield f"{machine}: {enough}, so the preset {CPU_PRESET} is taken as it is."
    else:
        yield (
            f"{machine}: too slow to train a fold of the whole preset {CPU_PRESET} within {hours}, so "
            f"{_describe_changes(preset)}{'' if suits_speed(plan, speed) else ', which still takes longer'}; "
            f"--preset {CPU_PRESET} takes the whole preset all the same."
        )
    for name, configuration in plan.configurations.items():
        yield from _explain_configuration(name, plan, configuration, speed)


def _describe_changes(preset: Preset) -> str:
    """Returns a clause on how a preset differs from `small`."""
    whole, changes = PRESETS[CPU_PRESET], []
    for kind, limits, before in (("volume", preset.volume, whole.volume), ("slice", preset.plane, whole.plane)):
        if limits.patch_voxels != before.patch_voxels:
            changes.append(f"patches of {kind}s have at most {limits.patch_voxels} voxels, not {before.patch_voxels}")
    if preset.base_features != whole.base_features:
        changes.append(f"the network begins with {preset.base_features} features, not {whole.base_features}")
    return " and ".join([", ".join(changes[:-1]), changes[-1]] if len(changes) > 1 else changes)


def _explain_configuration(
    name: ConfigurationName, plan: Plan, configuration: Configuration, speed: MachineSpeed
) -> Iterator[str]:
    work, seconds = count_patch_work(configuration), _fold_seconds(configuration, plan.training, speed)
    if work is None or seconds is None:
        return
    scan = validation_seconds(plan, name, speed, work)
    text = (
        f"{name}: on this machine a training step takes about "
        f"{describe_roughly(mean_step_seconds(configuration, speed, work))}, a fold of "
        f"{plan.training.epochs * plan.training.steps_per_epoch} steps about {describe_roughly(seconds)}, and a "
        f"typical image about {describe_roughly(scan)} to predict"
    )
    if scan > LONG_SCAN_SECONDS:
        has_coarser = COARSE in plan.configurations and name != COARSE
        advice = f"{COARSE} is far quicker here, or take a GPU" if has_coarser else "take a GPU"
        text += f"; for images of this size, {advice}"
    yield f"{text}."


def _fold_seconds(configuration: Configuration, training: TrainingSettings, speed: MachineSpeed) -> float | None:
    work = count_patch_work(configuration)
    return None if work is None else fold_seconds(configuration, training, speed, work)
