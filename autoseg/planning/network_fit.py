"""Patches for the networks of the literature, whose resolutions are fixed."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from pydantic import JsonValue

from autoseg.networks import monai
from autoseg.networks.architecture import Architecture
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.patch_sizes import PatchSizes
from autoseg.networks.spec import NetworkSpec
from autoseg.planning.memory import bytes_per_patch
from autoseg.planning.plugins import Plugin
from autoseg.planning.settings import TrainingSettings
from autoseg.planning.topology import Topology, initial_patch, two_or_three


def find_spec(named: Plugin) -> NetworkSpec | monai.MonaiSpec:
    """The page of a network of the literature, or of MONAI's."""
    return monai.MonaiSpec(named.name) if monai.is_monai(named.name) else NETWORKS[named.name]


def outline(named: Plugin, dimensions: int, *, in_channels: int, out_channels: int) -> Architecture:
    """The network as a plan tells it; see `NetworkSpec.outline`."""
    spec = find_spec(named)
    return spec.make_architecture(named.settings, dimensions, in_channels=in_channels, out_channels=out_channels)


def find_obstacle(named: Plugin, dimensions: int, *, in_channels: int, out_channels: int) -> str | None:
    """Why a network cannot look at such images; None if it can."""
    try:
        outline(named, dimensions, in_channels=in_channels, out_channels=out_channels)
    except ValueError as error:
        return str(error)
    return None


def explain_spec(named: Plugin) -> str:
    """Says which network it is, what it is trained with, and how its paper trained it."""
    spec = find_spec(named)
    changes = _explain_changes(spec.training(spec.parse(named.settings)))
    if isinstance(spec, monai.MonaiSpec):
        return monai.explain(named.name, changes)
    paper = f" The paper trained it with {spec.recipe}." if spec.recipe else ""
    largest = spec.fixed_patch(spec.parse(named.settings))
    if largest is not None:
        paper += (
            f" It takes patches of one size only, of {' x '.join(map(str, largest))} voxels in the paper, here of at "
            "most as many: who edits patch_size edits its setting patch too."
        )
    return (
        f"Network {named.name}: {spec.title} ({spec.source}), with the settings of the paper unless they are changed "
        f'below "network", and trained like any other{changes}.{paper}'
    )


def adapt_training(training: TrainingSettings, named: Plugin) -> TrainingSettings:
    """The training of a preset, with what the page of a network says of it instead; see `NetworkSpec.training`."""
    spec = find_spec(named)
    return TrainingSettings.model_validate({**training.model_dump(), **spec.training(spec.parse(named.settings))})


def _explain_changes(training: Mapping[str, JsonValue]) -> str:
    """Such as ", but for optimizer adam, learning_rate 0.001"."""
    parts = [
        f"{name} {value}"
        for field, given in training.items()
        for name, value in (given.items() if isinstance(given, Mapping) else [(field, given)])
    ]
    return f", but for {', '.join(parts)}" if parts else ""


def patches_for(named: Plugin, spacing_mm: tuple[float, ...], median_shape: Sequence[float]) -> Iterator[Topology]:
    """From the largest patch that the network takes on to ever smaller ones.

    The first is the one that all planning starts from, padded to what the network divides. Then the axis that covers
    most of the typical image gives way, by what it must be divisible by. Worked example: edges divisible by 16 and a
    typical image of 50 x 30 voxels give 64 x 32, which covers 1.28 and 1.07 of its axes; then 48 x 32 (0.96 and 1.07),
    48 x 16 (0.96 and 0.53), and 32 x 16. One voxel at the coarsest resolution, along all
    axes, is too few for any norm; images that small are padded to twice that along their longest axis.

    A network that takes patches of one size only starts from its paper's, where the images are not smaller. Decision:
    a size that suits the images and the memory is worth more than that of the paper, which resized all images to it;
    `fit_network` makes it that of the network.

    Of a network that predicts less than it sees, it is the middle that covers the image and gives way: U-Net without
    padding, whose margin is 92, gets 236 x 220 for the same image, of which it predicts 52 x 36; then 236 x 204.
    """
    spec, dimensions = find_spec(named), len(spacing_mm)
    shape = outline(named, dimensions, in_channels=1, out_channels=1)
    patches, initial = spec.patches(named.settings, dimensions), initial_patch(spacing_mm, median_shape)
    largest = spec.fixed_patch(spec.parse(named.settings))
    if largest is not None:
        initial, patches = tuple(map(min, initial, largest)), PatchSizes.divisible_by(shape.divisor)
    edges = list(patches.cover(initial))
    if tuple(edges) == patches.step:
        edges[max(range(dimensions), key=lambda axis: initial[axis])] *= 2
    while True:
        yield _topology(shape, edges)
        axis = _next_axis(edges, patches, median_shape)
        if axis is None:
            return
        edges[axis] -= patches.step[axis]


def fit_network(named: Plugin, patch_size: Sequence[int]) -> Plugin:
    """The network with the settings for patches of a size; the same unless it takes patches of one size only."""
    return Plugin(name=named.name, settings=find_spec(named).adapt_to_patch(named.settings, patch_size))


def bytes_per_voxel(named: Plugin, *, in_channels: int, out_channels: int) -> float:
    """Of volumes: what each voxel of a patch takes at least."""
    architecture = outline(named, 3, in_channels=in_channels, out_channels=out_channels)
    patch = find_spec(named).smallest_patch(named.settings, 3)
    return bytes_per_patch(architecture, patch, named) / prod(patch)


def _next_axis(edges: Sequence[int], patches: PatchSizes, median_shape: Sequence[float]) -> int | None:
    """The axis that gives way; None if the patch is as small as it can be."""
    more = [edge - smallest for edge, smallest in zip(edges, patches.smallest, strict=True)]
    steps = sum(one // step for one, step in zip(more, patches.step, strict=True))
    if steps <= (1 if patches.smallest == patches.step else 0):
        return None
    centre, axes = patches.centre(edges), [axis for axis, one in enumerate(more) if one > 0]
    return max(axes, key=lambda axis: (centre[axis] / median_shape[axis], axis))


def _topology(shape: Architecture, edges: Sequence[int]) -> Topology:
    return Topology(
        patch_size=two_or_three(edges),
        strides=tuple(stage.stride for stage in shape.stages),
        kernels=tuple(stage.kernel for stage in shape.stages),
        divisor=two_or_three(shape.divisor),
        voxels=prod(edges),
    )
