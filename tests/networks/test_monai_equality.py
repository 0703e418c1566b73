"""The networks that MONAI has as well give the same numbers with the same weights.

Compared are V-Net in its batch-normalized form with `VNet`, the encoders of U-Nets on ResNets with `ResNet`, U-Net with
`BasicUNet`, UNet++ with `BasicUNetPlusPlus`, and the usual plain network with `DynUNet`. Where MONAI has more weights
than a page, they are set to what changes nothing, and each test says which these are.

Not compared, because MONAI's networks of these names are others, or it has none: its `AttentionUnet` weighs skips at
their own resolution, with batch normalization in the gate, and one gate at the finest level too, where the page has
the gates of the authors, at half the resolution, and none at the finest level; its U-Nets halve the features on the way
up, where 3D U-Net keeps them; its `UNet` has strided convolutions and no block at full resolution; `SwinUNETR` is no
Swin-Unet; and UNet 3+, ConResNet, CoTr, nnFormer and TransUNet it does not have.
"""

import pytest
import torch
from literature_networks import build
from torch import nn

from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.default_unet import build_network
from autoseg.networks.literature.resnet_unet import BLOCKS, encode
from autoseg.networks.torch_ops import TorchOps

nets = pytest.importorskip("monai.networks.nets")

CLOSE = 1e-5
"""Tolerance relative to the largest number; differences are due to another order of summation in 32 bits."""


def assert_same(one, other):
    """Asserts that all numbers agree except for rounding."""
    assert one.shape == other.shape
    assert (one - other).abs().max() <= CLOSE * other.abs().max()
    assert other.std() > 1e-3  # so that it is no constant that agrees


def noise(*shape):
    """Returns the same random image each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def unsettle(network):
    """Gives all weights and running means random values, so that none can be left out unnoticed."""
    generator = torch.Generator().manual_seed(2)
    for name, one in [*network.named_parameters(), *network.named_buffers()]:
        if one.is_floating_point() and one.ndim == 1:
            values = torch.rand(one.shape, generator=generator)
            one.copy_(values - 0.5 if name.endswith(("bias", "mean")) else 0.2 + values)
    return network


def in_order(network, image):
    """Returns the layers with weights, in the order in which they are used."""
    found, hooks = [], []
    for module in network.modules():
        if next(module.parameters(recurse=False), None) is not None:
            hooks.append(module.register_forward_pre_hook(lambda one, _: found.append(one)))
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    assert {id(one) for one in found} == {
        id(one) for one in network.modules() if dict(one.named_parameters(recurse=False))
    }
    return found


@torch.no_grad()
def give(target, source):
    """Copies a layer into one that may be wider, whose additional weights become 0, or that may have no bias."""
    if getattr(source, "bias", None) is not None and getattr(target, "bias", None) is None:
        source.bias.zero_()
    sources = dict([*source.named_parameters(), *source.named_buffers()])
    for name, one in [*target.named_parameters(), *target.named_buffers()]:
        values = sources[name]
        assert one.shape[2:] == values.shape[2:], "kernels must be equal"
        one.zero_()
        one[tuple(slice(length) for length in values.shape)] = values


# --- V-Net ------------------------------------------------------------------------------------------------------------


def test_vnet_is_that_of_monai():
    """V-Net agrees with batch norm, with PReLU instead of ELU, in evaluation, without dropout.

    MONAI activates the output of the last convolution of each stage but the first also before the sum: with slopes of 1
    that changes nothing. Its way up has no biases beside the norms, ours are 0 there.
    """
    settings = {"batch_norm": True, "convolutions": [1, 1, 2, 3, 2], "decoder_convolutions": [2, 2, 1, 1]}
    ours = unsettle(build("vnet", 3, classes=3, features=16, **settings)).eval()
    theirs = nets.VNet(spatial_dims=3, in_channels=1, out_channels=3, act="prelu", bias=True).eval()
    auxiliary_outputs = [
        one.ops[-1].act_function for key, one in theirs.named_children() if key.startswith(("down", "up"))
    ]
    for one in auxiliary_outputs:
        nn.init.ones_(one.weight)
    image = noise(1, 1, 16, 32, 16)
    layers = [one for one in in_order(theirs, image) if one not in auxiliary_outputs]
    for target, source in zip(layers, in_order(ours, image), strict=True):
        give(target, source)
    known = sum(one.numel() for one in ours.parameters()) + sum(one.weight.numel() for one in auxiliary_outputs)
    biases = [one.ops for key, one in theirs.named_children() if key.startswith("up")]
    left_out = sum(stage.conv_block.conv.out_channels for ops in biases for stage in ops)
    assert sum(one.numel() for one in theirs.parameters()) == known - left_out
    with torch.no_grad():
        assert_same(ours(image), theirs(image))


# --- ResNets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("layers", [18, 50])
def test_resnet_encoders_are_those_of_monai(dimensions, layers):
    """The ResNet agrees at all resolutions, with a strided first convolution, and shortcuts without biases."""
    ours = unsettle(build("resnet_unet", dimensions, channels=2, features=8, layers=layers)).eval()
    theirs = nets.ResNet(
        block="basic" if layers < 50 else "bottleneck",
        layers=list(BLOCKS[layers]),
        block_inplanes=[8, 16, 32, 64],
        spatial_dims=dimensions,
        n_input_channels=2,
        conv1_t_stride=2,
        feed_forward=False,
        bias_downsample=False,
    ).eval()
    image, maps = noise(1, 2, *[64] * dimensions), []
    theirs.maxpool.register_forward_pre_hook(lambda _, given: maps.append(given[0].clone()))
    for number in range(1, 5):
        theirs.get_submodule(f"layer{number}").register_forward_hook(lambda *found: maps.append(found[2].clone()))
    own = [one for one in in_order(ours, image) if one in set(ours.get_submodule("encoder").modules())]
    for target, source in zip(in_order(theirs, image), own, strict=True):
        give(target, source)
    maps.clear()
    with torch.no_grad():
        theirs(image)
        encoded = encode(TorchOps(ours), image, ours.settings)
    assert len(maps) == 5
    for one, other in zip(encoded, maps, strict=True):
        assert_same(one, other)


# --- U-Net and UNet++ -------------------------------------------------------------------------------------------------


def test_unet_is_the_basic_unet_of_monai():
    """U-Net agrees with batch norm. MONAI upsamples twice the features; the second half gets weights of 0."""
    ours = unsettle(build("unet", 2, channels=2, classes=3, features=8, batch_norm=True)).eval()
    theirs = nets.BasicUNet(
        spatial_dims=2, in_channels=2, out_channels=3, features=(8, 16, 32, 64, 128, 8), act="relu", norm="batch"
    ).eval()
    image = noise(2, 2, 64, 32)
    for target, source in zip(in_order(theirs, image), in_order(ours, image), strict=True):
        give(target, source)
    with torch.no_grad():
        assert_same(ours(image), theirs(image))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_nested_unet_is_the_basic_one_of_monai(dimensions):
    """UNet++ agrees with batch norm, in all four outputs; MONAI's last upsampling has twice the features."""
    ours = unsettle(build("unet_plus_plus", dimensions, classes=3, batch_norm=True))
    theirs = nets.BasicUNetPlusPlus(
        spatial_dims=dimensions,
        in_channels=1,
        out_channels=3,
        features=(4, 8, 16, 32, 64, 4),
        deep_supervision=True,
        act="relu",
        norm="batch",
    )
    image = noise(2, 1, *[32] * dimensions)
    pairs = list(pair_nested(ours.eval(), theirs.eval()))
    assert {id(target) for target, _ in pairs} == {id(one) for one in in_order(theirs, image)}
    for target, source in pairs:
        give(target, source)
    with torch.no_grad():
        for depth, logits in enumerate(theirs(image), start=1):
            pruned = build("unet_plus_plus", dimensions, classes=3, batch_norm=True, prediction_depth=depth).eval()
            pruned.load_state_dict(ours.state_dict())
            assert_same(pruned(image), logits)


