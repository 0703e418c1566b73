"""Convolutions that avoid two faults of torch on a CPU; all networks use them in place of torch's.

Our own networks are built of them; in networks of other packages, `replace_convolutions` substitutes them for torch's.
They hold the same parameters under the same names, and calculate the same function.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCK = 16
"""Number of channels that oneDNN processes together with AVX-512; with AVX2 it is 8."""


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


def replace_convolutions(network: nn.Module) -> None:
    """Replaces torch's convolutions in a network by ours, in place; those that pad with anything but 0 stay."""
    for module in network.modules():
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
    """Calculates `F.conv2d` or `F.conv3d` such that the gradients are right on a CPU as well."""
    function = F.conv2d if weight.ndim == 4 else F.conv3d
    if reads_beyond_maps(x, weight, dilation):
        with torch.autocast("cpu", enabled=False):
            return function(x.float(), weight, bias, stride, padding, dilation, groups)
    if writes_beyond_workspace(x, weight, stride, padding, groups):
        x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
    return function(x, weight, bias, stride, padding, dilation, groups)


def reads_beyond_maps(x: Tensor, weight: Tensor, dilation: Sequence[int]) -> bool:
    """Returns whether the 16-bit gradient of a convolution's weights would read memory beyond the feature maps.

    It does so on a CPU where the first axis of a volume is shorter than the kernel: the gradient then differs from run
    to run, and is often NaN. Source: tried with torch 2.13 on a CPU with bfloat16. In float32 it is right.
    """
    return x.device.type == "cpu" and weight.ndim == 5 and x.shape[2] < dilation[0] * (weight.shape[2] - 1) + 1


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
        and padding in ((0, 0), "valid")
        and not any(length % step for length, step in zip(x.shape[2:], stride, strict=True))
        and x.stride(1) == 1
        and weight.requires_grad
        and torch.is_grad_enabled()
    )
