"""The parts of TransUNet, and its fixed patch size."""

import numpy as np
import pytest
import torch
from literature_networks import build, image_for
from torch import nn

from autoseg.inference.predictor import FunctionPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.networks.literature.table import NETWORKS


def test_parts_have_the_weights_that_are_published():
    """The weights of the ResNet with the transformer, and of the decoder, agree; the head is the rest."""
    spec = NETWORKS["transunet"]
    architecture = spec.make_architecture({}, 2, in_channels=1, out_channels=9)
    parts = {}
    for name, layer in spec.count({}, architecture, (224, 224)).layers.items():
        part = name.split(".")[0]
        parts[part] = parts.get(part, 0) + layer.weights
    assert parts["resnet"] + parts["transformer"] == 97_888_576
    assert parts["decoder"] == 7_387_200
    assert parts["head"] == 1_305


def test_grey_is_the_same_three_times():
    """An image of three channels is taken as it is, and so is one of two."""
    grey, colour = build("transunet").eval(), build("transunet", channels=3).eval()
    image = image_for(grey)
    assert torch.equal(grey(image), colour(image.expand(-1, 3, -1, -1)))
    assert build("transunet", channels=2).get_submodule("resnet.stem.conv").layer.in_features == 2


def test_transformer_layers_are_those_of_torch():
    """The transformer equals torch's with pre-norm and the same weights, in evaluation mode."""
    network = build("transunet", features=16).eval()
    features, heads = network.settings.token_features, network.settings.heads
    assert (features, heads) == (192, 3)
    own = {name: network.get_submodule(f"transformer.0.{name}") for name in ("query", "key", "value", "mixed")}
    torchs = nn.TransformerEncoderLayer(
        features, heads, 4 * features, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    for layer in own.values():
        nn.init.normal_(layer.bias)
    weights = {
        f"in_proj_{kind}": torch.cat([getattr(own[name], kind) for name in ("query", "key", "value")])
        for kind in ("weight", "bias")
    }
    torchs.self_attn.load_state_dict(
        weights | {f"out_proj.{key}": one for key, one in own["mixed"].state_dict().items()}
    )
    for name, other in (("norm0", "norm1"), ("norm1", "norm2"), ("wide", "linear1"), ("narrow", "linear2")):
        getattr(torchs, other).load_state_dict(network.get_submodule(f"transformer.0.{name}").state_dict())
    seen = []
    for layer in (0, 1):
        norm = network.get_submodule(f"transformer.{layer}.norm0")
        norm.register_forward_pre_hook(lambda _, given: seen.append(given[0].flatten(2).mT))
    network(image_for(network))
    torch.testing.assert_close(torchs(seen[0]), seen[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("features", "heads"), [(4, 1), (16, 3), (40, 6), (64, 12), (128, 24)])
def test_heads_follow_from_the_features(features, heads):
    """Each head has 64 features of a token, or a few more where 64 does not divide them."""
    spec = NETWORKS["transunet"]
    assert spec.parse({"features": features}).heads == heads
    with pytest.raises(ValueError, match="multiple of 4"):
        spec.complete({"features": 6})


def test_size_of_the_weights_of_the_resnet_does_not_count():
    """Scaling and shifting the weights has no effect, since they are standardized."""
    network = build("transunet").eval()
    image = image_for(network)
    before = network(image)
    for name, layer in network.layers.items():
        if layer.standardized:
            network.get_submodule(name).weight.data.mul_(3).add_(0.5)
    torch.testing.assert_close(network(image), before, rtol=1e-3, atol=1e-3)


def test_skips_are_the_three_finest_maps_of_the_resnet():
    """Skips are concatenated with the decoder's map; the last level has none."""
    network = build("transunet", features=8)
    given = [network.get_submodule(f"decoder.{number}.0.conv").in_channels for number in range(4)]
    assert given == [64 + 64, 32 + 32, 16 + 8, 8]


# --- One size of patches ----------------------------------------------------------------------------------------------


def test_another_size_is_refused():
    """Every position has an embedding of its own."""
    network = build("transunet")
    with pytest.raises(RuntimeError, match="must match the size"):
        network(torch.zeros(2, 1, 32, 64))


def test_larger_images_are_predicted_patch_by_patch():
    """Larger images are predicted in tiles, and smaller ones padded."""
    network = build("transunet", classes=3).eval()
    sizes = set()
    network.register_forward_pre_hook(lambda _, given: sizes.add(tuple(given[0].shape[2:])))
    for shape in ((2, 150, 70), (1, 20, 90)):
        image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
        with torch.inference_mode():
            logits = predict_volume(
                image, FunctionPredictor(network), patch_size=(64, 64), batch_size=2, device=torch.device("cpu")
            )
        assert logits.shape == (3, *shape)
    assert sizes == {(64, 64)}
