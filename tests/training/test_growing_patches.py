"""Training whose patches grow: every stage in its turn, and everything else as with patches of one size."""

from dataclasses import replace

import pytest
import torch
from full_memory import Fullness
from margin_cases import batches_of, case_of, configuration_of
from phantoms import Listener
from small_models import small_run, small_state

from autoseg.errors import Stopped
from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.patch_growth import PatchStage
from autoseg.runtime.reporting import SILENT
from autoseg.training import loop
from autoseg.training.loop import train_fold, train_step
from autoseg.training.state import pack_state, unpack_state
from autoseg.training.stopping import StopRequest

GROWTH = (PatchStage(patch_size=(4, 4, 4), batch_size=9), PatchStage(patch_size=(4, 8, 6), batch_size=4))
FULL = PatchStage(patch_size=(8, 8, 8), batch_size=2)


def growing_run(**settings):
    """A small run whose patches grow in three stages."""
    run = small_run(**settings)
    return replace(run, training=growing(run.training), validation=growing(run.validation))


def growing(batches):
    """The batches of a configuration whose patches grow."""
    return replace(batches, configuration=batches.configuration.model_copy(update={"patch_growth": GROWTH}))


@pytest.fixture
def trained_on(monkeypatch):
    """The patches of every step, in order."""
    stages, original = [], loop.train_step

    def note(state, batch, *rest):
        _, _, *size = batch.images.shape
        assert batch.labels.shape == (len(batch.images), *size)
        stages.append(PatchStage(patch_size=tuple(size), batch_size=len(batch.images)))
        return original(state, batch, *rest)

    monkeypatch.setattr(loop, "train_step", note)
    return stages


@pytest.mark.parametrize("workers", [0, 2])
def test_every_stage_gets_an_equal_share_of_the_steps(trained_on, workers):
    """A stage may end in the middle of an epoch."""
    run = growing_run(epochs=3, steps_per_epoch=5, workers=workers)
    state = small_state(run)
    train_fold(state, run, SILENT, lambda _: None)
    assert trained_on == [GROWTH[0]] * 5 + [GROWTH[1]] * 5 + [FULL] * 5
    trained_on.clear()
    run = growing_run(epochs=2, steps_per_epoch=5, workers=workers)
    train_fold(small_state(run), run, SILENT, lambda _: None)
    assert trained_on == [GROWTH[0]] * 4 + [GROWTH[1]] * 3 + [FULL] * 3


def test_patches_of_a_limited_time_grow_with_the_time(trained_on, monkeypatch):
    """Each step pretends to take a tenth of the time."""
    seconds = iter(range(1000))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: next(seconds) / 2)
    run = growing_run(epochs=1, steps_per_epoch=1000, budget_seconds=10.0)
    train_fold(small_state(run), run, SILENT, lambda _: None)
    sizes = list(dict.fromkeys(trained_on))
    assert sizes == [*GROWTH, FULL]
    assert all(trained_on.count(stage) >= 2 for stage in sizes)


class StopAt(StopRequest):
    """Asks a run to stop before a step."""

    def __init__(self, step):
        super().__init__()
        self.state, self.step = None, step

    def check(self):
        """Raises the error."""
        if self.state.step == self.step:
            raise Stopped("the test", 0)


@pytest.mark.parametrize("step", [3, 4, 6, 11])
def test_stopped_run_goes_on_with_the_same_patches(step, tmp_path):
    """Weights and reports are equal bit for bit to those of a run that was not stopped, in and between stages."""
    run = growing_run(epochs=3, steps_per_epoch=4)
    straight = small_state(run)
    train_fold(straight, run, SILENT, lambda _: None)

    def save(state):
        torch.save({"training": pack_state(state), "weights": state.weights}, tmp_path / "state")

    stop = StopAt(step)
    stop.state = small_state(run)
    with pytest.raises(Stopped):
        train_fold(stop.state, replace(run, stop=stop), SILENT, save)
    resumed = small_state(run, seed=9)
    content = torch.load(tmp_path / "state", weights_only=True)
    unpack_state(resumed, content["training"], content["weights"])
    assert resumed.step == step
    train_fold(resumed, run, SILENT, lambda _: None)
    for name, value in straight.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value), name
    for report, other in zip(resumed.reports, straight.reports, strict=True):
        assert (report.training_loss, report.validation_loss) == (other.training_loss, other.validation_loss)


