"""Tests of the blocks of the network, against torch's own layers."""

import unittest.mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.architecture import Stage
from autoseg.networks.blocks import ConvBlock, ConvStage, ResidualBlock, Upsampling, average_pool
from autoseg.networks.instance_norm import InstanceNorm, channels_last, is_narrow, measure_statistics
from autoseg.networks.joined_input import convolve_both


def plain_block(block: ConvBlock, x: Tensor, shortcut: Tensor | float = 0.0) -> Tensor:
    """Calculates the block with torch's own layers."""
    y = F.conv3d(x, block.conv.weight, block.conv.bias, block.conv.stride, block.conv.padding)
    y = F.instance_norm(y, weight=block.norm.weight, bias=block.norm.bias, eps=1e-5)
    return F.leaky_relu(y + shortcut, 0.01)


def plain_stage(stage: ConvStage, x: Tensor, convolutions: int, *, residual: bool) -> Tensor:
    """Calculates the stage by its definition: block after block, each with its own shortcut."""
    layers = list(stage.blocks)
    blocks = [layers[start : start + convolutions] for start in range(0, len(layers), convolutions)]
    for number, block in enumerate(blocks):
        shortcut: Tensor | float = x
        inner = block
        if number == 0:
            x = shortcut = plain_block(block[0], x)
            inner = block[1:]
        for convolution in inner[:-1]:
            x = plain_block(convolution, x)
        if inner:
            x = plain_block(inner[-1], x, shortcut if residual else 0.0)
    return x


def disturb(module: nn.Module) -> None:
    """Gives each parameter a random value; fresh biases and norms would hide mistakes."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize(("blocks", "convolutions"), [(1, 1), (1, 2), (1, 3), (2, 1), (3, 1), (2, 2), (3, 3)])
def test_stage_adds_the_input_of_each_block_before_its_last_activation(blocks, convolutions, residual):
    """The first block adds the output of its first convolution, each further one its input; plain ones add nothing."""
    described = Stage(features=4, kernel=(3, 3, 3), stride=(2, 2, 2), convolutions=convolutions, blocks=blocks)
    stage = ConvStage(2, described, residual=residual)
    disturb(stage)
    x = torch.randn(2, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = plain_stage(stage, x, convolutions, residual=residual)
    torch.testing.assert_close(stage(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [(1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 3, 1)])
@pytest.mark.parametrize("features", [3, 5])
def test_residual_block_is_the_basic_block_of_resnet_d(features, stride):
    """Its shortcut is the mean of neighbours and, if the features change, a convolution of kernel 1 with a norm."""
    block = ResidualBlock(3, features, (3, 1, 3), stride)
    disturb(block)
    x = torch.randn(2, 3, 8, 12, 6, generator=torch.Generator().manual_seed(1))
    shortcut = F.avg_pool3d(x, stride, stride)
    assert hasattr(block.shortcut, "conv") == (features == 5)
    if features == 5:
        norm = block.shortcut.norm
        shortcut = F.conv3d(shortcut, block.shortcut.conv.weight)
        shortcut = F.instance_norm(shortcut, weight=norm.weight, bias=norm.bias, eps=1e-5)
    expected = plain_block(block.second, plain_block(block.first, x), shortcut)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def gradients(function, *inputs: Tensor) -> list[Tensor]:
    """Returns the result of a function, and the gradients of a fixed weighting of it."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    result = function(*leaves)
    weighting = torch.linspace(-1, 2, result.numel(), dtype=result.dtype).reshape(result.shape)
    return [result, *torch.autograd.grad((result * weighting).sum(), leaves)]


@pytest.mark.parametrize("order", ["channels first", "channels last"])
@pytest.mark.parametrize("stride", [(2, 2), (3, 1), (2, 2, 2), (1, 2, 3)])
def test_average_pool_is_that_of_torch(stride, order):
    """Result and gradient agree with torch's average pooling, and the order of the memory stays."""
    x = torch.randn(2, 5, *(6, 4, 6)[: len(stride)], generator=torch.Generator().manual_seed(2))
    x = channels_last(x) if order == "channels last" else x
    theirs = F.avg_pool2d if len(stride) == 2 else F.avg_pool3d
    pairs = zip(gradients(lambda x: average_pool(x, stride), x), gradients(lambda x: theirs(x, stride), x), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other)
    assert average_pool(x, stride).movedim(1, -1).is_contiguous() == (order == "channels last")


