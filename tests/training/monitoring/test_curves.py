"""Reports of a training run are drawn as curves."""

import math
import subprocess
import sys
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.training.monitoring.curves import _running_mean, draw_progress
from autoseg.training.monitoring.progress import EpochReport

NAN = float("nan")


def reports(epochs, labels=("Anterior", "Posterior")):
    """Returns reports of a run in which everything improves."""
    return [
        EpochReport(
            epoch=epoch,
            training_loss=1 - epoch / epochs,
            validation_loss=1.1 - epoch / epochs,
            pseudo_dice=dict.fromkeys(labels, (epoch + 0.5) / epochs),
            learning_rate=0.01 * (1 - epoch / epochs) ** 0.9,
            seconds=10.0 + epoch % 3,
            elapsed_seconds=11.0 * (epoch + 1),
        )
        for epoch in range(epochs)
    ]


@pytest.mark.parametrize(
    ("epochs", "labels"),
    [
        (1, ("x",)),
        (2, ("_hidden", "$x^{2", "脾臓")),
        (41, ("x", "y")),
        (1000, ("x", "y")),
        (60, tuple(map(str, range(30)))),
    ],
)
def test_curves_of_any_length_are_drawn_without_a_warning(tmp_path, epochs, labels):
    """From the first epoch on, one PNG file is written and nothing else."""
    draw_progress(tmp_path / "progress.png", reports(epochs, labels))
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]
    height, width = matplotlib.image.imread(tmp_path / "progress.png").shape[:2]
    assert width > height > 500


def test_undefined_values_are_left_out_of_the_curves(tmp_path):
    """A validation loss of NaN, or a label that never occurred, does not make drawing fail."""
    run = [replace(report, validation_loss=NAN, pseudo_dice={"a": NAN, "b": 0.5}) for report in reports(50)]
    draw_progress(tmp_path / "progress.png", run)
    assert (tmp_path / "progress.png").stat().st_size > 0


def test_curves_need_an_epoch(tmp_path):
    """Drawing no epochs is an error of the caller, and leaves no file."""
    with pytest.raises(ValueError, match="no epochs"):
        draw_progress(tmp_path / "progress.png", [])
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.one_of(st.just(NAN), st.floats(-2, 2)), min_size=1, max_size=30), st.sampled_from([3, 5, 7]))
@settings(max_examples=60, deadline=None)
def test_the_running_mean_is_the_mean_of_the_known_neighbours(values, window):
    """It is as long as the values, and undefined where they are."""
    smooth = _running_mean(values, window)
    assert len(smooth) == len(values)
    for index, value in enumerate(values):
        near = values[max(0, index - window // 2) : index + window // 2 + 1]
        expected = NAN if math.isnan(value) else np.mean([other for other in near if not math.isnan(other)])
        assert smooth[index] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_training_does_not_load_the_drawing_library():
    """Matplotlib is imported by the function that draws, not by the module."""
    code = "import sys, autoseg.training.monitoring.curves; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
