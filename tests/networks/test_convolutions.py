"""The convolutions, compared with torch's own where those are right, and with float64 elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import strided_gradients
import torch
from custom_parts import own_run
from small_models import PRECISIONS, small_configuration
from torch import nn
from torch.nn import functional as F

from autoseg.models.build import make_network
from autoseg.networks.convolutions import (
    Conv2d,
    Conv3d,
    ConvTranspose3d,
    is_left_to_torch,
    replace_convolutions,
    writes_beyond_workspace,
)
from autoseg.networks.instance_norm import channels_last
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.plugins import register_network


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("instructions", ["AVX2", pytest.param("DEFAULT", marks=pytest.mark.slow)])
def test_gradients_of_strided_convolutions_are_right(instructions, threads):
    """Runs with the instructions of older CPUs and of this one, in a process of its own, since it may crash."""
    found = subprocess.run(
        [sys.executable, Path(strided_gradients.__file__), str(threads)],
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instructions, "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


@pytest.fixture(params=[1, 2])
def threads(request):
    """So many threads for a test, afterwards as many as before."""
    usual = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(usual)


SINGLE = [  # size, kernel, stride, padding, dilation
    ((8, 8), 3, 1, 1, 1),
    ((1, 9), 3, 1, 1, 1),
    ((9, 6), (2, 3), (2, 1), (0, 1), 1),
    ((4, 3), 1, (2, 1), (0, 2), 1),
    ((8, 6), 1, 2, 0, 1),
    ((9, 8), 3, 1, 2, 2),
    ((12, 12), 7, 3, 3, 1),
    ((5, 7, 5), 3, 1, 1, 1),
    ((2, 6, 5), 3, 2, 1, 1),
    ((7, 4, 9), (1, 3, 3), (1, 2, 2), (0, 1, 1), 1),
    ((7, 5, 4), 2, 2, 0, 1),
    ((3, 3, 3), 3, 1, 0, 1),
    ((6, 4, 4), 1, 1, 0, 1),
]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(("size", "kernel", "stride", "padding", "dilation"), SINGLE)
def test_single_samples_are_calculated_by_onednn(size, kernel, stride, padding, dilation):
    """Result and gradients are equal to double precision, the order is kept, and none of torch's own code runs."""
    torch.manual_seed(0)
    layer = (Conv2d if len(size) == 2 else Conv3d)(5, 6, kernel, stride, padding, dilation)
    maps = channels_last(torch.randn(1, 5, *size)).requires_grad_()
    with torch.profiler.profile() as profile:
        result = layer(maps)
        coefficients = torch.randn(result.shape)
        result.backward(channels_last(coefficients))
    ran = {event.name for event in profile.events()}
    assert not any("slow" in name or "thnn" in name for name in ran)
    assert max(result.shape[2:]) == 1 or result.stride(1) == 1
    plain = (nn.Conv2d if len(size) == 2 else nn.Conv3d)(5, 6, kernel, stride, padding, dilation).double()
    plain.load_state_dict(layer.state_dict())
    exact = maps.detach().double().requires_grad_()
    expected = plain(exact)
    expected.backward(coefficients.double())
    pairs = [(result, expected), (maps.grad, exact.grad), *zip(gradients(layer), gradients(plain), strict=True)]
    for ours, right in pairs:
        torch.testing.assert_close(ours, right.float(), rtol=1e-4, atol=1e-5)


def gradients(module):
    """Those of the weights and the bias."""
    return [weight.grad for weight in module.parameters()]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("order", [channels_last, torch.clone])
def test_single_tiles_keep_their_order(order):
    """Without gradients as well, in either order of the memory."""
    layer, maps = Conv3d(8, 8, 3, padding=1), order(torch.randn(1, 8, 5, 6, 7))
    with torch.inference_mode(), torch.profiler.profile() as profile:
        result = layer(maps)
    assert result.stride() == maps.stride()
    assert not any("slow" in event.name for event in profile.events())


