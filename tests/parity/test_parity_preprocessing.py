"""Preprocessed cases beside nnU-Net's."""

import json

import numpy as np
import pytest
from parity_sets import SETS

from autoseg.preprocessing.store import StoredCase

PAIRS = [(name, configuration) for name, one in SETS.items() for configuration in one.configurations]
LARGEST_DIFFERENCE = 1e-4


@pytest.mark.parametrize(("name", "configuration"), PAIRS)
def test_preprocessed_cases(bench, figures, name, configuration):
    """Images differ by less than 1e-4, label maps in no voxel."""
    made = bench.make(name)
    answer = bench.ask("read_cases", {"folder": str(made.theirs / f"nnUNetPlans_{configuration}")})
    names = sorted(key.removesuffix("_image") for key in answer if key.endswith("_image"))
    assert names == sorted(path.name.split(".")[0] for path in (made.ours.raw / "labelsTr").iterdir())
    largest, voxels, differing = 0.0, 0, 0
    for case in names:
        image, label = StoredCase.open(made.ours.cases(configuration), case).load()
        theirs = answer[f"{case}_image"]
        assert image.shape == theirs.shape
        largest = max(largest, float(np.abs(image - theirs).max()))
        voxels, differing = voxels + label.size, differing + np.count_nonzero(label != answer[f"{case}_label"])
    assert largest < LARGEST_DIFFERENCE
    assert differing == 0
    data = f"{name}, {configuration}"
    figures.add("preprocessed image", data, f"at most {largest:.1e} apart", "1e-4")
    figures.add("preprocessed label map", data, f"{differing} of {voxels:,} voxels differ", "none")


def test_the_sets_exercise_what_they_are_for(bench):
    """Axes are permuted, slices kept apart, images cropped and masked: else the comparison would say little."""
    assert bench.make("across").read_plans()["transpose_forward"] == [2, 0, 1]
    masked = bench.make("ms").read_plans()["configurations"]["3d_fullres"]["use_mask_for_norm"]
    assert masked == [True] * 4
    thick = bench.make("thick").read_plans()["configurations"]["3d_fullres"]
    assert thick["spacing"][0] > 3 * max(thick["spacing"][1:])
    assert thick["normalization_schemes"] == ["CTNormalization"]
    facts = json.loads((bench.make("ms").theirs / "dataset_fingerprint.json").read_text())
    assert facts["median_relative_size_after_cropping"] < 0.75
