"""ConResNet is what its paper describes: how it uses changes from slice to slice, and what it learns of them."""

from collections import Counter

import pytest
import torch
from literature_networks import build, image_for
from tiny_workspaces import boxes
from torch import nn
from torch.nn import functional as F

from autoseg.imaging.targets import Targets
from autoseg.networks.literature.table import NETWORKS
from autoseg.training.auxiliary_loss import auxiliary_loss, find_answers

TARGETS = Targets.of_labels({"first": 1, "second": 2})


def watch(network, *names):
    """Records the inputs and outputs of layers by name in the next pass."""
    seen = {}

    def note(name):
        return lambda _, given, found: seen.update({name: (given[0].detach().clone(), found.detach().clone())})

    for name in names:
        network.get_submodule(name).register_forward_hook(note(name))
    return seen


def test_weights_of_each_part_are_those_of_the_paper():
    """The features agree, and which convolutions are dilated, have standardized weights, or biases."""
    spec = NETWORKS["conresnet"]
    architecture = spec.make_architecture({}, 3, in_channels=4, out_channels=3)
    layers, parts = spec.count({}, architecture, (16, 16, 16)).layers, Counter()
    for name, layer in layers.items():
        parts[name.split(".")[0]] += layer.weights
    assert parts == {
        "stem": 3_456,
        "encoder0": 55_424,
        "encoder1": 55_360 + 442_880,
        "encoder2": 221_312 + 1_770_496,
        "encoder3": 884_992 + 7_079_936,
        "dilated": 7_079_936,
        "fused": 885_248,
        "decoder2": 343_168,
        "decoder1": 139_584,
        "decoder0": 56_448,
        "heads": 492,
    }
    convolutions = {name: one for name, one in layers.items() if one.kind == "conv"}
    assert {name for name, one in convolutions.items() if one.dilation == 2} == {
        f"dilated.{block}.{number}.conv" for block in (0, 1) for number in (0, 1)
    }
    heads = {"heads.labels", "heads.changes0", "heads.changes1", "heads.changes2"}
    assert {name for name, one in convolutions.items() if one.bias} == heads
    assert {name for name, one in convolutions.items() if not one.standardized} == heads
    assert {one.groups for one in layers.values() if one.kind == "group_norm"} == {8}


def test_changes_of_the_image_enter_at_a_quarter_of_the_resolution():
    """The centres of the outer voxels stay in place; an image that is equal in all slices has no changes."""
    network = build("conresnet", channels=2)
    seen, image = watch(network, "decoder2.image"), image_for(network, channels=2)
    network(image)
    change = torch.cat([torch.zeros_like(image[:, :, :1]), image.diff(dim=2).abs()], dim=2)
    reduced = F.interpolate(change, size=[4, 4, 4], mode="trilinear", align_corners=True)
    torch.testing.assert_close(seen["decoder2.image"][0], reduced)
    assert torch.equal(reduced[:, :, 0], torch.zeros(2, 2, 4, 4))
    network(image[:, :, :1].expand_as(image))
    assert all(found.abs().max() == 0 for found in seen["decoder2.image"])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_module_sees_what_changes_in_the_segmentation(level):
    """The change is the difference of the sigmoid from the slice before, 0 in the first one and in equal slices."""
    network = build("conresnet")
    found, told = f"decoder{level}.segmentation.conv", f"decoder{level}.seen"
    seen, image = watch(network, found, told), image_for(network)
    network(image)
    likely = seen[found][1].sigmoid()
    torch.testing.assert_close(seen[told][0][:, :, 1:], likely.diff(dim=2).abs())
    assert seen[told][0][:, :, 0].abs().max() == 0
    assert seen[told][0].abs().max() > 0
    network.get_submodule(found).register_forward_hook(lambda *given: given[2][:, :, :1].expand_as(given[2]))
    network(image)
    assert all(one.abs().max() == 0 for one in seen[told])


@pytest.mark.parametrize(("told", "factor"), [(None, None), (1e4, 2.0), (-1e4, 1.0)])
def test_what_changes_counts_up_to_twice(told, factor):
    """The segmentation becomes F (1 + sigmoid(r))."""
    network = build("conresnet")
    if told is not None:
        changes = network.get_submodule("decoder0.changes.conv")
        changes.register_forward_hook(lambda *given: torch.full_like(given[2], told))
    seen = watch(network, "decoder0.segmentation.conv", "decoder0.changes.conv", "heads.labels")
    network(image_for(network))
    found, changed = seen["decoder0.segmentation.conv"][1], seen["decoder0.changes.conv"][1]
    expected = found * (1 + changed.sigmoid()) if factor is None else factor * found
    torch.testing.assert_close(seen["heads.labels"][0], expected)


def test_block_adds_its_input_to_two_convolutions():
    """A norm and a ReLU come first; with a last convolution of equal weights, which become 0, nothing else is left."""
    network = build("conresnet")
    nn.init.ones_(network.get_submodule("encoder0.0.1.conv").weight)
    seen = watch(network, "stem.conv", "encoder1.down.norm")
    network(image_for(network))
    torch.testing.assert_close(seen["encoder1.down.norm"][0], seen["stem.conv"][1])


def test_group_norm_keeps_the_precision_of_its_input():
    """Maps of 16 bits stay in 16 bits."""
    norm, x = build("conresnet").get_submodule("encoder0.0.0.norm"), torch.randn(2, 4, 4, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), F.group_norm(x.bfloat16().float(), 4), atol=0.02, rtol=0.02)
    assert norm(x).dtype == torch.float32


def test_heads_learn_what_changes():
    """All three heads learn where a structure begins and ends, better than any constant answer."""
    network = build("conresnet", classes=3, dropout=0.0, seed=3)
    label = torch.tensor(boxes((16, 16, 16))[None], dtype=torch.long)
    image = 2.0 * (label == 1).float() - 2.0 * (label == 2).float()
    auxiliary_outputs = network.spec.auxiliary_outputs(network.settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(25):
        optimizer.zero_grad()
        outputs = network(image[:, None])[1:]
        losses = [
            auxiliary_loss(one, logits, label, TARGETS) for one, logits in zip(auxiliary_outputs, outputs, strict=True)
        ]
        sum(losses).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 12)
        optimizer.step()
    answers, _ = find_answers(auxiliary_outputs[0], label, TARGETS)
    assert answers[:, 1:].any()
    same = [
        auxiliary_loss(auxiliary_outputs[0], torch.full_like(outputs[0], told / 4), label, TARGETS)
        for told in range(-24, 9)
    ]
    assert max(losses).item() < 0.8 * min(same).item()
    assert outputs[0][answers].sigmoid().mean() > outputs[0][~answers].sigmoid().mean() + 0.5