@pytest.mark.parametrize(
    ("changes", "alone", "together"),
    [
        ({}, True, True),
        ({"samples": 2}, False, False),
        ({"kernel": 5}, False, False),
        ({"kernel": (5, 3, 5)}, True, True),
        ({"size": (30, 30, 3)}, True, True),
        ({"size": (80, 80, 3)}, False, False),
        ({"groups": 2}, False, False),
        ({"kernel": 1, "samples": 2}, True, False),
        ({"kernel": 1, "samples": 16}, False, False),
        ({"kernel": 1, "samples": 2, "stride": 2}, False, False),
        ({"dtype": torch.bfloat16}, False, False),
        ({"dtype": torch.float64}, False, False),
        ({"device": "meta"}, False, False),
    ],
)
def test_what_torch_calculates_by_itself_is_known(changes, alone, together, threads):
    """It depends on the number of threads only for kernels of 1; what torch then runs agrees."""
    case = {"samples": 1, "size": (6, 6, 6), "kernel": 3, "stride": 1, "groups": 1, "dtype": torch.float32}
    case |= {"device": "cpu"} | changes
    options = {"dtype": case["dtype"], "device": case["device"]}
    layer = nn.Conv3d(4, 4, case["kernel"], case["stride"], groups=case["groups"], **options)
    maps = torch.randn(case["samples"], 4, *case["size"], **options)
    expected = alone if threads == 1 else together
    assert is_left_to_torch(maps, layer.weight, layer.stride, layer.dilation, layer.groups) == expected
    if case["dtype"] == torch.float32 and case["device"] == "cpu":
        with torch.profiler.profile() as profile:
            layer(maps)
        assert any("slow" in event.name for event in profile.events()) == expected
        with torch.autocast("cpu", torch.bfloat16):
            assert not is_left_to_torch(maps, layer.weight, layer.stride, layer.dilation, layer.groups)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"channels": 1}, True),
        ({"channels": 15}, True),
        ({"stride": (1, 2)}, True),
        ({"stride": (4, 2)}, True),
        ({"padding": "valid"}, True),
        ({"channels": 16}, False),
        ({"kernel": (1, 3)}, False),
        ({"stride": (1, 1)}, False),
        ({"size": (8, 9)}, False),
        ({"padding": (0, 1)}, False),
        ({"groups": 2}, False),
        ({"size": (8, 8, 8), "kernel": (1, 1, 1), "stride": (2, 2, 2), "padding": (0, 0, 0)}, False),
    ],
)
def test_what_writes_beyond_its_workspace_is_known(changes, expected):
    """Each condition is necessary; without gradients or with the channels first nothing changes."""
    case = {"channels": 4, "kernel": (1, 1), "stride": (2, 2), "padding": (0, 0), "groups": 1, "size": (8, 8)}
    case |= changes
    weight = torch.zeros(8, case["channels"] // case["groups"], *case["kernel"], requires_grad=True)
    maps = torch.zeros(2, case["channels"], *case["size"])
    rest = case["stride"], case["padding"], case["groups"]
    assert writes_beyond_workspace(channels_last(maps), weight, *rest) == expected
    assert not writes_beyond_workspace(maps, weight, *rest)
    assert not writes_beyond_workspace(channels_last(maps), weight.detach(), *rest)
    assert not writes_beyond_workspace(channels_last(maps).to("meta"), weight, *rest)
    with torch.no_grad():
        assert not writes_beyond_workspace(channels_last(maps), weight, *rest)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2, (2, 1)])
