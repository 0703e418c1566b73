"""The plan of a dataset: what its fingerprint decides, by fixed rules, with a sentence for every decision."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import ceil, prod

from autoseg.dataset import DatasetInfo
from autoseg.errors import DatasetError, UsageError
from autoseg.fingerprint import Fingerprint
from autoseg.plan import (
    CONFIGURATION_NAMES,
    Architecture,
    AugmentationSettings,
    Axes,
    Configuration,
    ConfigurationName,
    Normalization,
    Plan,
    PresetName,
    Spacing,
)
from autoseg.planning.memory import ByteBudget, MemoryModel, training_bytes
from autoseg.planning.normalization import choose_normalization, explain_normalization
from autoseg.planning.presets import PRESETS, Preset
from autoseg.planning.spacing import TargetGrid, choose_grid, explain_grid
from autoseg.planning.topology import Topology, choose_topology, design_network, initial_patch, smaller_topologies
from autoseg.units import describe_memory

# Source of all numbers here: the reference method (nnU-Net v2.8.1, default experiment planner and trainer).
SMALLEST_BATCH = 2
LARGEST_BATCH_SHARE = 0.05  # of the voxels of all training cases
LITTLE_CONTEXT = 0.25  # share of the typical volume below which a patch sees too little of it
THICK_PATCH_RATIO = 3  # longest edge to first edge, beyond which patches turn in-plane only
LONG_PLANE_RATIO = 1.5  # longest to shortest edge, beyond which planes turn a little only


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningOptions:
    """What is decided before the data are looked at.

    Attributes:
        dataset: Name of the dataset's folder.
        preset_name: Of the preset, for the record.
        preset: Limits of the network, and the schedule.
        memory_budget_bytes: Device memory that training may use, for the record and the sentences.
        memory: Decides how large patches and batches may be.
    """

    dataset: str
    preset_name: PresetName
    preset: Preset
    memory_budget_bytes: int
    memory: MemoryModel


def make_plan(
    fingerprint: Fingerprint, info: DatasetInfo, *, dataset: str, preset: PresetName, memory_budget_bytes: int
) -> Plan:
    """Plans for a budget in bytes of device memory.

    Args:
        fingerprint: The facts of the training cases.
        info: The content of dataset.json.
        dataset: Name of the dataset's folder.
        preset: "standard" for a GPU, "small" for two CPU cores or a laptop.
        memory_budget_bytes: Device memory that training may use.

    Raises:
        DatasetError: There is no case, the channels do not agree, or the images are too small for any network.
        UsageError: The budget does not hold a batch of two of the smallest patches.
    """
    return plan_with(
        fingerprint,
        info,
        PlanningOptions(
            dataset=dataset,
            preset_name=preset,
            preset=PRESETS[preset],
            memory_budget_bytes=memory_budget_bytes,
            memory=ByteBudget(memory_budget_bytes),
        ),
    )


def plan_with(fingerprint: Fingerprint, info: DatasetInfo, options: PlanningOptions) -> Plan:
    """Plans with limits and a memory model of one's own; see `make_plan`."""
    grid = choose_grid(fingerprint)
    normalization = choose_normalization(fingerprint, info)
    configurations: dict[ConfigurationName, Configuration] = {}
    why = [*explain_grid(grid), *explain_normalization(normalization, info)]
    for name in CONFIGURATION_NAMES:
        view = _view(name, grid)
        if name == "3d_fullres" and grid.holds_planes:
            why.append("There is no 3D configuration, because the images are planes: one voxel along their first axis.")
        elif not choose_topology(view.spacing_mm, initial_patch(view.spacing_mm, view.median_shape)).is_trainable:
            why.append(f"{name} is left out: {_edges(view.median_shape)} voxels are too few to halve the resolution.")
        else:
            fit = _fit_patch(view, info, options)
            configurations[name] = _configuration(view, fit, normalization)
            why.extend(_explain(name, configurations[name], fit, options.memory_budget_bytes))
    if not configurations:
        raise DatasetError(
            f"the training images of {options.dataset} have a median shape of {_edges(grid.median_shape)} voxels after "
            "resampling, too few for any network",
            "use images of at least 8 voxels along two axes",
        )
    return Plan(
        dataset=options.dataset,
        preset=options.preset_name,
        memory_budget_bytes=options.memory_budget_bytes,
        axis_order=grid.axis_order,
        configurations=configurations,
        training=options.preset.training,
        why=tuple(why),
    )


def choose_augmentation(patch_size: Axes) -> AugmentationSettings:
    """Chooses how patches may rotate, and mirrors them along all their axes.

    A rotated patch reaches beyond its own borders, so long planes turn little, and patches that are flat along the
    first axis turn within their slices only. Source: the reference method (nnU-Net v2.8.1, trainer).
    """
    longest = max(patch_size)
    if len(patch_size) == 2:
        degrees = 15 if longest / min(patch_size) > LONG_PLANE_RATIO else 180
        return AugmentationSettings(rotation_degrees=degrees, rotation_axes=(0,), mirror_axes=(0, 1))
    if longest / patch_size[0] > THICK_PATCH_RATIO:
        return AugmentationSettings(rotation_degrees=180, rotation_axes=(0,))
    return AugmentationSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """The part of the grid that a configuration looks at: planes, or volumes."""

    spacing_mm: Spacing
    median_shape: Axes
    dataset_voxels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fit:
    """The largest patch and batch within all limits, with what limited them."""

    topology: Topology
    architecture: Architecture
    batch_size: int
    patch_because: str
    batch_because: str


