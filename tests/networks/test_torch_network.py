"""The networks of the literature in torch, and the proof that each is what its paper describes."""

import copy

import numpy as np
import pytest
import torch
from literature_networks import build, image_for
from small_models import usual_loss
from tiny_workspaces import boxes, dice
from torch import nn
from torch.nn import functional as F

from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.torch_network import TorchNetwork

EVERY = [(name, dimensions) for name, spec in NETWORKS.items() for dimensions in spec.dimensions]


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_networks_have_what_shape_ops_counts(name, dimensions):
    """The weights are equal; the logits have the size of the image, for any supported number of channels."""
    network = build(name, dimensions, channels=3, classes=4)
    given = network.settings.model_dump(mode="json")
    architecture = network.spec.make_architecture(given, dimensions, in_channels=3, out_channels=4)
    image = image_for(network, channels=3)
    assert image.ndim == dimensions + 2
    count = network.spec.count(given, architecture, image.shape[2:])
    assert count.weights == sum(one.numel() for one in network.parameters())
    outputs = network(image)
    assert [one[0, 0].numel() for one in outputs] == list(count.outputs)
    logits = network.eval()(image)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (2, 4, *image.shape[2:])
    assert logits.isfinite().all()


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_what_training_keeps_is_what_shape_ops_counts(name, dimensions):
    """The count is within 5 % of what autograd saves, grouped by storage so that nothing counts twice."""
    network = build(name, dimensions, features=8)
    image = image_for(network, times=2 if dimensions == 3 else 8)
    known = {one.untyped_storage().data_ptr() for one in [image, *network.parameters(), *network.buffers()]}
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage, tensor  # held, so that no other takes its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = network(image)
    assert all(one.grad_fn is not None for one in outputs)
    given = network.settings.model_dump(mode="json")
    architecture = network.spec.make_architecture(given, dimensions, in_channels=1, out_channels=2)
    count = network.spec.count(given, architecture, image.shape[2:])
    copy_of_image = image.nbytes  # a network begins with a copy in another memory order
    of_weights = 2 * 4 * count.standardized_weights  # their difference from the mean, and the standardized weights
    found = sum(storage.nbytes() for storage, _ in kept.values()) - copy_of_image - of_weights
    assert len(image) * (4 * count.saved_elements + 8 * count.pooling_indices) == pytest.approx(found, rel=0.05)


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_every_weight_learns(name, dimensions):
    """Gradients reach all weights at once, or after a step if they pass through weights that start at 0."""
    network = build(name, dimensions)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(2):  # without forgetting the gradients
        sum((one.square().mean() for one in network(image_for(network))), start=torch.zeros(())).backward()
        optimizer.step()
    still = [key for key, one in network.named_parameters() if one.grad is None or not one.grad.abs().sum() > 0]
    assert [key for key in still if not key.endswith("conv.bias")] == []  # a norm takes away what a bias adds


def test_fresh_weights_are_drawn_from_the_seed():
    """Weights follow He's rule, running means have their initial values, and copies are equal networks."""
    first, again, other = build("attention_unet", seed=3), build("attention_unet", seed=3), build("attention_unet")
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert not torch.equal(first.get_submodule("mix").weight, other.get_submodule("mix").weight)
    wide = build("vnet", features=16)
    deviation = wide.get_submodule("encoder2.0.conv").weight.std().item()
    assert deviation == pytest.approx((2 / (64 * 5**3)) ** 0.5, rel=0.01)
    assert wide.get_submodule("encoder2.0.conv").bias.abs().max() == 0
    norm = build("unet_3d").get_submodule("encoder0.0.norm")
    assert norm.running_mean.abs().max() == 0
    assert norm.running_var.min() == norm.running_var.max() == 1
    image = image_for(first)
    assert torch.equal(copy.deepcopy(first).eval()(image), first.eval()(image))


