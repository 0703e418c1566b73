"""Small made-up cases beside nnU-Net: thick slices, axes in another order, cropping, labels and regions."""

import numpy as np
import pytest
from both_programs import ask, ask_about_cases
from parity_cases import NOTCH, SMALL_CASES

from autoseg.imaging.geometry import Volume
from autoseg.preprocessing.case import preprocess_case


@pytest.fixture(scope="module")
def answers(nnunet):
    """What nnU-Net makes of all of them."""
    return ask_about_cases(nnunet)


@pytest.mark.parametrize("name", SMALL_CASES)
def test_preprocessing(answers, figures, name):
    """Boxes and label maps are the same, images within 1e-4."""
    largest = SMALL_CASES[name].compare_preprocessed(answers[name])
    voxels = answers[name]["label"].size
    figures.add("preprocessed image", f"made up: {name}", f"at most {largest:.1e} apart", "1e-4")
    figures.add("preprocessed label map", f"made up: {name}", f"0 of {voxels:,} voxels differ", "none")
    assert largest < 1e-4


@pytest.mark.parametrize("name", SMALL_CASES)
def test_export(answers, figures, name):
    """The same logits become the same label map and probabilities."""
    differing, largest = SMALL_CASES[name].compare_exported(answers[name])
    voxels = answers[name]["segmentation"].size
    kind = "labels" if SMALL_CASES[name].info.targets.exclusive else "regions"
    found = f"{differing} of {voxels:,} voxels differ; probabilities at most {largest:.1e} apart"
    figures.add("logits to a label map", f"made up: {name}, {kind}", found, "99.99 %, 1e-5")
    assert differing <= 1e-4 * voxels
    assert largest < 1e-5


def test_labels_outside_the_brain(nnunet, figures):
    """A label where the image is zero shifts nnU-Net's normalization of the image; here it has no say.

    When nnU-Net predicts, no label is there, and it normalizes as this program does. So this difference is deliberate.
    """
    case = SMALL_CASES["cube"]
    image, label = case.make()
    outside = label.array.copy()
    outside[NOTCH] = 1
    arrays = {"0_label": outside.astype(np.int16), "1_label": np.zeros_like(outside, dtype=np.int16)}
    arrays |= {f"{number}_image": image.array for number in range(2)}
    answer = ask(nnunet, "preprocess", {"cases": [case.question()] * 2}, arrays)
    ours = preprocess_case(
        image,
        Volume(array=outside, geometry=label.geometry),
        axis_order=case.axis_order,
        configuration=case.configuration,
    )
    assert np.abs(ours.image - answer["1_image"]).max() < 1e-4
    largest = float(np.abs(ours.image - answer["0_image"]).max())
    assert largest > 0.1
    found = f"{largest:.1f} apart where a label lies outside the brain; as nnU-Net's without a label"
    figures.add("preprocessed image", "made up: cube, deliberate", found, "-")