def test_convolutions_are_those_of_torch(kernel, stride):
    """The results are equal, also with padding, dilation and groups."""
    torch.manual_seed(0)
    for channels, groups, padding, dilation in [(4, 1, 0, 1), (4, 2, 1, 1), (4, 1, "valid", 2), (16, 1, 0, 1)]:
        ours = Conv2d(channels, 8, kernel, stride, padding, dilation, groups)
        maps = torch.randn(2, channels, 12, 16)
        expected = F.conv2d(maps, ours.weight, ours.bias, stride, padding, dilation, groups)
        torch.testing.assert_close(ours(channels_last(maps)), expected)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((2, 8, 8), 3, 1, 1),
        ((1, 6, 9), 3, 2, 1),
        ((4, 9, 8), 7, 1, 3),
        ((5, 16, 9), 7, 2, 3),
        ((6, 5, 8), 7, 2, 3),
        ((2, 8, 6), (3, 1, 3), 1, (1, 0, 1)),
        ((2, 6, 6), 3, 1, "same"),
        ((4, 6, 6), 5, 1, "same"),
        ((4, 6, 6), 3, 1, "valid"),
        ((1, 1, 2), 5, 1, 2),
    ],
)
def test_gradients_of_thin_volumes_are_right(size, kernel, stride, padding, precision):
    """They are those of double precision; where bfloat16 is wrong, the maps become float32."""
    torch.manual_seed(0)
    layer = Conv3d(8, 8, kernel, stride, padding)
    layer.weight.data, layer.bias.data = (values.data.bfloat16().float() for values in layer.parameters())
    maps = torch.randn(8, 8, *size).to(precision)
    exact = nn.Conv3d(8, 8, kernel, stride, padding).double()
    exact.load_state_dict(layer.state_dict())
    assert_right(layer, exact, maps)


def assert_right(layer, exact, maps):
    """Compares result and gradients of a layer, in the precision of the maps, with its copy in double precision."""
    expected = exact(maps.double())
    coefficients = torch.randn(expected.shape).to(maps.dtype)
    expected.backward(coefficients.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=maps.dtype == torch.bfloat16):
        result = layer(channels_last(maps))
    assert result.dtype in (maps.dtype, torch.float32)
    result.backward(channels_last(coefficients))
    for ours, right in [(result, expected), *zip(gradients(layer), gradients(exact), strict=True)]:
        error = float((ours.detach() - right.detach()).abs().max() / right.detach().abs().max())
        assert error < (1e-4 if maps.dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "output_padding"),
    [((1, 6, 6), 3, 2, 1, 1), ((3, 12, 12), 6, 2, 3, 0), ((3, 9, 9), 4, 1, 2, 0), ((4, 5, 6), 3, 2, 1, (0, 1, 1))],
)
def test_gradients_of_thin_transposed_convolutions_are_right(size, kernel, stride, padding, output_padding, precision):
    """The last case is not thin."""
    torch.manual_seed(0)
    layer = ConvTranspose3d(8, 8, kernel, stride, padding, output_padding)
    layer.weight.data, layer.bias.data = (values.data.bfloat16().float() for values in layer.parameters())
    maps = torch.randn(2, 8, *size).to(precision)
    exact = nn.ConvTranspose3d(8, 8, kernel, stride, padding, output_padding).double()
    exact.load_state_dict(layer.state_dict())
    assert_right(layer, exact, maps)


@pytest.mark.usefixtures("empty_registry")
def test_networks_of_other_packages_get_our_convolutions():
    """Names are kept; convolutions with other padding than zeros stay, and so do subclasses and 2D transposed ones."""

    class Special(nn.Conv2d):
        pass

    def build(_architecture, _settings):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.Sequential(nn.Conv3d(1, 4, 3), nn.ConvTranspose2d(4, 4, 2)),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
            nn.ConvTranspose3d(4, 4, 3),
            Special(4, 4, 1),
        )

    register_network("foreign", build)
    names = list(build(None, None).state_dict())
    network = make_network(small_configuration().model_copy(update={"network": Plugin(name="foreign", settings={})}), 0)
    kinds = [type(module) for module in network.modules() if not isinstance(module, nn.Sequential)]
    assert kinds == [Conv2d, Conv3d, nn.ConvTranspose2d, nn.Conv2d, ConvTranspose3d, Special]
    assert list(network.state_dict()) == names


def test_every_convolution_of_the_usual_network_is_ours():
    """These are all convolutions of the encoder, shortcuts, decoder and heads."""
    network = make_network(own_run(None).training.configuration, 0)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)]
    assert len(convolutions) > 4
    assert all(type(module) in (Conv2d, Conv3d) for module in convolutions)
    replace_convolutions(network)  # replacing twice changes nothing
    assert [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Conv3d)] == convolutions
