"""The estimated bytes of a training step, compared with golden counts and with what torch keeps."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_cases import CASES, ONE, THREE, TWO, kept_bytes, network_of
from pretended_gpu import peak_of_a_patch
from small_models import PRECISIONS

from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.default_unet import UNet
from autoseg.networks.instance_norm import InstanceNorm
from autoseg.planning import memory
from autoseg.planning.memory import (
    BYTES_PER_WEIGHT,
    CONTEXT_BYTES,
    activation_bytes,
    bytes_per_patch,
    count_weights,
    feature_map_elements,
    saved_bytes,
    training_bytes,
)

BY_NAME = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@pytest.mark.parametrize(
    ("architecture", "patch", "elements"),
    [
        (network_of(3, 6, 320), (128, 128, 128), 450_699_264),
        (network_of(3, 6, 320, classes=3), (128, 128, 128), 452_796_416),
        (network_of(2, 8, 512), (512, 512), 82_624_512),
    ],
)
def test_golden_feature_map_elements(architecture, patch, elements):
    """The count of feature map elements of a plain network equals the reference method's."""
    assert feature_map_elements(architecture, patch) == elements


def residual_encoder(features, blocks, *, strides=None, kernels=None, decoder=1, channels=1, classes=2):
    """Returns a residual encoder; kernels of 3 voxels and strides of 2 along each axis by default."""
    stages = len(features)
    strides = strides or (ONE, *[TWO] * (stages - 1))
    kernels = kernels or (THREE,) * stages
    decoders = decoder if isinstance(decoder, tuple) else (decoder,) * stages
    return Architecture(
        residual="block",
        in_channels=channels,
        out_channels=classes,
        stages=tuple(
            Stage(features=f, kernel=k, stride=s, convolutions=2, blocks=b, decoder_convolutions=d)
            for f, k, s, b, d in zip(features, kernels, strides, blocks, decoders, strict=True)
        ),
    )


LARGE, LARGE_BLOCKS = (32, 64, 128, 256, 320, 320), (1, 3, 4, 6, 6, 6)
WIDE, WIDE_BLOCKS = (32, 64, 128, 256, 512, 512, 512), (1, 3, 4, 6, 6, 6, 6)
PLANE = {"strides": ((1, 1), *[(2, 2)] * 6), "kernels": ((3, 3),) * 7}
PLANE_8 = {"strides": ((1, 1), *[(2, 2)] * 7), "kernels": ((3, 3),) * 8}
THICK = {
    "strides": (ONE, (1, 2, 2), (1, 2, 2), TWO, (2, 2, 1)),
    "kernels": ((1, 3, 3), (1, 3, 3), THREE, THREE, THREE),
}
ODD = {"strides": (ONE, ONE, (1, 2, 2), (2, 3, 1)), "kernels": (THREE, (1, 3, 3), THREE, THREE)}


@pytest.mark.parametrize(
    ("architecture", "patch", "elements", "weights"),
    [
        (residual_encoder(LARGE, LARGE_BLOCKS), (128, 128, 128), 555_323_392, 102_349_770),
        (residual_encoder(LARGE, LARGE_BLOCKS, channels=4, classes=4), (128, 128, 128), 559_517_696, 102_353_972),
        (residual_encoder(WIDE, WIDE_BLOCKS, **PLANE), (256, 320), 40_396_800, 105_916_812),
        (
            residual_encoder((*WIDE, 512), (*WIDE_BLOCKS, 6), **PLANE_8, channels=3, classes=5),
            (512, 512),
            130_228_224,
            140_023_683,
        ),
        (
            residual_encoder(LARGE[:5], LARGE_BLOCKS[:5], **THICK, channels=2, classes=4),
            (16, 192, 160),
            213_381_120,
            61_815_280,
        ),
        (
            residual_encoder((24, 24, 40, 40), (2, 1, 3, 2), **ODD, decoder=(3, 1, 2, None), classes=3),
            (8, 24, 24),
            1_950_720,
            707_769,
        ),
    ],
)
def test_golden_residual_encoders(architecture, patch, elements, weights):
    """Elements and weights of residual encoders equal the reference method's, whichever shortcuts they need."""
    assert feature_map_elements(architecture, patch) == elements
    assert count_weights(architecture) == weights


