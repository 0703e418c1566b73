"""What a training says of its end; speeds are values, and time is a pretended clock."""

from dataclasses import replace

import pytest
import torch
from phantoms import Listener
from tiny_workspaces import NUMBER, folders_of, plan_tiny, write_volumes

from autoseg.pipeline.training import train
from autoseg.planning.machine_speed import MachineSpeed
from autoseg.training import training_time
from autoseg.training.duration import LengthRequest
from autoseg.training.jobs import TrainingRequest, make_jobs
from autoseg.training.training_time import PacedReporter, describe_training_time, paced

TINY_WORK = 10**6
"""Multiply-adds of a patch, instead of those of the tiny network."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Returns a workspace that was planned and preprocessed for 100 epochs of 50 steps."""
    root = tmp_path_factory.mktemp("timed")
    write_volumes(root)
    plan_without_growth(root, epochs=100, steps_per_epoch=50, validation_steps=10)
    return root


def plan_without_growth(root, **training):
    """Plans and preprocesses; patches have one size, so that each step takes as long as any other."""
    plan = plan_tiny(root, **training)
    configurations = {
        name: configuration.model_copy(update={"patch_growth": ()})
        for name, configuration in plan.configurations.items()
    }
    plan.model_copy(update={"configurations": configurations}).save(folders_of(root).plan)


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that sets the seconds of a training step; a scan takes a hundredth of that per vote."""

    def set_step(step_seconds):
        training = 3 * 1.25 * 2 * TINY_WORK / step_seconds
        speed = MachineSpeed(
            machine="any", device="cpu", precision="float32", training=training, prediction=100 * training
        )
        monkeypatch.setattr(training_time, "measure_speed", lambda _: speed)

    monkeypatch.setattr(training_time, "measure_patch_work", lambda _: TINY_WORK)
    monkeypatch.setattr(training_time, "is_busy", lambda: False)
    return set_step


def jobs_of(root, *folds, **length):
    """The jobs of some folds."""
    request = TrainingRequest(
        number=NUMBER,
        folders=folders_of(root),
        configuration="3d_fullres",
        folds=folds or (0,),
        length=LengthRequest(**length),
        device="cpu",
    )
    return make_jobs(request)


def test_a_fold_says_its_step_and_its_end(root, machine):
    """In one line, before the first step, with the speed that it follows from."""
    machine(0.6)
    [line] = describe_training_time(jobs_of(root))
    assert line.startswith("a training step takes about 0.6 s here (")
    assert "multiply-adds per second in float32): fold 0 ends in about 50 min" in line


def test_a_busy_machine_is_said_to_be(root, machine, monkeypatch):
    """The step may become quicker when the other programs end."""
    machine(0.6)
    monkeypatch.setattr(training_time, "is_busy", lambda: True)
    [line] = describe_training_time(jobs_of(root))
    assert "in float32, beside other programs): fold 0 ends in about 50 min" in line


def test_all_folds_say_their_end(root, machine):
    """The sum of those that are still to be trained."""
    machine(0.6)
    [line] = describe_training_time(jobs_of(root, "cv"))
    assert line.endswith("; all 3 folds in about 2 h 30 min")


def test_more_than_a_day_says_what_to_do(root, machine):
    """What is offered is shorter: a limit of time, or one fold of several."""
    machine(30)
    lines = list(describe_training_time(jobs_of(root, 0, 1)))
    assert "fold 0 ends in about 1.7 days" in lines[0]
    assert lines[1].startswith("that is more than a day; instead, --budget 3h")
    assert "-f 0 alone, which takes about 1.7 days" in lines[1]
    assert lines[1].endswith("or a machine with a GPU")
    assert "--preset small" not in lines[1]
    machine(0.1)
    assert len(list(describe_training_time(jobs_of(root, 0, 1)))) == 1


def test_a_plan_for_a_gpu_is_told_of_the_preset_for_a_cpu(root, machine):
    """It would be refused as advice for a plan that has the preset already."""
    machine(30)
    [job] = jobs_of(root)
    job = replace(job, plan=job.plan.model_copy(update={"preset": "8gb"}))
    assert "instead, plan_and_preprocess with --preset small" in list(describe_training_time([job]))[1]


@pytest.mark.parametrize(
    ("step_seconds", "steps", "is_short"), [(0.05, 6000, False), (0.6, 500, False), (3, 100, True)]
)
def test_a_limit_of_time_says_how_many_steps_fit(root, machine, step_seconds, steps, is_short):
    """Far fewer than the plan provides may leave labels half-learned, and the plan's own time is named."""
    machine(step_seconds)
    lines = list(describe_training_time(jobs_of(root, budget="5m")))
    assert "fold 0 ends in about 5 min" in lines[0]
    assert lines[1].startswith(f"about {steps} steps fit into 5 min 00 s; the plan provides 5000")
    assert ("about 4 h 10 min: labels may stay half-learned" in lines[1]) == is_short


