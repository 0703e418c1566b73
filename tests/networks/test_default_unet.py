"""The default network."""

import pytest
import torch
from small_models import PRECISIONS
from torch import nn
from torch.nn import functional as F

from autoseg.networks import default_unet
from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.blocks import ResidualBlock
from autoseg.networks.default_unet import UNet, build_network, segment
from autoseg.networks.instance_norm import channels_last


def architecture(
    features: tuple[int, ...] = (4, 6, 8),
    *,
    dimensions: int = 3,
    channels: int = 1,
    classes: int = 3,
    convolutions: tuple[int, ...] | None = None,
    blocks: tuple[int, ...] | None = None,
    decoder_convolutions: int | None = None,
    residual: str = "stage",
    deep_supervision: bool = True,
) -> Architecture:
    """Returns a network that halves every axis at every stage."""
    counts = convolutions or (2,) * len(features)
    blocks = blocks or (1,) * len(features)
    stages = tuple(
        Stage(
            features=width,
            kernel=(3,) * dimensions,
            stride=(2 if level else 1,) * dimensions,
            convolutions=count,
            blocks=number,
            decoder_convolutions=decoder_convolutions,
        )
        for level, (width, count, number) in enumerate(zip(features, counts, blocks, strict=True))
    )
    return Architecture(
        residual=residual,
        in_channels=channels,
        out_channels=classes,
        stages=stages,
        deep_supervision=deep_supervision,
    )


def count_parameters(described: Architecture) -> int:
    """Counts the parameters without allocating any memory."""
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


@pytest.mark.parametrize(
    ("features", "blocks", "dimensions", "channels", "classes", "expected"),
    [
        ((32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6), 3, 1, 2, 102_349_770),
        ((32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6), 3, 4, 4, 102_353_972),
        ((32, 64, 128, 256, 512, 512, 512), (1, 3, 4, 6, 6, 6, 6), 2, 1, 2, 105_916_812),
    ],
)
def test_residual_encoder_has_the_parameters_of_the_reference(
    features, blocks, dimensions, channels, classes, expected
):
    """The residual-encoder U-Net has exactly as many parameters as the reference method's network."""
    described = architecture(
        features,
        dimensions=dimensions,
        channels=channels,
        classes=classes,
        blocks=blocks,
        decoder_convolutions=1,
        residual="block",
    )
    assert count_parameters(described) == expected


@pytest.mark.parametrize(
    ("residual", "names"),
    [
        ("stage", ["encoder.0.blocks.0.conv.weight", "encoder.2.blocks.3.norm.bias", "decoder.0.blocks.0.conv.weight"]),
        ("none", ["encoder.0.blocks.0.conv.weight", "upsampling.1.weight", "heads.1.bias"]),
        ("block", ["stem.conv.weight", "encoder.2.1.second.norm.weight", "encoder.1.0.shortcut.conv.weight"]),
    ],
)
def test_parameters_keep_their_names(residual, names):
    """Checkpoints use the names of the parameters, so the names may not change; without a stem there is none."""
    state = build_network(architecture(blocks=(1, 1, 2), residual=residual)).state_dict()
    assert set(names) <= set(state)
    assert any(name.startswith("stem") for name in state) == (residual == "block")


@pytest.mark.parametrize("residual", ["stage", "none", "block"])
def test_way_up_has_one_block_of_its_own_length(residual):
    """The decoder has the stated number of convolutions, or as many as a block of the encoder."""
    described = {"blocks": (1, 2, 3), "residual": residual}
    for told, expected in [(1, 1), (3, 3), (None, 2)]:
        network = UNet(architecture(**described, decoder_convolutions=told))
        assert [len(stage.blocks) for stage in network.decoder] == [expected, expected]


@pytest.mark.parametrize("residual", ["stage", "none", "block"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_logits_have_the_sizes_of_the_decoder_stages(dimensions, residual):
    """Training returns logits from full to coarsest resolution; evaluation only the full ones, with equal values."""
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


@pytest.mark.parametrize(
    "described",
    [
        {"convolutions": (1, 2, 3)},
        {"convolutions": (1, 2, 3), "blocks": (2, 3, 1)},
        {"residual": "block", "blocks": (2, 1, 2), "decoder_convolutions": 1},
    ],
)
def test_every_parameter_learns(described):
    """A loss on all logits reaches every parameter; only biases before a norm have no effect."""
    network = build_network(architecture(**described), torch.Generator().manual_seed(0))
    for module in network.modules():
        if isinstance(module, ResidualBlock):  # starts at zero, which hides the convolutions in front
            nn.init.ones_(module.second.norm.weight)
    image = torch.randn(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))
    sum(logits.square().sum() for logits in network(image)).backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-3]
    assert all(name.endswith("conv.bias") for name in silent), silent


