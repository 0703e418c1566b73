"""Makes the plan of a dataset from its fingerprint, by fixed rules, with a sentence for every decision."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError, UsageError
from autoseg.networks.architecture import Axes
from autoseg.planning.budget import make_budget
from autoseg.planning.explanation import (
    PlannedConfiguration,
    explain_configuration,
    explain_full_resolution,
    explain_preset,
    explain_refusal,
)
from autoseg.planning.low_resolution import choose_low_resolution
from autoseg.planning.memory import training_bytes
from autoseg.planning.mirroring import Mirroring, choose_mirroring, explain_mirroring, mirror_settings
from autoseg.planning.network_fit import adapt_training, find_incompatibility, find_spec, fit_network
from autoseg.planning.normalization import choose_normalization, explain_normalization
from autoseg.planning.patch import PlanningConstraints, TypicalImage, fit_patch, format_size
from autoseg.planning.plan import Configuration, ConfigurationName, Normalization, Plan, PresetName, RulesName
from autoseg.planning.plugins import Plugin
from autoseg.planning.presets import LADDER, PRESETS, RULES, Rules
from autoseg.planning.schedule import choose_training, explain_training
from autoseg.planning.settings import AugmentationSettings
from autoseg.planning.spacing import TargetGrid, choose_grid, explain_grid
from autoseg.planning.topology import two_or_three

# Source: the reference method (nnU-Net v2.8.1, trainer).
THICK_PATCH_RATIO = 3
"""Ratio of the longest to the first edge of a 3D patch above which it is rotated in-plane only."""
LONG_PLANE_RATIO = 1.5
"""Ratio of the longest to the shortest edge of a 2D patch above which it is rotated by small angles only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningOptions:
    """The options of planning that do not depend on the data.

    Attributes:
        dataset: Name of the dataset's folder, such as "Dataset004_Hippocampus".
        memory_budget_bytes: Device memory in bytes that training may use.
        preset: Preset that sets the size of the network; None chooses one of this project's by the memory budget.
        rules: "autoseg", the rules of this project, or "nnunet", those of the reference method, which need one of its
            own presets.
        network: A network of the literature instead of that of the preset; not with the rules "nnunet".
    """

    dataset: str
    memory_budget_bytes: int
    preset: PresetName | None = None
    rules: RulesName = "autoseg"
    network: Plugin | None = None


def make_plan(fingerprint: Fingerprint, info: DatasetInfo, options: PlanningOptions) -> Plan:
    """Plans all configurations of a dataset.

    Without a preset, the memory budget chooses it: the deeper network of a larger preset is taken if every
    configuration then has at least as many voxels per training step as the smaller network has at the memory of the
    larger preset. So more memory never reduces a plan. Decision: see `presets`.

    >>> from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
    >>> from autoseg.datasets.info import DatasetInfo
    >>> channel = ChannelFacts(
    ...     mean=40, median=42, std=15, minimum=-1000, maximum=3000, percentile_00_5=-90, percentile_99_5=210
    ... )
    >>> cases = tuple(
    ...     CaseFacts(name=f"case_{n}", shape=(36, 50, 35), shape_after_crop=(36, 50, 35), spacing_mm=(1, 1, 1))
    ...     for n in range(200)
    ... )
    >>> fingerprint = Fingerprint(cases=cases, channels=(channel,), median_relative_size_after_crop=1)
    >>> info = DatasetInfo(
    ...     channel_names={"0": "MR"}, labels={"background": 0, "hippocampus": 1}, file_ending=".nii.gz"
    ... )
    >>> options = PlanningOptions(dataset="Dataset004_Hippocampus", memory_budget_bytes=8 * 10**9)
    >>> plan = make_plan(fingerprint, info, options)
    >>> plan.preset, plan.configurations["3d_fullres"].patch_size
    ('8gb', (40, 56, 40))

    Args:
        fingerprint: Measurements of the training cases.
        info: The content of dataset.json.
        options: Memory budget, preset, rules and network.

    Returns:
        The plan, with the reasons in `Plan.why`.

    Raises:
        DatasetError: There is no case, the channels do not agree, or the images are too small for any network.
        UsageError: The budget does not hold the smallest batch of the smallest patches, or the requested network does
            not take these images.
    """
    decisions = _decide_dataset(fingerprint, info, RULES[options.rules])
    if options.preset is None:
        return _plan_by_memory(decisions, options)
    return _plan(decisions, options.preset, options, budget_bytes=options.memory_budget_bytes)


