"""Tests of the network and its blocks."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.network.blocks import ConvStage, InstanceNorm, Upsampling, channels_last
from autoseg.network.unet import UNet, build_network
from autoseg.plan import Architecture, Stage


def architecture(
    features: tuple[int, ...] = (4, 6, 8),
    *,
    dimensions: int = 3,
    channels: int = 1,
    classes: int = 3,
    convolutions: tuple[int, ...] | None = None,
    residual: str = "stage",
    deep_supervision: bool = True,
) -> Architecture:
    """A network that halves every axis at every stage."""
    counts = convolutions or (2,) * len(features)
    stages = tuple(
        Stage(
            features=width,
            kernel=(3,) * dimensions,
            stride=(2 if level else 1,) * dimensions,
            convolutions=count,
        )
        for level, (width, count) in enumerate(zip(features, counts, strict=True))
    )
    return Architecture(
        residual=residual,
        in_channels=channels,
        out_channels=classes,
        stages=stages,
        deep_supervision=deep_supervision,
    )


def count_parameters(described: Architecture) -> int:
    """Counts without allocating anything."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNet(described).parameters())


@pytest.mark.parametrize(
    ("features", "dimensions", "channels", "classes", "expected"),
    [
        ((32, 64, 128, 256, 320, 320), 3, 1, 2, 31_195_594),
        ((32, 64, 128, 256, 320, 320), 3, 1, 3, 31_196_399),
        ((32, 64, 128, 256, 320, 320), 3, 4, 4, 31_199_796),
        ((32, 64, 128, 256, 320), 3, 1, 2, 16_547_592),
        ((32, 64, 128, 256, 512, 512, 512), 2, 1, 2, 33_471_820),
        ((32, 64, 128, 256, 512, 512, 512, 512), 2, 1, 2, 46_324_558),
    ],
)
def test_plain_network_has_the_parameters_of_the_reference(features, dimensions, channels, classes, expected):
    """The plain U-Net has exactly as many parameters as the reference method's network."""
    described = architecture(features, dimensions=dimensions, channels=channels, classes=classes, residual="none")
    assert count_parameters(described) == expected


@pytest.mark.parametrize("residual", ["stage", "none"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_logits_have_the_sizes_of_the_decoder_stages(dimensions, residual):
    """In training there are logits from full to coarsest resolution; in evaluation only the full ones, the same."""
    network = build_network(architecture(dimensions=dimensions, residual=residual), torch.Generator().manual_seed(1))
    image = torch.randn(2, 1, *(16, 12, 8)[:dimensions], generator=torch.Generator().manual_seed(2))
    outputs = network(image)
    assert [tuple(logits.shape) for logits in outputs] == [
        (2, 3, *(16, 12, 8)[:dimensions]),
        (2, 3, *(8, 6, 4)[:dimensions]),
    ]
    torch.testing.assert_close(network.eval()(image), outputs[0])


def test_without_deep_supervision_there_is_one_head():
    """The list of a network without deep supervision holds the full resolution alone."""
    network = build_network(architecture(deep_supervision=False))
    assert len(network.heads) == 1
    assert [logits.shape[2:] for logits in network(torch.zeros(1, 1, 8, 8, 8))] == [(8, 8, 8)]


def test_anisotropic_strides_and_kernels():
    """Kernels and strides may differ between axes and stages."""
    described = Architecture(
        residual="stage",
        in_channels=2,
        out_channels=2,
        stages=(
            Stage(features=4, kernel=(1, 3, 3), stride=(1, 1, 1), convolutions=1),
            Stage(features=6, kernel=(3, 3, 3), stride=(1, 2, 2), convolutions=2),
            Stage(features=8, kernel=(3, 3, 3), stride=(2, 2, 3), convolutions=3),
        ),
    )
    outputs = build_network(described)(torch.zeros(1, 2, 4, 8, 12))
    assert [tuple(logits.shape[2:]) for logits in outputs] == [(4, 8, 12), (4, 4, 6)]


@pytest.mark.parametrize("size", [(16, 12, 10), (16, 12)])
def test_impossible_size_is_refused(size):
    """A size that the strides do not divide, or of another number of axes, is refused with the remedy."""
    with pytest.raises(ValueError, match=r"divisible by \(4, 4, 4\)"):
        build_network(architecture())(torch.zeros(1, 1, *size))


def test_same_seed_builds_the_same_network():
    """Weights follow from the generator alone, and torch's own generator is left alone."""
    before = torch.random.get_rng_state()
    networks = [build_network(architecture(), torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    states = [network.state_dict() for network in networks]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["encoder.0.blocks.0.conv.weight"], states[2]["encoder.0.blocks.0.conv.weight"])


def test_weights_start_by_hes_rule():
    """Weights have He's standard deviation for the leaky ReLU, biases are 0, norms change nothing."""
    network = build_network(architecture((32, 64)), torch.Generator().manual_seed(0))
    convolution = network.encoder[1].blocks[0]
    deviation = (2 / (1 + 0.01**2) / (32 * 27)) ** 0.5
    assert convolution.conv.weight.std().item() == pytest.approx(deviation, rel=0.02)
    assert network.upsampling[0].weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / (32 * 8)) ** 0.5, rel=0.02)
    assert not any(value.any() for name, value in network.state_dict().items() if name.endswith("bias"))
    assert (convolution.norm.weight == 1).all()


def test_every_parameter_learns():
    """A loss on all logits reaches every parameter; only biases before a norm have no effect."""
    network = build_network(architecture(convolutions=(1, 2, 3)), torch.Generator().manual_seed(0))
    image = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    sum(logits.square().sum() for logits in network(image)).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-3]
    assert all(name.endswith("conv.bias") for name in silent), silent


