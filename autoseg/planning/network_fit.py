"""Planning for named networks, whose strides are fixed: their patches, training settings and explanations."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from pydantic import JsonValue

from autoseg.networks import monai
from autoseg.networks.architecture import Architecture
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.monai_names import is_monai
from autoseg.networks.patch_sizes import PatchSizes
from autoseg.networks.spec import NetworkSpec
from autoseg.planning.memory import bytes_per_patch
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.settings import TrainingSettings
from autoseg.planning.topology import Topology, initial_patch, two_or_three


def find_spec(network: Plugin) -> NetworkSpec | monai.MonaiSpec:
    """Returns the specification of a network of the literature or of MONAI."""
    return monai.MonaiSpec(network.name) if is_monai(network.name) else NETWORKS[network.name]


def make_architecture(network: Plugin, dimensions: int, *, in_channels: int, out_channels: int) -> Architecture:
    """Summarizes the network as the plan's `Architecture`; see `NetworkSpec.make_architecture`."""
    spec = find_spec(network)
    return spec.make_architecture(network.settings, dimensions, in_channels=in_channels, out_channels=out_channels)


def find_incompatibility(network: Plugin, dimensions: int, *, in_channels: int, out_channels: int) -> str | None:
    """Returns why a network does not take images of so many axes and channels; None if it does.

    >>> find_incompatibility(Plugin(name="vnet"), 2, in_channels=1, out_channels=2)
    'V-Net takes images in 3D only'
    """
    try:
        make_architecture(network, dimensions, in_channels=in_channels, out_channels=out_channels)
    except ValueError as error:
        return str(error)
    return None


def explain_named_network(network: Plugin) -> str:
    """Returns sentences on which network it is, how it is trained, and how its paper trained it."""
    spec = find_spec(network)
    changes = _explain_changes(spec.training(spec.parse(network.settings)))
    if isinstance(spec, monai.MonaiSpec):
        return monai.explain(network.name, changes)
    paper = f" The paper trained it with {spec.recipe}." if spec.recipe else ""
    largest = spec.fixed_patch(spec.parse(network.settings))
    if largest is not None:
        paper += (
            f" It takes patches of one size only, of {' x '.join(map(str, largest))} voxels in the paper, here of at "
            "most as many: who edits patch_size edits its setting patch too."
        )
    return (
        f"Network {network.name}: {spec.title} ({spec.source}), with the settings of the paper unless they are changed "
        f'below "network", and trained like any other{changes}.{paper}'
    )


def adapt_training(training: TrainingSettings, network: Plugin) -> TrainingSettings:
    """Returns the training settings of a preset with the changes of a network; see `NetworkSpec.training`."""
    spec = find_spec(network)
    return TrainingSettings.model_validate({**training.model_dump(), **spec.training(spec.parse(network.settings))})


def _explain_changes(training: Mapping[str, JsonValue]) -> str:
    """Returns a clause such as ", but for optimizer adam, learning_rate 0.001"."""
    parts = [
        f"{name} {value}"
        for field, setting in training.items()
        for name, value in (setting.items() if isinstance(setting, Mapping) else [(field, setting)])
    ]
    return f", but for {', '.join(parts)}" if parts else ""


def patches_for(network: Plugin, spacing_mm: tuple[float, ...], median_shape: Sequence[float]) -> Iterator[Topology]:
    """Yields patches from the largest for a typical image to ever smaller ones.

    The first is the patch that all planning starts from, padded to the divisor of the network. Then the axis that
    covers most of the typical image shrinks by its divisor. Worked example: edges divisible by 16 and a typical image
    of 50 x 30 voxels give 64 x 32, which covers 1.28 and 1.07 of its axes; then 48 x 32 (0.96 and 1.07), 48 x 16 (0.96
    and 0.53), and 32 x 16. A single voxel at the coarsest resolution is too few for any norm; images that small are
    padded to twice that along their longest axis.

    A network with a fixed patch size starts from that of its paper, unless the images are smaller. Decision: a size
    that suits the images and the memory is worth more than that of the paper, which resized all images to it;
    `fit_network` sets it in the settings of the network.

    If a network predicts less than it sees, the centre of the patch covers the image and shrinks: U-Net without
    padding, whose margin is 92, gets 236 x 220 for the same image, of which it predicts 52 x 36; then 236 x 204.

    >>> patches = patches_for(Plugin(name="unet"), (1.0, 1.0), (50, 30))
    >>> [patch.patch_size for patch in patches]
    [(64, 32), (48, 32), (48, 16), (32, 16)]

    Args:
        network: The named network.
        spacing_mm: Voxel spacing along each axis.
        median_shape: Median shape of the resampled cases in voxels along each axis.
    """
    spec, dimensions = find_spec(network), len(spacing_mm)
    architecture = make_architecture(network, dimensions, in_channels=1, out_channels=1)
    patches, initial = spec.patches(network.settings, dimensions), initial_patch(spacing_mm, median_shape)
    largest = spec.fixed_patch(spec.parse(network.settings))
    if largest is not None:
        initial, patches = tuple(map(min, initial, largest)), PatchSizes.divisible_by(architecture.divisor)
    edges = list(patches.cover(initial))
    if tuple(edges) == patches.step:
        edges[max(range(dimensions), key=lambda axis: initial[axis])] *= 2
    while True:
        yield _make_topology(architecture, edges)
        axis = _next_axis(edges, patches, median_shape)
        if axis is None:
            return
        edges[axis] -= patches.step[axis]


def fit_network(network: Plugin, patch_size: Sequence[int]) -> Plugin:
    """Returns the network with settings for patches of a size; only a network of a fixed patch size changes."""
    return Plugin(name=network.name, settings=find_spec(network).adapt_to_patch(network.settings, patch_size))


def bytes_per_voxel(network: Plugin, *, in_channels: int, out_channels: int) -> float:
    """Returns the least memory in bytes that a voxel of a 3D patch takes in training."""
    architecture = make_architecture(network, 3, in_channels=in_channels, out_channels=out_channels)
    patch = find_spec(network).smallest_patch(network.settings, 3)
    return bytes_per_patch(architecture, patch, network) / prod(patch)


def _next_axis(edges: Sequence[int], patches: PatchSizes, median_shape: Sequence[float]) -> int | None:
    """Returns the axis that shrinks next; None if the patch is as small as it can be."""
    surplus = [edge - smallest for edge, smallest in zip(edges, patches.smallest, strict=True)]
    steps = sum(voxels // step for voxels, step in zip(surplus, patches.step, strict=True))
    if steps <= (1 if patches.smallest == patches.step else 0):
        return None
    centre, axes = patches.centre(edges), [axis for axis, voxels in enumerate(surplus) if voxels > 0]
    return max(axes, key=lambda axis: (centre[axis] / median_shape[axis], axis))


def _make_topology(architecture: Architecture, edges: Sequence[int]) -> Topology:
    return Topology(
        patch_size=two_or_three(edges),
        strides=tuple(stage.stride for stage in architecture.stages),
        kernels=tuple(stage.kernel for stage in architecture.stages),
        divisor=two_or_three(architecture.divisor),
        voxels=prod(edges),
    )
