"""Estimates the bytes that one training step takes on a GPU from the layers of the network, without running it.

A step with a batch of b patches takes

    bytes = CONTEXT_BYTES + BYTES_PER_WEIGHT * weights + b * (input + saved + logits + targets + peak)

With V voxels and f features at a resolution, C classes, and e = 2 bytes, the size of an element under 16-bit autocast:

    input    (4 + e) * channels * V    the patch in float32, and the copy that the first convolution casts and keeps
    saved    what autograd keeps of the feature maps until the backward pass, over all stages:
               2 e f V for each convolution of the stage on the way down and up, and for the stem of a residual encoder:
                 its output, which the instance norm keeps, and the normalized and activated map, which the leaky ReLU
                 and the next convolution share; a shortcut is added to that map in place
               e f V for the convolution in a shortcut that changes the features: its output, which its norm keeps;
                 if the stage strides too, e f' V more for its input, the mean of neighbours in f' features
               2 e f V for the concatenated upsampled map and skip at the start of each stage on the way up
    logits   e C V for each segmentation head
    targets  8 V for each head that is trained, as 64-bit integers: all heads but the coarsest, or the only one
    peak     the larger of two terms, since one follows the other:
               losses   4 C V softmax, 4 C V log softmax and (C - 1) V indicator for each head that is trained, and
                        8 C V at the finest: the gradients of its log softmax and of its logits, in float32
               gradients
                        e C V for the gradient of the logits of each head, e C V for a copy of the finest one, and the
                        largest of these over all stages of the decoder:
                          4 e f V if the stage has one convolution: the gradients of its input (2 f) and output (f) and
                            as much again for the copies that it works on, less its own two maps, which are freed
                          2 e f V if it has more: the same for the last one (4 f) less two maps, and for the first one
                            (6 f) less at least four; 3 e f V if the gradient of a shortcut is kept meanwhile

The upsampled map itself is freed once it is concatenated; the statistics of the norms are too small to count.

Decision: every term is an upper bound or exact, so the planner stays below its budget rather than above it. The
gradients of the weights, for example, mostly come later than the peak of the maps, and the optimizer copies them when
the maps are freed. A test compares input, saved, logits, targets and losses with what autograd keeps on a CPU; another
one compares the memory of a patch with the lifetime of every tensor of a step. That a convolution works on copies of
its input and output in another order is what cuDNN does for 16-bit numbers, unless their channels stand last; how much
the context takes is an assumption. Training that recomputes feature maps in the backward pass, or that compiles the
network, takes less; this is not counted separately.

A CPU keeps the same with these differences. It normalizes each sample separately: views of the same maps. It upsamples
by a matrix product, which keeps its input as a transposed convolution does. With the channels last, the cross entropy
of a volume keeps a second log softmax in the other order, 4 C V. Without bfloat16, all maps are in float32.
"""

from collections.abc import Sequence
from math import prod

from autoseg.networks.architecture import Architecture, count_weights
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.monai import describe
from autoseg.networks.monai_names import is_monai
from autoseg.networks.spec import NetworkCosts
from autoseg.planning.plugin_settings import Plugin

ELEMENT_BYTES = 2  # of a feature map under bfloat16 or float16 autocast

# Weight, gradient, momentum and the averaged copy in float32, and the 16-bit copy of autocast.
BYTES_PER_WEIGHT = 4 + 4 + 4 + 4 + ELEMENT_BYTES

# For each weight that is standardized when it is used: its difference from the mean, in float32.
STANDARDIZING_BYTES = 4

# Decision: the driver's context, the libraries' kernels and memory that the allocator cannot reuse.
CONTEXT_BYTES = 500_000_000


