"""A student learns from a teacher, with scans without labels, and is a configuration like any other."""

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantoms import Listener
from tiny_workspaces import NAME, NUMBER, files_in, folders_of, plan_tiny, write_splits, write_volumes

from autoseg.errors import ArtifactError, DatasetError, ModelError, Stopped, UsageError
from autoseg.imaging.image_files import read_image
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.distillation import distil
from autoseg.pipeline.interruption import LOOK_SECONDS
from autoseg.pipeline.prediction import predict
from autoseg.pipeline.scores import find_best
from autoseg.pipeline.sharing import export_model
from autoseg.pipeline.training import stop, train
from autoseg.planning import student
from autoseg.planning.plan import Plan
from autoseg.planning.settings import TrainingSettings
from autoseg.preprocessing.soft_predictions import SoftPrediction
from autoseg.preprocessing.store import StoredCase

pytestmark = pytest.mark.slow

STUDENT = "3d_fullres"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Lets students take a few steps, as an edited plan would."""
    training = TrainingSettings(epochs=2, steps_per_epoch=4, validation_steps=1, learning_rate=0.2, momentum=0.9)
    monkeypatch.setattr(student, "STUDENT_PRESET", replace(student.STUDENT_PRESET, training=training))


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Returns a workspace in which fold 0 of a teacher is trained."""
    root = tmp_path_factory.mktemp("taught")
    write_volumes(root, cases=5, shape=(16, 24, 24))
    plan_tiny(root, epochs=4, steps_per_epoch=20)
    write_splits(root, [(("case_1", "case_2", "case_3"), ("case_4", "case_5"))])
    train(NUMBER, STUDENT, [0], device="cpu", workspace=root)
    return root


@pytest.fixture
def fresh(taught, tmp_path):
    """Returns a copy of that workspace."""
    return shutil.copytree(taught, tmp_path / "fresh")


def run_distil(root, **options):
    """Distils fold 0, and returns a listener with the lines that were reported, and the scores."""
    listener = Listener()
    values = {"folds": [0], "device": "cpu", "workspace": root, "reporter": listener, **options}
    return listener, distil(NUMBER, **values)


def student_of(root, name="laptop"):
    """The checkpoint of the student."""
    return load_checkpoint(folders_of(root).with_plan(name).model(STUDENT).checkpoint(0))


def unlabelled_in(root):
    """The folder of a scan that nobody labelled."""
    return root / "raw" / NAME / "imagesTs"


def test_from_a_teacher_to_masks(fresh, tmp_path):
    """The student is smaller, is scored on the cases that its fold holds out, and predicts like any configuration."""
    listener, summary = run_distil(fresh, unlabelled=unlabelled_in(fresh), epochs=20)
    folders = folders_of(fresh).with_plan("laptop")
    plan, usual = Plan.load(folders.plan), Plan.load(folders_of(fresh).plan)
    narrow, teacher = plan.configurations[STUDENT], usual.configurations[STUDENT]
    assert narrow.architecture.stages[0].features < teacher.architecture.stages[0].features
    held_out = json.loads(folders.splits.read_text())["folds"][0]["validation"]
    assert {case.name for case in summary.cases} == set(held_out)
    assert summary.foreground_mean.dice > 0.5
    assert any("mean Dice of whole held-out cases" in line and "of its teacher" in line for line in listener.lines)

    cases = {path.stem for path in folders.soft_predictions(0).glob("*.zip")}
    assert cases == {f"case_{number}" for number in range(1, 7)} - set(held_out)
    assert [path.stem for path in folders.unlabelled_cases.iterdir()] == ["case_6"]
    probabilities = SoftPrediction.open(folders.soft_predictions(0), "case_6").load_values()
    label = StoredCase.open(folders.soft_labels(0), "case_6").load_label()
    assert np.array_equal(label == 1, 2 * probabilities[0].astype(int) > 255)
    assert set(np.unique(label)) == {0, 1, 2}

    [mask] = predict(unlabelled_in(fresh), tmp_path / "masks", number=NUMBER, plan_name="laptop", workspace=fresh)
    assert read_image((mask,)).geometry.shape == (16, 24, 24)
    best = find_best(NUMBER, workspace=fresh)
    assert any("laptop/3d_fullres" in candidate.configurations for candidate in best.candidates)
    assert export_model(NUMBER, tmp_path / "student.zip", plan_name="laptop", workspace=fresh)


def test_a_stopped_student_goes_on_bit_for_bit(fresh, tmp_path):
    """Asked to stop after its first epoch and called again, it ends with the weights of one that was not stopped."""
    straight = shutil.copytree(fresh, tmp_path / "straight")
    run_distil(straight, unlabelled=unlabelled_in(straight))

    class Stopping(Listener):
        """Asks to stop when the first epoch is over."""

        def say(self, line: str) -> None:
            super().say(line)
            if line.startswith("epoch 0"):
                stop(NUMBER, STUDENT, [0], plan_name="laptop", workspace=fresh)
                time.sleep(3 * LOOK_SECONDS)  # tiny epochs would be over before the request is seen

    with pytest.raises(Stopped):
        run_distil(fresh, unlabelled=unlabelled_in(fresh), reporter=Stopping())
    assert not student_of(fresh).finished
    run_distil(fresh, unlabelled=unlabelled_in(fresh))
    one, other = student_of(fresh), student_of(straight)
    assert one.finished
    assert other.finished
    assert all(torch.equal(value, other.weights[name]) for name, value in one.weights.items())


