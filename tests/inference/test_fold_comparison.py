"""Folds on one image: their mean and their agreement, beside brute force, for classes and regions."""

import math

import numpy as np
import pytest

from autoseg.imaging.targets import Targets
from autoseg.inference.descriptor import describe_image
from autoseg.inference.fold_comparison import find_structures, measure_agreement

REGIONS = Targets(structures={f"r{number}": (number,) for number in range(1, 11)}, exclusive=False)


@pytest.mark.parametrize("targets", [Targets.of_labels({"liver": 1, "tumour": 2}), REGIONS])
def test_agreement_equals_brute_force(targets):
    """The mean Dice of each structure between each fold and the mean, also of more regions than a byte has bits."""
    random = np.random.default_rng(0)
    logits = [random.normal(size=(targets.outputs, 4, 5, 6)).astype(np.float32) for _ in range(3)]
    mean = np.mean(logits, axis=0)

    def mask(values, number):
        return values.argmax(axis=0) == number + 1 if targets.exclusive else values[number] > 0

    found = measure_agreement(
        [find_structures(one, targets) for one in logits], find_structures(mean, targets), targets
    )
    for number, name in enumerate(targets.names):
        reference = mask(mean, number)
        dice = [
            2 * (mask(one, number) & reference).sum() / (mask(one, number).sum() + reference.sum()) for one in logits
        ]
        assert found[name] == pytest.approx(np.mean(dice))


def test_a_structure_that_the_mean_lacks_has_no_agreement():
    """Its Dice is undefined, not 0."""
    targets = Targets.of_labels({"liver": 1})
    empty, full = np.zeros((1, 1, 1, 2), np.uint8), np.ones((1, 1, 1, 2), np.uint8)
    assert math.isnan(measure_agreement([full], empty, targets)["liver"])
    assert measure_agreement([empty, full], full, targets)["liver"] == 0.5


@pytest.mark.parametrize("shape", [(1, 3, 5), (1, 40, 50), (9, 8, 7)])
def test_descriptors_of_all_shapes_have_one_length(shape):
    """Slices and volumes, with and without foreground."""
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    foreground = np.zeros(shape, bool)
    assert describe_image(image, foreground).shape == (3 * 64 + 1,)
    foreground[:, 1:, 1:] = True
    assert np.isfinite(describe_image(image, foreground)).all()


def test_a_descriptor_looks_at_the_surroundings_of_the_foreground():
    """Voxels far away change nothing; those beside it do."""
    image, foreground = np.zeros((1, 40, 40, 40), np.float32), np.zeros((40, 40, 40), bool)
    foreground[10:18, 10:18, 10:18] = True
    before = describe_image(image, foreground)
    image[:, 30:] = 9
    assert (describe_image(image, foreground) == before).all()
    image[:, 8:10] = 9
    assert (describe_image(image, foreground) != before).any()
