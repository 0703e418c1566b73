"""Instance norm and the activation after it, in the order of the memory in which convolutions are fast.

On a CPU, and on a GPU with tensor cores, feature maps are stored with the channels last. Torch's instance norm undoes
that order, and is replaced here; the replacement holds the same parameters under the same names. On a CUDA GPU Triton
calculates it if it is installed; see `fused_norm`.
"""

from math import gcd
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from autoseg.networks import fused_norm
from autoseg.networks.tracing import is_traced

NEGATIVE_SLOPE = 0.01
"""Negative slope of the leaky ReLU. Source: the reference method."""

NORM_EPSILON = 1e-5
"""Added to the variance of a feature map. Source: the reference method."""

FEW_SAMPLES = 8
"""Largest batch whose samples are normalized one by one on a GPU. Decision: batches of volumes are smaller; those of 2D
images would start too many kernels."""

COLUMNS = 512
"""Number of values of neighbouring voxels whose statistics are measured side by side; see `measure_statistics`.
Decision: from 128 to 1024 it takes the same time, and more are more precise."""

FEW_FEATURES, MANY_VALUES = 8, 2**18
"""Most features, and fewest values, of a map whose statistics are measured so where precision is not asked for.
Decision: of 32 features torch's own way is as fast, and a few microseconds shorter for small maps."""

_CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}


def channels_last(x: Tensor) -> Tensor:
    """Copies a batch (n, c, *size) so that the channels of a voxel are adjacent in memory.

    A network that is traced for other runtimes keeps the order, since they choose their own.

    It always copies, because torch takes a map of one channel for already reordered and would leave its strides alone;
    then no convolution after it would see the order.
    """
    return x if is_traced() else x.clone(memory_format=_CHANNELS_LAST[x.ndim - 2])


def has_channels_last(x: Tensor) -> bool:
    """Returns whether the channels of a voxel are adjacent in memory, and the voxels of a feature map are not."""
    return x.is_contiguous(memory_format=_CHANNELS_LAST[x.ndim - 2]) and not x.is_contiguous()


