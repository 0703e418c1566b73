"""Swin-Unet: its settings, sizes and parts."""

import pytest
import torch
from literature_networks import narrow

from autoseg.networks.feature_map import FeatureMap
from autoseg.networks.literature.swin_unet import SWIN_UNET
from autoseg.networks.shape_ops import ShapeOps
from autoseg.networks.torch_network import build_torch_network
from autoseg.networks.torch_ops import TorchOps

PUBLISHED_SWIN_T = 28_288_354
"""Number of weights of the tiny Swin transformer that classifies 1000 classes."""


def build(channels=1, **given):
    """Builds a narrow network for two classes, always with the same weights."""
    settings = SWIN_UNET.complete(narrow("swin_unet", **given))
    architecture = SWIN_UNET.make_architecture(settings, 2, in_channels=channels, out_channels=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_torch_network(SWIN_UNET, architecture, settings)


def noise(*patch, channels=1, samples=2):
    """Returns a random image."""
    return torch.randn(samples, channels, *patch, generator=torch.Generator().manual_seed(1))


def test_way_down_is_the_tiny_swin_transformer():
    """The weights agree except for the layer that classifies 1000 classes, with six blocks at the third resolution."""
    given = {"blocks": [2, 2, 6, 2]}
    architecture = SWIN_UNET.make_architecture(given, 2, in_channels=3, out_channels=9)
    layers = SWIN_UNET.count(given, architecture, (224, 224)).layers
    down = ("embedding", "encoder", "merge")
    assert sum(one.weights for name, one in layers.items() if name.startswith(down)) == PUBLISHED_SWIN_T - 769 * 1000


def test_published_patch_needs_no_padding():
    """There are four resolutions, the coarsest of which is one window; heads have 32 features."""
    met = []

    class Noting(ShapeOps):
        def attention(self, query, key, value, heads, window=None):
            met.append((query.size, query.channels // heads, window))
            return super().attention(query, key, value, heads, window)

    logits = SWIN_UNET.forward(Noting(2), FeatureMap(1, (224, 224)), 9, SWIN_UNET.parse({}))
    assert [one.size for one in logits] == [(224, 224)]
    assert [size for size, *_ in met[::2]] == [(edge, edge) for edge in (56, 28, 14, 7, 14, 28, 56)]
    assert {width for _, width, _ in met} == {32}
    assert [window.shifted for *_, window in met] == [False, True] * 7


def test_grey_is_repeated():
    """One channel is repeated three times; two become the first, the second and the first."""
    grey = noise(64, 32)
    networks = [build(channels).eval() for channels in (1, 2, 3)]
    torch.testing.assert_close(networks[0](grey), networks[2](grey.expand(-1, 3, -1, -1)))
    two = noise(64, 32, channels=2)
    torch.testing.assert_close(networks[1](two), networks[2](two[:, [0, 1, 0]]))
    with pytest.raises(ValueError, match="takes at most 3 channels with these settings, not 4"):
        build(4)
    assert build(4, image_channels=4).eval()(noise(64, 32, channels=4)).shape == (2, 2, 64, 32)


@pytest.mark.parametrize("patch", [(64, 64), (32, 96), (160, 64)])
@pytest.mark.parametrize("window", [7, 4, 3])
def test_any_patch_that_the_network_divides_will_do(patch, window):
    """Windows are clipped or padded."""
    logits = build(window=window)(noise(*patch))[0]
    assert logits.shape == (2, 2, *patch)
    assert logits.isfinite().all()


def test_expanding_undoes_merging():
    """Both are inverse, in two and three dimensions; a block's voxels become features, the last axis fastest."""
    net = TorchOps(torch.nn.Identity())
    for size in ((4, 6), (4, 2, 6)):
        x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
        merged = net.space_to_depth(x, 2)
        assert merged.shape == (2, 3 * 2 ** len(size), *[length // 2 for length in size])
        assert torch.equal(merged[:, :3], x[(..., *[slice(None, None, 2)] * len(size))])
        assert torch.equal(merged[:, 3:6], x[(..., *[slice(None, None, 2)] * (len(size) - 1), slice(1, None, 2))])
        assert torch.equal(net.depth_to_space(merged, 2), x)


def test_fresh_weights_are_narrow():
    """Weights of linear layers and tables are within twice 0.02; biases are 0, norms are the identity."""
    network = build(features=16)
    for name, layer in network.layers.items():
        module = network.get_submodule(name)
        if layer.kind in ("linear", "relative_position_bias"):
            assert module.weight.abs().max() <= 0.04
            assert module.weight.std().item() == pytest.approx(0.0176, rel=0.2)  # after truncation
        if layer.kind == "layer_norm":
            assert module.weight.min() == module.weight.max() == 1
        if layer.kind in ("linear", "layer_norm") and module.bias is not None:
            assert module.bias.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_maps_stay_in_16_bits(dtype):
    """Features are repeated before the first convolution; the logits are close to those of float32."""
    network, kinds = build(), {}
    for name, layer in network.layers.items():
        if layer.kind != "relative_position_bias":
            network.get_submodule(name).register_forward_hook(
                lambda *found, name=name: kinds.update({name: found[2].dtype})
            )
    image = noise(64, 64)
    with torch.autocast("cpu", dtype):
        rounded = network.eval()(image)
    assert set(kinds.values()) == {dtype}
    exact = network(image)
    assert (rounded.float() - exact).norm() < 0.1 * exact.norm()
