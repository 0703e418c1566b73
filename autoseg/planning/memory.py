"""Bytes that one training step takes on the device, counted from the layers of the network; nothing is run.

A step with a batch of b patches takes

    bytes = CONTEXT_BYTES + BYTES_PER_WEIGHT * weights + b * (input + saved + losses + moving)

With V voxels and f features at a resolution, n convolutions per stage, and e = 2 bytes, the size of an element under
16-bit autocast:

    input   (4 + e) * channels * V     the patch in float32, and the copy that the first convolution casts
    saved   what autograd keeps until the backward pass, over all stages on the way down and up:
              2 e f V for each convolution: its output, which the instance norm keeps, and the normalised and activated
                map, which the leaky ReLU (in place) and the next convolution share
              e f V for the sum of a residual stage of more than one convolution
              2 e f V for the concatenated skip and upsampled map at the start of each stage on the way up
    losses  (e + 12) * classes * V + 8 V for each segmentation head that is trained: logits, the same in float32,
            probabilities and a gradient in float32, and the target as 64-bit integers
    moving  2 * 3 e f V of the widest place, the first convolution on the way up: the gradients of its input (2 f) and
            output (f) exist at once, and the convolution rearranges as much again in its workspace

The upsampled map itself is freed once it is concatenated; means and deviations of the norms are too small to count.
Decision: every term is an upper bound or exact, so the planner stays below its budget rather than above it. The count
of saved bytes is held against what autograd really keeps by a test; the context is an assumption, not a measurement.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from autoseg.plan import Architecture, Stage

ELEMENT_BYTES = 2  # of a feature map under bfloat16 or float16 autocast

# Weight, gradient, momentum and the averaged copy in float32, and the 16-bit copy of autocast.
BYTES_PER_WEIGHT = 4 + 4 + 4 + 4 + ELEMENT_BYTES

# Decision: the driver's context, the libraries' kernels and what the allocator cannot reuse.
CONTEXT_BYTES = 500_000_000


class MemoryModel(Protocol):
    """Says how large a batch a budget holds; the planner shrinks the patch until that is two."""

    def fits(self, architecture: Architecture, patch_size: Sequence[int], batch_size: int) -> bool:
        """Whether the budget holds a training step."""

    def largest_batch(self, architecture: Architecture, patch_size: Sequence[int]) -> int:
        """The largest batch of a training step within the budget; may be 0."""


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """A budget in bytes for `training_bytes`."""

    budget_bytes: int

    def fits(self, architecture: Architecture, patch_size: Sequence[int], batch_size: int) -> bool:
        """Whether the budget holds a training step."""
        return training_bytes(architecture, patch_size, batch_size) <= self.budget_bytes

    def largest_batch(self, architecture: Architecture, patch_size: Sequence[int]) -> int:
        """The largest batch of a training step within the budget; may be 0."""
        free = self.budget_bytes - training_bytes(architecture, patch_size, 0)
        return max(0, free // _bytes_per_patch(architecture, patch_size))


@dataclass(frozen=True, slots=True)
class FeatureMapBudget:
    """The reference method's budget: feature map elements, calibrated for 8 GB. Source: nnU-Net v2.8.1.

    Eight GB hold two 3D patches of 560 million elements each, or twelve 2D patches of 85 million. Proves, in tests,
    that the planner's rules are the reference method's when its memory model is.
    """

    memory_gb: float

    def fits(self, architecture: Architecture, patch_size: Sequence[int], batch_size: int) -> bool:
        """Whether the budget holds a training step."""
        return self._batch(architecture, patch_size) >= batch_size

    def largest_batch(self, architecture: Architecture, patch_size: Sequence[int]) -> int:
        """The batch size at which the budget is used up, rounded to the nearest."""
        return round(self._batch(architecture, patch_size))

    def _batch(self, architecture: Architecture, patch_size: Sequence[int]) -> float:
        elements, batch_size = (85e6, 12) if architecture.dimensions == 2 else (560e6, 2)
        available = elements * self.memory_gb / 8
        return available / feature_map_elements(architecture, patch_size) * batch_size


def training_bytes(architecture: Architecture, patch_size: Sequence[int], batch_size: int) -> int:
    """Device memory of one training step, by the formula at the top of this module.

    Never falls when patch, batch, features or convolutions grow.

    Args:
        architecture: The network.
        patch_size: Voxels per axis, divisible by the network's strides.
        batch_size: Patches of the step.
    """
    fixed = CONTEXT_BYTES + BYTES_PER_WEIGHT * count_weights(architecture)
    return fixed + batch_size * _bytes_per_patch(architecture, patch_size)


def saved_bytes(architecture: Architecture, patch_size: Sequence[int]) -> int:
    """Feature maps that autograd keeps for one patch until the backward pass, without the input and the losses."""
    levels = list(_levels(architecture, patch_size))
    down = sum(_stage_elements(architecture, stage, voxels) for stage, voxels in levels)
    up = sum(
        _stage_elements(architecture, stage, voxels) + 2 * stage.features * voxels for stage, voxels in levels[:-1]
    )
    return ELEMENT_BYTES * (down + up)


def count_weights(architecture: Architecture) -> int:
    """Trainable numbers of the network: convolutions with biases, and scale and shift of the norms.

    There is one segmentation head per stage on the way up, or only the finest without deep supervision.
    """
    total, channels = 0, architecture.in_channels
    for stage in architecture.stages:
        total += _convolution_weights(stage, channels)
        channels = stage.features
    for coarse, fine in zip(architecture.stages[1:], architecture.stages[:-1], strict=True):
        upsampling = (coarse.features * prod(coarse.stride) + 1) * fine.features
        total += upsampling + _convolution_weights(fine, 2 * fine.features)
    return total + sum((stage.features + 1) * architecture.out_channels for stage in _heads(architecture))


def feature_map_elements(architecture: Architecture, patch_size: Sequence[int]) -> int:
    """The reference method's measure of cost: elements of all feature maps for one patch, without unit.

    Counts the output of each convolution, each transposed convolution, and the finest segmentation head; residual
    additions and further heads do not count. Golden numbers, for two convolutions in each stage: 450,699,264 for six
    stages at 128 x 128 x 128 with two classes, 82,624,512 for eight at 512 x 512. Source: nnU-Net v2.8.1.
    """
    levels = list(_levels(architecture, patch_size))
    down = sum(stage.convolutions * stage.features * voxels for stage, voxels in levels)
    up = sum((stage.convolutions + 1) * stage.features * voxels for stage, voxels in levels[:-1])
    return down + up + architecture.out_channels * prod(patch_size)


def _bytes_per_patch(architecture: Architecture, patch_size: Sequence[int]) -> int:
    levels = list(_levels(architecture, patch_size))
    trained = levels[: len(_heads(architecture))]
    losses = sum(((ELEMENT_BYTES + 12) * architecture.out_channels + 8) * voxels for _, voxels in trained)
    moving = max(2 * 3 * ELEMENT_BYTES * stage.features * voxels for stage, voxels in levels[:-1])
    entering = (4 + ELEMENT_BYTES) * architecture.in_channels * prod(patch_size)
    return entering + saved_bytes(architecture, patch_size) + losses + moving


def _levels(architecture: Architecture, patch_size: Sequence[int]) -> Iterator[tuple[Stage, int]]:
    """Each stage with the voxels of its feature maps."""
    voxels = prod(patch_size)
    for stage in architecture.stages:
        voxels //= prod(stage.stride)
        yield stage, voxels


def _heads(architecture: Architecture) -> tuple[Stage, ...]:
    """Stages whose way up ends in a segmentation head."""
    return architecture.stages[:-1] if architecture.deep_supervision else architecture.stages[:1]


def _stage_elements(architecture: Architecture, stage: Stage, voxels: int) -> int:
    adds = architecture.residual == "stage" and stage.convolutions > 1
    return (2 * stage.convolutions + adds) * stage.features * voxels


def _convolution_weights(stage: Stage, channels: int) -> int:
    """Kernel, bias, scale and shift of each convolution of a stage that gets `channels` channels."""
    inputs = channels + (stage.convolutions - 1) * stage.features
    return (inputs * prod(stage.kernel) + 3 * stage.convolutions) * stage.features
