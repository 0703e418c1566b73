"""A convolution whose input comes in two parts, as in the decoder of a U-Net."""

import torch
from torch import Tensor

from autoseg.networks.convolutions import Conv2d, Conv3d, convolve


def convolve_both(convolution: Conv2d | Conv3d, first: Tensor, second: Tensor) -> Tensor:
    """Calculates a convolution of two maps as if they were one map with the channels of both.

    Decision: in training on a CPU in float32 each map is convolved by its own weights, and the results are added. So
    the maps are never copied into one, nor the gradient out of one; and with AVX2 the gradient of the weights of many
    channels takes a fifth longer than that of their halves (measured: 68 GFLOP/s from 64 channels to 32, 85 from 32 to
    32, in maps of 40 x 56 x 40 voxels). Not so in 16 bits, where the sum would be rounded once more; nor for a batch of
    one, for which torch takes a slow convolution if there are few channels.

    Args:
        convolution: The convolution, without groups.
        first: The first channels, shape (n, c, *size).
        second: The other channels, shape (n, d, *size).

    Returns:
        Shape (n, out_channels, *size / stride).
    """
    if len(first) == 1 or not learns_in_float32_on_cpu(first):
        return convolution(torch.cat([first, second], dim=1))  # type: ignore[no-any-return]
    channels = first.shape[1]
    how = convolution.stride, convolution.padding, convolution.dilation
    y = convolve(first, convolution.weight[:, :channels], convolution.bias, *how)
    return y.add_(convolve(second, convolution.weight[:, channels:], None, *how))


def learns_in_float32_on_cpu(x: Tensor) -> bool:
    """Returns whether gradients are recorded of a layer that calculates with a map on a CPU, in float32.

    Decision: predictions are calculated as on other devices, so that a tile has the same bits in a batch of any size.
    """
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )
