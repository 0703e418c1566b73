"""UNet 3+ with the classification of what is in an image."""

import pytest
import torch
from literature_networks import build, image_for
from small_models import usual_loss
from torch import nn

from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.ops import ABSENCE_PENALTY


def answer(network, presence, absence):
    """Makes the classification constant: a score for each output."""
    for name, told in (("presence", presence), ("absence", absence)):
        head = network.get_submodule(f"heads.{name}")
        nn.init.zeros_(head.weight)
        head.bias.data = torch.tensor(told)


@pytest.mark.parametrize("supervised", [True, False])
def test_module_is_an_addition(supervised):
    """Two heads of 1 x 1 voxel on the coarsest map are added; all other outputs stay the same."""
    given = {"deep_supervision": supervised}
    network, plain = (
        build("unet_3plus", classification=True, **given),
        build("unet_3plus", classification=False, **given),
    )
    added = network.state_dict().keys() - plain.state_dict().keys()
    assert added == {f"heads.{name}.{part}" for name in ("presence", "absence") for part in ("weight", "bias")}
    assert network.get_submodule("heads.presence").in_channels == 16 * 4
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if key not in added})
    image = image_for(network)
    outputs = network(image)
    assert len(network.spec.auxiliary_outputs(network.settings)) == 2
    assert plain.spec.auxiliary_outputs(plain.settings) == ()
    for one, other in zip(outputs[:-2], plain(image), strict=True):
        assert torch.equal(one, other)
    assert [tuple(one.shape) for one in outputs[-2:]] == [(2, 2, 1, 1)] * 2
    answer(network, [1.0, 1.0], [0.0, 0.0])
    assert torch.equal(network.eval()(image), plain.eval()(image))


def test_each_answer_is_the_largest_of_all_voxels():
    """The classification uses the coarsest map, half of whose elements dropout removes in training."""
    network, seen = build("unet_3plus"), {}
    network.get_submodule("heads.absence").register_forward_hook(
        lambda _, given, found: seen.update(x=given[0], y=found)
    )
    outputs = network(image_for(network, times=8))
    assert seen["y"].shape[2:] == (8, 8)
    assert torch.equal(outputs[-1], seen["y"].amax(dim=(2, 3), keepdim=True))
    coarsest = {}
    network.get_submodule("encoder4.1.norm").register_forward_hook(lambda *given: coarsest.update(y=given[2].relu()))
    network(image_for(network, times=8))
    there = coarsest["y"] > 0
    assert (seen["x"][there] == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_what_is_denied_has_no_probability():
    """Each output is masked by its own score, in evaluation alone; if all are absent, the prediction stays the same."""
    network = build("unet_3plus", classes=3)
    image = image_for(network)
    answer(network, [0.0, 0.0, 0.0], [-1.0, -1.0, -1.0])
    plain = network.eval()(image)
    assert plain.softmax(dim=1).amin(dim=(0, 2, 3)).min() > 1e-6
    answer(network, [0.0, 0.0, 0.0], [-1.0, 1.0, -1.0])
    found = network(image)
    torch.testing.assert_close(
        found - plain, torch.tensor([0.0, -ABSENCE_PENALTY, 0.0]).reshape(1, 3, 1, 1).expand_as(plain)
    )
    assert max(found.softmax(dim=1)[:, 1].max(), found.sigmoid()[:, 1].max()) < 1e-10
    answer(network, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    assert torch.equal(network(image).argmax(dim=1), plain.argmax(dim=1))


def test_images_of_a_batch_are_answered_apart():
    """A bright image holds the structure, a dark one does not."""
    spec = NETWORKS["unet_3plus"]
    network = build("unet_3plus", classification=True, deep_supervision=False)
    loss = usual_loss(2, spec.auxiliary_outputs(network.settings))
    image = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 0.1
    labels = torch.zeros(4, 16, 16, dtype=torch.int64)
    labels[::2, 4:12, 4:12] = 1
    image[:, 0] += labels
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        presence, absence = (outputs := network(image))[-2:]
        loss(outputs, labels).backward()
        optimizer.step()
    told = (presence > absence)[:, :, 0, 0]
    assert told[:, 0].all()  # there is background everywhere
    assert told[:, 1].tolist() == [True, False, True, False]
    assert (network.eval()(image).argmax(dim=1) == labels).float().mean() > 0.95