@pytest.mark.parametrize(("name", "dimensions"), [one for one in EVERY if one[1] == 3])
def test_gradients_in_16_bits_are_the_same_each_time(name, dimensions):
    """Holds also at resolutions of fewer slices than a kernel, where torch's own gradients are noise on some CPUs."""
    network = build(name, dimensions)
    image, gradients = image_for(network), []
    for bits in (32, 16, 16):
        torch.full((1_000_000,), float("nan"))  # so that reads of uninitialized memory are not 0
        torch.manual_seed(0)  # of dropout
        with torch.autocast("cpu", torch.bfloat16, enabled=bits == 16):
            outputs = network(image)
        network.zero_grad()
        sum((one.float().square().mean() for one in outputs), start=torch.zeros(())).backward()
        gradients.append({key: one.grad.clone() for key, one in network.named_parameters()})
    exact, rounded, again = gradients
    for key, value in exact.items():
        assert torch.equal(rounded[key], again[key]), key
        if value.ndim > 1:
            assert rounded[key].norm() < 2 * value.norm() + 1e-3, key


LEARNING = {"vnet": (4, 5e-4)}
"""Features and learning rate for a phantom; without a norm, V-Net's activations are large at first."""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_networks_learn_a_phantom(name, dimensions):
    """Both structures of one image are learned with a Dice above 0.95, in evaluation mode, by the default loss."""
    features, rate = LEARNING.get(name, (8, 3e-3))
    network = build(name, dimensions, classes=3, features=features)
    size = image_for(network).shape[2:]
    label = boxes(tuple(size)) if dimensions == 3 else boxes((8, *size)).max(axis=0)
    noise = np.random.default_rng(0).normal(0, 0.3, label.shape)
    image = torch.tensor(2.0 * (label == 1) - 2.0 * (label == 2) + noise, dtype=torch.float32)[None, None]
    ground_truth, loss = (
        torch.tensor(label[None], dtype=torch.long),
        usual_loss(3, network.spec.auxiliary_outputs(network.settings)),
    )
    optimizer, found = torch.optim.Adam(network.parameters(), lr=rate), []
    for _ in range(10):
        network.train()
        for _ in range(25):
            optimizer.zero_grad()
            loss(network(image), ground_truth).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 12)
            optimizer.step()
        with torch.no_grad():
            segmentation = network.eval()(image).argmax(dim=1)[0].numpy()
        found.append(min(dice(segmentation, label, number) for number in (1, 2)))
        if found[-1] > 0.95:
            return
    pytest.fail(f"the Dice went {found}")


# --- V-Net ------------------------------------------------------------------------------------------------------------


def test_vnet_sees_492_voxels():
    """The receptive field is how far a voxel of the logits sees, with weights that do not cancel each other."""
    network = build("vnet", features=1).eval().double()
    for weights in network.parameters():
        nn.init.constant_(weights, 0.01)
    image = torch.zeros(1, 1, 512, 16, 16, requires_grad=True, dtype=torch.float64)
    network(image)[0, 0, 250, 8, 8].backward()
    seen = image.grad.abs().sum(dim=(0, 1, 3, 4)).nonzero()
    assert int(seen.max() - seen.min()) + 1 == 492


def test_vnet_stage_adds_its_input_before_the_last_activation():
    """With convolutions of 0 a stage is the activation of its input: the image itself, in each of the features."""
    network = build("vnet")
    for key, one in network.named_parameters():
        if key.startswith("encoder0") and "prelu" not in key:
            nn.init.zeros_(one)
    seen = {}
    network.get_submodule("encoder0.0.prelu").register_forward_hook(lambda *found: seen.update(y=found[2]))
    image = image_for(network)
    network(image)
    torch.testing.assert_close(seen["y"], F.leaky_relu(image, 0.25).expand(-1, 4, -1, -1, -1))


# --- U-Nets on ResNets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [34, 50])
def test_block_whose_last_norm_is_zero_is_the_identity(layers):
    """Each block adds its input, which is positive already."""
    network = build("resnet_unet", layers=layers)
    last = "norm1" if layers == 34 else "norm2"
    nn.init.zeros_(network.get_submodule(f"encoder.stage1.1.{last}").weight)
    seen = {}
    network.get_submodule("encoder.stage1.1.conv0").register_forward_pre_hook(lambda _, given: seen.update(x=given[0]))
    network.get_submodule("encoder.stage1.2.conv0").register_forward_pre_hook(lambda _, given: seen.update(y=given[0]))
    network(image_for(network))
    assert seen["x"].min() >= 0
    torch.testing.assert_close(seen["y"], seen["x"])