def training_bytes(
    architecture: Architecture, patch_size: Sequence[int], batch_size: int, network: Plugin | None = None
) -> int:
    """Estimates the device memory of one training step in bytes, by the formula at the top of this module.

    The estimate never falls when patch, batch, convolutions, blocks or features grow. (In a residual encoder the
    features must grow in all stages alike: a stage that reaches the features of its neighbour needs no convolution in
    its shortcut.)

    Args:
        architecture: The architecture of the network.
        patch_size: Voxels along each axis, divisible by the network's strides.
        batch_size: Number of patches of the step.
        network: See `Configuration`. A network of an installed package is counted as the default network, since nothing
            is known about it; for networks of MONAI see `networks.monai_table`.
    """
    fixed = CONTEXT_BYTES + weight_bytes(architecture, network)
    return fixed + batch_size * bytes_per_patch(architecture, patch_size, network)


def weight_bytes(architecture: Architecture, network: Plugin | None = None) -> int:
    """Returns the part of `training_bytes` that is proportional to the number of weights."""
    count = _count_literature(architecture, None, network)
    if count is None:
        return round(BYTES_PER_WEIGHT * count_weights(architecture) * _monai_weight_factor(architecture, network))
    return BYTES_PER_WEIGHT * count.weights + STANDARDIZING_BYTES * count.standardized_weights


def bytes_per_patch(architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None) -> int:
    """Returns the part of `training_bytes` that each patch of the batch takes."""
    count = _count_literature(architecture, patch_size, network)
    if count is not None:
        return _literature_bytes(architecture, patch_size, count)
    voxels, trained, predicted = _count_head_voxels(architecture, patch_size)
    classes = architecture.out_channels
    losses = (9 * classes - 1) * trained + 8 * classes * voxels
    gradients = ELEMENT_BYTES * (classes * (predicted + voxels) + _largest_gradient_elements(architecture, voxels))
    forward = _forward_bytes(architecture, patch_size) + _monai_extra_bytes(architecture, patch_size, network)
    return forward + max(losses, gradients)


def activation_bytes(architecture: Architecture, patch_size: Sequence[int], batch_size: int) -> int:
    """Returns the bytes of a batch after its loss and before the backward pass, without weights and workspace."""
    _, trained, _ = _count_head_voxels(architecture, patch_size)
    losses = (9 * architecture.out_channels - 1) * trained
    return batch_size * (_forward_bytes(architecture, patch_size) + losses)


def saved_bytes(architecture: Architecture, patch_size: Sequence[int]) -> int:
    """Returns the bytes of the feature maps of a patch that autograd keeps, without the input and the losses."""
    voxels = prod(patch_size)
    stages = architecture.stages
    has_blocks = architecture.residual == "block"
    width = stages[0].features
    elements = 2 * width * voxels if has_blocks else 0  # the stem
    for number, stage in enumerate(stages, start=1):
        features, step = stage.features, prod(stage.stride)
        voxels //= step
        maps = 2 * stage.blocks * stage.convolutions
        if number < len(stages):
            maps += 2 + 2 * (stage.decoder_convolutions or stage.convolutions)
        elements += maps * features * voxels
        if has_blocks and features != width:
            elements += (features + (width if step > 1 else 0)) * voxels
        width = features
    return ELEMENT_BYTES * elements


def _monai_weight_factor(architecture: Architecture, network: Plugin | None) -> float:
    """Returns the weights of a network of MONAI as a multiple of those of the plain U-Net that is counted for it."""
    if network is None or not is_monai(network.name):
        return 1.0
    return describe(network.name).weight_factors[architecture.dimensions - 2]


def _monai_extra_bytes(architecture: Architecture, patch_size: Sequence[int], network: Plugin | None) -> int:
    """Returns the bytes that a network of MONAI keeps beyond the plain U-Net; negative if it keeps less."""
    if network is None or not is_monai(network.name):
        return 0
    return round((describe(network.name).saved_factor - 1) * saved_bytes(architecture, patch_size))


def _count_literature(
    architecture: Architecture, patch_size: Sequence[int] | None, network: Plugin | None
) -> NetworkCosts | None:
    """Counts a network of the literature for a patch, or for the smallest one; None for all other networks."""
    spec = None if network is None else NETWORKS.get(network.name)
    if spec is None or network is None:
        return None
    patch = patch_size or spec.smallest_patch(network.settings, architecture.dimensions)
    return spec.count(network.settings, architecture, patch)