@pytest.mark.parametrize("order", ["channels first", "channels last"])
@pytest.mark.parametrize("size", [(5, 6), (4, 5, 6)])
def test_instance_norm_is_that_of_torch(size, order):
    """Result and gradients agree with torch's instance norm, in both memory orders."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, 7, *size, generator=generator) * 5 + 2
    norm = InstanceNorm(7)
    weight, bias = torch.randn(2, 7, generator=generator)

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ordered = channels_last(x) if order == "channels last" else x
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (ordered,))

    def theirs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.instance_norm(x, weight=weight, bias=bias, eps=1e-5)

    for one, other in zip(gradients(ours, x, weight, bias), gradients(theirs, x, weight, bias), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(5, 6), (4, 5, 6)])
def test_instance_norm_of_a_gpu_is_that_of_torch(size):
    """If the samples are stacked, and the norm sees one sample of more features, the result is the same."""
    x = torch.randn(3, 7, *size, generator=torch.Generator().manual_seed(3)) * 5 + 2
    norm = InstanceNorm(7)
    disturb(norm)
    stacked = norm.normalize_stacked(x)
    assert stacked.shape == (1, 21, *size)
    expected = F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=1e-5)
    torch.testing.assert_close(stacked.view_as(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("order", "dtype"), [(torch.contiguous_format, torch.float32), (torch.channels_last_3d, torch.bfloat16)]
)
def test_norm_without_gradients_is_the_same(order, dtype):
    """The results are equal to the last bit; the caller's tensor is kept, and the layers inside overwrite theirs."""
    norm = InstanceNorm(3)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 4, 5, 6).to(dtype, memory_format=order)
    kept, expected = x.clone(), norm(x)
    with torch.inference_mode():
        assert torch.equal(norm(x), expected)
        assert torch.equal(x, kept)
        assert norm.normalize(x).data_ptr() == x.data_ptr()
    assert torch.equal(x, expected)


@pytest.mark.parametrize("features", [2, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_without_gradients_keeps_all_digits(features, dtype):
    """Statistics of large maps with the channels last are precise, where torch's batch norm loses two digits."""
    norm = InstanceNorm(features).to(dtype)
    disturb(norm)
    x = (torch.randn(2, features, 40, 48, 48) * 1.5 + 0.7).to(dtype, memory_format=torch.channels_last_3d)
    exact = F.instance_norm(x.double(), weight=norm.weight.double(), bias=norm.bias.double(), eps=1e-5)
    with torch.inference_mode():
        assert norm.normalize(x).data_ptr() == x.data_ptr()
    torch.testing.assert_close(x.double(), exact, rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("stride", [(2, 2), (1, 3), (2, 2, 2), (1, 2, 3)])
def test_upsampling_is_the_transposed_convolution_of_torch(stride):
    """Result and gradients agree with torch's transposed convolution."""
    generator = torch.Generator().manual_seed(4)
    weight, bias = torch.randn(5, 3, *stride, generator=generator), torch.randn(3, generator=generator)
    x = torch.randn(2, 5, *(4, 3, 2)[: len(stride)], generator=generator)
    upsampling = Upsampling(5, 3, stride)
    transposed = F.conv_transpose2d if len(stride) == 2 else F.conv_transpose3d

    def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(upsampling, {"weight": weight, "bias": bias}, (x,))

    def theirs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return transposed(x, weight, bias, stride)

    for one, other in zip(gradients(ours, x, weight, bias), gradients(theirs, x, weight, bias), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "ordered", "kept"), [(2, True, True), (8, True, True), (9, True, False), (2, False, False)]
)
def test_norm_keeps_the_channels_last_on_a_gpu(samples, ordered, kept):
    """Holds if the batch is small enough for single samples; torch's meta device stands for a GPU."""
    norm = InstanceNorm(4).to("meta")
    x = torch.empty(samples, 4, 6, 5, 3, device="meta")
    y = norm(channels_last(x) if ordered else x)
    assert y.shape == x.shape
    assert y.is_contiguous(memory_format=torch.channels_last_3d) == kept


@pytest.mark.parametrize("shortcut", [True, False])
@pytest.mark.parametrize("order", ["channels first", "channels last"])
@pytest.mark.parametrize("size", [(5, 6), (4, 5, 6)])
def test_norm_and_activation_in_one_are_the_same(size, order, shortcut):
    """Result and gradients are those of norm, sum and activation one after the other."""
    generator = torch.Generator().manual_seed(3)
    x, added = torch.randn(2, 3, 7, *size, generator=generator, dtype=torch.float64) * 5 + 2
    weight, bias = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    norm = InstanceNorm(7)
    inputs = (x, weight, bias, added) if shortcut else (x, weight, bias)

    def ours(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | None = None) -> Tensor:
        ordered = channels_last(x) if order == "channels last" else x
        with unittest.mock.patch.object(InstanceNorm, "forward", InstanceNorm.activate):
            return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (ordered, added))

    def theirs(x: Tensor, weight: Tensor, bias: Tensor, added: Tensor | float = 0.0) -> Tensor:
        return F.leaky_relu(F.instance_norm(x, weight=weight, bias=bias, eps=1e-5) + added, 0.01)

    for our, their in zip(gradients(ours, *inputs), gradients(theirs, *inputs), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_activation_have_the_bits_of_the_single_layers(dtype):
    """In training the values are those that norm, sum and activation one after the other have, in both precisions."""
    block = InstanceNorm(5)
    disturb(block)
    x, added = torch.randn(2, 3, 5, 4, 6, 5, generator=torch.Generator().manual_seed(3)).to(dtype)
    x, added = channels_last(x).requires_grad_(), channels_last(added)
    expected = F.leaky_relu_(block.normalize_each(x).add_(added), 0.01)
    y = block.activate(x, added)
    assert torch.equal(y, expected)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)
    weighting = channels_last(torch.randn(y.shape, generator=torch.Generator().manual_seed(4)).to(dtype))
    ours, theirs = (torch.autograd.grad(value, (x, *block.parameters()), weighting) for value in (y, expected))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their)


