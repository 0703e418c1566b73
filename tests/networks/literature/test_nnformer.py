"""nnFormer: its settings, sizes and parts."""

import pytest
import torch
from literature_networks import narrow
from small_models import usual_loss
from torch import nn

from autoseg.networks import torch_ops
from autoseg.networks.feature_map import FeatureMap
from autoseg.networks.literature.nnformer import NNFORMER
from autoseg.networks.literature.swin import count_heads, drop_path_rates
from autoseg.networks.shape_ops import ShapeOps
from autoseg.networks.torch_network import build_torch_network
from autoseg.training.losses import deep_supervision_weights

ORGANS = {"features": 192, "token": [2, 4, 4], "decoder_head_features": 32}
HEART = {
    "token": [1, 4, 4],
    "reductions": [[1, 2, 2], [2, 2, 2], [2, 2, 2]],
    "windows": [[3, 5, 5], [3, 5, 5], [7, 10, 10], [3, 5, 5]],
    "decoder_head_features": 32,
}


class Noting(ShapeOps):
    """Records sizes, heads and windows of the attention, and the rates of stochastic depth."""

    def __init__(self):
        super().__init__(3)
        self.met, self.shares = [], []

    def attention(self, query, key, value, heads, window=None):
        self.met.append((query.size, query.channels, heads, window))
        return super().attention(query, key, value, heads, window)

    def drop_path(self, x, share):
        self.shares.append(share)
        return super().drop_path(x, share)


def run_on_shapes(patch, **given):
    """Returns the record and the logits of training."""
    noting = Noting()
    return noting, NNFORMER.forward(noting, FeatureMap(1, patch), 4, NNFORMER.parse(given))


def build(seed=0, **given):
    """Builds a narrow network for one channel and two classes."""
    settings = NNFORMER.complete(narrow("nnformer", **given))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_torch_network(
            NNFORMER, NNFORMER.make_architecture(settings, 3, in_channels=1, out_channels=2), settings
        )


def noise(*patch, samples=2):
    """Returns a random image."""
    return torch.randn(samples, 1, *patch, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("patch", "given", "sizes"),
    [
        ((128, 128, 128), {}, [(128, 128, 128), (64, 64, 64), (32, 32, 32)]),
        ((64, 128, 128), ORGANS, [(64, 128, 128), (32, 64, 64), (16, 32, 32)]),
        ((16, 160, 160), HEART, [(16, 160, 160), (16, 80, 80), (8, 40, 40)]),
    ],
)
def test_logits_are_of_three_resolutions(patch, given, sizes):
    """Training has three outputs, of which the loss weighs two; the finest alone predicts."""
    noting, logits = run_on_shapes(patch, **given)
    assert [one.size for one in logits] == sizes
    assert {one.channels for one in logits} == {4}
    assert deep_supervision_weights(sizes) == (2 / 3, 1 / 3, 0)
    predicting = ShapeOps(3, training=False)
    assert [one.size for one in NNFORMER.forward(predicting, FeatureMap(1, patch), 4, NNFORMER.parse(given))] == sizes[
        :1
    ]
    assert predicting.layers.keys() == noting.layers.keys() - {"heads.1", "heads.2"}


def test_published_patches_need_no_padding_and_see_all_at_the_coarsest():
    """The heads are those of the paper, for each level of encoder and decoder."""
    for patch, given, up in (((128,) * 3, {}, (24, 12, 6)), ((64, 128, 128), ORGANS, (24, 12, 6))):
        met = run_on_shapes(patch, **given)[0].met
        down = (3, 6, 12, 24) if not given else (6, 12, 24, 48)
        assert [heads for _, _, heads, _ in met] == [heads for heads in (*down, *up) for _ in range(2)]
        assert [size for size, *_ in met[::2]] == [(edge,) * 3 for edge in (32, 16, 8, 4, 8, 16, 32)]
        assert all(
            length % edge == 0 for size, *_, window in met for length, edge in zip(size, window.edges, strict=True)
        )
        assert all(window.edges == size for size, *_, window in met if max(size) <= 8)
        assert [window.shifted for *_, window in met] == [False, True] * 7
    assert [heads for _, _, heads, _ in run_on_shapes((16, 160, 160), **HEART)[0].met[8:]] == [12, 12, 6, 6, 3, 3]


