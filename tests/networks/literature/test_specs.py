"""The specifications of the networks of the literature."""

import subprocess
import sys
from itertools import accumulate
from math import lcm
from operator import mul

import pytest

from autoseg.networks.feature_map import FeatureMap
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.shape_ops import ShapeOps
from autoseg.planning.settings import TrainingSettings
from autoseg.training.optimization import learning_rate

NNFORMER_FOR_ORGANS = {"features": 192, "token": [2, 4, 4], "decoder_head_features": 32}
NNFORMER_FOR_THE_HEART = {
    "token": [1, 4, 4],
    "reductions": [[1, 2, 2], [2, 2, 2], [2, 2, 2]],
    "windows": [[3, 5, 5], [3, 5, 5], [7, 10, 10], [3, 5, 5]],
    "decoder_head_features": 32,
}
EVERY = [(name, dimensions) for name, spec in NETWORKS.items() for dimensions in spec.dimensions]


def weights(name, channels, outputs, dimensions=None, **given):
    """Returns the number of trainable weights of a network."""
    spec = NETWORKS[name]
    architecture = spec.make_architecture(
        given, dimensions or spec.dimensions[0], in_channels=channels, out_channels=outputs
    )
    return spec.count(given, architecture, spec.smallest_patch(given, architecture.dimensions)).weights


@pytest.mark.parametrize(
    ("name", "channels", "outputs", "given", "count"),
    [
        ("vnet", 1, 2, {}, 61_982_682),
        ("vnet", 1, 2, {"batch_norm": True, "convolutions": [1, 1, 2, 3, 2], "decoder_convolutions": [2, 2, 1, 1]},
         45_603_934 - 960),  # weights of the PReLU before each sum; see the module
        ("unet", 1, 2, {}, 31_030_658),
        ("unet", 3, 1, {}, 31_031_745),
        ("unet", 1, 2, {"batch_norm": True}, 31_042_434),
        ("unet", 3, 1, {"features": 32}, 7_760_097),
        ("unet", 1, 117, {"features": 32, "batch_norm": True}, 7_769_237),
        ("unet_3d", 3, 3, {}, 19_069_955),
        ("unet_3d", 3, 3, {"affine": True}, 19_075_523),
        ("attention_unet", 1, 4, {}, 6_214_151),
        ("attention_unet", 1, 4, {"attention": False}, 5_888_004),
        ("unet_plus_plus", 1, 1, {"deep_supervision": False}, 9_041_601),
        ("unet_plus_plus", 1, 1, {}, 9_041_700),
        ("unet_plus_plus", 1, 1, {"deep_supervision": False, "batch_norm": True}, 9_048_897),
        ("unet_3plus", 3, 1, {"deep_supervision": False}, 26_971_777),
        ("unet_3plus", 3, 1, {}, 26_989_637),
        ("high_resolution", 1, 2, {}, 8_861_384),  # an own design: the number of its module
        ("high_resolution", 1, 2, {"branches": 1}, 7_765_442),
        ("conresnet", 4, 3, {}, 19_018_732),
        ("unet_3plus", 3, 1, {"classification": True}, 26_991_687),
        ("unet_3plus", 3, 1, {"classification": True, "deep_supervision": False}, 26_971_777 + 2_050),
        ("cotr", 1, 14, {}, 41_872_504),
        ("cotr", 1, 2, {}, 41_864_008),
        ("cotr", 1, 2, {"deep_supervision": False}, 41_864_008 - 2 * (64 + 192 + 384 + 3)),
        ("transunet", 1, 9, {}, 105_277_081),
        ("transunet", 3, 9, {}, 105_277_081),
        ("transunet", 1, 9, {"patch": [160, 224]}, 105_277_081 - 4 * 14 * 768),
        ("nnformer", 4, 4, {}, 37_754_190),
        ("nnformer", 1, 14, NNFORMER_FOR_ORGANS, 150_054_210),
        ("nnformer", 1, 14, {**NNFORMER_FOR_ORGANS, "deep_supervision": False}, 149_538_086),
        ("nnformer", 1, 4, NNFORMER_FOR_THE_HEART, 37_197_072),
        ("swin_unet", 3, 9, {}, 27_168_900),
        ("swin_unet", 1, 9, {}, 27_168_900),
        ("swin_unet", 1, 4, {}, 27_168_420),
        ("swin_unet", 1, 1, {}, 27_168_132),
    ],
)  # fmt: skip
def test_weights_are_those_that_are_published(name, channels, outputs, given, count):
    """The weights agree exactly, with the settings that they are published for."""
    assert weights(name, channels, outputs, **given) == count


