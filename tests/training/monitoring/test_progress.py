"""Reports of a training run as lines and as a table."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from autoseg.errors import ArtifactError
from autoseg.training.monitoring.progress import (
    EpochReport,
    append_line,
    describe_epoch,
    read_lines,
    write_lines,
    write_progress,
)

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


def test_the_table_opens_in_pandas_with_the_same_numbers(tmp_path):
    """Every number is read back, undefined ones as NaN, and labels may have any name."""
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
        "patches_per_second",
        "waiting_share",
        "device_memory_bytes",
        "device_utilization",
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
    """The table holds "0.5", whatever type the number has."""
    (report,) = reports(1)
    write_progress(tmp_path / "progress.csv", [replace(report, training_loss=np.float64(0.5))])
    assert pd.read_csv(tmp_path / "progress.csv")["training_loss"].tolist() == [0.5]


def test_no_epochs_make_a_table_without_rows(tmp_path):
    """A table with only a header is written."""
    write_progress(tmp_path / "progress.csv", [])
    assert len(pd.read_csv(tmp_path / "progress.csv")) == 0


def test_a_folder_that_cannot_be_made_is_an_error_in_one_line(tmp_path):
    """A file where the folder should be is left for the user to move."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match="cannot write"):
        write_progress(tmp_path / "file" / "progress.csv", reports(1))


def test_the_mean_leaves_out_undefined_labels():
    """It is undefined only if all labels are undefined."""
    (report,) = reports(1)
    assert replace(report, pseudo_dice={"a": 0.5, "b": NAN, "c": 0.75}).mean_pseudo_dice == 0.625
    assert math.isnan(replace(report, pseudo_dice={"a": NAN}).mean_pseudo_dice)


def test_a_report_survives_as_plain_values():
    """The values of `to_dict` are plain, and give the same report again."""
    (report,) = reports(1)
    values = report.to_dict()
    assert type(values) is dict
    assert EpochReport.from_dict(values) == report


def test_console_line_of_an_epoch():
    """The line has losses, pseudo Dice per label, and speed; unknown values are left out."""
    (report,) = reports(1)
    assert describe_epoch(report) == (
        "epoch 0: loss 1.000, held out 1.100, pseudo Dice Anterior 0.500  Posterior 0.500 (10.0 s)"
    )
    known = replace(
        report,
        patches_per_second=12.34,
        waiting_share=0.031,
        device_memory_bytes=7_900_000_000,
        device_utilization=0.96,
    )
    assert describe_epoch(known).endswith("(10.0 s, 12.3 patches/s, 3% waiting for them, 7.9 GB, GPU 96% busy)")


def test_console_line_of_many_labels_names_the_lowest():
    """Of a hundred labels, only the lowest are named."""
    (report,) = reports(1)
    dice = {f"rib_{number}": number / 100 for number in range(99, 0, -1)}
    line = describe_epoch(replace(report, pseudo_dice=dice))
    assert "pseudo Dice mean 0.500, lowest rib_1 0.010  rib_2 0.020  " in line
    assert "rib_8 0.080 (" in line
    assert "rib_9 " not in line


def test_lines_are_read_back_while_a_run_appends(tmp_path):
    """Undefined numbers as NaN; a line without its end is left out, and so is what this version does not know."""
    first, second = reports(2)
    first = replace(first, validation_loss=NAN, pseudo_dice={"Anterior": NAN, "Posterior": 0.5})
    path = tmp_path / "progress.jsonl"
    assert read_lines(path) == []
    write_lines(path, [first])
    append_line(path, second)
    with path.open("a") as file:
        file.write('{"epoch": 2, "training_lo')
    read = read_lines(path)
    assert read[1:] == [second]
    assert repr(read[0]) == repr(first)
    path.write_text(second.to_line().replace('"epoch"', '"later": 1, "epoch"'))
    assert read_lines(path) == [second]


@pytest.mark.parametrize("line", ["no JSON", "[]", "{}", '{"epoch": 0, "pseudo_dice": {}, "training_loss": "low"}'])
def test_damaged_line_is_named(tmp_path, line):
    """By its number."""
    path = tmp_path / "progress.jsonl"
    path.write_text(f"{reports(1)[0].to_line()}{line}\n")
    with pytest.raises(ArtifactError, match=r"line 2 of .*progress.jsonl is damaged"):
        read_lines(path)
