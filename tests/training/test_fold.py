"""A fold goes on where it was stopped, however that was, and is scored on its held-out cases."""

import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from phantoms import Listener
from tiny_workspaces import NUMBER, edit_training, files_in, folders_of, plan_tiny, write_volumes

from autoseg.dataloading.loader import open_cases
from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Splits
from autoseg.errors import ModelError, UsageError
from autoseg.evaluation.summary import Summary
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map, write_label_map
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.model_selection import validation
from autoseg.model_selection.validation import pool_validation
from autoseg.models.checkpoint import Checkpoint, load_checkpoint
from autoseg.pipeline.training import train
from autoseg.training import fold_job, loop
from autoseg.training.duration import replace_length, resolve_duration

CONFIGURATION = "3d_fullres"
EPOCHS, STEPS = 3, 3

KILLED_AT_STEP = """
import os, signal, sys
from autoseg.pipeline.training import train
from autoseg.training import loop
from autoseg.training.duration import replace_length

def step_or_die(state, batch, run, reporter, step=loop.train_step):
    if state.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(state, batch, run, reporter)

loop.train_step = step_or_die
train(1, "3d_fullres", [0], device="cpu", workspace=sys.argv[1])
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a workspace that was planned and preprocessed but not trained."""
    root = tmp_path_factory.mktemp("prepared")
    write_volumes(root)
    plan_tiny(root, epochs=EPOCHS, steps_per_epoch=STEPS, average_decay=0.9)
    return root


