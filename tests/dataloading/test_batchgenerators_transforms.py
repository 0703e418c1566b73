"""Transforms of batchgenerators by name: what they do to a patch, their random numbers, and errors before training."""

import random as python_random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from batchgenerators.transforms.noise_transforms import RicianNoiseTransform
from custom_parts import own_run

from autoseg.dataloading.augmentation import apply_custom_transform
from autoseg.dataloading.batchgenerators_transforms import _list_classes, resolve_transform
from autoseg.errors import UsageError
from autoseg.planning.plugin_settings import CustomTransform
from autoseg.training.plugin_checks import check_presence, try_out

SIZE = (8, 10, 12)
RICIAN = ("batchgenerators:RicianNoiseTransform", {"noise_variance": [0.1, 0.2]})


def apply(name, settings=None, *, seed=3, size=SIZE, channels=2):
    """Changes a patch of noise whose label map is a half of it; returns both before and after."""
    image = torch.randn((channels, *size), generator=torch.Generator().manual_seed(0))
    label = torch.full(size, -1, dtype=torch.int16)
    label[1:], label[-3:] = 0, 2
    custom = CustomTransform(name=f"batchgenerators:{name}", settings=settings or {})
    return image, label, *apply_custom_transform(custom, image.clone(), label.clone(), seed)


def test_noise_is_what_the_package_itself_makes():
    """With generators that are seeded alike, image for image."""
    image, label, changed, changed_label = apply("RicianNoiseTransform", RICIAN[1])
    random = np.random.default_rng(3)
    before = np.random.get_state(), python_random.getstate()  # noqa: NPY002
    np.random.seed(int(random.integers(2**32)))  # noqa: NPY002
    python_random.seed(int(random.integers(2**32)))
    wanted = RicianNoiseTransform(noise_variance=(0.1, 0.2))(data=image.numpy()[np.newaxis].copy())["data"][0]
    np.random.set_state(before[0])  # noqa: NPY002
    python_random.setstate(before[1])
    np.testing.assert_array_equal(changed.numpy(), wanted.astype(np.float32))
    assert not torch.equal(changed, image)
    assert torch.equal(changed_label, label)


def test_image_and_label_turn_together():
    """What lies where does not come apart, labels stay whole numbers, and nothing is added outside the case."""
    size = (10, 10, 10)
    turned = 0
    for seed in range(8):
        image, label, changed, changed_label = apply("Rot90Transform", {"p_per_sample": 1}, seed=seed, size=size)
        pairs = sorted(zip(image[0].flatten().tolist(), label.flatten().tolist(), strict=True))
        assert sorted(zip(changed[0].flatten().tolist(), changed_label.flatten().tolist(), strict=True)) == pairs
        assert changed_label.dtype == label.dtype
        turned += not torch.equal(changed, image)
    assert turned


@pytest.mark.parametrize("size", [SIZE, (16, 12)])
@pytest.mark.filterwarnings("ignore")
def test_every_transform_changes_a_patch_or_says_why_not(size):
    """None ends in a traceback, and most of those that need no settings work."""
    works, texts = [], []
    for name in _list_classes():
        try:
            _, _, changed, label = apply(name, size=size, channels=1)
        except UsageError as error:
            texts.append(str(error))
        else:
            assert (changed.shape, label.shape) == ((1, *size), size)
            works.append(name)
    assert {"GaussianBlurTransform", "GammaTransform"} <= set(works)
    assert len(works) > 15
    assert all("batchgenerators:" in text for text in texts)


def test_chance_follows_from_the_seed_alone():
    """Neither from what the process drew before, nor from other threads; and what it draws next is not changed."""
    wanted = apply("RicianNoiseTransform", RICIAN[1])[2]
    other = apply("RicianNoiseTransform", RICIAN[1], seed=4)[2]
    assert not torch.equal(wanted, other)
    numpy_state, python_state = np.random.get_state(), python_random.getstate()  # noqa: NPY002
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda seed: apply("RicianNoiseTransform", RICIAN[1], seed=seed)[2], [3, 4] * 20))
    assert all(torch.equal(one, wanted) for one in results[::2])
    assert all(torch.equal(one, other) for one in results[1::2])
    np.testing.assert_equal(np.random.get_state(), numpy_state)  # noqa: NPY002
    assert python_random.getstate() == python_state


def test_batches_of_a_resumed_run_are_equal_to_the_bit():
    """Made in any order by any number of threads, in a process that has drawn other numbers meanwhile."""
    gamma = ("batchgenerators:GammaTransform", {"gamma_range": [0.5, 2]})
    first, second = (own_run(None, transforms=[RICIAN, gamma]) for _ in range(2))
    whole = [batch.images for batch in first.training.ahead(range(6), workers=3)]
    np.random.random(17)  # noqa: NPY002
    resumed = [batch.images for batch in second.training.ahead(range(3, 6), workers=1)]
    assert all(torch.equal(one, other) for one, other in zip(whole[3:], resumed, strict=True))
    assert not torch.equal(own_run(None).training.make(3).images, whole[3])


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("RicianNoise", {}, r"no transform 'RicianNoise'; did you mean batchgenerators:RicianNoiseTransform\?"),
        ("AbstractTransform", {}, "no transform 'AbstractTransform'"),
        ("RicianNoiseTransform", {"variance": 1}, "has no settings.variance; choose from noise_variance, p_per_sample"),
        ("RicianNoiseTransform", {"data_key": "x"}, "settings.data_key of .* follows from the patch; leave it out"),
        ("RandomCropTransform", {"label_key": None}, "settings.label_key"),
        ("CenterCropTransform", {}, "needs settings.crop_size; give it in plan.json"),
    ],
)
def test_wrong_names_and_settings_are_refused_before_training(name, settings, text):
    """One line each."""
    run = own_run(None, transforms=[(f"batchgenerators:{name}", settings)])
    with pytest.raises(UsageError, match=text):
        check_presence(run.training.configuration, run.settings)


@pytest.mark.parametrize(
    ("name", "settings", "text"),
    [
        ("RicianNoiseTransform", {"noise_variance": "much"}, "cannot change a patch of 8 x 8 x 8 voxels"),
        ("CenterCropTransform", {"crop_size": [4, 4, 4]}, "does not give an image"),
        ("RenameTransform", {"in_key": "data", "out_key": "x", "delete_old": True}, "cannot change a patch"),
    ],
)
def test_settings_that_fail_are_refused_before_the_first_step(name, settings, text):
    """A trial on noise tells."""
    run = own_run(None, transforms=[(f"batchgenerators:{name}", settings)])
    check_presence(run.training.configuration, run.settings)
    with pytest.raises(UsageError, match=text):
        try_out(torch.nn.Identity(), run)


def test_other_names_are_plugins():
    """Of installed packages, which say themselves what is missing."""
    with pytest.raises(UsageError, match="there is no transform 'haze' here"):
        resolve_transform(CustomTransform(name="haze"))
    with pytest.raises(ValueError, match="pattern"):
        CustomTransform(name="monai:RandGibbsNoise")