def _literature_bytes(architecture: Architecture, patch_size: Sequence[int], count: NetworkCosts) -> int:
    """Returns the bytes of a patch of a network of the literature: the same terms with the counts of `ShapeOps`.

    All outputs count as trained. The gradients are those of the input and output of its largest convolution, and as
    much again for the copies that it works on.
    """
    voxels, classes, predicted = prod(patch_size), architecture.out_channels, sum(count.outputs)
    finest = count.outputs[0]  # fewer than the patch has, if the network has a margin
    inputs = (4 + ELEMENT_BYTES) * architecture.in_channels * voxels
    saved = ELEMENT_BYTES * count.saved_elements + 8 * count.pooling_indices
    outputs = (ELEMENT_BYTES * classes + 8) * predicted
    losses = (9 * classes - 1) * predicted + 8 * classes * finest
    gradients = ELEMENT_BYTES * (classes * (predicted + finest) + 2 * count.largest_conv_elements)
    return inputs + saved + outputs + max(losses, gradients)


def feature_map_elements(architecture: Architecture, patch_size: Sequence[int]) -> int:
    """Counts the elements of all feature maps of one patch: the reference method's measure of memory.

    It counts the output of each convolution, of each transposed convolution, and of the finest segmentation head; sums
    and coarser heads do not count. In a residual encoder the stem counts, and one map for the shortcut of each stage
    that strides or changes the features, although a shortcut that only strides has no convolution. Golden numbers at
    128 x 128 x 128 with two classes: 450,699,264 for six plain stages of two convolutions, 555,323,392 for the residual
    encoder of 1, 3, 4, 6, 6 and 6 blocks. Source: nnU-Net v2.8.1.
    """
    voxels = prod(patch_size)
    stages = architecture.stages
    has_blocks = architecture.residual == "block"
    width = stages[0].features
    elements = (architecture.out_channels + (width if has_blocks else 0)) * voxels
    for number, stage in enumerate(stages, start=1):
        features, step = stage.features, prod(stage.stride)
        voxels //= step
        maps = stage.blocks * stage.convolutions
        if number < len(stages):
            maps += 1 + (stage.decoder_convolutions or stage.convolutions)
        if has_blocks and (features != width or step > 1):
            maps += 1
        elements += maps * features * voxels
        width = features
    return elements


def _forward_bytes(architecture: Architecture, patch_size: Sequence[int]) -> int:
    """Returns the terms input, saved, logits and targets of a patch, which the forward pass leaves behind."""
    voxels, trained, predicted = _count_head_voxels(architecture, patch_size)
    inputs = (4 + ELEMENT_BYTES) * architecture.in_channels * voxels
    outputs = ELEMENT_BYTES * architecture.out_channels * predicted + 8 * trained
    return inputs + saved_bytes(architecture, patch_size) + outputs


def _count_head_voxels(architecture: Architecture, patch_size: Sequence[int]) -> tuple[int, int, int]:
    """Returns the voxels of the patch, of the outputs of all heads that are trained, and of all heads."""
    voxels = predicted = trained = prod(patch_size)
    finest = voxels
    if architecture.deep_supervision:
        for stage in architecture.stages[1:-1]:
            voxels //= prod(stage.stride)
            trained = predicted  # all but the coarsest
            predicted += voxels
    return finest, trained, predicted


def _largest_gradient_elements(architecture: Architecture, voxels: int) -> int:
    """Returns the elements of temporary gradients at the peak of the backward pass; see the top of the module."""
    several = 3 if architecture.residual == "stage" else 2
    largest = 0
    for stage in architecture.stages[:-1]:
        voxels //= prod(stage.stride)
        maps = 4 if (stage.decoder_convolutions or stage.convolutions) == 1 else several
        largest = max(largest, maps * stage.features * voxels)
    return largest