def plain_stage(stage: ConvStage, x: Tensor, *, residual: bool) -> Tensor:
    """The stage again, with torch's own layers."""
    first = None
    for number, block in enumerate(stage.blocks):
        y = F.conv3d(x, block.conv.weight, block.conv.bias, block.conv.stride, block.conv.padding)
        y = F.instance_norm(y, weight=block.norm.weight, bias=block.norm.bias, eps=1e-5)
        if residual and number and number == len(stage.blocks) - 1:
            y = y + first
        x = F.leaky_relu(y, 0.01)
        first = x if number == 0 else first
    return x


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("convolutions", [1, 2, 3])
def test_stage_adds_its_first_output_before_the_last_activation(convolutions, residual):
    """A residual stage activates the sum of its last norm and its first output; one convolution adds nothing."""
    described = Stage(features=4, kernel=(3, 3, 3), stride=(2, 2, 2), convolutions=convolutions)
    stage = ConvStage(2, described, described.stride, residual=residual)
    x = torch.randn(2, 2, 8, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(stage(x), plain_stage(stage, x, residual=residual), rtol=1e-4, atol=1e-5)


def gradients(function, *inputs: Tensor) -> list[Tensor]:
    """The result of a function, and the gradients of a fixed weighting of it."""
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    result = function(*leaves)
    weighting = torch.linspace(-1, 2, result.numel(), dtype=result.dtype).reshape(result.shape)
    return [result, *torch.autograd.grad((result * weighting).sum(), leaves)]


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


@pytest.mark.parametrize("dimensions", [2, 3])
def test_feature_maps_keep_the_channels_last(dimensions):
    """No layer undoes the order of the memory: it would cost the next convolution a copy."""
    network = build_network(architecture(dimensions=dimensions))
    order = torch.channels_last if dimensions == 2 else torch.channels_last_3d
    disordered = []

    def look(name: str):
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            for value in output if isinstance(output, list) else [output]:
                if not value.is_contiguous(memory_format=order):
                    disordered.append(name)

        return hook

    for name, module in network.named_modules():
        module.register_forward_hook(look(name))
    with torch.autocast("cpu", torch.bfloat16):
        network(torch.zeros(2, 1, *(8, 8, 8)[:dimensions]))
    assert disordered == []
