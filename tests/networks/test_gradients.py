"""The gradients of every kind of network in float32, compared with double precision.

Two threads calculate: on some CPUs a fault of torch then gives wrong gradients, where with one thread it may end the
program; see `autoseg.networks.convolutions`.
"""

import copy

import pytest
import torch
from literature_networks import build, image_for
from monai_settings import NARROW
from small_models import small_configuration
from torch import nn

from autoseg.models.build import make_network
from autoseg.networks.blocks import ResidualBlock
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.monai import MonaiSpec
from autoseg.networks.torch_ops import TorchOps
from autoseg.planning.plan import Configuration
from autoseg.planning.plugin_settings import Plugin

pytestmark = pytest.mark.slow

LARGEST_ERROR = 0.05
"""Share of the length of a gradient. Rounding makes 0.01 of it where the input of a ReLU gets another sign; gradients
that are wrong are so by a half and more."""
NEGLIGIBLE = 1e-5
"""Share of the length of all gradients below which a gradient is rounding, as that of a bias before a normalization."""

LITERATURE = [(name, dimensions) for name, spec in NETWORKS.items() for dimensions in spec.dimensions]
MONAI = [
    ("BasicUNet", 2),
    ("BasicUNet", 3),
    ("SegResNet", 2),
    ("SegResNet", 3),
    ("DynUNet", 3),
    ("VNet", 2),
    ("UNet", 3),
]


@pytest.fixture(autouse=True)
def exact_training(monkeypatch):
    """Two threads for a test, and nothing is dropped at random, which would differ between the precisions."""
    monkeypatch.setattr(TorchOps, "dropout", lambda _ops, x, _rate, **_options: x)
    monkeypatch.setattr(TorchOps, "drop_path", lambda _ops, x, _rate: x)
    usual = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(usual)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("residual", ["none", "stage", "block"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_gradients_of_the_default_network_are_right(dimensions, residual, samples):
    """Without residuals and with those of a block it is nnU-Net's plain network and its residual encoder."""
    configuration = small_configuration(dimensions)
    architecture = configuration.architecture.model_copy(update={"residual": residual})
    network = make_network(configuration.model_copy(update={"architecture": architecture}), seed=1)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            nn.init.ones_(module.second.norm.weight)  # 0 at first, and then nothing before it learns
    assert_gradients_are_right(network, torch.randn(samples, 1, *(8,) * dimensions))


@pytest.mark.parametrize(("name", "dimensions"), LITERATURE)
def test_gradients_of_networks_of_the_literature_are_right(name, dimensions):
    """Each of them, in each number of dimensions that its paper describes."""
    network = build(name, dimensions)
    assert_gradients_are_right(network, image_for(network))


@pytest.mark.parametrize(("name", "dimensions"), MONAI)
def test_gradients_of_networks_of_monai_are_right(name, dimensions):
    """Their convolutions of torch are replaced by ours."""
    pytest.importorskip("monai")
    plugin = Plugin(name=f"monai:{name}", settings=NARROW[name])
    divisor = MonaiSpec(plugin.name).smallest_patch(NARROW[name], dimensions)
    patch = tuple(2 * edge for edge in divisor)
    known = small_configuration(dimensions).model_dump() | {"patch_size": patch, "network": plugin.model_dump()}
    network = make_network(Configuration.model_validate(known), seed=1)
    assert_gradients_are_right(network, torch.randn(2, 1, *patch))


def assert_gradients_are_right(network, image):
    """Compares the gradient of each weight, of a weighted sum of all outputs, with that in double precision."""
    for module in network.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d | nn.Dropout3d):
            module.p = 0.0
    precise = copy.deepcopy(network).double()
    found, right = gradients(network, image), gradients(precise, image.double())
    assert len(found) == len(right) > 0
    whole = torch.stack([gradient.norm() for gradient in right.values()]).norm()
    errors = {
        name: float((found[name] - gradient).norm() / (gradient.norm() + NEGLIGIBLE / LARGEST_ERROR * whole))
        for name, gradient in right.items()
    }
    assert {name: error for name, error in errors.items() if not error < LARGEST_ERROR} == {}


def gradients(network, image):
    """The gradients of the weights that have any, by name, in double precision."""
    generator = torch.Generator().manual_seed(2)
    outputs = network(image)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    coefficients = [torch.randn(logits.shape, generator=generator).to(logits.dtype) for logits in outputs]
    sum((logits * factors).mean() for logits, factors in zip(outputs, coefficients, strict=True)).backward()
    return {name: weight.grad.double() for name, weight in network.named_parameters() if weight.grad is not None}