def test_validation_sees_the_full_size(monkeypatch):
    """Its patches are the same after every epoch."""
    sizes, original = [], loop.move_batch

    def note(batch, device):
        sizes.append(tuple(batch.images.shape[2:]))
        return original(batch, device)

    monkeypatch.setattr(loop, "move_batch", note)
    run = growing_run(epochs=3)
    train_fold(small_state(run), run, SILENT, lambda _: None)
    assert set(sizes) == {FULL.patch_size}


def test_patches_of_every_stage_are_counted():
    """Patches per second are those of the epoch's stages, also after a stop in its middle."""
    run = growing_run(epochs=1, steps_per_epoch=6)
    state = small_state(run)
    train_fold(state, run, SILENT, lambda _: None)
    [report] = state.reports
    assert report.patches_per_second * report.seconds >= 2 * (9 + 4 + 2)
    stop = StopAt(3)
    stop.state = small_state(run)
    with pytest.raises(Stopped):
        train_fold(stop.state, replace(run, stop=stop), SILENT, lambda _: None)
    resumed = small_state(run)
    unpack_state(resumed, pack_state(stop.state), stop.state.weights)
    assert resumed.epoch.patches == 9 + 9 + 4


def test_small_patches_are_split_by_their_voxels(trained_on):
    """A limit of one full patch at once allows eight of an eighth of its voxels."""
    run = growing_run(epochs=1, micro_batch_size=1)
    state = small_state(run)
    memory = Fullness(state.network, most=100)
    train_fold(state, run, SILENT, lambda _: None)
    training = [tried for tried in memory.tried if tried]
    assert trained_on == [*GROWTH, FULL]
    assert training[:2] == [5, 4]  # nine patches of 64 voxels, of which 8 have the 512 of a full one
    assert training[2:4] == [2, 2]  # four patches of 192 voxels
    assert training[4:6] == [1, 1]


def test_memory_that_is_full_with_small_patches_says_nothing_of_the_plan(monkeypatch):
    """The limit that is found is kept in patches of full size, and the plan's estimate, which is of those, stays."""
    monkeypatch.setattr("autoseg.training.memory_trial.gpu_memory_within_reach", lambda _: 700_000)
    run, listener = growing_run(), Listener()
    state = small_state(run)
    Fullness(state.network, most=5)
    train_step(state, run.training.at_stage(GROWTH[0]).make(0), run, listener)
    assert state.micro_batch_size == 1
    assert state.measured_bytes == {}
    assert "too small for a step of 9 patches at once" in listener.text
    assert "each step takes 5 at a time" in listener.text


@pytest.mark.parametrize("name", ["unet", "unet_3d"])
def test_network_with_a_margin_grows_its_centre(name):
    """Labels are those of the centre of each patch, at every size."""
    dimensions = NETWORKS[name].dimensions[0]
    small, full = (20,) * dimensions, (28,) * dimensions
    growth = [{"patch_size": small, "batch_size": 3}]
    configuration = configuration_of(name, full, patch_growth=growth)
    batches = batches_of(configuration, [case_of((30,) * 3)])
    for stage, inner in zip(configuration.stages, (4, 12), strict=True):
        batch = batches.at_stage(stage).make(0)
        assert tuple(batch.images.shape) == (stage.batch_size, 1, *stage.patch_size)
        assert tuple(batch.labels.shape) == (stage.batch_size, *(inner,) * dimensions)
