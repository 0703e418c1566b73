"""A memory that runs out once corrects plan.json, and the next folds begin with what fits; on a pretended GPU."""

import shutil
from contextlib import contextmanager
from dataclasses import replace
from threading import Event, Thread
from time import sleep

import pytest
import torch
from full_memory import Fullness
from phantoms import Listener
from tiny_workspaces import NUMBER, edit_training, folders_of, plan_tiny, write_volumes

from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.models.checkpoint import load_checkpoint
from autoseg.pipeline.training import train
from autoseg.planning.budget import count_fitting_patches
from autoseg.planning.plan import Plan
from autoseg.runtime import lock
from autoseg.runtime.lock import change_alone, run_alone
from autoseg.training import fold, loop, memory_limit
from autoseg.training.jobs import TrainingRequest, make_jobs

pytestmark = pytest.mark.slow  # each test trains folds

CONFIGURATION = "3d_fullres"
MEMORY = 30_000_000
MOST = 1
BATCH = 2


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Returns a workspace that was planned and preprocessed but not trained."""
    root = tmp_path_factory.mktemp("prepared")
    write_volumes(root)
    plan_tiny(root, patches="fixed", epochs=1, steps_per_epoch=2)
    return root


@pytest.fixture
def fresh(prepared, tmp_path):
    """Returns a copy of the untrained workspace."""
    return shutil.copytree(prepared, tmp_path / "fresh")


@pytest.fixture
def small_gpu(monkeypatch):
    """Gives networks memory for one patch at once; returns the sizes that each of them tried."""
    memories, make = [], fold.make_network

    def make_watched(*arguments):
        network = make(*arguments)
        memories.append(Fullness(network, MOST))
        return network

    monkeypatch.setattr(fold, "make_network", make_watched)
    monkeypatch.setattr("autoseg.training.memory_trial.gpu_memory_within_reach", lambda _: MEMORY)
    monkeypatch.setattr("autoseg.training.memory_trial.peak_bytes", lambda _: MEMORY * 2 // 3)
    monkeypatch.setattr(memory_limit, "gpu_memory_within_reach", lambda _: MEMORY)
    return memories


def run_train(root, which=(0,), **options):
    """Trains, and returns a listener with the lines that were reported."""
    listener = Listener()
    train(NUMBER, CONFIGURATION, list(which), device="cpu", workspace=root, reporter=listener, **options)
    return listener


def plan_of(root):
    """Loads plan.json."""
    return Plan.load(folders_of(root).plan)


@contextmanager
def held_by_another(path, how):
    """Locks a folder or a file in another thread."""
    held, done = Event(), Event()

    def hold():
        with how(path):
            held.set()
            done.wait(60)

    thread = Thread(target=hold)
    thread.start()
    held.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize(("gigabytes", "said"), [(None, False), (0.001, True), (80, False)])
def test_a_gpu_that_is_too_small_is_named_before_training(fresh, monkeypatch, gigabytes, said):
    """The line names what a step takes, what the GPU has and what to do; training begins all the same."""
    total = None if gigabytes is None else int(gigabytes * 10**9)
    monkeypatch.setattr(memory_limit, "gpu_memory_bytes", lambda _: total)
    listener = run_train(fresh)
    assert ("a step of 3d_fullres takes about 5" in listener.text) == said
    assert "epoch 0" in listener.text


def test_memory_runs_out_once_and_not_for_each_fold(fresh, small_gpu):
    """The estimate is corrected and reported; the next folds, of any run, begin in micro-batches."""
    before = plan_of(fresh)
    first = run_train(fresh, [0, 1])
    assert [memory.tried[:3] for memory in small_gpu] == [[BATCH, 1, 1], [1, 1, 1]]
    assert first.text.count("is too small for a step of 2 patches at once") == 1
    assert first.text.count("plan.json now estimates ") == 1
    assert first.text.count("as was measured, and 30 MB could be had of cpu: each step takes 1 patches at a time") == 1
    after = plan_of(fresh)
    one = after.configurations[CONFIGURATION]
    assert one.estimated_bytes != before.configurations[CONFIGURATION].estimated_bytes
    assert count_fitting_patches(MEMORY, one, recomputes=False) == 1
    assert after.why[:-1] == before.why
    assert "measured when the memory of a device ran out" in after.why[-1]
    another = run_train(fresh, [2])
    assert small_gpu[2].tried[:2] == [1, 1]
    assert "is too small for a step" not in another.text
    assert folders_of(fresh).plan.read_text() == after.to_json()


def test_begun_and_finished_folds_do_not_mind_a_corrected_estimate(fresh, small_gpu, monkeypatch):
    """They go on, are extended, and predict together with later folds."""
    original = loop.train_step

    def step_or_stop(state, *rest):
        if state.step == 2:
            raise KeyboardInterrupt
        return original(state, *rest)

    edit_training(fresh, epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", step_or_stop)
        with pytest.raises(KeyboardInterrupt):
            run_train(fresh)
    assert "epoch 1" in run_train(fresh).text
    run_train(fresh, [1])
    assert "epoch 2" in run_train(fresh, extend="1").text
    model = folders_of(fresh).model(CONFIGURATION)
    checkpoints = [load_checkpoint(model.checkpoint(fold)) for fold in (0, 1)]
    one = checkpoints[0].configuration.model_copy(update={"measured_memory": None, "estimated_bytes": 10**6})
    checkpoints[0] = replace(
        checkpoints[0], plan=checkpoints[0].plan.model_copy(update={"configurations": {CONFIGURATION: one}})
    )
    assert checkpoints[0].configuration != checkpoints[1].configuration
    make_segmenter(checkpoints, NO_RULES, torch.device("cpu"))


def test_plan_that_cannot_be_corrected_is_left_and_training_goes_on(fresh, small_gpu, monkeypatch):
    """Another run may be halted while it changes the plan, or the plan may have become another one."""
    before = folders_of(fresh).plan.read_text()
    monkeypatch.setattr(lock, "CHANGE_SECONDS", 0.1)
    with held_by_another(folders_of(fresh).plan, change_alone):
        assert "could not be corrected: another run has been changing" in run_train(fresh).text
    assert folders_of(fresh).plan.read_text() == before

    original = loop.train_step

    def edit_and_step(state, *rest):
        plan = Plan.model_validate_json(before)
        one = plan.configurations[CONFIGURATION].model_copy(update={"batch_dice": True})
        plan.model_copy(update={"configurations": {**plan.configurations, CONFIGURATION: one}}).save(
            folders_of(fresh).plan
        )
        return original(state, *rest)

    monkeypatch.setattr(loop, "train_step", edit_and_step)
    assert "says something else of 3d_fullres by now, and keeps its estimate" in run_train(fresh, [1]).text
    assert plan_of(fresh).configurations[CONFIGURATION].measured_memory is None


def test_a_plan_is_corrected_while_others_work_on_the_dataset(fresh, small_gpu):
    """Preprocessing another configuration may take hours."""
    with held_by_another(folders_of(fresh).preprocessed, run_alone):
        run_train(fresh)
    assert plan_of(fresh).configurations[CONFIGURATION].measured_memory is not None


def test_jobs_that_correct_a_plan_at_once_keep_what_the_others_wrote(fresh, monkeypatch):
    """Each reads the plan before the other one has written it, unless they wait for each other."""
    jobs = [
        make_jobs(TrainingRequest(number=NUMBER, folders=folders_of(fresh), configuration=name, folds=(0,)))[0]
        for name in ("2d", "3d_fullres")
    ]
    load = Plan.load

    def load_slowly(path):
        plan = load(path)
        sleep(0.3)
        return plan

    monkeypatch.setattr(Plan, "load", load_slowly)
    threads = [Thread(target=memory_limit.correct_estimate, args=(job, {1: MEMORY}, Listener())) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    measured = {
        name: configuration.measured_memory
        for name, configuration in load(folders_of(fresh).plan).configurations.items()
    }
    assert None not in measured.values(), measured
    assert not list(folders_of(fresh).preprocessed.glob(".plan*"))


def test_larger_memory_takes_the_whole_batch_again(fresh, small_gpu, monkeypatch):
    """The measurement is about the step, not about the device."""
    run_train(fresh)
    monkeypatch.setattr(memory_limit, "gpu_memory_within_reach", lambda _: 3 * MEMORY)
    monkeypatch.setattr("full_memory.Fullness.fail", lambda *_: None)
    assert "at a time" not in run_train(fresh, [1]).text
    assert small_gpu[1].tried[:2] == [BATCH, BATCH]


def test_smaller_parts_that_the_plan_asks_for_are_not_made_larger(fresh, small_gpu):
    """Nothing is reported where they fit."""
    run_train(fresh)
    edit_training(fresh, micro_batch_size=1)
    assert "could be had" not in run_train(fresh, [1]).text
