"""Calculates gradients of strided convolutions of kernel 1, and compares them with right ones; run as a program.

Where the gradients go wrong, so may all that this program does after them; therefore it is one.
"""

import sys

import torch
from torch import Tensor, nn

from autoseg.networks.convolutions import Conv2d, Conv3d, replace_convolutions
from autoseg.networks.instance_norm import channels_last
from autoseg.networks.layer_spec import LayerSpec
from autoseg.networks.torch_layers import StandardizedConv

CASES = (
    *((channels, (2, 2), (2, 16, 16)) for channels in (1, 2, 3, 4, 5, 6, 7, 8, 12)),
    (4, (1, 2), (2, 16, 16)),
    (4, (2, 1), (2, 16, 16)),
    (4, (3, 3), (2, 18, 18)),
    (4, (2, 2), (2, 17, 17)),
    (12, (2, 2), (2, 64, 64)),
    (4, (2, 2, 2), (2, 8, 8, 8)),
    (4, (1, 2, 2), (2, 8, 8, 8)),
)
"""Channels, stride, and samples and size of maps. Maps of 64 x 64 went wrong with AVX-512 as well."""
REPETITIONS = 5
FEATURES = 8


def foreign(channels: int, stride: tuple[int, ...]) -> nn.Module:
    """A convolution of another package's network, as it is used here."""
    convolution = nn.Conv2d if len(stride) == 2 else nn.Conv3d
    network = nn.Sequential(convolution(channels, FEATURES, 1, stride, bias=False))
    replace_convolutions(network)
    return network[0]


def own(channels: int, stride: tuple[int, ...]) -> nn.Module:
    """A convolution of our own networks."""
    return (Conv2d if len(stride) == 2 else Conv3d)(channels, FEATURES, 1, stride)


def standardized(channels: int, stride: tuple[int, ...]) -> nn.Module:
    """A convolution whose weights are standardized."""
    dimensions = len(stride)
    kernel = (1,) * dimensions
    layer = LayerSpec(
        kind="conv",
        dimensions=dimensions,
        in_features=channels,
        features=FEATURES,
        kernel=kernel,
        stride=stride,
        standardized=True,
    )
    module = StandardizedConv(layer)
    nn.init.normal_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def gradient(module: nn.Module, maps: Tensor, coefficients: Tensor) -> Tensor:
    """That of the weights, where the sum of the output times coefficients is the loss."""
    module.zero_grad()
    module(maps.requires_grad_()).backward(coefficients)
    return module.weight.grad.flatten(1)


def error(module: nn.Module, maps: Tensor, stride: tuple[int, ...]) -> float:
    """The largest difference from float64, in shares of the largest gradient, over some repetitions."""
    places = (slice(None), slice(None), *(slice(None, None, step) for step in stride))
    coefficients = torch.randn(len(maps), FEATURES, *maps[places].shape[2:])
    ordered = channels_last(coefficients)
    right = torch.einsum("ncp,nfp->fc", maps[places].double().flatten(2), coefficients.double().flatten(2))
    if isinstance(module, StandardizedConv):
        weight = module.weight.detach().double().requires_grad_()
        variance, mean = torch.var_mean(weight.flatten(1), dim=1, keepdim=True)
        ((weight.flatten(1) - mean) * (variance + 1e-12).rsqrt()).backward(right)
        right = weight.grad.flatten(1)
    worst = 0.0
    for _ in range(REPETITIONS):
        found = gradient(module, channels_last(maps), ordered)
        worst = max(worst, float((found - right).abs().max() / right.abs().max()))
    return worst


def main() -> int:
    """Prints what is wrong; returns 1 if anything is."""
    torch.set_num_threads(int(sys.argv[1]))
    torch.manual_seed(0)
    wrong = 0
    for channels, stride, (samples, *size) in CASES:
        maps = torch.randn(samples, channels, *size)
        for make in (own, foreign, *([standardized] if channels > 2 else [])):
            found = error(make(channels, stride), maps, stride)
            if not found < 1e-4:
                sys.stdout.write(f"{make.__name__}, {channels} channels, stride {stride}: wrong by {found:.1e}\n")
                wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