def choose_augmentation(patch_size: Axes) -> AugmentationSettings:
    """Chooses by which angles patches are rotated, and mirrors them along all their axes.

    A rotated patch reaches beyond its own borders, so elongated 2D patches are rotated by small angles, and 3D patches
    that are flat along the first axis are rotated within their slices only. Source: the reference method (nnU-Net
    v2.8.1, trainer).

    >>> choose_augmentation((20, 256, 256)).rotation_axes
    (0,)

    Args:
        patch_size: Voxels along each axis, in the plan's axis order.
    """
    longest = max(patch_size)
    if len(patch_size) == 2:
        degrees = 15 if longest / min(patch_size) > LONG_PLANE_RATIO else 180
        return AugmentationSettings(rotation_degrees=degrees, rotation_axes=(0,), mirror_axes=(0, 1))
    if longest / patch_size[0] > THICK_PATCH_RATIO:
        return AugmentationSettings(rotation_degrees=180, rotation_axes=(0,))
    return AugmentationSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class _DatasetDecisions:
    """What the fingerprint alone decides, independently of the memory budget."""

    info: DatasetInfo
    rules: Rules
    grid: TargetGrid
    normalization: tuple[Normalization, ...]
    mirroring: Mirroring | None

    def typical_image(self, name: ConfigurationName) -> TypicalImage:
        """Returns the typical image of a configuration at full resolution: a slice for "2d", else a volume."""
        grid, first = self.grid, 1 if name == "2d" else 0
        return TypicalImage(
            spacing_mm=two_or_three(grid.spacing_mm[first:]),
            median_shape=grid.median_shape[first:],
            dataset_voxels=grid.voxels,
        )

    def explain(self) -> Iterator[str]:
        """Yields a sentence per decision."""
        yield from explain_grid(self.grid)
        yield from explain_normalization(self.normalization, self.info)
        if self.mirroring is not None:
            yield from explain_mirroring(self.mirroring, self.info)


def _decide_dataset(fingerprint: Fingerprint, info: DatasetInfo, rules: Rules) -> _DatasetDecisions:
    return _DatasetDecisions(
        info=info,
        rules=rules,
        grid=choose_grid(fingerprint, rules),
        normalization=choose_normalization(fingerprint, info),
        mirroring=choose_mirroring(fingerprint, info) if rules.safe_mirroring else None,
    )


def _plan_by_memory(decisions: _DatasetDecisions, options: PlanningOptions) -> Plan:
    """Chooses the preset by the memory budget and plans with it; see `make_plan`."""
    reached = [name for name in LADDER if PRESETS[name].memory_bytes <= options.memory_budget_bytes] or [LADDER[0]]
    if options.network is not None:  # it does not depend on the preset
        return _plan(decisions, reached[-1], options, budget_bytes=options.memory_budget_bytes)
    larger = [*reached[1:], None]
    steps = [
        (name, next_name)
        for name, next_name in zip(reached, larger, strict=True)
        if _have_different_networks(name, next_name)
    ]
    plan: Plan | None = None
    for name, next_name in steps:
        limit = options.memory_budget_bytes if next_name is None else PRESETS[next_name].memory_bytes
        attempt = _plan(decisions, name, options, budget_bytes=min(limit, options.memory_budget_bytes))
        if plan is None or _keeps_step_voxels(attempt, plan):
            plan = attempt
        else:
            refusal = explain_refusal(name, plan.preset, options.memory_budget_bytes)
            plan = plan.model_copy(update={"why": (*plan.why, refusal)})
    if plan is None:
        raise ValueError("the list of presets is empty")
    return plan


def _have_different_networks(smaller: PresetName, larger: PresetName | None) -> bool:
    """Returns whether two presets have different networks; if not, only the larger one is planned."""
    return larger is None or replace(PRESETS[smaller], memory_bytes=0) != replace(PRESETS[larger], memory_bytes=0)


def _keeps_step_voxels(attempt: Plan, plan: Plan) -> bool:
    """Returns whether no configuration of `plan` has fewer voxels per training step in `attempt`, if it is there."""
    both = attempt.configurations.keys() & plan.configurations.keys()
    return all(attempt.configurations[name].step_voxels >= plan.configurations[name].step_voxels for name in both)


def _plan(
    decisions: _DatasetDecisions, preset_name: PresetName, options: PlanningOptions, *, budget_bytes: int
) -> Plan:
    """Makes the plan for one preset and budget."""
    preset = PRESETS[preset_name]
    constraints = PlanningConstraints(
        preset_name=preset_name,
        preset=preset,
        budget=make_budget(preset, budget_bytes),
        budget_bytes=budget_bytes,
        in_channels=decisions.info.channels,
        out_channels=decisions.info.targets.outputs,
        monotonic=decisions.rules.monotonic,
        named_network=options.network,
    )
    results = [*_plan_2d(decisions, constraints), *_plan_3d(decisions, constraints)]
    configurations = {
        planned.name: _make_configuration(planned, decisions, constraints)
        for planned in results
        if isinstance(planned, PlannedConfiguration)
    }
    if not configurations:
        raise _no_configuration(decisions, options, [result for result in results if isinstance(result, str)])
    training = choose_training(preset, decisions.grid)
    if options.network is not None:
        training = adapt_training(training, options.network)
    why = [*explain_preset(constraints), explain_training(training, preset, decisions.grid), *decisions.explain()]
    for result in results:
        if isinstance(result, str):
            why.append(result)
        else:
            why.extend(explain_configuration(result, configurations[result.name], constraints))
    return Plan(
        dataset=options.dataset,
        rules=options.rules,
        preset=preset_name,
        memory_budget_bytes=options.memory_budget_bytes,
        axis_order=decisions.grid.axis_order,
        configurations=configurations,
        training=training,
        why=tuple(why),
    )


