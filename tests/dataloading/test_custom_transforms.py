"""Custom transforms: when they are called, with which arguments, and with which probability."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from changed_patches import change, cut_out, make_case, only
from custom_parts import own_run

from autoseg.dataloading.augmentation_parameters import draw_parameters
from autoseg.planning.plugin_settings import CustomTransform
from autoseg.planning.plugins import register_transform
from autoseg.planning.settings import AugmentationSettings

pytestmark = pytest.mark.usefixtures("empty_registry")

SIZE = (4, 6, 8)


def draw_many(settings, count):
    """Draws the parameters of many patches."""
    random = np.random.default_rng(0)
    return [draw_parameters(settings, SIZE, channels=1, others=(), random=random) for _ in range(count)]


def changed(settings, draw, image=None):
    """Returns an augmented patch: image (c, *patch) and label (*patch)."""
    image = np.zeros((1, *SIZE)) if image is None else image
    images, labels = change("patch by patch", [cut_out(make_case(image), SIZE, draw)], settings)
    return images[0], labels[0]


def test_each_hits_as_often_as_its_probability_says():
    """Two transforms are drawn independently of each other."""
    own = tuple(CustomTransform(name="brighten", probability=share) for share in (0.0, 0.3, 1.0))
    draws = draw_many(only(custom=own), 1000)
    hits = [[number for number, _ in draw.custom] for draw in draws]
    assert [sum(number in one for one in hits) for number in (0, 2)] == [0, 1000]
    assert 250 < sum(1 in one for one in hits) < 350
    assert len({seed for draw in draws for _, seed in draw.custom}) == sum(len(one) for one in hits)


def test_first_patch_is_changed_by_the_built_in_rows_as_without_them():
    """Random numbers for custom transforms are drawn last."""
    usual, more = AugmentationSettings(), AugmentationSettings(custom=(CustomTransform(name="brighten"),))
    [one], [other] = draw_many(usual, 1), draw_many(more, 1)
    for field in fields(one):
        if field.name != "custom":
            np.testing.assert_equal(getattr(one, field.name), getattr(other, field.name))


def test_they_are_called_in_order_with_their_settings():
    """They are called after the built-in changes of intensity and before the patch is flipped."""
    seen = []

    def mark(image, label, _, settings):
        seen.append((settings["value"], float(image.mean()), image.dtype, label.shape))
        image[:, 0], label[0] = settings["value"], 2
        return image, label

    register_transform("mark", mark)
    own = tuple(CustomTransform(name="mark", settings={"value": value}) for value in (5.0, 7.0))
    settings = only(custom=own, mirror_axes=(0,), brightness_probability=1.0, brightness_factor=(3.0, 3.0))
    draw = next(draw for draw in draw_many(settings, 20) if draw.mirrored == (0,))
    image, label = changed(settings, draw, np.ones((1, *SIZE)))
    assert [value for value, *_ in seen] == [5.0, 7.0]
    assert seen[0][1:] == (3.0, torch.float32, SIZE)
    assert (image[:, -1] == 7).all()
    assert (image[:, :-1] == 3).all()
    assert (label[-1] == 2).all()
    assert (label[:-1] == 0).all()


def test_chance_follows_from_the_draw():
    """Each patch has a seed of its own, and the same parameters give the same patch."""
    settings = only(custom=(CustomTransform(name="brighten", settings={"most": 1.0}),))
    first, second = draw_many(settings, 2)
    value = changed(settings, first)[0].unique()
    assert len(value) == 1
    assert 0 < value.item() < 1
    assert torch.equal(changed(settings, first)[0].unique(), value)
    assert not torch.equal(changed(settings, second)[0].unique(), value)
    assert not torch.equal(changed(settings, replace(first, custom=((0, 1),)))[0].unique(), value)


def test_patches_that_are_validated_stay_as_they_are():
    """No transform is called for them."""
    run = own_run(None, transforms=[("brighten", {"most": 1.0})])
    plain = own_run(None)
    assert torch.equal(run.validation.make(3).images, plain.validation.make(3).images)
    assert not torch.equal(run.training.make(3).images, plain.training.make(3).images)


def test_batches_do_not_depend_on_the_threads():
    """The batches are equal with any number of threads."""
    run = own_run(None, transforms=[("brighten", {"most": 1.0})])
    alone = [run.training.make(number).images for number in (0, 1, 2)]
    ahead = [batch.images for batch in run.training.ahead(range(3), workers=3)]
    assert all(torch.equal(one, other) for one, other in zip(alone, ahead, strict=True))
