"""Patches that grow during the training: small ones at its start, the size of the plan at its end.

A step of small patches costs less, and it shows the network more cases. The large patches at the end teach it what lies
further apart. Every stage of the growth gets an equal share of the steps; validation and prediction always see the full
size.

Source: Fischer et al., Progressive Growing of Patch Size (MICCAI 2024 and arXiv 2510.23241), for growing patches in
equal shares from the smallest that the network takes, with batches that shrink meanwhile.

Decision: the batch grows with the square root of the ratio of the voxels. Of the same work, that learned more than
steps with as many voxels, or as many patches, as those of full size (figures: tests/benchmarks/RESULTS.md).
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod, sqrt
from typing import Literal, cast, get_args

from autoseg.networks.architecture import Axes, PositiveInt, Section
from autoseg.networks.patch_sizes import PatchSizes

PatchesName = Literal["fixed", "growing"]
PATCHES_NAMES: tuple[PatchesName, ...] = get_args(PatchesName)

STAGES = 4
"""Number of sizes that patches have in the course of a training, the full one included."""

SMALLEST_STEPS = 2
"""Voxels of the coarsest feature map along each axis at the smallest patch."""


class PatchStage(Section):
    """Patch and batch of a part of the training.

    Attributes:
        patch_size: Size of the patches in voxels along each axis.
        batch_size: Number of patches per training step.
    """

    patch_size: Axes
    batch_size: PositiveInt

    @property
    def voxels(self) -> int:
        """Number of voxels of a training step."""
        return prod(self.patch_size) * self.batch_size


def find_stage(stages: Sequence[PatchStage], progress: float, *, timed: bool) -> PatchStage:
    """Returns patch and batch when a share of the training is done.

    Args:
        stages: All stages in their order, the full patch last.
        progress: Share of the steps, or of the time of a training of limited time, from 0 to 1.
        timed: Whether it is one of the time. Steps are taken to last as long as their voxels are many, so that all
            stages get about as many steps.
    """
    parts = [stage.voxels if timed else 1 for stage in stages]
    ends = accumulate(parts)
    return next((stage for stage, end in zip(stages, ends, strict=True) if progress * sum(parts) < end), stages[-1])


def find_growth_problem(stages: Sequence[PatchStage], patch_size: Sequence[int], patches: PatchSizes) -> str | None:
    """Returns why training cannot go through these stages to the full patch; None if it can.

    >>> find_growth_problem([PatchStage(patch_size=(64, 48), batch_size=2)], (64, 32), PatchSizes.divisible_by((8, 8)))
    'patch_growth goes from (64, 48) to (64, 32), which is smaller'

    Args:
        stages: The stages before the last one.
        patch_size: Size of the full patch in voxels.
        patches: The sizes that the network takes.
    """
    for size, larger in pairwise([*(stage.patch_size for stage in stages), tuple(patch_size)]):
        if len(size) != len(larger):
            return f"patch_growth must have patches of {len(patch_size)} axes, as patch_size has"
        if (problem := patches.find_problem(size)) is not None:
            return f"patch_growth: {problem}"
        if any(edge > next_edge for edge, next_edge in zip(size, larger, strict=True)):
            return f"patch_growth goes from {size} to {larger}, which is smaller"
    return None


def grow_patches(
    patch_size: Sequence[int], batch_size: int, patches: PatchSizes, *, stages: int = STAGES
) -> tuple[PatchStage, ...]:
    """Returns the stages before the full patch, of which each step has at most as many voxels as with that.

    A patch of a quarter of the voxels comes in batches of twice as many patches. All axes grow together, in equal
    parts, from `SMALLEST_STEPS` times the step of the network. Sizes that occur twice are left out, so that small
    patches grow in fewer stages, or not at all.

    >>> for stage in grow_patches((40, 56, 40), 2, PatchSizes.divisible_by((8, 8, 8))):
    ...     print(stage.patch_size, stage.batch_size)
    (16, 16, 16) 9
    (24, 32, 24) 4
    (32, 40, 32) 3

    Args:
        patch_size: Size of the full patch in voxels.
        batch_size: Number of full patches per training step.
        patches: The sizes that the network takes.
        stages: Number of stages, with that of the full patch.
    """
    sizes = [_grown(patch_size, patches, number / (stages - 1)) for number in range(stages - 1)]
    return tuple(
        PatchStage(patch_size=cast(Axes, size), batch_size=round(batch_size * sqrt(prod(patch_size) / prod(size))))
        for size in dict.fromkeys(sizes)
        if size != tuple(patch_size)
    )


def _grown(patch_size: Sequence[int], patches: PatchSizes, share: float) -> tuple[int, ...]:
    """Returns the patch after a share of the growth from the smallest to the full one."""
    edges = []
    for edge, least, step in zip(patch_size, patches.smallest, patches.step, strict=True):
        smallest = min(edge, least + (SMALLEST_STEPS - 1) * step)
        edges.append(smallest + step * round(share * (edge - smallest) / step))
    return tuple(edges)
