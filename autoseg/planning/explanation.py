"""Explains the decisions of a plan in sentences with the numbers behind them, for plan.json and the terminal."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from autoseg.networks.architecture import Architecture
from autoseg.planning.budget import FREE_SHARE, ByteBudget
from autoseg.planning.low_resolution import LITTLE_CONTEXT, MIN_VOXEL_RATIO
from autoseg.planning.memory import bytes_per_patch, feature_map_elements, training_bytes
from autoseg.planning.network_fit import explain_named_network
from autoseg.planning.patch_size import FittedPatch, PlanningConstraints, TypicalImage, format_size
from autoseg.planning.plan import Configuration, ConfigurationName, PresetName
from autoseg.planning.presets import PRESETS, Preset
from autoseg.runtime.units import describe_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationDecisions:
    """A planned configuration: the typical image with patch, batch and network.

    Attributes:
        name: Name of the configuration.
        image, fit: See `TypicalImage` and `FittedPatch`.
        batch_dice: See `Configuration`.
        previous: See `Configuration`.
        finer: For a low resolution, the typical image and the patch at full resolution.
    """

    name: ConfigurationName
    image: TypicalImage
    fit: FittedPatch
    batch_dice: bool
    previous: ConfigurationName | None = None
    finer: tuple[TypicalImage, FittedPatch] | None = None


def explain_preset(constraints: PlanningConstraints) -> Iterator[str]:
    """Yields sentences on the network and the memory budget that the plan starts from."""
    yield (
        explain_preset_network(constraints.preset_name, constraints.preset)
        if constraints.named_network is None
        else explain_named_network(constraints.named_network)
    )
    in_bytes = isinstance(constraints.budget, ByteBudget)
    measure = f", {FREE_SHARE:.0%} of it left free" if in_bytes else f", counted as {constraints.budget.describe()}"
    yield f"Training may use {describe_memory(constraints.budget_bytes)} of memory{measure}."


def explain_preset_network(name: str, preset: Preset) -> str:
    """Returns a sentence on the network of a preset."""
    kinds = {
        "stage": "each stage adds its input to its output, as in V-Net",
        "block": "the way down is made of residual blocks, as in ResNet",
        "none": "the plain U-Net",
    }
    depth = (
        " and repeats that block from the second stage on"
        if preset.residual == "stage" and max(preset.blocks) > 1
        else ""
    )
    return (
        f"Preset {name}: a U-shaped network of {preset.base_features} features at full resolution, twice "
        f"as many at each coarser one; {kinds[preset.residual]}{depth}."
    )


def explain_refusal(larger: PresetName, taken: PresetName, memory_bytes: int) -> str:
    """Returns a sentence on why a larger preset's network was not taken although the memory suffices for it."""
    return (
        f"The deeper network of preset {larger} is not used: with {describe_memory(memory_bytes)} it would see fewer "
        f"voxels per step than that of preset {taken} with {describe_memory(PRESETS[larger].memory_bytes)}."
    )


def explain_full_resolution(image: TypicalImage, fit: FittedPatch) -> str:
    """Returns a sentence on why there is no low-resolution configuration."""
    share = fit.topology.voxels / image.voxels
    if share < LITTLE_CONTEXT:
        return (
            f"There is no 3d_lowres: a patch of 3d_fullres covers {_percent(share)} of the typical volume, but one of "
            f"which it covers {LITTLE_CONTEXT:.0%} would not be {MIN_VOXEL_RATIO:g} times smaller."
        )
    return (
        f"There is no 3d_lowres: a patch of 3d_fullres covers {_percent(min(1.0, share))} of the typical volume, and "
        f"{LITTLE_CONTEXT:.0%} are enough to see where it is."
    )


def explain_configuration(
    planned: ConfigurationDecisions, configuration: Configuration, constraints: PlanningConstraints
) -> Iterator[str]:
    """Yields sentences on what each number of a configuration follows from."""
    if planned.finer is not None:
        yield from _explain_coarsening(planned, *planned.finer)
    if planned.previous is not None:
        labels = configuration.previous_channels
        inputs = "1 further input channel" if labels == 1 else f"{labels} further input channels, one per label"
        yield (
            f"{planned.name}: looks at the volumes of 3d_fullres a second time, with the segmentation of "
            f"{planned.previous} as {inputs}; all else is as in 3d_fullres."
        )
        return
    yield from _explain_patch(planned, configuration)
    yield from _explain_growth(planned, configuration, constraints)
    yield _explain_batch(planned, configuration, constraints)
    yield _explain_loss(planned, configuration)
    yield _explain_augmentation(planned, configuration)


def _explain_coarsening(planned: ConfigurationDecisions, full: TypicalImage, fit: FittedPatch) -> Iterator[str]:
    spacing = " x ".join(f"{step:.4g}" for step in planned.image.spacing_mm)
    before, after = fit.topology.voxels / full.voxels, planned.fit.topology.voxels / planned.image.voxels
    yield (
        f"{planned.name}: a patch of 3d_fullres covers {_percent(before)} of the typical volume, too little to see "
        f"where it is; so a second network looks at the volumes at {spacing} mm, where a patch covers "
        f"{_percent(after)}."
    )