def test_residual_blocks_start_as_their_shortcuts():
    """The last norm of each residual block starts at zero, so a fresh block activates its shortcut alone."""
    network = build_network(architecture(residual="block", blocks=(1, 2, 3)), torch.Generator().manual_seed(0))
    blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
    assert len(blocks) == 6
    for block in blocks:
        assert not block.second.norm.weight.any()
        assert not block.second.norm.bias.any()
        assert (block.first.norm.weight == 1).all()
    x = torch.randn(1, 8, 6, 6, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(blocks[-1](x), F.leaky_relu(x, 0.01))


@pytest.mark.parametrize("residual", ["stage", "none", "block"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_recomputed_maps_give_the_same_gradients(dimensions, residual):
    """The gradients are equal to the last bit in float32, and autograd keeps nothing else between the stages."""
    network = build_network(architecture(dimensions=dimensions, residual=residual), torch.Generator().manual_seed(1))
    image = torch.randn(2, 1, *(16, 12, 8)[:dimensions], generator=torch.Generator().manual_seed(2))
    names, results, kept = list(network.state_dict()), [], []
    for recomputes in (False, True):
        network.recomputes = recomputes
        network.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept[-1].append(x.nbytes) or x, lambda x: x):
            kept.append([])
            loss = sum(logits.square().mean() for logits in network(image))
        loss.backward()
        results.append([loss.detach(), *(parameter.grad.clone() for parameter in network.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert list(network.state_dict()) == names
    assert sum(kept[1]) < 0.5 * sum(kept[0])


def test_nothing_is_recomputed_without_a_way_back(monkeypatch):
    """Neither evaluation mode nor a pass without gradients recomputes."""
    asked = []
    monkeypatch.setattr(
        default_unet, "checkpoint", lambda stage, *inputs, **_options: asked.append(stage) or stage(*inputs)
    )
    network, image = build_network(architecture()), torch.zeros(1, 1, 8, 8, 8)
    network.recomputes = True
    network.eval()(image)
    with torch.inference_mode():
        network.train()(image)
    assert asked == []
    network(image)
    assert len(asked) == 5  # three stages of the encoder, two of the decoder


@pytest.mark.parametrize("dimensions", [2, 3])
def test_weights_can_have_the_channels_last(dimensions):
    """All convolutions have the channels last, with unchanged values, and so has the image on any device."""
    network = build_network(architecture(dimensions=dimensions), torch.Generator().manual_seed(1)).eval()
    image = torch.randn(2, 1, *(16, 12, 8)[:dimensions], generator=torch.Generator().manual_seed(2))
    expected, order = network(image), torch.channels_last if dimensions == 2 else torch.channels_last_3d
    network.put_channels_last()
    torch.testing.assert_close(network(image), expected)
    convolutions = [p for p in network.parameters() if p.ndim > 2]
    assert len(convolutions) > 10
    assert all(weights.is_contiguous(memory_format=order) for weights in convolutions)
    with torch.device("meta"):
        elsewhere = UNet(architecture(dimensions=dimensions))
    elsewhere.put_channels_last()
    seen = []
    elsewhere.stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].stride(1)))
    elsewhere(image.to("meta"))
    assert seen == [1]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("residual", ["stage", "none", "block"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_feature_maps_keep_the_channels_last(dimensions, residual, dtype):
    """No layer undoes the order of the memory: it would cost the next convolution a copy.

    The batch is large, because torch leaves small ones of volumes in float32 to a convolution without any such order,
    if it has one thread.
    """
    network = build_network(architecture(dimensions=dimensions, blocks=(1, 2, 2), residual=residual))
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
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        network(torch.zeros(16, 1, *(8, 8, 8)[:dimensions]))
    assert disordered == []


@pytest.mark.parametrize("outputs", [1, 3, 9])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_head_is_a_convolution_of_kernel_1(dimensions, outputs):
    """The matrix product in its place has the same result and gradients."""
    generator = torch.Generator().manual_seed(1)
    head = (nn.Conv2d, nn.Conv3d)[dimensions - 2](5, outputs, 1)
    x = torch.randn(2, 5, *(4, 6, 8)[:dimensions], generator=generator).requires_grad_()
    results = head(x), segment(head, x)
    weighting = torch.randn(results[0].shape, generator=generator)
    torch.testing.assert_close(*results)
    for theirs, ours in zip(
        *(torch.autograd.grad(y, (x, *head.parameters()), weighting) for y in results), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_head_of_many_outputs_writes_one_map_after_the_other(dimensions, dtype):
    """The values are those of a convolution, in maps of their own, with the same bits in a batch of any size."""
    generator = torch.Generator().manual_seed(4)
    head = (nn.Conv2d, nn.Conv3d)[dimensions - 2](8, 14, 1).to(dtype)
    x = channels_last(torch.randn(3, 8, *(9, 12, 10)[:dimensions], generator=generator).to(dtype))
    with torch.inference_mode():
        logits = segment(head, x)
        assert logits.is_contiguous()
        torch.testing.assert_close(logits, head(x).contiguous())
        for number in range(3):
            assert torch.equal(segment(head, x[number : number + 1])[0], logits[number])
