"""The network that a plan names."""

import pytest
import torch
from custom_parts import own_run
from small_models import small_configuration

from autoseg.errors import ModelError, UsageError
from autoseg.models.build import make_network, place_network
from autoseg.networks.default_unet import UNet
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.plugins import register_network


def named(name, **settings):
    """The small configuration with another network."""
    return small_configuration().model_copy(update={"network": Plugin(name=name, settings=settings)})


def test_without_a_name_it_is_the_built_in_one():
    """With the weights of the seed."""
    first, again, other = (make_network(small_configuration(), seed).state_dict() for seed in (3, 3, 4))
    assert isinstance(make_network(small_configuration(), 3), UNet)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.usefixtures("empty_registry")
def test_same_seed_gives_the_same_weights():
    """Although other packages draw from torch's own generator, which is left as it was."""
    before = torch.get_rng_state()
    networks = [make_network(named("pyramid", levels=2), seed) for seed in (3, 3, 4)]
    assert torch.equal(torch.get_rng_state(), before)
    first, again, other = (network.state_dict() for network in networks)
    assert len(networks[0].heads) == 2
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["first.weight"], other["first.weight"])
    assert networks[0].training


@pytest.mark.usefixtures("empty_registry")
def test_builder_gets_the_architecture_and_settings():
    """Channels, divisor, and what stands in the plan."""
    seen = []

    def build(architecture, settings):
        seen.append((architecture.in_channels, architecture.out_channels, architecture.divisor, dict(settings)))
        return torch.nn.Linear(1, 1)

    register_network("noted", build)
    make_network(named("noted", depth=3), 0)
    assert seen == [(1, 3, (2, 2, 2), {"depth": 3})]


@pytest.mark.usefixtures("empty_registry")
@pytest.mark.parametrize("error", [UsageError, ModelError])
def test_what_is_no_network_is_refused(error):
    """As whoever asks wants to be told; so is a name that nobody offers."""
    register_network("nothing", lambda *_: None)
    with pytest.raises(error, match="the network 'nothing' is a NoneType; let it build"):
        make_network(named("nothing"), 0, error)
    with pytest.raises(error, match="there is no network 'unknown' here"):
        make_network(own_run("unknown").training.configuration, 0, error)


@pytest.mark.parametrize(
    ("prefers", "exact", "ordered"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_weights_are_in_the_order_of_the_device(monkeypatch, prefers, exact, ordered):
    """Of training and of prediction alike, unless float32 is asked for; names and values stay."""
    monkeypatch.setattr("autoseg.models.build.prefers_channels_last", lambda _: prefers)
    network = make_network(small_configuration(), 3)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    placed = place_network(network, torch.device("cpu"), exact=exact)
    weight = placed.decoder[0].blocks[0].conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last_3d) == ordered
    assert all(torch.equal(value, before[name]) for name, value in placed.state_dict().items())