# --- Attention U-Net --------------------------------------------------------------------------------------------------


def gate_of(network, image, level=2):
    """Returns the weight of a gate, its skip, and the input of its output layer."""
    seen = {}
    gate = network.get_submodule(f"gate{level}")
    gate.theta.register_forward_pre_hook(lambda _, given: seen.update(skip=given[0].clone()))
    gate.psi.register_forward_hook(lambda *found: seen.update(weight=found[2].sigmoid()))
    gate.output.conv.register_forward_pre_hook(lambda _, given: seen.update(gated=given[0].clone()))
    network(image)
    return seen


def test_gates_weigh_a_skip_by_numbers_from_0_to_1():
    """There is one weight for all features, calculated at half the resolution of the skip."""
    network = build("attention_unet")
    seen = gate_of(network, image_for(network))
    weight, skip = seen["weight"], seen["skip"]
    assert weight.shape == (2, 1, *[length // 2 for length in skip.shape[2:]])
    assert 0 < weight.min() < weight.max() < 1
    spread = F.interpolate(weight, size=skip.shape[2:], mode="trilinear")
    torch.testing.assert_close(seen["gated"], skip * spread)


def test_open_gates_let_everything_through():
    """With a large bias the skip itself passes."""
    network = build("attention_unet")
    nn.init.constant_(network.get_submodule("gate2.psi").bias, 1e4)
    seen = gate_of(network, image_for(network))
    torch.testing.assert_close(seen["gated"], seen["skip"])


# --- UNet++ -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
@pytest.mark.parametrize("averaged", [False, True])
def test_pruned_network_gives_the_same_output_of_its_depth(depth, averaged):
    """The pruned prediction equals the whole one without using any deeper layer; all depths are trained."""
    whole = build("unet_plus_plus", 2)
    pruned = build("unet_plus_plus", 2, prediction_depth=depth, averaged=averaged)
    pruned.load_state_dict(whole.state_dict())
    image = image_for(whole)
    by_depth = dict(zip((4, 3, 2, 1), whole(image), strict=True))
    expected = torch.stack([by_depth[one] for one in range(1, depth + 1)]).mean(0) if averaged else by_depth[depth]
    assert len(pruned(image)) == 4
    for key, module in pruned.named_modules():
        if key.startswith("node") and key.count(".") == 2 and int(key[4]) + int(key[5]) > depth:
            module.register_forward_hook(lambda *_: pytest.fail("a deeper layer was used"))
    torch.testing.assert_close(pruned.eval()(image), expected)


# --- UNet 3+ ----------------------------------------------------------------------------------------------------------


def test_each_level_of_the_decoder_has_five_branches():
    """The branches have equal numbers of features, from the five resolutions, and are fused."""
    network = build("unet_3plus", features=8)
    for level in range(4):
        decoder = network.get_submodule(f"decoder{level}")
        branches = [name for name, _ in decoder.named_children() if name.startswith("from")]
        assert branches == [f"from{source}" for source in range(5)]
        assert {decoder.get_submodule(f"{name}.conv").out_channels for name in branches} == {8}
        assert decoder.get_submodule("fused.conv").in_channels == 40
        finer = [network.get_submodule(f"decoder{level}.from{source}.conv").in_channels for source in range(level + 1)]
        assert finer == [8 * 2**source for source in range(level + 1)]


def test_drawn_networks_are_modules_of_torch():
    """Submodules have the names of the specification, nested at the dots."""
    network = build("unet", 2)
    assert isinstance(network, TorchNetwork)
    assert isinstance(network.get_submodule("encoder1.0.conv"), nn.Conv2d)
    assert "encoder1.0.conv.weight" in network.state_dict()