@pytest.fixture(scope="module")
def straight(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a workspace in which fold 0 was trained without a stop."""
    root = tmp_path_factory.mktemp("straight") / "workspace"
    shutil.copytree(prepared, root)
    train(NUMBER, CONFIGURATION, [0], device="cpu", workspace=root)
    return root


@pytest.fixture
def fresh(prepared: Path, tmp_path: Path) -> Path:
    """Returns a copy of the untrained workspace."""
    return shutil.copytree(prepared, tmp_path / "fresh")


@pytest.fixture
def trained(straight: Path, tmp_path: Path) -> Path:
    """Returns a copy of the trained workspace."""
    return shutil.copytree(straight, tmp_path / "trained")


def model_of(root: Path):
    """Returns the model folder of a workspace."""
    return folders_of(root).model(CONFIGURATION)


def checkpoint_of(root: Path, fold=0) -> Checkpoint:
    """Loads the checkpoint of a fold."""
    return load_checkpoint(model_of(root).checkpoint(fold))


def run_train(root: Path, which=(0,), **options) -> Listener:
    """Trains, and returns a listener with the lines that were reported."""
    listener = Listener()
    train(NUMBER, CONFIGURATION, list(which), device="cpu", workspace=root, reporter=listener, **options)
    return listener


def trained_epochs(listener: Listener) -> list[int]:
    """Returns the numbers of the epochs that were trained."""
    return [int(line.split()[1].rstrip(":")) for line in listener.lines if line.startswith("epoch ")]


def assert_same_training(one: Checkpoint, other: Checkpoint) -> None:
    """Asserts that all that training computes is equal bit for bit; only times differ."""
    for name, value in one.weights.items():
        assert torch.equal(value, other.weights[name]), name
    for name, value in one.training["weights"].items():
        assert torch.equal(value, other.training["weights"][name]), name
    momenta = [checkpoint.training["optimizer"]["state"] for checkpoint in (one, other)]
    for number, state in momenta[0].items():
        assert torch.equal(state["momentum_buffer"], momenta[1][number]["momentum_buffer"])
    curves = [
        [(report["training_loss"], report["validation_loss"], report["learning_rate"]) for report in reports]
        for reports in (one.training["reports"], other.training["reports"])
    ]
    assert curves[0] == curves[1]


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises KeyboardInterrupt before a step, as Ctrl-C does."""
    original = loop.train_step

    def step_or_stop(state, batch, run, reporter):
        if state.step == step:
            raise KeyboardInterrupt
        return original(state, batch, run, reporter)

    monkeypatch.setattr(loop, "train_step", step_or_stop)


@pytest.mark.slow
def test_killed_run_goes_on_as_if_nothing_had_happened(fresh, straight):
    """After `kill -9` in the second epoch, the next run repeats that epoch and ends with the same weights."""
    command = [sys.executable, "-c", KILLED_AT_STEP, str(fresh), str(STEPS + 1)]
    killed = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = checkpoint_of(fresh)
    assert (left.training["step"], left.finished) == (STEPS, False)
    assert not model_of(fresh).validation(0).exists()
    listener = run_train(fresh)
    assert trained_epochs(listener) == [1, 2]
    assert_same_training(checkpoint_of(fresh), checkpoint_of(straight))
    for name in ("summary.json", "summary.csv"):
        assert (model_of(fresh).path / name).read_bytes() == (model_of(straight).path / name).read_bytes()


def test_interrupted_run_shows_its_whole_progress(fresh, monkeypatch):
    """The progress bar of the second run starts where that of the first one ended."""
    with monkeypatch.context() as patch:
        interrupt_at(2 * STEPS + 1, patch)
        with pytest.raises(KeyboardInterrupt):
            run_train(fresh)
    listener = run_train(fresh)
    assert trained_epochs(listener) == [2]
    assert listener.advanced["training"] == pytest.approx(1)


def test_finished_fold_is_left_alone(trained):
    """It is neither trained nor scored again, and no file is written."""
    before = {path: path.stat().st_mtime_ns for path in model_of(trained).fold(0).rglob("*")}
    listener = run_train(trained)
    assert "trained to its end; --restart" in listener.text
    assert listener.totals == {}
    assert {path: path.stat().st_mtime_ns for path in model_of(trained).fold(0).rglob("*")} == before


@pytest.mark.slow
def test_finished_folds_are_passed_over(trained):
    """Of folds 0 and 1, only fold 1 is trained, and the scores are those of both."""
    listener = run_train(trained, [0, 1])
    assert listener.text.count("trained to its end") == 1
    assert trained_epochs(listener) == list(range(EPOCHS))
    splits = Splits.load(folders_of(trained).splits)
    held_out = [*splits.fold(0).validation, *splits.fold(1).validation]
    summary = Summary.load(model_of(trained).path / "summary.json")
    assert [case.name for case in summary.cases] == held_out
    assert all(torch.isfinite(value).all() for value in checkpoint_of(trained, 1).weights.values())


def test_interrupted_validation_is_done_by_the_next_run(trained, straight, monkeypatch):
    """The fold is scored without being trained, and without segmenting again what was segmented."""
    shutil.rmtree(model_of(trained).validation(0))
    with monkeypatch.context() as patch:
        patch.setattr(validation, "_draw_case", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_train(trained)
    assert sorted(path.name for path in model_of(trained).fold(0).iterdir()) == [
        ".validating",
        "checkpoint.pt",
        "progress.csv",
        "progress.jsonl",
        "progress.png",
    ]
    listener = run_train(trained)
    assert trained_epochs(listener) == []
    assert listener.totals == listener.advanced == {"validating": 1}
    assert "1 of 1 held-out cases were segmented by an earlier run" in listener.text
    assert files_in(model_of(trained).fold(0)) == files_in(model_of(straight).fold(0))


def test_restart_trains_anew(trained, straight):
    """It begins with the first epoch and ends with the same weights, because the seed is the same."""
    listener = run_train(trained, restart=True)
    assert trained_epochs(listener) == list(range(EPOCHS))
    assert listener.totals.keys() == {"training", "validating"}
    assert_same_training(checkpoint_of(trained), checkpoint_of(straight))


@pytest.mark.slow
def test_restart_may_change_the_length(trained):
    """The length of the earlier training does not matter."""
    assert trained_epochs(run_train(trained, restart=True, epochs=1)) == [0]
    assert checkpoint_of(trained).plan.training.epochs == 1


@pytest.mark.slow
def test_restart_forgets_the_old_judgement(trained, monkeypatch):
    """A restarted fold is scored again, even after a stop, so no masks of old weights are left."""
    (model_of(trained).validation(0) / "old").touch()
    with monkeypatch.context() as patch:
        patch.setattr(validation, "_draw_case", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_train(trained, restart=True)
    assert not model_of(trained).validation(0).exists()
    assert run_train(trained).totals == {"validating": 1}
    assert not (model_of(trained).validation(0) / "old").exists()


@pytest.mark.slow
def test_restart_that_was_stopped_at_once_begins_anew(trained, monkeypatch):
    """The old weights are not taken for the result of the new run."""
    with monkeypatch.context() as patch:
        interrupt_at(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run_train(trained, restart=True)
    assert trained_epochs(run_train(trained)) == list(range(EPOCHS))


@pytest.mark.slow
def test_fold_of_a_budget_goes_on_without_options(fresh, monkeypatch):
    """The limit of seconds and the seconds that were used are remembered."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))
    with monkeypatch.context() as patch:
        interrupt_at(STEPS + 1, patch)
        with pytest.raises(KeyboardInterrupt):
            run_train(fresh, budget="12s")
    begun = checkpoint_of(fresh)
    assert begun.plan.training.budget_seconds == 12
    assert 0 < begun.training["elapsed_seconds"] < 12
    listener = run_train(fresh)
    assert "for 12 s on cpu" in listener.text
    ended = checkpoint_of(fresh)
    assert ended.finished
    assert ended.plan.training.budget_seconds == 12
    assert ended.training["elapsed_seconds"] >= 12
    assert ended.training["step"] > begun.training["step"]


@pytest.mark.slow
def test_fold_all_learns_from_every_case_and_is_judged_on_none(fresh):
    """With a numbered fold, the scores are those of that fold; alone, there are none."""
    listener = run_train(fresh, ["all"])
    assert "3 cases, none held out" in listener.text
    assert train(NUMBER, CONFIGURATION, ["all"], device="cpu", workspace=fresh) is None
    assert not model_of(fresh).validation("all").exists()
    assert not (model_of(fresh).path / "summary.json").exists()
    summary = train(NUMBER, CONFIGURATION, ["all", 0], device="cpu", workspace=fresh, epochs=EPOCHS)
    assert tuple(case.name for case in summary.cases) == Splits.load(folders_of(fresh).splits).fold(0).validation
    assert model_of(fresh).trained_folds() == [0, "all"]


def test_folds_start_from_different_weights(fresh):
    """The seed differs between folds, so that the networks of an ensemble differ."""
    run_train(fresh, [0, 1], epochs=1)
    first, second = checkpoint_of(fresh, 0), checkpoint_of(fresh, 1)
    assert any(not torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_length_of_a_begun_fold_stands_unless_it_is_changed_openly(trained):
    """Without options, or with the same length, it goes on; another length is refused."""
    former = checkpoint_of(trained)
    plan = edit_training(trained, epochs=7)
    assert resolve_duration(plan, former, CONFIGURATION, length_was_given=False).training.epochs == EPOCHS
    same = replace_length(plan, epochs=EPOCHS, budget_seconds=None)
    assert resolve_duration(same, former, CONFIGURATION, length_was_given=True).training.epochs == EPOCHS
    with pytest.raises(UsageError, match="begun with another length"):
        resolve_duration(plan, former, CONFIGURATION, length_was_given=True)


def test_a_begun_fold_may_go_on_by_other_means(trained):
    """Settings of how a step is calculated may change, as on another machine."""
    former = checkpoint_of(trained)
    plan = edit_training(trained, micro_batch_size=1, recompute_activations=True, compile="off")
    assert resolve_duration(plan, former, CONFIGURATION, length_was_given=False).training.micro_batch_size == 1
    plan = edit_training(trained, weight_decay=0.5)
    with pytest.raises(ModelError, match="was begun by another plan"):
        resolve_duration(plan, former, CONFIGURATION, length_was_given=False)


def test_epochs_end_a_budget_and_a_budget_outlives_epochs(trained):
    """The option that is given decides; the other setting is as the plan says."""
    plan = edit_training(trained, epochs=7, budget_seconds=60)
    assert replace_length(plan, epochs=None, budget_seconds=None) == plan
    by_epochs = replace_length(plan, epochs=2, budget_seconds=None).training
    assert (by_epochs.epochs, by_epochs.budget_seconds) == (2, None)
    by_time = replace_length(plan, epochs=None, budget_seconds=5).training
    assert (by_time.epochs, by_time.budget_seconds) == (7, 5)


def test_no_epoch_at_all_is_refused(trained):
    """The error is one line, as for every other option."""
    with pytest.raises(UsageError, match="at least one epoch, not 0; choose another number"):
        train(NUMBER, CONFIGURATION, 0, epochs=0, device="cpu", workspace=trained)


def test_rules_are_found_on_the_masks_of_all_folds(trained):
    """False islands in every held-out mask lead to a rule that removes them, saved for prediction."""
    dataset, model = Dataset.open(folders_of(trained).raw), model_of(trained)
    for path in model.validation(0).glob("*.nii.gz"):
        mask = read_label_map(path)
        array = mask.array.copy()
        array[-2:, -2:, :2] = 1
        write_label_map(path, Volume(array=array, geometry=mask.geometry))
    rules, pooled = pool_validation(dataset, model)
    assert rules.keep_largest == ((1,),)
    assert not rules.keep_largest_foreground
    assert PostprocessingRules.load(model.postprocessing) == rules
    assert Summary.load(model.path / "summary.json") == pooled


def test_masks_are_pictured(straight):
    """The pictures of the worst and of the median case can be opened and are not blank."""
    from matplotlib.image import imread

    for word in ("worst", "median"):
        picture = imread(model_of(straight).validation(0) / f"overlay_{word}.png")
        assert len(np.unique(picture)) > 10


def test_cases_are_judged_in_a_type_that_keeps_labels_in_one_file(tmp_path):
    """Images of two files, .mhd and .raw, can be trained on; the held-out masks are .mha files."""
    folders = write_volumes(tmp_path, ending=".mha")
    for path in folders.raw.rglob("*.mha"):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path.with_suffix(".mhd")))
        path.unlink()
    description = folders.raw / "dataset.json"
    description.write_text(description.read_text().replace(".mha", ".mhd"))
    plan_tiny(tmp_path, epochs=1, steps_per_epoch=1)
    train(NUMBER, CONFIGURATION, 0, device="cpu", workspace=tmp_path)
    held_out = Splits.load(folders.splits).fold(0).validation
    masks = model_of(tmp_path).validation(0).glob("case_*")
    assert sorted(path.name for path in masks) == [f"{name}.mha" for name in held_out]


def test_cases_of_a_fold_are_read_once(fresh, monkeypatch):
    """Cases that are both trained on and measured, as in fold "all", are held in memory once."""
    opened = []

    def listen(cases, codes):
        opened.extend(case.name for case in cases)
        return open_cases(cases, codes)

    monkeypatch.setattr("autoseg.training.fold.open_cases", listen)
    run_train(fresh, ["all"], epochs=1)
    assert sorted(opened) == sorted(set(opened)) != []


def test_resumed_checkpoint_is_copied_once_and_not_kept(trained, monkeypatch):
    """Checks read it mapped to its file, and its weights do not stay in memory beside those of the state."""
    loads, load, step = [], fold_job.load_checkpoint, loop.train_step

    def load_and_note(path, *, mapped=False):
        checkpoint = load(path, mapped=mapped)
        loads.append((mapped, weakref.ref(next(iter(checkpoint.weights.values())))))
        return checkpoint

    def step_without_the_loaded(state, *rest):
        assert all(reference() is None for _, reference in loads)
        return step(state, *rest)

    monkeypatch.setattr(fold_job, "load_checkpoint", load_and_note)
    monkeypatch.setattr(loop, "train_step", step_without_the_loaded)
    assert trained_epochs(run_train(trained, extend="1")) == [EPOCHS]
    assert [mapped for mapped, _ in loads] == [True, True, False]  # the second says how long the rest will take