@pytest.mark.parametrize(
    ("architecture", "weights"),
    [
        (network_of(3, 6, 320), 31_195_594),
        (network_of(3, 6, 320, classes=3), 31_196_399),
        (network_of(3, 6, 320, channels=4, classes=4), 31_199_796),
        (network_of(3, 5, 320), 16_547_592),
        (network_of(2, 7, 512), 33_471_820),
    ],
)
def test_golden_weights(architecture, weights):
    """The count of weights equals that of the published plain U-Nets."""
    assert count_weights(architecture) == weights


@BY_NAME
def test_weights_are_those_of_the_network(case):
    """The count of weights equals that of the network that is built."""
    with torch.device("meta"):
        network = UNet(case.architecture())
    assert count_weights(case.architecture()) == sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize("dtype", PRECISIONS)
@BY_NAME
def test_activations_are_what_autograd_keeps(case, dtype, monkeypatch):
    """After the loss, autograd keeps the counted bytes of each patch, for any size of an element."""
    monkeypatch.setattr(memory, "ELEMENT_BYTES", dtype.itemsize)
    architecture = case.architecture(features=4)
    kept = kept_bytes(architecture, case.small_patch, dtype)
    assert activation_bytes(architecture, case.small_patch, 2) == pytest.approx(2 * kept, rel=0.02)


@pytest.mark.parametrize("case", CASES[1:], ids=lambda case: case.name)
def test_peak_is_that_of_the_life_of_all_tensors(case):
    """An additional patch adds almost the estimate to the peak of a step on a GPU, and never more."""
    architecture = case.architecture(features=16)
    peak = peak_of_a_patch(architecture, case.patch_size)
    assert peak <= 1.001 * bytes_per_patch(architecture, case.patch_size) < 1.05 * peak


ONE_BY_ONE = [
    case if number % 8 == 1 else pytest.param(case, marks=pytest.mark.slow) for number, case in enumerate(CASES)
]
"""Every eighth network; the slow tests take all but the first."""


@pytest.mark.slow
@pytest.mark.parametrize("case", ONE_BY_ONE[1:], ids=lambda case: case.name)
def test_estimate_holds_for_samples_that_are_normalized_one_by_one(case, monkeypatch):
    """With the channels last on a GPU, convolutions copy less than estimated."""
    monkeypatch.setattr(InstanceNorm, "normalize", InstanceNorm.normalize_each)
    architecture = case.architecture(features=16)
    assert peak_of_a_patch(architecture, case.patch_size) <= 1.001 * bytes_per_patch(architecture, case.patch_size)


@pytest.mark.parametrize("case", CASES[1::3], ids=lambda case: case.name)
def test_maps_that_are_calculated_again_take_less(case):
    """The estimate is an upper bound of such a training, by a fifth and more."""
    architecture = case.architecture(features=16)
    peak = peak_of_a_patch(architecture, case.patch_size, recomputes=True)
    assert peak < 0.8 * peak_of_a_patch(architecture, case.patch_size)


def networks(residual, convolutions):
    """Returns networks of these kinds, of all sizes."""
    return st.builds(
        network_of,
        st.sampled_from((2, 3)),
        st.integers(2, 6),
        st.integers(32, 400),
        residual=residual,
        channels=st.integers(1, 4),
        classes=st.integers(2, 30),
        convolutions=convolutions,
        blocks=st.integers(1, 3),
        decoder_convolutions=st.sampled_from((None, 1, 2)),
        deep_supervision=st.booleans(),
    )


architectures = networks(st.sampled_from(("none", "stage")), st.integers(1, 4)) | networks(st.just("block"), st.just(2))


def grown(architecture):
    """Returns the same network with a little more of one property, in each possible way."""
    stages = architecture.stages
    yield architecture.model_copy(update={"stages": tuple(_more(stage, "features") for stage in stages)})
    fields = ["blocks"] if architecture.residual == "block" else ["blocks", "convolutions", "features"]
    for number, stage in enumerate(stages):
        for field in [*fields, *(["decoder_convolutions"] if stage.decoder_convolutions else [])]:
            changed = (*stages[:number], _more(stage, field), *stages[number + 1 :])
            yield architecture.model_copy(update={"stages": changed})
    for field in ("in_channels", "out_channels"):
        yield architecture.model_copy(update={field: getattr(architecture, field) + 1})
    yield architecture.model_copy(update={"deep_supervision": True})


