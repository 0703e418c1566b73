"""Chooses the strides and kernels of the network for a patch: the axes that each stage halves, and its kernel sizes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, prod

from autoseg.imaging.geometry import Number
from autoseg.networks.architecture import Architecture, Axes, Stage
from autoseg.planning.presets import Preset

SMALLEST_EDGE = 4  # voxels that an axis keeps at the coarsest stage. Source: the reference method
LONE_AXIS_EDGE = 3 * SMALLEST_EDGE  # voxels below which an axis is not halved on its own. Source: the reference method
INITIAL_EDGE = {2: 2048, 3: 256}  # voxels, by the number of axes. Source: the reference method
SAME_RESOLUTION = 2.0  # spacings whose ratio is below this count as equal. Source: the reference method

Pair = tuple[Number, Number] | tuple[Number, Number, Number]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """A patch size with the strides and kernels of the network for it.

    Attributes:
        patch_size: Voxels along each axis, padded up to the divisor.
        strides: Stride of each stage along each axis; all ones in the first stage.
        kernels: Kernel size of each stage along each axis, 1 or 3.
        divisor: Product of the strides along each axis, by which a patch must be divisible.
        voxels: Number of voxels of the patch.
    """

    patch_size: Axes
    strides: tuple[Axes, ...]
    kernels: tuple[Axes, ...]
    divisor: Axes
    voxels: int

    @property
    def is_trainable(self) -> bool:
        """Whether it has at least two stages, as a U-Net needs; a patch of few voxels cannot be halved at all."""
        return len(self.strides) >= 2


def initial_patch(spacing_mm: tuple[float, ...], median_shape: Sequence[float]) -> tuple[float, ...]:
    """Returns the patch that planning starts from: a cube in mm, cropped to the typical image.

    Source: the reference method (nnU-Net v2.8.1): it starts from the volume of `INITIAL_EDGE` voxels along each edge.

    >>> initial_patch((1.0, 1.0, 1.0), (36.0, 50.0, 35.0))
    (36.0, 50.0, 35.0)

    Args:
        spacing_mm: Voxel spacing along each axis.
        median_shape: Median shape of the resampled cases in voxels along each axis.
    """
    dimensions = len(spacing_mm)
    aspect = [1 / step for step in spacing_mm]
    scale = (INITIAL_EDGE[dimensions] ** dimensions / prod(aspect)) ** (1 / dimensions)
    edges = (max(1, round(length * scale)) for length in aspect)
    return tuple(min(edge, median) for edge, median in zip(edges, median_shape, strict=True))


@lru_cache(maxsize=4096)  # a plan asks for the same patches again for each of its networks
def choose_topology(spacing_mm: tuple[float, ...], patch_size: tuple[float, ...]) -> Topology:
    """Chooses strides and kernels, and pads the patch up to the product of the strides.

    Each stage halves the finest axes until their spacing has caught up with the coarser ones; then it halves these too.
    An axis is halved while at least `SMALLEST_EDGE` voxels are left. Kernels have size 1 along an axis that is still
    twice as coarse as the finest. Worked example, spacing (3, 1) mm and patch (10, 40): stage 1 halves the second axis
    to 20 voxels of 2 mm, stage 2 halves both (3 / 2 < 2) to (5, 10), 5 is too short, and stage 3 halves nothing, since
    10 is below `LONE_AXIS_EDGE`; so the strides are (1, 1), (1, 2), (2, 2), the kernels (1, 3), (3, 3), (3, 3), and the
    patch stays (10, 40).

    Source: the reference method (nnU-Net v2.8.1, network topology).

    >>> choose_topology((3.0, 1.0), (10, 40)).strides
    ((1, 1), (1, 2), (2, 2))

    Args:
        spacing_mm: Voxel spacing along each axis.
        patch_size: Voxels along each axis.
    """
    axes = range(len(patch_size))
    sizes, steps = list(patch_size), list(spacing_mm)  # of the present grid; a halved axis becomes coarser
    kernel, divisors = [1 for _ in axes], [1 for _ in axes]
    strides, kernels = [two_or_three(divisors)], []
    while chosen := _axes_to_halve(sizes, steps):
        finest = min(steps)
        for axis, step in enumerate(steps):
            if step / finest < SAME_RESOLUTION:
                kernel[axis] = 3  # once 3, always 3
        kernels.append(two_or_three(kernel))
        strides.append(two_or_three([2 if axis in chosen else 1 for axis in axes]))
        for axis in chosen:
            sizes[axis] = ceil(sizes[axis] / 2)
            steps[axis] *= 2
            divisors[axis] *= 2
    kernels.append(two_or_three([3 for _ in axes]))
    padded = [ceil(size / divisor) * divisor for size, divisor in zip(patch_size, divisors, strict=True)]
    return Topology(
        patch_size=two_or_three(padded),
        strides=tuple(strides),
        kernels=tuple(kernels),
        divisor=two_or_three(divisors),
        voxels=prod(padded),
    )


def _axes_to_halve(sizes: Sequence[float], spacing_mm: Sequence[float]) -> list[int]:
    """Returns the finest of the axes that are long enough, and those less than twice as coarse."""
    long_enough = [axis for axis, size in enumerate(sizes) if size >= 2 * SMALLEST_EDGE]
    if not long_enough:
        return []
    finest = min([spacing_mm[axis] for axis in long_enough])
    chosen = [axis for axis in long_enough if spacing_mm[axis] / finest < SAME_RESOLUTION]
    return [] if len(chosen) == 1 and sizes[chosen[0]] < LONE_AXIS_EDGE else chosen


def smaller_topologies(
    topology: Topology, spacing_mm: tuple[float, ...], median_shape: Sequence[float]
) -> Iterator[Topology]:
    """Yields ever smaller patches, each with its own strides and kernels, until no smaller one is possible.

    The axis that covers most of the typical image shrinks first, by its divisor. If the smaller patch allows a smaller
    divisor, that step is taken. The patches do not depend on any budget, so a larger budget stops earlier at a larger
    patch.

    Source: the reference method (nnU-Net v2.8.1, default experiment planner). Decision: an axis that cannot shrink any
    more, because it would fall below `SMALLEST_EDGE` or padding would undo the step, is skipped in favour of the next
    one; the reference method does not terminate in that case.

    Args:
        topology: The patch to start from, which is not yielded itself.
        spacing_mm: Voxel spacing along each axis.
        median_shape: Median shape of the resampled cases in voxels along each axis.
    """
    smaller: Topology | None = topology
    while smaller is not None:
        smaller = _next_smaller(smaller, spacing_mm, median_shape)
        if smaller is not None:
            yield smaller


def _next_smaller(topology: Topology, spacing_mm: tuple[float, ...], median_shape: Sequence[float]) -> Topology | None:
    patch_size = topology.patch_size
    coverage = [size / median for size, median in zip(patch_size, median_shape, strict=True)]
    # Of axes that cover the same fraction the last one shrinks first: the reference method's order.
    for axis in sorted(range(len(patch_size)), key=lambda axis: (coverage[axis], axis), reverse=True):
        smaller = _shrunk_along(topology, axis, spacing_mm)
        if smaller is not None and smaller.is_trainable and smaller.voxels < topology.voxels:
            return smaller
    return None


def _shrunk_along(topology: Topology, axis: int, spacing_mm: tuple[float, ...]) -> Topology | None:
    tentative = list(topology.patch_size)
    tentative[axis] -= topology.divisor[axis]
    if tentative[axis] < 1:
        return None
    shrunk = list(topology.patch_size)
    shrunk[axis] -= choose_topology(spacing_mm, tuple(tentative)).divisor[axis]
    return choose_topology(spacing_mm, tuple(shrunk)) if shrunk[axis] >= SMALLEST_EDGE else None


@lru_cache(maxsize=1024)  # many patches share strides and kernels, and making the types costs more than all else
def design_network(
    strides: tuple[Axes, ...], kernels: tuple[Axes, ...], preset: Preset, *, in_channels: int, out_channels: int
) -> Architecture:
    """Returns the architecture with the features and convolutions of a preset.

    Features double from stage to stage up to the preset's limit. Deep supervision needs two decoder stages: the
    coarsest of them never counts in the loss, so with a single one there would be no loss.

    Args:
        strides: Stride of each stage along each axis.
        kernels: Kernel size of each stage along each axis.
        preset: The preset, which limits the features and gives the numbers of convolutions and blocks.
        in_channels: Number of input channels.
        out_channels: Number of outputs.
    """
    limit = preset.limits(len(strides[0])).features
    stages = tuple(
        Stage(
            features=min(limit, preset.base_features * 2**number),
            kernel=kernel,
            stride=stride,
            convolutions=_nth(preset.convolutions, number),
            blocks=_nth(preset.blocks, number),
            decoder_convolutions=preset.decoder_convolutions,
        )
        for number, (kernel, stride) in enumerate(zip(kernels, strides, strict=True))
    )
    return Architecture(
        residual=preset.residual,
        in_channels=in_channels,
        out_channels=out_channels,
        stages=stages,
        deep_supervision=len(stages) > 2,
    )


def _nth(values: Sequence[int], number: int) -> int:
    """Returns a value of a sequence whose last one repeats for all further numbers."""
    return values[min(number, len(values) - 1)]


def two_or_three(values: Sequence[Number]) -> Pair[Number]:
    """Returns the values as a tuple of two or three, for the type checker."""
    if len(values) == 2:
        return values[0], values[1]
    first, second, third = values
    return first, second, third