def test_the_teacher_matters(fresh, tmp_path):
    """With its weight next to nothing, the student learns otherwise; and with scans without labels as well."""
    weak = shutil.copytree(fresh, tmp_path / "weak")
    more = shutil.copytree(fresh, tmp_path / "more")
    run_distil(fresh)
    run_distil(weak, weight=1e-6)
    run_distil(more, unlabelled=unlabelled_in(more))
    weights = [student_of(root).weights for root in (fresh, weak, more)]
    for other in weights[1:]:
        assert any(not torch.equal(value, other[name]) for name, value in weights[0].items())


def test_the_same_call_keeps_what_is_there(fresh):
    """Plan, predictions and student of an earlier call; other limits are another student."""
    run_distil(fresh)
    before = {
        name: (fresh / name).stat().st_mtime_ns for name in files_in(fresh) if "soft_pred" in name or "plan" in name
    }
    run_distil(fresh)
    assert before == {name: (fresh / name).stat().st_mtime_ns for name in before}
    with pytest.raises(UsageError, match="the student 'laptop' was begun with another work_share"):
        run_distil(fresh, work=0.9)
    _, summary = run_distil(fresh, work=0.9, restart=True)
    assert summary is not None
    run_distil(fresh, name="smaller", work=0.5)
    assert folders_of(fresh).named_plans == ["laptop", "smaller"]


def test_a_changed_teacher_does_not_change_a_student_that_was_begun(fresh):
    """The student would go on with other targets, and resume would not be what it was."""
    run_distil(fresh)
    train(NUMBER, STUDENT, [0], extend="1", device="cpu", workspace=fresh)
    with pytest.raises(UsageError, match="its teacher or its cases have changed since; add --restart"):
        run_distil(fresh)
    run_distil(fresh, restart=True)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"configuration": "2d"}, ModelError, "no trained fold"),
        ({"name": "a b"}, UsageError, "cannot be the name of a plan"),
        ({"work": 0.0}, UsageError, "work is 0; give a number above 0 and at most 1"),
        ({"seconds": -1.0}, UsageError, "seconds is -1"),
        ({"seconds": 1e-4}, UsageError, "no student segments a typical image within"),
        ({"memory": "a lot"}, UsageError, "memory"),
        ({"weight": 1.5}, UsageError, "weight is 1.5"),
        ({"unlabelled": "nowhere"}, DatasetError, "nowhere does not exist"),
        ({"folds": [7]}, UsageError, "there is no fold 7"),
        ({"plan_name": "laptop"}, UsageError, "is not that of a student"),
    ],
)
def test_bad_options_leave_everything_as_it_was(taught, options, error, text):
    """One line, and no file is written."""
    before = files_in(taught)
    with pytest.raises(error, match=text):
        run_distil(taught, **options)
    assert files_in(taught) == before


def test_held_out_cases_do_not_come_back_without_labels(taught):
    """Scans with the names of cases would teach what is held out."""
    with pytest.raises(UsageError, match="have names of cases of the dataset: case_1"):
        run_distil(taught, unlabelled=taught / "raw" / NAME / "imagesTr")


def test_a_student_without_its_lesson_is_refused(fresh):
    """`train` names the command that makes predictions; a damaged one is named when it is read."""
    run_distil(fresh)
    folders = folders_of(fresh).with_plan("laptop")
    victim = next(folders.soft_predictions(0).glob("*.zip"))
    victim.write_bytes(b"")
    with pytest.raises(UsageError, match=f"has not predicted 1 cases as they are now .{victim.stem}"):
        train(NUMBER, STUDENT, [0], plan_name="laptop", restart=True, device="cpu", workspace=fresh)
    with pytest.raises(ArtifactError, match="autoseg distil"):
        SoftPrediction.open(folders.soft_predictions(0), victim.stem)
    shutil.rmtree(folders.soft_predictions(0))
    with pytest.raises(UsageError, match=r"has not predicted 3 cases .* 'autoseg distil -d 1 --for laptop -f 0' first"):
        train(NUMBER, STUDENT, [0], plan_name="laptop", restart=True, device="cpu", workspace=fresh)


def test_a_usual_plan_is_not_taken_for_a_student(fresh):
    """A plan of that name that someone made stays as it is."""
    folders = folders_of(fresh).with_plan("mine")
    Plan.load(folders_of(fresh).plan).save(folders.plan)
    with pytest.raises(UsageError, match=r"the plan 'mine' .* is not that of a student"):
        run_distil(fresh, name="mine")
