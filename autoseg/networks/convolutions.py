"""Convolutions that avoid two faults of torch on a CPU, and its slow path; all networks use them in place of torch's.

Our own networks are built of them; in networks of other packages, `replace_convolutions` substitutes them for torch's.
They hold the same parameters under the same names, and calculate the same function.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.tracing import is_traced

BLOCK = 16
"""Number of channels that oneDNN processes together with AVX-512; with AVX2 it is 8."""

SMALL_MAPS, SMALL_BATCH = 20480, 16
"""Largest number of values, and smallest batch, for which torch chooses between two kinds of convolutions.

Source: `ConvParams::use_mkldnn` of torch 2.6 to 2.13.
"""


class Conv2d(nn.Conv2d):
    """A convolution of images; see `convolve`."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_channels, *size) to (n, out_channels, *size / stride)."""
        return convolve(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv3d(nn.Conv3d):
    """A convolution of volumes; see `convolve`."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, in_channels, *size) to (n, out_channels, *size / stride)."""
        return convolve(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose3d(nn.ConvTranspose3d):
    """A transposed convolution of volumes, for networks of other packages.

    The gradient of its weights is wrong in bfloat16 where the first axis of its output is shorter than the kernel, as
    that of a convolution is in `reads_beyond_maps`; its padding is then cut off afterwards.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Maps (n, in_channels, *size) to (n, out_channels, *output)."""
        border = self.padding[0]
        reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        rows = (x.shape[2] - 1) * self.stride[0] + reach + self.output_padding[0] - 2 * int(border)
        if x.device.type != "cpu" or output_size is not None or rows >= reach:
            return super().forward(x, output_size)
        padding = (0, *self.padding[1:])
        with torch.autocast("cpu", enabled=False):
            whole = F.conv_transpose3d(
                x.to(self.weight.dtype),
                self.weight,
                self.bias,
                self.stride,
                padding,
                self.output_padding,
                self.groups,
                self.dilation,
            )
        return whole.narrow(2, int(border), rows)


def replace_convolutions(network: nn.Module) -> None:
    """Replaces torch's convolutions in a network by ours, in place; those that pad with anything but 0 stay."""
    for module in network.modules():
        if type(module) is nn.ConvTranspose3d:
            module.__class__ = ConvTranspose3d
        if type(module) is nn.Conv2d and module.padding_mode == "zeros":
            module.__class__ = Conv2d
        elif type(module) is nn.Conv3d and module.padding_mode == "zeros":
            module.__class__ = Conv3d


def convolve(  # noqa: PLR0913, PLR0917 - the parameters of torch
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int = 1,
) -> Tensor:
    """Calculates `F.conv2d` or `F.conv3d` such that on a CPU the gradients are right, and no path is slow.

    Example:
        >>> maps, weight = torch.ones(1, 1, 4, 4), torch.ones(1, 1, 3, 3)
        >>> convolve(maps, weight, None, stride=(1, 1), padding=(1, 1), dilation=(1, 1)).flatten()[:4].tolist()
        [4.0, 6.0, 6.0, 4.0]
    """
    if is_traced():  # for other runtimes, which have other faults
        return (F.conv2d if weight.ndim == 4 else F.conv3d)(x, weight, bias, stride, padding, dilation, groups)
    if reads_beyond_maps(x, weight, dilation):
        with torch.autocast("cpu", enabled=False):
            wider = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
            padded, padding = _pad_first_axis(wider, weight, padding, dilation)
            return _calculate(padded, weight, bias, stride, padding, dilation, groups)
    if writes_beyond_workspace(x, weight, stride, padding, groups):
        x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
    return _calculate(x, weight, bias, stride, padding, dilation, groups)


def _calculate(  # noqa: PLR0913, PLR0917 - the parameters of torch
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Calculates a convolution by oneDNN where torch would leave it to its own code.

    Decision: a kernel of 1 is a matrix product, which keeps the order of the memory; a single sample is divided into
    two samples, so that oneDNN takes it. `torch.mkldnn_convolution` would take a single sample as it is, but torch
    would choose its own code for the gradients all the same.
    """
    if is_left_to_torch(x, weight, stride, dilation, groups) and not isinstance(padding, str):
        if _is_pointwise(weight, stride, padding):
            if x.stride(1) == 1:
                return F.linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
        elif len(x) == 1:
            return _convolve_halves(x, weight, bias, stride, padding, dilation)
    function = F.conv2d if weight.ndim == 4 else F.conv3d
    return function(x, weight, bias, stride, padding, dilation, groups)


def _pad_first_axis(
    x: Tensor, weight: Tensor, padding: Sequence[int] | str, dilation: Sequence[int]
) -> tuple[Tensor, Sequence[int]]:
    """Pads the first axis of a volume with zeros, so that it is at least as long as the kernel.

    Returns:
        The volume, and the padding that is left to the convolution.
    """
    if padding == "same":
        both = [step * (length - 1) for step, length in zip(dilation, weight.shape[2:], strict=True)]
        return F.pad(x, [end for length in reversed(both) for end in (length // 2, length - length // 2)]), (0, 0, 0)
    first, *others = (0, 0, 0) if isinstance(padding, str) else padding
    return F.pad(x, (0, 0, 0, 0, first, first)), (0, *others)


def _is_pointwise(weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> bool:
    """Returns whether each voxel of the output depends on the same voxel of the input alone."""
    return max(weight.shape[2:]) == 1 and max(stride) == 1 and max(padding) == 0


def _convolve_halves(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    """Convolves the two halves of a single sample as two samples, each with the voxels that its border needs.

    The halves are those of the output's longest axis; if its length is odd, the second half is a row longer than
    needed.
    """
    reach = [step * (length - 1) + 1 for step, length in zip(dilation, weight.shape[2:], strict=True)]
    axes = zip(x.shape[2:], padding, reach, stride, strict=True)
    rows = [(length + 2 * border - extent) // step + 1 for length, border, extent, step in axes]
    axis = rows.index(max(rows))
    half = (rows[axis] + 1) // 2
    start, length = half * stride[axis], (half - 1) * stride[axis] + reach[axis]
    after = start + length - x.shape[2 + axis] - padding[axis]  # negative if the stride leaves voxels over
    x = F.pad(x, (0, 0) * (x.ndim - 3 - axis) + (padding[axis], after))
    halves = torch.cat([x.narrow(2 + axis, 0, length), x.narrow(2 + axis, start, length)])
    padding = [0 if number == axis else border for number, border in enumerate(padding)]
    first, second = convolve(halves, weight, bias, stride, padding, dilation).chunk(2)
    return torch.cat([first, second.narrow(2 + axis, 0, rows[axis] - half)], dim=2 + axis)


def is_left_to_torch(x: Tensor, weight: Tensor, stride: Sequence[int], dilation: Sequence[int], groups: int) -> bool:
    """Returns whether torch would calculate a convolution by its own code rather than by oneDNN.

    It does so in float32 for a kernel of 1 on one thread, and for a single sample of small maps unless the kernel is
    large. Its own code copies every neighbourhood of a volume, takes up to six times as long, and returns the
    channels-last order to the other one, which the following layers inherit.

    Source: `ConvParams::use_mkldnn` of torch 2.6 to 2.13.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu") or groups > 1:
        return False
    last = weight.shape[-2:]
    small = len(x) == 1 and min(last) <= 3 and prod(x.shape[:4]) <= SMALL_MAPS
    steps = max(*stride, *dilation)
    alone = len(x) < SMALL_BATCH and max(last) == 1 and steps == 1 and torch.get_num_threads() == 1
    return (small or alone) and bool(torch.backends.mkldnn.is_available())  # type: ignore[no-untyped-call]


def reads_beyond_maps(x: Tensor, weight: Tensor, dilation: Sequence[int]) -> bool:
    """Returns whether the gradient of a convolution's weights would read memory beyond the feature maps.

    It does so on a CPU with AVX-512 where the first axis of a volume is shorter than the kernel: in bfloat16, and in
    float32 with a kernel of 7 and a stride of 2. The gradient then differs from run to run, is often NaN, and now and
    then the program crashes. In float32, with zeros that are added to the axis beforehand instead of by the
    convolution, it is right; in bfloat16 that does not suffice if the second axis is shorter than the kernel as well.
    Source: tried with torch 2.13 (oneDNN 3.12) by `tests/benchmarks/convolution_faults.py`, and with V-Net.
    """
    if x.device.type != "cpu" or x.dtype == torch.float64 or weight.ndim != 5:
        return False
    return x.shape[2] < dilation[0] * (weight.shape[2] - 1) + 1


def writes_beyond_workspace(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int] | str, groups: int
) -> bool:
    """Returns whether the gradient of a convolution's weights would write beyond oneDNN's workspace.

    The program then crashes, sooner or later, or the gradient is wrong. It happens on x86 CPUs, in float32 and in
    bfloat16, if all of these hold: the maps are 2D, with the channels last, and have fewer than 8 channels with AVX2,
    or fewer than 16 with AVX-512; the kernel is 1, without padding and groups; an axis is strided, and each is
    divisible by its stride.

    Source: https://github.com/uxlfoundation/oneDNN/issues/6035; and tried with torch 2.13 (oneDNN 3.12) on one and two
    threads: with AVX2 1 to 7 channels of 16 x 16 maps, strides (2, 2), (1, 2), (2, 1), (3, 3) and (4, 4), into 1 to 64
    features, are wrong, and 8 to 20 channels right; with AVX-512 4 to 15 channels of 64 x 64 and 128 x 128 maps are
    wrong, and 16 right. Maps in another order, groups, padding, edges that are not divisible, 3D maps, and larger
    kernels are right. A convolution of every second voxel without a stride is the same, and right.
    """
    return (
        x.device.type == "cpu"
        and weight.ndim == 4
        and weight.shape[1] < BLOCK
        and groups == 1
        and weight.shape[2:] == (1, 1)
        and max(stride) > 1
        and (padding == "valid" or tuple(padding) == (0, 0))
        and not any(length % step for length, step in zip(x.shape[2:], stride, strict=True))
        and x.stride(1) == 1
        and weight.requires_grad
        and torch.is_grad_enabled()
    )