def _view(name: ConfigurationName, grid: TargetGrid) -> _View:
    if name == "2d":
        return _View(spacing_mm=grid.spacing_mm[1:], median_shape=grid.median_shape[1:], dataset_voxels=grid.voxels)
    return _View(spacing_mm=grid.spacing_mm, median_shape=grid.median_shape, dataset_voxels=grid.voxels)


def _fit_patch(view: _View, info: DatasetInfo, options: PlanningOptions) -> _Fit:
    """Shrinks the patch until preset and memory allow a batch of two, then fills the memory with a larger batch.

    Raises:
        UsageError: Not even the smallest patch fits.
    """
    limit = options.preset.limits(len(view.spacing_mm)).patch_voxels
    first = choose_topology(view.spacing_mm, initial_patch(view.spacing_mm, view.median_shape))
    because, too_large = "as much of the typical image as the network can take apart", None
    for topology in chain([first], smaller_topologies(first, view.spacing_mm, view.median_shape)):
        if limit is not None and topology.voxels > limit:
            because = f"the largest that the preset {options.preset_name!r} allows, at most {limit} voxels"
            continue
        architecture = _network(topology, info, options)
        if options.memory.fits(architecture, topology.patch_size, SMALLEST_BATCH):
            batch_size, limited_by = _choose_batch(view, topology, architecture, too_large, options)
            return _Fit(
                topology=topology,
                architecture=architecture,
                batch_size=batch_size,
                patch_because=because,
                batch_because=limited_by,
            )
        because, too_large = "the largest of which two fit into the memory budget", topology
    needed = training_bytes(_network(topology, info, options), topology.patch_size, SMALLEST_BATCH)
    raise UsageError(
        f"a memory budget of {describe_memory(options.memory_budget_bytes)} does not hold a training step with two "
        f"patches of {_edges(topology.patch_size)} voxels, the smallest for these images",
        f"raise the memory budget to at least {ceil(needed / 1e6)} MB",
    )


def _network(topology: Topology, info: DatasetInfo, options: PlanningOptions) -> Architecture:
    return design_network(topology, options.preset, in_channels=info.channels, out_channels=info.classes)


def _choose_batch(
    view: _View,
    topology: Topology,
    architecture: Architecture,
    too_large: Topology | None,
    options: PlanningOptions,
) -> tuple[int, str]:
    """The size of a batch, and what limits it.

    Decision: a batch holds no more voxels than two of the next larger patch, `too_large` for the memory, would have
    held; so a larger budget never buys fewer voxels per step.
    """
    limits = [
        (options.memory.largest_batch(architecture, topology.patch_size), "as many as the memory budget holds"),
        (
            round(view.dataset_voxels * LARGEST_BATCH_SHARE / topology.voxels),
            f"which see {LARGEST_BATCH_SHARE:.0%} of all training voxels",
        ),
    ]
    preset_limit = options.preset.limits(len(view.spacing_mm)).batch_size
    if preset_limit is not None:
        limits.append((preset_limit, f"the most that the preset {options.preset_name!r} allows"))
    if too_large is not None:
        limits.append((SMALLEST_BATCH * too_large.voxels // topology.voxels, "as many as the memory budget holds"))
    size, because = min(limits, key=lambda limit: limit[0])
    return (size, because) if size >= SMALLEST_BATCH else (SMALLEST_BATCH, "the fewest that training uses")


def _configuration(view: _View, fit: _Fit, normalization: tuple[Normalization, ...]) -> Configuration:
    patch_size = fit.topology.patch_size
    is_plane = len(patch_size) == 2
    return Configuration(
        spacing_mm=view.spacing_mm,
        patch_size=patch_size,
        batch_size=fit.batch_size,
        median_shape=view.median_shape,
        normalization=normalization,
        batch_dice=is_plane or _share(patch_size, view.median_shape) < LITTLE_CONTEXT,
        architecture=fit.architecture,
        estimated_bytes=training_bytes(fit.architecture, patch_size, fit.batch_size),
        augmentation=choose_augmentation(patch_size),
    )


def _share(patch_size: Axes, median_shape: Axes) -> float:
    """Of the typical image that a patch covers; above 1 if padding makes the patch larger than the image."""
    return prod(patch_size) / prod(median_shape)


def _explain(name: ConfigurationName, configuration: Configuration, fit: _Fit, budget_bytes: int) -> Iterator[str]:
    patch_size, median_shape = configuration.patch_size, configuration.median_shape
    stages = configuration.architecture.stages
    yield (
        f"{name}: a patch has {_edges(patch_size)} voxels of a typical {_edges(median_shape)}, {fit.patch_because}; "
        f"the network looks at it at {len(stages)} resolutions, with {stages[0].features} to {stages[-1].features} "
        "features."
    )
    yield (
        f"{name}: a batch has {fit.batch_size} patches, {fit.batch_because}; a training step takes about "
        f"{describe_memory(configuration.estimated_bytes)} of {describe_memory(budget_bytes)}."
    )
    share = min(1.0, _share(patch_size, median_shape))
    covered = f"a patch covers {share:.0%} of the typical image" if share >= 0.01 else "a patch covers next to nothing"
    if name == "2d":
        pooled = "over the batch, because a structure may be missing in most slices"
    else:
        pooled = f"{'over the batch' if configuration.batch_dice else 'per patch'}, because {covered}"
    yield f"{name}: the overlap of prediction and label is scored {pooled}."
    turns = configuration.augmentation
    about = "about all axes" if len(turns.rotation_axes) > 1 else "within their slices"
    yield f"{name}: in training, patches turn by up to {turns.rotation_degrees:g} degrees {about}, to suit their shape."


def _edges(sizes: Axes) -> str:
    return " x ".join(str(size) for size in sizes)