class InstanceNorm(nn.Module):
    """Instance norm: normalizes each feature of each sample to mean 0 and variance 1, then scales and shifts it.

    Decision: on a CPU each sample goes through batch norm alone, which is the same function. `F.instance_norm` copies
    channels-last maps to the other order, `F.group_norm` keeps the order but is over ten times slower in the backward
    pass.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes (n, features, *size); a map needs at least two voxels."""
        if is_traced():
            return self._normalize_any_batch(x)
        if learns_on_cpu(x):
            return _normalize_and_activate(x, self.weight, self.bias, None, 1.0)
        if fused_norm.suits(x):
            return self._fuse(x, None, slope=1.0)
        return self.normalize(x if torch.is_grad_enabled() else x.clone()).view_as(x)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalizes (n, features, *size), which it may overwrite, into a map that may be changed in place.

        Decision: on a GPU the samples are stacked as (1, n * features, *size), so that one batch norm serves them all;
        `F.instance_norm` does the same, but returns a view of the result. Changing a view in place costs the backward
        pass four more maps. With the channels last, stacking copies the samples to the other order, and the next
        convolution copies them back; so small batches are normalized one by one there as well. `fused_norm` has neither
        limit, and is used where Triton is installed.
        """
        if x.device.type == "cpu" or (len(x) <= FEW_SAMPLES and has_channels_last(x)):
            return self.normalize_each(x)
        return self.normalize_stacked(x)

    def normalize_each(self, x: Tensor) -> Tensor:
        """Normalizes (n, features, *size) sample by sample, which keeps the order of the memory.

        On a CPU without gradients the result overwrites `x`, which saves half of the time. The statistics are precise
        then in float32; 16 bits could not represent the digits that are gained.
        """
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return torch.cat([self._batch_norm(sample, self.weight, self.bias) for sample in x.chunk(len(x))])
        precise = x.dtype == self.weight.dtype and has_channels_last(x)
        for sample in x.chunk(len(x)):
            _normalize(sample, self.weight, self.bias, precise=precise, out=sample)
        return x

    def normalize_stacked(self, x: Tensor) -> Tensor:
        """Normalizes (n, features, *size) as a GPU does; returns (1, n * features, *size)."""
        stacked = x.reshape(1, -1, *x.shape[2:])
        return self._batch_norm(stacked, self.weight.repeat(len(x)), self.bias.repeat(len(x)))

    def _batch_norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, weight, bias, training=True, eps=NORM_EPSILON)

    def activate(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        """Normalizes (n, features, *size), which it may overwrite, adds a shortcut, and applies the leaky ReLU.

        A compiler gets the single layers, which it fuses by itself.
        """
        if is_traced():
            y = self._normalize_any_batch(x)
            return F.leaky_relu(y if shortcut is None else y + shortcut, NEGATIVE_SLOPE)
        if learns_on_cpu(x):
            return _normalize_and_activate(x, self.weight, self.bias, shortcut, NEGATIVE_SLOPE)
        if fused_norm.suits(x):
            return self._fuse(x, shortcut, slope=NEGATIVE_SLOPE)
        y = self.normalize(x)
        if shortcut is not None:
            y = y.add_(shortcut.reshape(y.shape))
        return F.leaky_relu_(y, NEGATIVE_SLOPE).view(x.shape)

    def _normalize_any_batch(self, x: Tensor) -> Tensor:
        """Normalizes (n, features, *size) by one operator, which an export to ONNX keeps whatever n is."""
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=NORM_EPSILON)

    def _fuse(self, x: Tensor, shortcut: Tensor | None, *, slope: float) -> Tensor:
        return fused_norm.normalize_activate(x, self.weight, self.bias, shortcut, slope=slope, epsilon=NORM_EPSILON)


def _normalize(sample: Tensor, weight: Tensor, bias: Tensor, *, precise: bool, out: Tensor) -> tuple[Tensor, Tensor]:
    """Writes a sample (1, features, *size) on a CPU into `out`, normalized; see `measure_statistics`.

    Returns:
        For each feature, its mean, and the scale that brings its standard deviation to 1.
    """
    statistics = torch.empty(2, sample.shape[1], dtype=weight.dtype)
    if not precise and not is_narrow(sample):
        torch.native_batch_norm(sample, weight, bias, None, None, True, 0, NORM_EPSILON, out=(out, *statistics))
        return statistics[0], statistics[1]
    mean, variance = measure_statistics(sample)
    torch.native_batch_norm(sample, weight, bias, mean, variance, False, 0, NORM_EPSILON, out=(out, *statistics[:, :0]))
    return mean, (variance + NORM_EPSILON).rsqrt()


def is_narrow(sample: Tensor) -> bool:
    """Returns whether a sample (1, features, *size) with the channels last has so few features that torch is slow."""
    return sample.shape[1] <= FEW_FEATURES and sample.numel() >= MANY_VALUES and has_channels_last(sample)


def measure_statistics(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and variance of each feature of a sample (1, features, *size) on a CPU, in float32 or higher.

    Decision: with the channels last, torch goes through a map voxel by voxel, which is slow with few features, and adds
    up one voxel after another, which in float32 costs the logits two of their digits. So neighbouring voxels are taken
    together as if they were further features, whose statistics are then combined. With 8 features and 128 x 128 x 128
    voxels a norm takes a ninth of the time (two cores, AVX-512), and the mean is off by 1e-6 instead of 8e-5.

    Example:
        >>> sample = torch.tensor([1.0, 5.0]).reshape(1, 1, 1, 1, 2)
        >>> [values.tolist() for values in measure_statistics(sample)]
        [[3.0], [4.0]]
    """
    columns = _side_by_side(sample)
    initial = torch.zeros(2, columns.shape[1], dtype=torch.promote_types(sample.dtype, torch.float32))
    measured = torch.batch_norm_update_stats(columns, initial[0], initial[1], 0.0)  # in the precision of these
    mean, variance = (values.view(-1, sample.shape[1]) for values in measured)
    return mean.mean(dim=0), variance.mean(dim=0) + mean.var(dim=0, correction=0)