def _explain_patch(planned: ConfigurationDecisions, configuration: Configuration) -> Iterator[str]:
    patch_size, stages = configuration.patch_size, configuration.architecture.stages
    reason, has_margin = planned.fit.patch_reason, configuration.patches.has_margin
    covered = [
        size >= typical for size, typical in zip(configuration.centre_size, planned.image.median_shape, strict=True)
    ]
    if all(covered) and has_margin:
        reason = "all of it, and its mirror image around it"
    elif all(covered):
        reason = (
            "all of it, padded to what can be halved evenly"
            if patch_size != planned.image.median_shape
            else "all of it"
        )
    millimetres = format_size(
        [round(size * step) for size, step in zip(patch_size, planned.image.spacing_mm, strict=True)]
    )
    yield (
        f"{planned.name}: a patch has {format_size(patch_size)} voxels ({millimetres} mm) of a typical "
        f"{format_size(planned.image.median_shape)}, {reason}."
    )
    coarsest = [size // divisor for size, divisor in zip(patch_size, configuration.architecture.divisor, strict=True)]
    down = "" if has_margin else f" down to {format_size(coarsest)} voxels,"
    yield (
        f"{planned.name}: the network looks at it at {len(stages)} resolutions,{down} with "
        f"{stages[0].features} to {stages[-1].features} features{_long_voxels(configuration.architecture)}."
    )
    if has_margin:
        centre = format_size(configuration.centre_size)
        yield (
            f"{planned.name}: its convolutions are not padded, so of a patch it predicts the {centre} voxels in the "
            "middle; beyond the border of an image it sees the mirror image."
        )


def _explain_growth(
    planned: ConfigurationDecisions, configuration: Configuration, constraints: PlanningConstraints
) -> Iterator[str]:
    if constraints.patches == "fixed":
        return
    if not configuration.patch_growth:
        reason = "it is as small as it can be" if configuration.takes_other_patches else "the network takes one size"
        yield f"{planned.name}: the patch does not grow during the training, because {reason}."
        return
    sizes = [f"{stage.batch_size} of {format_size(stage.patch_size)}" for stage in configuration.stages]
    yield (
        f"{planned.name}: patches grow during the training: {', '.join(sizes)} voxels, each for an equal share of the "
        "steps, because small patches cost less for what they teach; the large ones at the end show what lies further "
        "apart."
    )


def _long_voxels(architecture: Architecture) -> str:
    flat = sum(1 in stage.kernel for stage in architecture.stages)
    if flat == 0:
        return ""
    first = "first resolution" if flat == 1 else f"first {flat} resolutions"
    return (
        f"; at the {first} its convolutions do not look along axes whose voxels are still at least twice as long as "
        "along the others"
    )


def _explain_batch(
    planned: ConfigurationDecisions, configuration: Configuration, constraints: PlanningConstraints
) -> str:
    network, patch_size = configuration.architecture, configuration.patch_size
    fixed = training_bytes(network, patch_size, 0, configuration.network)
    patch_bytes = bytes_per_patch(network, patch_size, configuration.network)
    batch = f"{planned.name}: a batch has {planned.fit.batch_size} patches, {planned.fit.batch_reason}"
    if constraints.preset.reference is not None:
        return f"{batch}; a patch counts {feature_map_elements(network, patch_size) / 1e6:.0f} million elements."
    return (
        f"{batch}; a training step takes about {describe_memory(configuration.estimated_bytes)} of "
        f"{constraints.budget.describe()}: {describe_memory(fixed)} for the weights and the program, "
        f"{describe_memory(patch_bytes)} for each patch."
    )


def _explain_loss(planned: ConfigurationDecisions, configuration: Configuration) -> str:
    share = min(1.0, prod(configuration.centre_size) / planned.image.voxels)
    covered = f"a patch covers {_percent(share)} of the typical image"
    if planned.name == "2d":
        covered = "a structure may be missing in most slices"
    pooled = "over the batch" if planned.batch_dice else "per patch"
    return f"{planned.name}: the overlap of prediction and label is scored {pooled}, because {covered}."


def _explain_augmentation(planned: ConfigurationDecisions, configuration: Configuration) -> str:
    settings, dimensions = configuration.augmentation, configuration.architecture.dimensions
    about = "about all axes" if len(settings.rotation_axes) > 1 else "within their slices"
    flipped = len(settings.mirror_axes)
    along = "all their axes" if flipped == dimensions else f"{flipped} of their {dimensions} axes"
    return (
        f"{planned.name}: in training, patches turn by up to {settings.rotation_degrees:g} degrees {about}, to suit "
        f"their shape, and are flipped along {along}."
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"