def _more(stage, field):
    return stage.model_copy(update={field: getattr(stage, field) + 1})


@given(architectures, st.integers(1, 4), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_more_of_anything_takes_more(architecture, size, batch):
    """Estimate and elements never fall when patch, batch, features, convolutions, blocks, channels or classes grow."""
    divisor = architecture.divisor
    patch = tuple(step * size for step in divisor)
    cost, elements = training_bytes(architecture, patch, batch), feature_map_elements(architecture, patch)
    assert training_bytes(architecture, patch, batch + 1) > cost
    for axis in range(len(patch)):
        longer = tuple(edge + divisor[axis] * (number == axis) for number, edge in enumerate(patch))
        assert training_bytes(architecture, longer, batch) > cost
        assert feature_map_elements(architecture, longer) > elements
    for more in grown(architecture):
        assert training_bytes(more, patch, batch) >= cost
        assert feature_map_elements(more, patch) >= elements


@given(architectures, st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_every_patch_of_a_batch_takes_the_same(architecture, size):
    """The estimate is linear in the batch size: the memory of each patch on top of that of the weights."""
    patch = tuple(step * size for step in architecture.divisor)
    costs = [training_bytes(architecture, patch, batch) for batch in range(4)]
    assert {after - before for before, after in pairwise(costs)} == {bytes_per_patch(architecture, patch)}
    assert costs[0] == CONTEXT_BYTES + BYTES_PER_WEIGHT * count_weights(architecture)


def test_a_step_by_hand():
    """The estimate of a tiny network equals the formula worked out by hand."""
    stages = (
        Stage(features=2, kernel=(3, 3), stride=(1, 1), convolutions=1),
        Stage(features=4, kernel=(3, 3), stride=(2, 2), convolutions=2),
    )
    network = Architecture(residual="stage", in_channels=1, out_channels=2, stages=stages, deep_supervision=False)
    weights = (9 * 2 + 6) + (2 * 9 * 4 + 12 + 4 * 9 * 4 + 12) + (4 * 4 * 2 + 2) + (4 * 9 * 2 + 6) + (2 * 2 + 2)
    fine, coarse = 64, 16  # voxels of a patch of 8 x 8 at both resolutions
    saved = 2 * (2 * 2 * fine) + 2 * (2 * 2 * 4 * coarse) + 2 * (2 * 2 * fine + 2 * 2 * fine)
    standing = 6 * fine + saved + 2 * 2 * fine + 8 * fine
    losses = (4 * 2 + 4 * 2 + 1) * fine + 8 * 2 * fine
    moving = 2 * (2 * 2 * fine) + 2 * (4 * 2 * fine)
    assert losses > moving
    assert count_weights(network) == weights
    assert saved_bytes(network, (8, 8)) == saved
    assert activation_bytes(network, (8, 8), 3) == 3 * (standing + 17 * fine)
    assert training_bytes(network, (8, 8), 3) == CONTEXT_BYTES + BYTES_PER_WEIGHT * weights + 3 * (standing + losses)


def test_a_residual_encoder_by_hand():
    """The stem, two maps of each convolution, input and output of the shortcut, and the decoder are kept."""
    network = residual_encoder((2, 4, 4), (1, 2, 1), decoder=1)
    fine, middle, coarse = 8**3, 4**3, 2**3
    down = 2 * 2 * fine + 4 * 2 * fine + (8 * 4 + 4 + 2) * middle + 4 * 4 * coarse  # the last shortcut only strides
    up = (2 + 2) * 4 * middle + (2 + 2) * 2 * fine
    assert saved_bytes(network, (8, 8, 8)) == 2 * (down + up)


def test_a_wide_network_peaks_in_its_convolutions():
    """With few classes and many features, the gradients of the widest convolution weigh more than the losses."""
    for residual, convolutions, maps in [("none", 1, 4), ("none", 2, 2), ("stage", 2, 3), ("stage", 1, 4)]:
        network = network_of(3, 3, 320, residual=residual, convolutions=convolutions)
        peak = 2 * 2 * (2 * 8**3 + 4**3) + maps * 2 * 32 * 8**3
        activations = activation_bytes(network, (8, 8, 8), 1) - 17 * (8**3)
        assert bytes_per_patch(network, (8, 8, 8)) == activations + peak
