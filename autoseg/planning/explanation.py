"""Why a configuration is as it is: plain sentences with the numbers behind them, for plan.json and for the terminal."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from autoseg.networks.architecture import Architecture
from autoseg.planning.budget import FREE_SHARE, ByteBudget
from autoseg.planning.low_resolution import LITTLE_CONTEXT, WORTHWHILE
from autoseg.planning.memory import bytes_per_patch, feature_map_elements, training_bytes
from autoseg.planning.network_fit import explain_spec
from autoseg.planning.patch import Fit, Search, View, edges
from autoseg.planning.plan import Configuration, ConfigurationName, PresetName
from autoseg.planning.presets import PRESETS, Preset
from autoseg.runtime.units import describe_memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A configuration before it is put together: a view of the data with patch, batch and network.

    Attributes:
        name: Of the configuration.
        view, fit: See there.
        batch_dice: See `Configuration`.
        previous: See `Configuration`.
        finer: Of a low resolution, the full one.
    """

    name: ConfigurationName
    view: View
    fit: Fit
    batch_dice: bool
    previous: ConfigurationName | None = None
    finer: tuple[View, Fit] | None = None


def explain_preset(search: Search) -> Iterator[str]:
    """Says which network and which memory the plan starts from."""
    yield explain_network(search.preset_name, search.preset) if search.named is None else explain_spec(search.named)
    in_bytes = isinstance(search.budget, ByteBudget)
    measure = f", {FREE_SHARE:.0%} of it left free" if in_bytes else f", counted as {search.budget.describe()}"
    yield f"Training may use {describe_memory(search.budget_bytes)} of memory{measure}."


def explain_network(name: str, preset: Preset) -> str:
    """Says what the network of a preset is."""
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
    """Says why a larger preset's network was not taken although the memory reaches it."""
    return (
        f"The deeper network of preset {larger} is not used: with {describe_memory(memory_bytes)} it would see fewer "
        f"voxels per step than that of preset {taken} with {describe_memory(PRESETS[larger].memory_bytes)}."
    )


def explain_full_resolution(view: View, fit: Fit) -> str:
    """Says why there is no low-resolution configuration."""
    share = fit.topology.voxels / view.voxels
    if share < LITTLE_CONTEXT:
        return (
            f"There is no 3d_lowres: a patch of 3d_fullres covers {_percent(share)} of the typical volume, but one of "
            f"which it covers {LITTLE_CONTEXT:.0%} would not be {WORTHWHILE:g} times smaller."
        )
    return (
        f"There is no 3d_lowres: a patch of 3d_fullres covers {_percent(min(1.0, share))} of the typical volume, and "
        f"{LITTLE_CONTEXT:.0%} are enough to see where it is."
    )


def explain_look(look: Look, configuration: Configuration, search: Search) -> Iterator[str]:
    """Says for one configuration what each of its numbers follows from."""
    if look.finer is not None:
        yield from _explain_coarsening(look, *look.finer)
    if look.previous is not None:
        labels = configuration.previous_channels
        inputs = "1 further input channel" if labels == 1 else f"{labels} further input channels, one per label"
        yield (
            f"{look.name}: looks at the volumes of 3d_fullres a second time, with the segmentation of {look.previous} "
            f"as {inputs}; all else is as in 3d_fullres."
        )
        return
    yield from _explain_patch(look, configuration)
    yield _explain_batch(look, configuration, search)
    yield _explain_loss(look, configuration)
    yield _explain_augmentation(look, configuration)


def _explain_coarsening(look: Look, full: View, fit: Fit) -> Iterator[str]:
    spacing = " x ".join(f"{step:.4g}" for step in look.view.spacing_mm)
    before, after = fit.topology.voxels / full.voxels, look.fit.topology.voxels / look.view.voxels
    yield (
        f"{look.name}: a patch of 3d_fullres covers {_percent(before)} of the typical volume, too little to see where "
        f"it is; so a second network looks at the volumes at {spacing} mm, where a patch covers {_percent(after)}."
    )


def _explain_patch(look: Look, configuration: Configuration) -> Iterator[str]:
    patch_size, stages = configuration.patch_size, configuration.architecture.stages
    because, has_margin = look.fit.patch_because, configuration.patches.has_margin
    covered = [size >= typical for size, typical in zip(configuration.centre_size, look.view.median_shape, strict=True)]
    if all(covered) and has_margin:
        because = "all of it, and its mirror image around it"
    elif all(covered):
        because = (
            "all of it, padded to what can be halved evenly" if patch_size != look.view.median_shape else "all of it"
        )
    millimetres = edges([round(size * step) for size, step in zip(patch_size, look.view.spacing_mm, strict=True)])
    yield (
        f"{look.name}: a patch has {edges(patch_size)} voxels ({millimetres} mm) of a typical "
        f"{edges(look.view.median_shape)}, {because}."
    )
    coarsest = [size // divisor for size, divisor in zip(patch_size, configuration.architecture.divisor, strict=True)]
    down = "" if has_margin else f" down to {edges(coarsest)} voxels,"
    yield (
        f"{look.name}: the network looks at it at {len(stages)} resolutions,{down} with "
        f"{stages[0].features} to {stages[-1].features} features{_long_voxels(configuration.architecture)}."
    )
    if has_margin:
        centre = edges(configuration.centre_size)
        yield (
            f"{look.name}: its convolutions are not padded, so of a patch it predicts the {centre} voxels in the "
            "middle; beyond the border of an image it sees the mirror image."
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


def _explain_batch(look: Look, configuration: Configuration, search: Search) -> str:
    network, patch_size = configuration.architecture, configuration.patch_size
    fixed = training_bytes(network, patch_size, 0, configuration.network)
    each = bytes_per_patch(network, patch_size, configuration.network)
    batch = f"{look.name}: a batch has {look.fit.batch_size} patches, {look.fit.batch_because}"
    if search.preset.reference is not None:
        return f"{batch}; a patch counts {feature_map_elements(network, patch_size) / 1e6:.0f} million elements."
    return (
        f"{batch}; a training step takes about {describe_memory(configuration.estimated_bytes)} of "
        f"{search.budget.describe()}: {describe_memory(fixed)} for the weights and the program, "
        f"{describe_memory(each)} for each patch."
    )


def _explain_loss(look: Look, configuration: Configuration) -> str:
    share = min(1.0, prod(configuration.centre_size) / look.view.voxels)
    covered = f"a patch covers {_percent(share)} of the typical image"
    if look.name == "2d":
        covered = "a structure may be missing in most slices"
    pooled = "over the batch" if look.batch_dice else "per patch"
    return f"{look.name}: the overlap of prediction and label is scored {pooled}, because {covered}."


def _explain_augmentation(look: Look, configuration: Configuration) -> str:
    settings, dimensions = configuration.augmentation, configuration.architecture.dimensions
    about = "about all axes" if len(settings.rotation_axes) > 1 else "within their slices"
    flipped = len(settings.mirror_axes)
    along = "all their axes" if flipped == dimensions else f"{flipped} of their {dimensions} axes"
    return (
        f"{look.name}: in training, patches turn by up to {settings.rotation_degrees:g} degrees {about}, to suit their "
        f"shape, and are flipped along {along}."
    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"
