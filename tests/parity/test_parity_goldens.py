"""What nnU-Net 2.8.1 said of small made-up cases, recorded by `parity/record.py`: this program says the same.

The whole comparison, with real scans and networks, is `tests/parity`, which needs nnU-Net itself.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from parity_cases import SMALL_CASES, SPLIT_COUNTS, TILED_IMAGES
from parity_judged import JUDGED

from autoseg.datasets.splits import make_splits
from autoseg.inference.axis_tiling import gaussian_weights, tile_starts
from autoseg.nnunet.postprocessing_file import read_rules

GOLDEN = Path(__file__).parents[1] / "golden"
SAID = json.loads((GOLDEN / "parity.json").read_text())


@pytest.fixture(scope="module")
def recorded():
    """The arrays of each case, by name."""
    with np.load(GOLDEN / "parity_cases.npz") as found:
        return dict(found)


def answer_about(recorded, name):
    """Those of one case."""
    return {key.removeprefix(f"{name}_"): value for key, value in recorded.items() if key.startswith(f"{name}_")}


@pytest.mark.parametrize("name", SMALL_CASES)
def test_preprocessing(recorded, name):
    """Thick slices, axes in another order, a notch without signal: images within 1e-4, label maps to the voxel."""
    assert SMALL_CASES[name].compare_preprocessed(answer_about(recorded, name)) < 1e-4


@pytest.mark.parametrize("name", SMALL_CASES)
def test_export(recorded, name):
    """Logits of labels and of regions become the same label map; probabilities are recorded in half precision."""
    differing, largest = SMALL_CASES[name].compare_exported(answer_about(recorded, name))
    assert differing == 0
    assert largest < 1e-3


def test_tile_positions():
    """Tiles start at the same voxels."""
    for (size, patch), starts in zip(TILED_IMAGES, SAID["tiles"], strict=True):
        assert [tile_starts(voxels, edge) for voxels, edge in zip(size, patch, strict=True)] == starts


def test_gaussian(recorded):
    """Voxels of a tile weigh as much; the peak of nnU-Net's is 10."""
    theirs = recorded["gaussian"] / 10
    z, y, x = (gaussian_weights(edge) for edge in theirs.shape)
    np.testing.assert_allclose(z[:, None, None] * y[:, None] * x, theirs, atol=1e-6)


def test_splits():
    """The same cases are held out in the same folds."""
    for count, held_out in zip(SPLIT_COUNTS, SAID["held_out"], strict=True):
        splits = make_splits([f"case_{number:03d}" for number in range(count)])
        assert [list(fold.validation) for fold in splits.folds] == held_out


@pytest.mark.parametrize("name", JUDGED)
def test_scores(name):
    """Scores per case, means and the foreground mean are the same; undefined ones are undefined in both."""
    assert JUDGED[name].compare_scores(SAID["judged"][name]["summary"]) > 10


@pytest.mark.parametrize("name", JUDGED)
def test_postprocessing(name, tmp_path):
    """The same largest components are kept."""
    (tmp_path / "postprocessing.json").write_text(json.dumps(SAID["judged"][name]["postprocessing"]))
    ours, theirs = JUDGED[name].find_rules(), read_rules(tmp_path, JUDGED[name].info.targets)
    assert theirs is not None
    assert (ours.keep_largest_foreground, ours.keep_largest) == (theirs.keep_largest_foreground, theirs.keep_largest)