def test_deep_blocks_leave_out_more_samples():
    """The rate grows from 0 to 0.2 in the encoder, and is the same in the decoder and in both branches of a block."""
    found = run_on_shapes((128, 128, 128))[0].shares[::2]
    down = [0.2 * number / 7 for number in range(8)]
    assert found == pytest.approx([*down, *down[4:6], *down[2:4], *down[:2]])
    assert drop_path_rates(0.3, (1, 2, 1)) == [[0.0], pytest.approx([0.1, 0.2]), [pytest.approx(0.3)]]
    assert drop_path_rates(0.2, (1,)) == [[0.0]]


@pytest.mark.parametrize(
    ("features", "head_features", "heads"), [(96, 32, 3), (4, 32, 1), (8, 2, 4), (100, 30, 2), (7, 2, 1), (96, 1, 96)]
)
def test_heads_divide_the_features(features, head_features, heads):
    """There are as many heads as possible, none narrower than stated."""
    assert count_heads(features, head_features) == heads


@pytest.mark.parametrize("patch", [(32, 16, 16), (16, 48, 32), (64, 16, 80)])
def test_any_patch_that_the_network_divides_will_do(patch):
    """Windows are clipped along some axes and padded along others."""
    network = build(drop_path=0.0)
    image = noise(*patch, samples=1)
    logits = network(image)
    assert [tuple(one.shape[2:]) for one in logits] == [tuple(edge // step for edge in patch) for step in (1, 2, 4)]
    assert all(one.isfinite().all() for one in logits)
    assert network.eval()(image).shape == (1, 2, *patch)


def test_skip_attention_asks_with_what_comes_up(monkeypatch):
    """Queries are the normalized map itself; keys and values are linear layers of the normalized skip."""
    network, met, seen = build(), [], {}
    original = torch_ops.window_attention
    monkeypatch.setattr(torch_ops, "window_attention", lambda *given: (met.append(given), original(*given))[1])
    for name in ("up0.conv", "skips.0", "decoder.0.0.norm0"):
        network.get_submodule(name).register_forward_hook(lambda *found, name=name: seen.update({name: found[2]}))
    network(noise(16, 16, 16))
    query, key, value, *_ = met[-2]
    lined = torch.cat([seen[name].flatten(2) for name in ("up0.conv", "skips.0")], dim=2)
    normed = network.get_submodule("decoder.0.0.norm0")(lined)
    torch.testing.assert_close(normed, seen["decoder.0.0.norm0"])
    voxels = query[0, 0].numel()
    torch.testing.assert_close(query.flatten(2), normed[:, :, :voxels])
    for found, part in ((key, "key"), (value, "value")):
        linear = network.get_submodule(f"decoder.0.0.{part}")
        torch.testing.assert_close(found.flatten(2), linear(normed[:, :, voxels:]))
    assert not hasattr(network.get_submodule("decoder.0.0"), "query")


def test_skip_goes_past_the_attention():
    """With nothing else in the block, its output is the sum of the upsampled map and the skip."""
    network, seen = build(), {}
    block = network.get_submodule("decoder.0.0")
    for layer in (block.mixed, block.narrow):
        nn.init.zeros_(layer.weight)
    names = {"up": "up0.conv", "skip": "skips.0"}
    for key, name in names.items():
        network.get_submodule(name).register_forward_hook(lambda *found, key=key: seen.update({key: found[2]}))
    following = network.get_submodule("decoder.0.1.norm0")
    following.register_forward_pre_hook(lambda _, given: seen.update(out=given[0]))
    network(noise(16, 16, 16))
    torch.testing.assert_close(seen["out"], seen["up"] + seen["skip"])


def test_samples_are_left_out_in_training_alone():
    """Stochastic depth follows torch's global generator; prediction is deterministic."""
    network = build(drop_path=0.9)
    image, found = noise(16, 16, 16), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(network(image)[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    network.eval()
    assert torch.equal(network(image), network(image))


def test_all_but_the_coarsest_logits_learn():
    """Gradients reach all weights through the default loss, on labels of all resolutions."""
    network = build(drop_path=0.0)
    outputs = network(noise(32, 32, 32))
    usual_loss(2)(outputs, torch.randint(2, (2, 32, 32, 32))).backward()
    assert [name for name, one in network.named_parameters() if one.grad is None] == ["heads.2.weight", "heads.2.bias"]
