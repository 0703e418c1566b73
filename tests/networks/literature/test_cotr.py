"""The parts of CoTr; `test_deformable_attention` tests its attention."""

import pytest
import torch
from literature_networks import build, image_for
from torch import nn
from torch.nn import functional as F

from autoseg.networks.feature_map import FeatureMap
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.shape_ops import ShapeOps


def seen_by(network, image, *names):
    """Records the inputs and outputs of the layers of these names."""
    seen = {}
    for name in names:
        layer = network.get_submodule(name)
        layer.register_forward_hook(lambda _, given, made, name=name: seen.update({name: (given[0], made)}))
    outputs = network(image)
    return seen, outputs


def test_parts_have_the_weights_that_are_published():
    """The weights of the encoder and the transformer agree; the rest is the decoder and the heads, with known sum."""
    spec = NETWORKS["cotr"]
    architecture = spec.make_architecture({}, 3, in_channels=1, out_channels=14)
    parts = dict.fromkeys(("encoder", "transformer"), 0)
    for name, layer in spec.count({}, architecture, (16, 32, 32)).layers.items():
        part = name.split(".")[0]
        parts[part] = parts.get(part, 0) + layer.weights
    assert parts["encoder"] == 20_500_800
    assert parts["transformer"] == 9_316_992
    assert parts["head"] + parts["heads"] == 14 * (64 + 64 + 192 + 384 + 4)


def test_outputs_have_the_published_sizes():
    """There are four outputs in training, of which the first alone predicts, and one without deep supervision."""
    image = torch.zeros(1, 1, 16, 64, 64)
    network = build("cotr", classes=3)
    sizes = [(16, 64, 64), (16, 32, 32), (8, 16, 16), (4, 8, 8)]
    assert [tuple(one.shape) for one in network(image)] == [(1, 3, *size) for size in sizes]
    assert network.eval()(image).shape == (1, 3, 16, 64, 64)
    assert len(build("cotr", deep_supervision=False)(image)) == 1


def test_tokens_are_the_voxels_of_the_two_coarsest_maps():
    """A patch of 48 x 192 x 192 has 6912 + 864 tokens, with six heads and four points in each of two maps."""
    spec = NETWORKS["cotr"]
    architecture = spec.make_architecture({}, 3, in_channels=1, out_channels=2)
    small, large = (spec.count({}, architecture, patch) for patch in ((16, 32, 32), (48, 192, 192)))
    assert small.layers == large.layers
    offsets, shares = (small.layers[f"transformer.0.sampling.{one}"] for one in ("offsets", "weights"))
    assert (offsets.features, shares.features) == (6 * 2 * 4 * 3, 6 * 2 * 4)
    ops = ShapeOps(3)
    spec.forward(ops, FeatureMap(1, (48, 192, 192)), 2, spec.parse({}))
    assert {one.size for one in ops.saved if len(one.size) == 1} == {(6912 + 864,)}


def test_head_comes_before_the_enlargement():
    """The head commutes with the upsampling."""
    network = build("cotr").eval()
    seen, logits = seen_by(network, image_for(network), "head")
    x, _ = seen["head"]
    enlarged = F.interpolate(x, scale_factor=(1, 2, 2), mode="trilinear")
    torch.testing.assert_close(logits, network.get_submodule("head")(enlarged))


def test_places_say_where_to_look_and_are_no_values():
    """With initial weights all tokens have the same offsets, so positional encodings change nothing."""
    network = build("cotr").eval()
    image = image_for(network)
    before = network(image)
    nn.init.normal_(network.get_submodule("transformer.map0").weight)
    assert torch.equal(network(image), before)
    nn.init.normal_(network.get_submodule("transformer.0.sampling.offsets").weight)
    assert not torch.allclose(network(image), before)


def test_layers_are_normalized_after_their_sums():
    """The tokens are the sum of a layer's input and of its parts, before each norm."""
    network = build("cotr").eval()
    parts = [f"transformer.0.{one}" for one in ("values", "mixed", "norm0", "wide", "narrow", "norm1")]
    seen, _ = seen_by(network, image_for(network), *parts)
    values, mixed, first, wide, narrow, second = (seen[part] for part in parts)
    torch.testing.assert_close(first[0], values[0] + mixed[1])
    torch.testing.assert_close(narrow[0], F.gelu(wide[1]))
    torch.testing.assert_close(second[0], first[1] + narrow[1])
    torch.testing.assert_close(second[1].mean(dim=1), torch.zeros_like(second[1][:, 0]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_for_training_only(training):
    """The same image gives the same logits in evaluation."""
    network = build("cotr").train(training)
    image = image_for(network)
    first, again = (network(image) for _ in range(2))
    assert torch.equal(first[0], again[0]) != training


def test_block_whose_norm_is_zero_passes_on_its_input():
    """The input is added to its single convolution; it is positive except for a hundredth."""
    network = build("cotr")
    nn.init.zeros_(network.get_submodule("encoder.stage0.1.norm").weight)
    seen, _ = seen_by(network, image_for(network), "encoder.stage0.1.conv", "encoder.stage0.2.conv")
    x, y = (seen[f"encoder.stage0.{number}.conv"][0] for number in (1, 2))
    torch.testing.assert_close(y, F.leaky_relu(x, 0.01))