@pytest.mark.parametrize("size", [(32, 33, 32), (512, 512)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_of_few_features_is_right_forwards_and_backwards(size, dtype):
    """Large maps of 8 features, whose voxels are taken side by side, against torch's norm in double precision."""
    generator = torch.Generator().manual_seed(6)
    x = channels_last((torch.randn(2, 8, *size, generator=generator) * 3 + 20).to(dtype))
    assert is_narrow(x[:1])
    weighting = channels_last(torch.randn(x.shape, generator=generator).to(dtype))
    norm = InstanceNorm(8)
    disturb(norm)
    x.requires_grad_()
    y = norm(x)
    ours = y, *torch.autograd.grad(y, (x, *norm.parameters()), weighting)
    precise = [tensor.detach().double().requires_grad_() for tensor in (x, *norm.parameters())]
    expected = F.instance_norm(precise[0], weight=precise[1], bias=precise[2], eps=1e-5)
    theirs = expected, *torch.autograd.grad(expected, precise, weighting.double())
    tolerances = {"rtol": 1e-5, "atol": 2e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.double() / their.abs().max(), their / their.abs().max(), **tolerances)


@pytest.mark.parametrize("order", [channels_last, torch.clone])
def test_statistics_keep_their_digits_far_from_zero(order):
    """A mean a thousand times the standard deviation, which sums of squares would lose."""
    x = torch.randn(1, 8, 24, 20, 16, generator=torch.Generator().manual_seed(7)) + 1000
    variance, mean = torch.var_mean(x.double(), dim=(0, 2, 3, 4), correction=0)
    ours = measure_statistics(order(x))
    torch.testing.assert_close(ours[0].double(), mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[1].double(), variance, rtol=1e-3, atol=0)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("stride", [(1, 1), (1, 2), (1, 1, 1), (2, 1, 2)])
def test_convolution_of_two_parts_is_that_of_the_joined_map(stride, samples):
    """Result and gradients agree, whether the parts are joined or convolved by themselves."""
    generator = torch.Generator().manual_seed(5)
    kernel = (3,) * len(stride)
    convolution = ConvBlock(9, 4, kernel, stride).conv
    first, second = (
        torch.randn(samples, channels, *(6, 8, 10)[: len(stride)], generator=generator) for channels in (6, 3)
    )
    weight, bias = torch.randn(4, 9, *kernel, generator=generator), torch.randn(4, generator=generator)

    def ours(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        parameters = {"convolution.weight": weight, "convolution.bias": bias}
        return torch.func.functional_call(Joined(convolution), parameters, (first, second))

    def theirs(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        function = F.conv2d if len(stride) == 2 else F.conv3d
        return function(torch.cat([first, second], dim=1), weight, bias, stride, 1)

    inputs = channels_last(first), channels_last(second), weight, bias
    for our, their in zip(gradients(ours, *inputs), gradients(theirs, *inputs), strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-4)


class Joined(nn.Module):
    """Applies a convolution to a map that comes in two parts."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return convolve_both(self.convolution, first, second)


def test_parts_are_not_rounded_in_16_bits():
    """There the parts are joined, and the result has the bits of one convolution."""
    convolution = ConvBlock(6, 4, (3, 3, 3), (1, 1, 1)).conv
    maps = torch.randn(2, 6, 4, 5, 6, generator=torch.Generator().manual_seed(5))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(convolve_both(convolution, *maps.split((4, 2), dim=1)), convolution(maps))


@pytest.mark.parametrize("activates", [False, True])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("ordered", [False, True])
def test_gradient_may_have_another_order_than_the_map(samples, activates, ordered):
    """The gradient of torch's batch norm is wrong for a single sample whose gradient has the other order."""
    generator = torch.Generator().manual_seed(6)
    x, weighting = torch.randn(2, samples, 5, 4, 4, generator=generator)
    norm = InstanceNorm(5)
    disturb(norm)
    x = (channels_last(x) if ordered else x).requires_grad_()
    results = []
    for gradient in (weighting.contiguous(), channels_last(weighting)):
        y = norm.activate(x) if activates else norm(x)
        results.append(torch.autograd.grad(y, (x, *norm.parameters()), gradient))
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
