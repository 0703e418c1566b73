"""The record of a training run as table and as curves."""

import math
import subprocess
import sys
from dataclasses import replace

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.errors import ArtifactError
from autoseg.training.progress import EpochReport, _running_mean, draw_progress, write_progress

NAN = float("nan")


def reports(epochs, labels=("Anterior", "Posterior")):
    """A run in which everything gets better."""
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


def test_the_table_opens_in_pandas_with_the_same_numbers(tmp_path):
    """Every number survives, undefined ones as NaN, and labels may have any name."""
    first, second = reports(2, labels=('a, "b"', "脾臓"))
    second = replace(second, validation_loss=NAN, pseudo_dice={**second.pseudo_dice, "脾臓": NAN})
    write_progress(tmp_path / "progress.csv", [first, second])
    table = pd.read_csv(tmp_path / "progress.csv")
    assert list(table.columns) == [
        "epoch",
        "training_loss",
        "validation_loss",
        "mean_pseudo_dice",
        'pseudo_dice_a, "b"',
        "pseudo_dice_脾臓",
        "learning_rate",
        "seconds",
        "elapsed_seconds",
    ]
    assert table["epoch"].tolist() == [0, 1]
    assert table["learning_rate"].tolist() == pytest.approx([first.learning_rate, second.learning_rate], rel=1e-14)
    assert table["validation_loss"].isna().tolist() == [False, True]
    assert table["pseudo_dice_脾臓"].isna().tolist() == [False, True]
    assert table["mean_pseudo_dice"].tolist() == [first.mean_pseudo_dice, second.mean_pseudo_dice]


def test_the_table_is_written_anew_each_time(tmp_path):
    """A resumed run leaves no epoch twice."""
    path = tmp_path / "progress.csv"
    write_progress(path, reports(5))
    write_progress(path, reports(3))
    assert pd.read_csv(path)["epoch"].tolist() == [0, 1, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["progress.csv"]


def test_numbers_of_numpy_are_written_as_plain_numbers(tmp_path):
    """The table holds "0.5", whatever library made the number."""
    (report,) = reports(1)
    write_progress(tmp_path / "progress.csv", [replace(report, training_loss=np.float64(0.5))])
    assert pd.read_csv(tmp_path / "progress.csv")["training_loss"].tolist() == [0.5]


def test_no_epochs_make_a_table_without_rows(tmp_path):
    """The header alone is still a table."""
    write_progress(tmp_path / "progress.csv", [])
    assert len(pd.read_csv(tmp_path / "progress.csv")) == 0


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
    """One PNG file and nothing else, from the first epoch on."""
    draw_progress(tmp_path / "progress.png", reports(epochs, labels))
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]
    height, width = matplotlib.image.imread(tmp_path / "progress.png").shape[:2]
    assert width > height > 500


def test_undefined_values_are_left_out_of_the_curves(tmp_path):
    """Nothing held out, or a label that never occurred, is no reason to fail."""
    run = [replace(report, validation_loss=NAN, pseudo_dice={"a": NAN, "b": 0.5}) for report in reports(50)]
    draw_progress(tmp_path / "progress.png", run)
    assert (tmp_path / "progress.png").stat().st_size > 0


def test_curves_need_an_epoch(tmp_path):
    """Drawing nothing is a mistake of the caller, and leaves no file."""
    with pytest.raises(ValueError, match="no epochs"):
        draw_progress(tmp_path / "progress.png", [])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(tmp_path):
    """A file where the folder should be is the user's to move."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_progress(tmp_path / "file" / "progress.csv", reports(1))


def test_the_mean_leaves_out_undefined_labels():
    """It is undefined only if all labels are."""
    (report,) = reports(1)
    assert replace(report, pseudo_dice={"a": 0.5, "b": NAN, "c": 0.75}).mean_pseudo_dice == 0.625
    assert math.isnan(replace(report, pseudo_dice={"a": NAN}).mean_pseudo_dice)


def test_a_report_survives_as_plain_values():
    """A checkpoint holds dictionaries of plain values only."""
    (report,) = reports(1)
    values = report.to_dict()
    assert type(values) is dict
    assert EpochReport.from_dict(values) == report


@given(st.lists(st.one_of(st.just(NAN), st.floats(-2, 2)), min_size=1, max_size=30), st.sampled_from([3, 5, 7]))
@settings(max_examples=60, deadline=None)
def test_the_running_mean_is_the_mean_of_the_known_neighbours(values, window):
    """As long as the values, undefined where they are."""
    smooth = _running_mean(values, window)
    assert len(smooth) == len(values)
    for index, value in enumerate(values):
        near = values[max(0, index - window // 2) : index + window // 2 + 1]
        expected = NAN if math.isnan(value) else np.mean([other for other in near if not math.isnan(other)])
        assert smooth[index] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_training_does_not_load_the_drawing_library():
    """Matplotlib is imported by the function that draws, not by the module."""
    code = "import sys, autoseg.training.progress; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
