"""The log files of a run are updated while it goes on, and set right after a stop."""

import json

import pandas as pd
import pytest
from phantoms import Listener
from small_models import small_plan

from autoseg.errors import AutosegError
from autoseg.training.monitoring import log_files
from autoseg.training.monitoring.log_files import open_log_files
from autoseg.training.monitoring.progress import EpochReport
from autoseg.training.monitoring.tracking import TrackedFold
from autoseg.workspace import ModelFolder

NAN = float("nan")


def report_of(epoch, **changes):
    """Returns a report of an epoch of ten seconds."""
    values = {
        "training_loss": 0.5,
        "validation_loss": 0.6,
        "pseudo_dice": {"liver": 0.5 + epoch / 100, "脾臓": NAN},
        "learning_rate": 0.01,
        "seconds": 10.0,
        "elapsed_seconds": 10.0 * (epoch + 1),
        "patches_per_second": 4.0,
        "waiting_share": 0.25,
        "device_memory_bytes": 7_900_000_000,
        "device_utilization": 0.5,
    }
    return EpochReport(epoch=epoch, **{**values, **changes})


class Remembering:
    """A tracker that remembers its calls, and may fail."""

    def __init__(self, fails_at=None):
        self.epochs, self.fails_at, self.finished = [], fails_at, None

    def log(self, report):
        if report.epoch == self.fails_at:
            raise ConnectionError("the server is away\nand far")
        self.epochs.append(report.epoch)

    def close(self, *, finished):
        self.finished = finished


@pytest.fixture
def model(tmp_path):
    """Returns a model folder."""
    return ModelFolder(path=tmp_path / "2d")


def opened(model, reports=(), trackers=None, reporter=None):
    """Returns a context with the open log files of fold 0."""
    fold = TrackedFold(dataset="D", model=model, fold=0, settings=small_plan().training, epochs_done=len(reports))
    return open_log_files(fold, trackers or {}, list(reports), reporter or Listener())


def lines_of(model):
    """Returns the lines of progress.jsonl as values."""
    return [json.loads(line) for line in model.progress(0, "jsonl").read_text(encoding="utf-8").splitlines()]


def run(model, epochs, before=(), finished=False, **options):
    """Reports some epochs, one after the other."""
    reports = list(before)
    with opened(model, reports, **options) as written:
        for epoch in epochs:
            reports.append(report_of(epoch))
            written.update(reports, finished=finished and epoch == epochs[-1])
    return reports


def test_lines_hold_everything_of_an_epoch(model):
    """A line has the attributes of a report by name, with null for undefined ones."""
    run(model, range(2))
    first, second = lines_of(model)
    assert first == {
        "epoch": 0,
        "training_loss": 0.5,
        "validation_loss": 0.6,
        "pseudo_dice": {"liver": 0.5, "脾臓": None},
        "mean_pseudo_dice": 0.5,
        "learning_rate": 0.01,
        "seconds": 10.0,
        "elapsed_seconds": 10.0,
        "patches_per_second": 4.0,
        "waiting_share": 0.25,
        "device_memory_bytes": 7_900_000_000,
        "device_utilization": 0.5,
    }
    assert second["epoch"] == 1
    assert first.keys() == second.keys()


def test_lines_are_added_not_rewritten(model):
    """A program that follows the file sees each epoch appear; the last line is always complete."""
    with opened(model) as written, model.progress(0, "jsonl").open(encoding="utf-8") as following:
        written.update([report_of(0)], finished=False)
        assert json.loads(following.readline())["epoch"] == 0
        written.update([report_of(0), report_of(1)], finished=False)
        assert following.readline().endswith("}\n")
        written.update([report_of(0), report_of(1)], finished=False)  # a stop in the middle of an epoch
        assert following.readline() == ""


def test_lines_of_lost_epochs_are_cut(model):
    """Lines beyond the checkpoint, half a line of a full disk, and a missing line are set right."""
    kept = run(model, range(4))[:2]
    with model.progress(0, "jsonl").open("a") as file:
        file.write('{"epoch": 4, "train')
    run(model, range(2, 3), before=kept)
    assert [line["epoch"] for line in lines_of(model)] == [0, 1, 2]
    model.progress(0, "jsonl").write_text("")
    run(model, range(3, 4), before=[*kept, report_of(2)])
    assert [line["epoch"] for line in lines_of(model)] == [0, 1, 2, 3]


def test_table_has_the_same_rows(model):
    """Undefined values are empty in the table."""
    run(model, range(3))
    table = pd.read_csv(model.progress(0, "csv"))
    assert table["epoch"].tolist() == [line["epoch"] for line in lines_of(model)]
    assert table["device_memory_bytes"].tolist() == [7_900_000_000] * 3
    assert table["waiting_share"].tolist() == [0.25] * 3
    assert table["pseudo_dice_脾臓"].isna().all()


def test_curves_are_drawn_every_half_minute_and_at_the_end(model, monkeypatch):
    """With epochs of ten seconds, they are drawn after the first, fifth, ninth and last epoch."""
    drawn = []
    monkeypatch.setattr(log_files, "draw_progress", lambda _, reports: drawn.append(reports[-1].epoch))
    run(model, range(11), finished=True)
    assert drawn == [0, 4, 8, 10]


def test_trackers_get_new_epochs_only(model):
    """They are also told whether the fold is finished."""
    first, second = Remembering(), Remembering()
    before = run(model, range(2), trackers={"one": lambda _: first})
    run(model, range(2, 4), before=before, finished=True, trackers={"one": lambda _: second})
    assert (first.epochs, first.finished) == ([0, 1], False)
    assert (second.epochs, second.finished) == ([2, 3], True)


def test_tracker_that_fails_costs_no_training(model):
    """One line reports it, and the other trackers go on."""
    listener, broken, sound = Listener(), Remembering(fails_at=1), Remembering()
    run(model, range(4), trackers={"broken": lambda _: broken, "sound": lambda _: sound}, reporter=listener)
    assert listener.lines == ["--log broken failed, training goes on without it: the server is away"]
    assert broken.epochs == [0]
    assert sound.epochs == [0, 1, 2, 3]
    assert len(lines_of(model)) == 4


def test_tracker_that_cannot_begin_ends_the_run(model):
    """The run ends before anything was trained, because the user asked for the tracker."""

    def refuse(_):
        raise ConnectionError("no route to host")

    with pytest.raises(AutosegError, match="--log mlflow cannot begin: no route to host; mend that, or leave"):
        run(model, range(1), trackers={"mlflow": refuse})