def _no_configuration(
    decisions: _DatasetDecisions, options: PlanningOptions, reasons: Sequence[str]
) -> UsageError | DatasetError:
    """Returns the error for a dataset that no configuration is possible for."""
    if options.network is not None:
        problem = f"{find_spec(options.network).title} cannot look at the images of {options.dataset}."
        return UsageError(f"{problem} {' '.join(reasons)}", "choose another network")
    return DatasetError(
        f"the training images of {options.dataset} have a median shape of "
        f"{format_size(decisions.grid.median_shape)} voxels after resampling, too few for any network",
        "use images of at least 8 voxels along two axes",
    )


def _plan_2d(decisions: _DatasetDecisions, constraints: PlanningConstraints) -> Iterator[PlannedConfiguration | str]:
    """Yields the 2D configuration, or a sentence on why there is none."""
    image = decisions.typical_image("2d")
    too_thin = decisions.rules.flat_axis_first and min(image.median_shape) <= decisions.rules.flat_voxels
    if (reason := _find_incompatibility(constraints, 2)) is not None:
        yield f"There is no 2d: {reason}."
    elif image.is_trainable and not too_thin:
        yield PlannedConfiguration(name="2d", image=image, fit=fit_patch(image, constraints), batch_dice=True)
    else:
        size = format_size(image.median_shape)
        yield f"There is no 2d: slices of {size} voxels are too small to halve the resolution."


def _plan_3d(decisions: _DatasetDecisions, constraints: PlanningConstraints) -> Iterator[PlannedConfiguration | str]:
    """Yields the 3D configurations, and sentences on why some are missing.

    Source: the reference method, also for `batch_dice`: where a low-resolution configuration is worthwhile, a patch at
    full resolution often holds none of a structure.
    """
    image = decisions.typical_image("3d_fullres")
    if decisions.grid.is_flat:
        slices = max(1, round(image.median_shape[0]))
        yield f"There is no 3D configuration: {slices} slice{' makes' if slices == 1 else 's make'} no volume."
        return
    if not image.is_trainable:
        size = format_size(image.median_shape)
        yield f"There is no 3D configuration: {size} voxels are too few to halve the resolution."
        return
    if (reason := _find_incompatibility(constraints, 3)) is not None:
        yield f"There is no 3D configuration: {reason}."
        return
    full = fit_patch(image, constraints)
    low = choose_low_resolution(image, constraints, full)
    yield PlannedConfiguration(name="3d_fullres", image=image, fit=full, batch_dice=low is not None)
    if low is None:
        yield explain_full_resolution(image, full)
        return
    yield PlannedConfiguration(name="3d_lowres", image=low.image, fit=low.fit, batch_dice=False, finer=(image, full))
    if not decisions.info.targets.fits_cascade:
        yield "There is no cascade: it would need one label map of fewer than 180 numbers to look at."
        return
    cascade = replace(constraints, in_channels=constraints.in_channels + len(decisions.info.targets.structures))
    if (reason := _find_incompatibility(cascade, 3)) is not None:
        yield f"There is no cascade: {reason}."
        return
    # The reference method reuses patch and batch of 3d_fullres; the additional input channels take little memory.
    fit = fit_patch(image, cascade) if constraints.monotonic else full.with_network(cascade)
    yield PlannedConfiguration(name="3d_cascade_fullres", image=image, fit=fit, batch_dice=True, previous="3d_lowres")


def _find_incompatibility(constraints: PlanningConstraints, dimensions: int) -> str | None:
    """Returns why the requested network does not take 2D or 3D images; None if it does, or none was requested."""
    if constraints.named_network is None:
        return None
    channels = {"in_channels": constraints.in_channels, "out_channels": constraints.out_channels}
    return find_incompatibility(constraints.named_network, dimensions, **channels)


def _make_configuration(
    planned: PlannedConfiguration, decisions: _DatasetDecisions, constraints: PlanningConstraints
) -> Configuration:
    patch_size = planned.fit.topology.patch_size
    network = None if constraints.named_network is None else fit_network(constraints.named_network, patch_size)
    augmentation = choose_augmentation(patch_size)
    if decisions.mirroring is not None:
        augmentation = mirror_settings(decisions.mirroring, decisions.grid.axis_order, len(patch_size), augmentation)
    return Configuration(
        spacing_mm=planned.image.spacing_mm,
        patch_size=patch_size,
        batch_size=planned.fit.batch_size,
        median_shape=two_or_three([ceil(size) for size in planned.image.median_shape]),
        normalization=decisions.normalization,
        batch_dice=planned.batch_dice,
        architecture=planned.fit.architecture,
        network=network,
        estimated_bytes=training_bytes(planned.fit.architecture, patch_size, planned.fit.batch_size, network),
        previous=planned.previous,
        augmentation=augmentation,
    )