# --- The usual network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strides", [((1, 1), (2, 2), (2, 1), (2, 2)), ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2))])
def test_plain_network_is_the_dynamic_unet_of_monai(strides):
    """The default network agrees with DynUNet, with unequal strides, as in the presets of the reference method.

    With unequal kernels they differ: on the way up MONAI has those of the next coarser resolution, and the reference
    method those of the same one, as we have. MONAI has no biases where a norm follows, where they change nothing, nor
    in transposed convolutions; ours are 0.
    """
    dimensions = len(strides[0])
    features = (4, 8, 16, 16)
    stages = tuple(
        Stage(features=wide, kernel=(3,) * dimensions, stride=stride, convolutions=2)
        for wide, stride in zip(features, strides, strict=True)
    )
    ours = unsettle(build_network(Architecture(residual="none", in_channels=2, out_channels=3, stages=stages)))
    theirs = nets.DynUNet(
        spatial_dims=dimensions,
        in_channels=2,
        out_channels=3,
        kernel_size=[3] * 4,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=features,
        deep_supervision=True,
        deep_supr_num=2,
    )
    for target, source in pair_usual(ours, theirs):
        give(target, source)
    image = noise(2, 2, *[16] * dimensions)
    with torch.no_grad():
        assert_same(ours.eval()(image), theirs.eval()(image))
        finest, *coarser = ours.train()(image)
        assert_same(finest, theirs.train()(image)[:, 0])
    for one, other in zip(coarser, theirs.heads, strict=True):
        assert_same(one, other)


def pair_usual(ours, theirs):
    """Yields the layers of a dynamic U-Net, each with its counterpart."""
    down = [theirs.input_block, *theirs.downsamples, theirs.bottleneck]
    for block, stage in zip(down, ours.encoder, strict=True):
        yield from pair_block(block, stage)
    for level, up in enumerate(reversed(theirs.upsamples)):
        yield up.transp_conv.conv, ours.upsampling[level]
        yield from pair_block(up.conv_block, ours.decoder[level])
    for head, own in zip([theirs.output_block, *theirs.deep_supervision_heads], ours.heads, strict=True):
        yield head.conv.conv, own


def pair_block(block, stage):
    """Yields two convolutions with their norms."""
    for number, own in enumerate(stage.blocks, start=1):
        yield block.get_submodule(f"conv{number}.conv"), own.conv
        yield block.get_submodule(f"norm{number}"), own.norm


def pair_nested(ours, theirs):
    """Yields the layers of MONAI's nested U-Net, each with its counterpart."""
    for level in range(5):
        for column in range(5 - level):
            block = theirs.get_submodule(f"{'upcat' if column else 'conv'}_{level}_{column}")
            if column:
                yield block.upsample.deconv, ours.get_submodule(f"up{level}{column}")
            convs = block if (level, column) == (0, 0) else block.convs
            for number in (0, 1):
                one = convs.get_submodule(f"conv_{number}")
                yield one.conv, ours.get_submodule(f"node{level}{column}.{number}.conv")
                yield one.adn.N, ours.get_submodule(f"node{level}{column}.{number}.norm")
    for depth in (1, 2, 3, 4):
        yield theirs.get_submodule(f"final_conv_0_{depth}"), ours.get_submodule(f"heads.{depth}")