def test_a_limit_that_is_too_short_for_a_step_still_takes_one(root, machine):
    """Training stops after the step that exceeds its time."""
    machine(30)
    assert "a single step fits into 2 s" in list(describe_training_time(jobs_of(root, budget="2s")))[1]


def test_validation_is_part_of_the_end(root, machine, monkeypatch):
    """Where held-out cases take long, they are named, and a coarser configuration is recommended if there is any."""
    machine(0.1)
    monkeypatch.setattr(training_time, "validation_seconds", lambda *_: 100_000.0)
    [job] = jobs_of(root)
    plan = job.plan.model_copy(update={"configurations": {**job.plan.configurations, "3d_lowres": job.configuration}})
    lines = list(describe_training_time([replace(job, plan=plan)]))
    assert "of which validation takes 1.2 days" in lines[0]
    assert "instead, -c 3d_lowres, whose images have far fewer voxels" in lines[1]
    assert "3d_lowres" not in list(describe_training_time([job]))[1]


def test_a_begun_fold_counts_what_is_left_and_a_finished_one_nothing(tmp_path, machine):
    """The rest of the steps, not all of them."""
    write_volumes(tmp_path)
    plan_without_growth(tmp_path, epochs=1)
    train(NUMBER, "3d_fullres", [0], device="cpu", workspace=tmp_path)
    machine(1.0)
    assert list(describe_training_time(jobs_of(tmp_path))) == []
    [line] = describe_training_time(jobs_of(tmp_path, extend="300"))
    assert "fold 0 ends in about 10 min" in line  # 300 epochs of two steps


def test_nothing_is_said_where_it_cannot_be_counted(root, machine, monkeypatch):
    """On a GPU and for unknown networks the first steps tell; elsewhere, and with a limit of time, they need not."""
    machine(1.0)
    [job] = jobs_of(root)
    listener = Listener()
    assert paced(job, listener, folds=1) is listener
    on_gpu = replace(job, device=torch.device("cuda"))
    assert list(describe_training_time([on_gpu])) == []
    assert isinstance(paced(on_gpu, listener, folds=1), PacedReporter)
    monkeypatch.setattr(training_time, "measure_patch_work", lambda _: None)
    assert list(describe_training_time([job])) == []
    assert isinstance(paced(job, listener, folds=1), PacedReporter)
    [limited] = jobs_of(root, budget="5m")
    assert paced(limited, listener, folds=1) is listener


@pytest.mark.parametrize(("folds", "end"), [(1, "about 55 min"), (3, "about 55 min, all 3 folds in about 2 h 50 min")])
def test_the_first_steps_tell(root, monkeypatch, folds, end):
    """Steps that warm up do not count, nor does what was done before."""
    [job] = jobs_of(root)
    moments = iter([100.0, 100.0 + training_time.TIMED_STEPS * 0.7])
    monkeypatch.setattr(training_time.time, "perf_counter", lambda: next(moments))
    listener = Listener()
    reporter = PacedReporter(reporter=listener, job=job, folds=folds)
    with reporter.task("training", total=1.0) as task:
        task.advance(0.05)
        for number in range(1, 60):
            task.advance(1 / 5000)
            task.advance(0)  # as after an epoch
            assert (len(listener.lines) == 1) == (number >= training_time.WARM_UP_STEPS + training_time.TIMED_STEPS)
    assert listener.lines == [f"a training step takes about 0.7 s here: fold 0 is trained in {end}"]
    assert listener.advanced["training"] == pytest.approx(0.05 + 59 / 5000)
    with reporter.task("validating", total=3) as task:
        for _ in range(100):
            task.advance()
    assert len(listener.lines) == 1


def test_train_says_it_first(tmp_path, machine):
    """Before the line on the fold, which comes before its first step."""
    write_volumes(tmp_path)
    plan_tiny(tmp_path, epochs=1)
    machine(0.5)
    listener = Listener()
    train(NUMBER, "3d_fullres", [0], device="cpu", workspace=tmp_path, reporter=listener)
    [number] = [number for number, line in enumerate(listener.lines) if line.startswith("a training step takes about")]
    [begun] = [number for number, line in enumerate(listener.lines) if line.startswith("3d_fullres, fold 0")]
    assert number < begun