def _side_by_side(sample: Tensor) -> Tensor:
    """Returns a view (1, together * features, voxels / together, 1) of a sample: neighbouring voxels as features.

    With another order of the memory, the sample itself.
    """
    if not has_channels_last(sample):
        return sample
    features = sample.shape[1]
    together = gcd(sample.numel() // features, max(1, COLUMNS // features))
    return sample.movedim(1, -1).view(1, -1, 1, together * features).movedim(-1, 1)


def _differentiate_narrow(
    gradient: Tensor, sample: Tensor, weight: Tensor, mean: Tensor, scale: Tensor, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Goes backwards through the norm of a narrow sample, whose gradient is written into `out`.

    With the normalized sample n before weight and bias, and the gradient g of the result, the gradient of the sample is
    `weight * scale * (g - mean(g) - n * mean(g * n))`. Torch's own way is as slow here as forwards.

    Returns:
        The gradients of weight and bias.
    """
    columns, voxels = _side_by_side(sample), sample.numel() // sample.shape[1]
    together = columns.shape[1] // sample.shape[1]
    repeated = torch.ones_like(weight).repeat(together), None, None, mean.repeat(together), scale.repeat(together)
    _, *sums = torch.ops.aten.native_batch_norm_backward(
        _side_by_side(gradient), columns, *repeated, True, NORM_EPSILON, [False, True, True]
    )
    of_weight, of_bias = (values.view(together, -1).sum(dim=0) for values in sums)
    factor = weight * scale
    of_value = -factor * scale * of_weight / voxels
    constant = -factor * of_bias / voxels - of_value * mean
    statistics = torch.zeros_like(mean), torch.ones_like(mean)  # with which it multiplies and adds, and nothing else
    unused = torch.empty(2, 0, dtype=weight.dtype)
    torch.native_batch_norm(gradient, factor, constant, *statistics, False, 0, 0.0, out=(out, *unused))
    _side_by_side(out).addcmul_(columns, of_value.repeat(together).to(out.dtype)[:, None, None])
    return of_weight, of_bias


def learns_on_cpu(x: Tensor) -> bool:
    """Returns whether a layer that calculates with a map on a CPU has its gradients recorded, and is not compiled."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


def predicts_on_cpu(x: Tensor) -> bool:
    """Returns whether a layer that calculates with a map on a CPU has no gradients recorded, and is not compiled."""
    return (
        x.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling() and not is_traced()
    )


def _normalize_and_activate(x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, slope: float) -> Tensor:
    y = NormalizedActivation.apply(x, weight, bias, shortcut, slope)  # type: ignore[no-untyped-call]
    return cast(Tensor, y)


class NormalizedActivation(torch.autograd.Function):
    """Instance norm, the sum with a shortcut, and leaky ReLU, on a CPU while gradients are recorded.

    Function and gradients are those of `InstanceNorm.normalize_each`, an addition and `F.leaky_relu_`. Decision: the
    normalized samples are written to their places in the result, instead of being joined afterwards, and each sample
    goes backwards while its values are still in the cache. The gradient is brought into the order of the map before it
    goes through the norm: with a single sample whose map is contiguous, and a gradient with the channels last, torch's
    own is wrong (tried with torch 2.13).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, slope: float) -> Tensor:
        """Maps x (n, features, *size), and a shortcut of the same shape or None, to a map of that shape.

        A slope of 1 leaves out the activation.
        """
        y = torch.empty_like(x)
        statistics = torch.empty(len(x), 2, x.shape[1], dtype=weight.dtype)
        for sample, normalized, (mean, scale) in zip(x.chunk(len(x)), y.chunk(len(y)), statistics, strict=True):
            mean[:], scale[:] = _normalize(sample, weight, bias, precise=False, out=normalized)
        if shortcut is not None:
            y += shortcut
        ctx.slope = slope
        ctx.save_for_backward(x, None if slope == 1 else F.leaky_relu_(y, slope), weight, statistics)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        """Returns the gradients of x, weight, bias and the shortcut."""
        x, y, weight, statistics = ctx.saved_tensors
        keeps_shortcut = ctx.needs_input_grad[3]
        of_shortcut = torch.empty_like(x if keeps_shortcut else x[:1])
        of_x = torch.empty_like(x)
        of_weight, of_bias = torch.zeros(2, x.shape[1], dtype=weight.dtype)
        for number, (mean, scale) in enumerate(statistics):
            sample = slice(number, number + 1)
            of_sum = of_shortcut[sample] if keeps_shortcut else of_shortcut
            if y is None:
                of_sum.copy_(gradient[sample])
            else:
                torch.ops.aten.leaky_relu_backward.grad_input(
                    gradient[sample], y[sample], ctx.slope, True, grad_input=of_sum
                )
            if is_narrow(x[sample]):
                of_its_weight, of_its_bias = _differentiate_narrow(
                    of_sum, x[sample], weight, mean, scale, out=of_x[sample]
                )
            else:
                of_x[sample], of_its_weight, of_its_bias = torch.ops.aten.native_batch_norm_backward(
                    of_sum, x[sample], weight, None, None, mean, scale, True, NORM_EPSILON, [True, True, True]
                )
            of_weight += of_its_weight
            of_bias += of_its_bias
        return of_x, of_weight, of_bias, of_shortcut if keeps_shortcut else None, None
