"""Patches for the networks of the literature, whose resolutions are fixed."""

from collections.abc import Iterator, Sequence
from math import ceil, prod

from autoseg.architecture import Architecture
from autoseg.extensions import Own
from autoseg.networks.page import Page
from autoseg.networks.table import NETWORKS
from autoseg.planning.memory import bytes_per_patch
from autoseg.planning.topology import Topology, initial_patch, two_or_three


def find_page(named: Own) -> Page:
    """The page of a network of the literature."""
    return NETWORKS[named.name]


def outline(named: Own, dimensions: int, *, in_channels: int, out_channels: int) -> Architecture:
    """The network as a plan tells it; see `Page.outline`."""
    page = find_page(named)
    return page.outline(named.settings, dimensions, in_channels=in_channels, out_channels=out_channels)


def find_obstacle(named: Own, dimensions: int, *, in_channels: int, out_channels: int) -> str | None:
    """Why a network cannot look at such images; None if it can."""
    try:
        outline(named, dimensions, in_channels=in_channels, out_channels=out_channels)
    except ValueError as error:
        return str(error)
    return None


def explain_page(named: Own) -> str:
    """Says which network it is, and how its paper trained it."""
    page = find_page(named)
    paper = f" The paper trained it with {page.training}." if page.training else ""
    return (
        f"Network {named.name}: {page.title} ({page.source}), with the settings of the paper unless they are changed "
        f'below "network", and trained like any other.{paper}'
    )


def patches_for(named: Own, spacing_mm: tuple[float, ...], median_shape: Sequence[float]) -> Iterator[Topology]:
    """From the largest patch that the network takes on to ever smaller ones.

    The first is the one that all planning starts from, padded to what the network divides. Then the axis that covers
    most of the typical image gives way, by what it must be divisible by. Worked example: edges divisible by 16 and a
    typical image of 50 x 30 voxels give 64 x 32, which covers 1.28 and 1.07 of its axes; then 48 x 32 (0.96 and 1.07),
    48 x 16 (0.96 and 0.53), and 32 x 16. One voxel at the coarsest resolution, along all
    axes, is too few for any norm; images that small are padded to twice that along their longest axis. A network that
    takes one patch only gets that one.
    """
    page, dimensions = find_page(named), len(spacing_mm)
    shape = outline(named, dimensions, in_channels=1, out_channels=1)
    only = page.fixed_patch(page.read(named.settings))
    if only is not None:
        yield _topology(shape, only)
        return
    divisor = shape.divisor
    initial = initial_patch(spacing_mm, median_shape)
    edges = [ceil(size / step) * step for size, step in zip(initial, divisor, strict=True)]
    if edges == list(divisor):
        edges[max(range(dimensions), key=lambda axis: initial[axis])] *= 2
    while True:
        yield _topology(shape, edges)
        axis = _next_axis(edges, divisor, median_shape)
        if axis is None:
            return
        edges[axis] -= divisor[axis]


def bytes_per_voxel(named: Own, *, in_channels: int, out_channels: int) -> float:
    """Of volumes: what each voxel of a patch takes at least."""
    architecture = outline(named, 3, in_channels=in_channels, out_channels=out_channels)
    patch = find_page(named).smallest_patch(named.settings, 3)
    return bytes_per_patch(architecture, patch, named) / prod(patch)


def _next_axis(edges: Sequence[int], divisor: Sequence[int], median_shape: Sequence[float]) -> int | None:
    """The axis that gives way; None if the patch is as small as it can be."""
    blocks = [edge // step for edge, step in zip(edges, divisor, strict=True)]
    if sum(blocks) <= len(blocks) + 1:
        return None
    axes = [axis for axis, count in enumerate(blocks) if count > 1]
    return max(axes, key=lambda axis: (edges[axis] / median_shape[axis], axis))


def _topology(shape: Architecture, edges: Sequence[int]) -> Topology:
    return Topology(
        patch_size=two_or_three(edges),
        strides=tuple(stage.stride for stage in shape.stages),
        kernels=tuple(stage.kernel for stage in shape.stages),
        divisor=two_or_three(shape.divisor),
        voxels=prod(edges),
    )
