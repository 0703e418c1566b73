"""The high-resolution network: parallel branches that exchange maps, and can be removed."""

import pytest
import torch
from literature_networks import build, image_for
from torch.nn import functional as F

from autoseg.networks.literature.table import NETWORKS


def seen_by(network, name, image):
    """Returns the input and the output of a layer of a network for an image."""
    found = {}
    hook = network.get_submodule(name).register_forward_hook(
        lambda _, given, result: found.update(x=given[0].clone(), y=result.clone())
    )
    network(image)
    hook.remove()
    return found["x"], found["y"]


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("branches", [2, 3, 4])
def test_every_branch_predicts_at_its_own_resolution(dimensions, branches):
    """In training the branches' logits follow the fused prediction, which has the size of the image."""
    network = build("high_resolution", dimensions, branches=branches, rounds=1)
    image = image_for(network, samples=1)
    fused, *others = network(image)
    assert fused.shape[2:] == image.shape[2:]
    assert [one.shape[2:] for one in others] == [
        torch.Size(length // 2**branch for length in image.shape[2:]) for branch in range(branches)
    ]
    assert network.eval()(image).shape == fused.shape
    alone = build("high_resolution", dimensions, branches=branches, rounds=1, deep_supervision=False)
    assert len(alone(image)) == 1


@pytest.mark.parametrize("dimensions", [2, 3])
def test_fused_prediction_reaches_every_branch(dimensions):
    """The gradient reaches all weights except the other heads, and each branch affects every other one."""
    network = build("high_resolution", dimensions, rounds=1)
    network(image_for(network))[0].square().mean().backward()
    still = {key for key, one in network.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0}
    assert {key for key in still if not key.endswith("conv.bias")} == {
        f"heads.{branch}.{one}" for branch in range(3) for one in ("weight", "bias")
    }
    routes = {f"from{source}to{target}" for source in range(3) for target in range(3) if source != target}
    assert {name for name, _ in network.get_submodule("round0").named_children() if name.startswith("from")} == routes


def test_exchange_is_the_rectified_sum_of_all_branches():
    """The middle branch is added as it is, the finer one after a strided convolution, the coarser one upsampled."""
    network = build("high_resolution", 2, rounds=1)
    image = image_for(network)
    own = seen_by(network, "round0.from1to0.conv", image)[0]
    finer = seen_by(network, "round0.from0to1.0.norm", image)[1]
    coarser = seen_by(network, "round0.from2to1.norm", image)[1]
    assert own.shape == finer.shape
    assert coarser.shape[2:] == torch.Size(length // 2 for length in own.shape[2:])
    total = F.relu(own + finer + F.interpolate(coarser, size=own.shape[2:], mode="bilinear"))
    torch.testing.assert_close(seen_by(network, "fusion.branch1.conv", image)[0], total)


def test_single_branch_is_the_plain_way_up():
    """With the same weights it gives the map that the finest of several branches begins with."""
    several, plain = build("high_resolution", 2), build("high_resolution", 2, branches=1)
    kept = {key: value for key, value in several.state_dict().items() if key in plain.state_dict()}
    assert kept.keys() == plain.state_dict().keys()
    plain.load_state_dict(kept)
    assert not any(name.startswith(("round", "fusion", "heads")) for name, _ in plain.named_children())
    image = image_for(several)
    begun = seen_by(several.eval(), "round0.block0.0.conv", image)[0]
    torch.testing.assert_close(seen_by(plain.eval(), "head", image)[0], begun)
    assert len(plain.train()(image)) == 1


def test_page_says_its_weights_and_its_ablation():
    """These are the numbers for volumes; those for 2D images are in `test_specs`."""
    spec = NETWORKS["high_resolution"]
    for given, count in (({}, 25_778_440), ({"branches": 1}, 22_581_250)):
        architecture = spec.make_architecture(given, 3, in_channels=1, out_channels=2)
        assert spec.count(given, architecture, (32, 32, 32)).weights == count
        assert architecture.deep_supervision == (given == {})
    with pytest.raises(ValueError, match=r"settings\.branches of High-resolution network: Input should be less than"):
        spec.complete({"branches": 5})