@pytest.mark.parametrize(
    ("layers", "classifier", "wide"),
    [
        (18, 11_689_512, 512),
        (34, 21_797_672, 512),
        (50, 25_557_032, 2048),
        (101, 44_549_160, 2048),
        (152, 60_192_808, 2048),
    ],
)
def test_resnets_have_the_weights_of_the_classifiers(layers, classifier, wide):
    """The weights agree except for the layer that classifies 1000 classes."""
    spec, given = NETWORKS["resnet_unet"], {"layers": layers}
    architecture = spec.make_architecture(given, 2, in_channels=3, out_channels=2)
    found = spec.count(given, architecture, (32, 32)).layers
    assert sum(one.weights for name, one in found.items() if name.startswith("encoder")) == (
        classifier - 1000 * (wide + 1)
    )


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_pages_are_complete(name, dimensions):
    """Texts, defaults and resolutions are complete, and the logits have the size of the image.

    More of them in training may be coarser, the finest first, each at a resolution that the network has. What stands
    for something else comes last: answers for each voxel, or one for the patch.
    """
    spec = NETWORKS[name]
    assert all((spec.title, spec.summary, spec.source, spec.licence))
    given = spec.complete({})
    assert spec.complete(given) == given
    assert given.keys() == spec.settings.model_fields.keys()
    architecture = spec.make_architecture(given, dimensions, in_channels=2, out_channels=3)
    assert architecture.divisor == spec.divisor(given, dimensions)
    ops = ShapeOps(dimensions)
    image = FeatureMap(2, tuple(2 * step for step in architecture.divisor))
    outputs, auxiliary_outputs = (
        spec.forward(ops, image, 3, spec.parse(given)),
        spec.auxiliary_outputs(spec.parse(given)),
    )
    logits, others = outputs[: len(outputs) - len(auxiliary_outputs)], outputs[len(outputs) - len(auxiliary_outputs) :]
    assert logits[0].size == image.size
    assert all(one.voxels == 1 or not what.is_per_patch for one, what in zip(others, auxiliary_outputs, strict=True))
    assert all(one.channels == 3 for one in others)
    reduced = list(
        accumulate(spec.strides_per_level(given, dimensions), lambda one, other: tuple(map(mul, one, other)))
    )
    sizes = [tuple(length // step for length, step in zip(image.size, steps, strict=True)) for steps in reduced]
    assert all(one.size in sizes and one.channels == 3 for one in logits)
    assert [one.voxels for one in logits] == sorted((one.voxels for one in logits), reverse=True)
    assert (len(logits) > 1) == architecture.deep_supervision
    coarsest = min((one.size for one in ops.saved), key=lambda size: size[0])
    assert coarsest == (2,) * dimensions  # so no smaller divisor would do, and no larger one is needed
    ops = ShapeOps(dimensions, training=False)
    assert len(spec.forward(ops, image, 3, spec.parse(given))) == 1


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_cost_grows_with_the_patch_in_proportion(name, dimensions):
    """Multiply-adds and memory are proportional to the patch; weights stay. Global attention needs more.

    Where voxels of a window do, of patches that windows fill at each resolution.
    """
    spec, given = NETWORKS[name], NETWORKS[name].complete({})
    architecture = spec.make_architecture(given, dimensions, in_channels=1, out_channels=2)
    smallest = spec.smallest_patch(given, dimensions)
    layers = spec.count(given, architecture, smallest).layers.values()
    filled = lcm(*(edge for layer in layers if layer.kind == "relative_position_bias" for edge in layer.kernel))
    first, *others = (filled * edge for edge in smallest)
    small, large = (spec.count(given, architecture, (first * times, *others)) for times in (1, 3))
    only = spec.fixed_patch(spec.parse(given)) is not None
    assert large.weights == small.weights or only
    for measure in ("multiply_adds", "saved_elements", "pooling_indices", "largest_conv_elements"):
        assert getattr(large, measure) == 3 * getattr(small, measure) or (
            only and 3 < getattr(large, measure) / getattr(small, measure) < 9
        )


def test_work_of_a_convolution_is_counted_by_hand():
    """Twelve voxels, kernel 3, from 2 to 4 features, and pooling after it, which leaves no voxel out."""
    ops = ShapeOps(2)
    image = FeatureMap(2, (2, 6))
    y = ops.max_pool(ops.relu(ops.conv(image, 4, 3, "one")), 2)
    assert y.size == (1, 3)
    assert ops.multiply_adds == 12 * 4 * 2 * 9
    assert ops.weights == (2 * 9 + 1) * 4
    assert ops.saved_elements == 12 * 2 + 12 * 4  # the image, and what the ReLU and the pooling share
    assert ops.pooling_indices == 3 * 4
    with pytest.raises(ValueError, match=r"a map of \(2, 5\) voxels has no blocks of 2"):
        ops.max_pool(FeatureMap(2, (2, 5)), 2)
    with pytest.raises(ValueError, match="two layers are named 'one'"):
        ops.conv(image, 4, 3, "one")
    with pytest.raises(ValueError, match="do not lie on one grid"):
        ops.add(image, y)


def test_settings_that_are_impossible_are_named():
    """Unknown settings are named with the existing ones, and so are values of a wrong type."""
    spec = NETWORKS["vnet"]
    with pytest.raises(ValueError, match=r"^settings.width of V-Net: .*\(there are: features, convolutions, "):
        spec.complete({"width": 4})
    with pytest.raises(ValueError, match=r"^settings.features of V-Net: Input should be greater than 0$"):
        spec.complete({"features": 0})
    with pytest.raises(ValueError, match="decoder_convolutions must have one value less"):
        spec.complete({"convolutions": [1, 2]})
    with pytest.raises(ValueError, match="V-Net takes images in 3D only"):
        spec.make_architecture({}, 2, in_channels=1, out_channels=2)
    with pytest.raises(ValueError, match="at most 16 channels with these settings, not 17"):
        spec.make_architecture({}, 3, in_channels=17, out_channels=2)


def test_pages_need_no_torch():
    """So planning does not wait for the import of torch."""
    code = (
        "import sys; from autoseg.networks.literature.table import NETWORKS; spec = NETWORKS['unet_plus_plus']\n"
        "architecture = spec.make_architecture({}, 3, in_channels=1, out_channels=2)\n"
        "spec.count({}, architecture, (32, 32, 32))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["vnet", "unet"])
def test_training_of_the_paper_is_a_plan_that_can_be_written(name):
    """All fields are valid, none is what the plan of the network has anyway."""
    spec = NETWORKS[name]
    published, taken = (choose(spec.parse({})) for choose in (spec.published, spec.training))
    settings = TrainingSettings.model_validate(published)
    assert settings.optimizer == "sgd"
    assert settings.momentum == 0.99
    assert {**taken, **published} != taken
    assert settings.loss != TrainingSettings().loss


def test_rate_of_vnet_falls_after_25000_of_30000_steps():
    """To a tenth, as its paper has it."""
    settings = TrainingSettings.model_validate(NETWORKS["vnet"].published(NETWORKS["vnet"].parse({})))
    steps = settings.epochs * settings.steps_per_epoch
    rates = [learning_rate(step / steps, settings) for step in (0, 24_990, 25_010, steps - 1)]
    assert steps == 30_000
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-5])
