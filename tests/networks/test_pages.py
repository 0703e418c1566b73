"""What is known of the networks of the literature before anything is built."""

import subprocess
import sys

import pytest

from autoseg.networks.sketch import Map, Sketch
from autoseg.networks.table import NETWORKS

EVERY = [(name, dimensions) for name, page in NETWORKS.items() for dimensions in page.dimensions]


def weights(name, channels, outputs, dimensions=None, **given):
    """Trainable numbers of a network."""
    page = NETWORKS[name]
    architecture = page.outline(given, dimensions or page.dimensions[0], in_channels=channels, out_channels=outputs)
    return page.count(given, architecture, architecture.divisor).weights


@pytest.mark.parametrize(
    ("name", "channels", "outputs", "given", "count"),
    [
        ("vnet", 1, 2, {}, 61_982_682),
        ("vnet", 1, 2, {"batch_norm": True, "convolutions": [1, 1, 2, 3, 2], "decoder_convolutions": [2, 2, 1, 1]},
         45_603_934 - 960),  # which the PReLU before each sum takes; see the page
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
    ],
)  # fmt: skip
def test_weights_are_those_that_are_published(name, channels, outputs, given, count):
    """To the last one, in the settings that they are published for."""
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
    """But for the layer that tells 1000 classes apart."""
    page, given = NETWORKS["resnet_unet"], {"layers": layers}
    architecture = page.outline(given, 2, in_channels=3, out_channels=2)
    found = page.count(given, architecture, (32, 32)).layers
    assert sum(one.weights for name, one in found.items() if name.startswith("encoder")) == (
        classifier - 1000 * (wide + 1)
    )


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_pages_are_complete(name, dimensions):
    """Texts for people, defaults, resolutions that the network really has, and logits of the size of the image."""
    page = NETWORKS[name]
    assert all((page.title, page.summary, page.source, page.licence))
    given = page.complete({})
    assert page.complete(given) == given
    assert given.keys() == page.settings.model_fields.keys()
    architecture = page.outline(given, dimensions, in_channels=2, out_channels=3)
    assert architecture.divisor == page.divisor(given, dimensions)
    sketch = Sketch(dimensions)
    image = Map(2, tuple(2 * step for step in architecture.divisor))
    logits = page.draw(sketch, image, 3, page.read(given))
    assert all(one.size == image.size and one.channels == 3 for one in logits)
    assert (len(logits) > 1) == architecture.deep_supervision
    coarsest = min((one.size for one in sketch.kept), key=lambda size: size[0])
    assert coarsest == (2,) * dimensions  # so no smaller divisor would do, and no larger one is needed
    sketch = Sketch(dimensions, training=False)
    assert len(page.draw(sketch, image, 3, page.read(given))) == 1


@pytest.mark.parametrize(("name", "dimensions"), EVERY)
def test_cost_grows_with_the_patch_in_proportion(name, dimensions):
    """Multiply-adds and what is kept; the weights stay."""
    page, given = NETWORKS[name], NETWORKS[name].complete({})
    architecture = page.outline(given, dimensions, in_channels=1, out_channels=2)
    first, *others = page.smallest_patch(given, dimensions)
    small, large = (page.count(given, architecture, (first * times, *others)) for times in (1, 3))
    assert large.weights == small.weights
    for measure in ("multiply_adds", "kept_elements", "places", "widest_elements"):
        assert getattr(large, measure) == 3 * getattr(small, measure)


def test_work_of_a_convolution_is_counted_by_hand():
    """Ten voxels, kernel 3, from 2 to 4 features, and pooling after it."""
    sketch = Sketch(2)
    image = Map(2, (2, 5))
    y = sketch.pool(sketch.relu(sketch.conv(image, 4, 3, "one")), 2)
    assert y.size == (1, 2)
    assert sketch.multiply_adds == 10 * 4 * 2 * 9
    assert sketch.weights == (2 * 9 + 1) * 4
    assert sketch.kept_elements == 10 * 2 + 10 * 4  # the image, and what the ReLU and the pooling share
    assert sketch.places == 2 * 4
    with pytest.raises(ValueError, match="two layers are named 'one'"):
        sketch.conv(image, 4, 3, "one")
    with pytest.raises(ValueError, match="do not lie on one grid"):
        sketch.add(image, y)


def test_settings_that_are_impossible_are_named():
    """Unknown ones, with those that there are; and those of a wrong kind."""
    page = NETWORKS["vnet"]
    with pytest.raises(ValueError, match=r"^settings.width of V-Net: .*\(there are: features, convolutions, "):
        page.complete({"width": 4})
    with pytest.raises(ValueError, match=r"^settings.features of V-Net: Input should be greater than 0$"):
        page.complete({"features": 0})
    with pytest.raises(ValueError, match="decoder_convolutions must have one value less"):
        page.complete({"convolutions": [1, 2]})
    with pytest.raises(ValueError, match="V-Net takes images in 3D only"):
        page.outline({}, 2, in_channels=1, out_channels=2)
    with pytest.raises(ValueError, match="at most 16 channels with these settings, not 17"):
        page.outline({}, 3, in_channels=17, out_channels=2)


def test_pages_need_no_torch():
    """So planning does not wait for it."""
    code = (
        "import sys; from autoseg.networks.table import NETWORKS; page = NETWORKS['unet_plus_plus']\n"
        "outline = page.outline({}, 3, in_channels=1, out_channels=2); page.count({}, outline, (32, 32, 32))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
