"""Batches have the right shapes, are determined by their number, and come in order."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import small_cases, small_configuration

from autoseg.dataloading import threads
from autoseg.dataloading.loader import Batches
from autoseg.errors import AutosegError
from autoseg.imaging.label_encoding import code_base, encode_cascade
from autoseg.imaging.targets import OUTSIDE, Targets
from autoseg.planning.channel_settings import Normalization
from autoseg.preprocessing.foreground import Foreground
from autoseg.runtime import thread_pool


def make_batches(**changes):
    """Returns a supply of batches of small cases."""
    values = {
        "cases": small_cases(),
        "configuration": small_configuration(),
        "foreground_fraction": 0.5,
        "seed": (7,),
        "augmented": True,
        **changes,
    }
    return Batches(**values)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_shapes_are_those_of_the_plan(dimensions):
    """Planes for a 2D configuration, volumes for a 3D one; labels hold no voxel outside."""
    batch = make_batches(configuration=small_configuration(dimensions)).make(0)
    assert batch.images.shape == (2, 1, *[8] * dimensions)
    assert batch.labels.shape == (2, *[8] * dimensions)
    assert (batch.images.dtype, batch.labels.dtype) == (torch.float32, torch.int16)
    assert batch.labels.min() >= 0


def test_batches_follow_from_their_number():
    """Equal numbers give equal batches; other numbers and seeds give others."""
    batches = make_batches()
    assert torch.equal(batches.make(3).images, make_batches().make(3).images)
    assert not torch.equal(batches.make(3).images, batches.make(4).images)
    assert not torch.equal(batches.make(3).images, make_batches(seed=(8,)).make(3).images)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order(workers):
    """Threads change neither order nor content."""
    batches = make_batches()
    ahead = list(batches.ahead(range(5, 12), workers=workers))
    assert len(ahead) == 7
    assert all(torch.equal(batch.images, batches.make(5 + index).images) for index, batch in enumerate(ahead))


def test_last_patches_of_a_batch_hold_foreground():
    """With half of the patches forced, the second of two always has a label."""
    batches = make_batches(augmented=False)
    assert all((batches.make(number).labels[1] > 0).any() for number in range(20))


def test_region_outside_stays_zero_where_normalization_left_it_so():
    """Noise must not fill the background of skull-stripped images."""
    configuration = small_configuration()
    noisy = configuration.augmentation.model_copy(update={"noise_probability": 1.0, "mirror_axes": ()})
    only = (Normalization(scheme="zscore", only_nonzero=True),)
    configuration = configuration.model_copy(update={"normalization": only, "augmentation": noisy})
    case = small_cases(1)[0]
    case.label[:, :, :4] = OUTSIDE
    case.image[..., :4] = 0
    batch = make_batches(cases=[case], configuration=configuration).make(1)
    assert (batch.images == 0).any()
    assert (batch.images != 0).any()


def test_only_the_channels_that_were_normalized_so_are_set_to_zero_outside():
    """A CT has no zero there, neither in training nor in prediction."""
    schemes = (
        Normalization(scheme="ct", lower=-1000, upper=1000, mean=100, std=50),
        Normalization(scheme="zscore", only_nonzero=True),
    )
    architecture = small_configuration().architecture.model_copy(update={"in_channels": 2})
    configuration = small_configuration().model_copy(update={"normalization": schemes, "architecture": architecture})
    [case] = small_cases(1)
    case = replace(case, image=np.full((2, *case.shape), -2.0, np.float32), label=np.full_like(case.label, OUTSIDE))
    batch = make_batches(cases=[case], configuration=configuration, augmented=False).make(0)
    assert (batch.images[:, 0] == -2).any()
    assert not batch.images[:, 1].any()


def test_threads_of_others_stay_as_many():
    """A thread that starts after training calculates with all cores, as it would have before."""
    from threading import Thread

    def count():
        torch.ones(10).sum()
        counted.append(torch.get_num_threads())

    counted: list[int] = []
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        list(make_batches().ahead(range(3), workers=1))
        thread = Thread(target=count)
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *counted] == [2, 2]
    finally:
        torch.set_num_threads(before)


class Broken:
    """A case whose file cannot be read."""

    shape = (10, 10, 10)
    foreground = Foreground.of([])
    missing_channels = ()

    def read(self, box):  # noqa: ARG002 - the protocol's argument
        """Fails as a damaged store does."""
        raise AutosegError("case 'a' is damaged", "run plan_and_preprocess again")


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_case_is_said(workers):
    """The error of a thread reaches the training loop."""
    with pytest.raises(AutosegError, match="case 'a' is damaged"):
        list(make_batches(cases=[Broken()]).ahead(range(3), workers=workers))


def test_stalled_disk_is_said(monkeypatch):
    """Training stops with an error instead of waiting for ever."""
    from threading import Event

    release = Event()

    class Stalled(Broken):
        name = "case_7"

        def read(self, box):
            release.wait(10)
            return super().read(box)

    monkeypatch.setattr(threads, "STALL_SECONDS", 1)
    monkeypatch.setattr(thread_pool, "GRACE_SECONDS", 0.1)
    with pytest.raises(AutosegError, match="no training patch could be read for 1 s: reading case_7; check the disk"):
        list(make_batches(cases=[Stalled()]).ahead(range(3), workers=1))
    release.set()


def test_waiting_is_told_second_by_second(monkeypatch):
    """The callback may end the waiting with an error of its own."""
    from threading import Event

    release, told = Event(), []

    class Stalled(Broken):
        def read(self, box):
            release.wait(20)
            return super().read(box)

    def give_up(seconds, work):
        told.append((seconds, work))
        if seconds == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(thread_pool, "GRACE_SECONDS", 0.1)
    with pytest.raises(KeyboardInterrupt):
        list(make_batches(cases=[Stalled()]).ahead(range(3), workers=1, on_wait=give_up))
    release.set()
    assert told == [(1, "reading a case in memory"), (2, "reading a case in memory")]


STUCK = """
import sys, time
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from small_models import small_cases, small_run
from autoseg.dataloading import threads
from autoseg.errors import AutosegError
from autoseg.runtime import thread_pool

threads.STALL_SECONDS = 1
thread_pool.GRACE_SECONDS = 0.1
type(small_cases(1)[0]).read = lambda *_: time.sleep(600)
try:
    list(small_run().training.ahead(range(3), workers=2))
except AutosegError:
    print("said")
"""


def test_disk_that_went_away_does_not_keep_the_program_from_ending():
    """Threads that are stuck are left behind."""
    command = [sys.executable, "-c", STUCK, str(Path(__file__).parents[1] / "support")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.stdout, ended.returncode) == ("said\n", 0), ended.stderr


def test_unknown_structures_go_with_the_patches_of_their_case():
    """Each row says which structures are not annotated in the case of the patch."""
    cases = small_cases(2)
    for case, level in zip(cases, (-50.0, 50.0), strict=True):
        case.image[:] = level
    many = small_configuration().model_copy(update={"batch_size": 12})
    unknown = [(False, True), (True, False)]
    batch = make_batches(cases=cases, unknown=unknown, configuration=many, augmented=False).make(0)
    of_second = batch.images.flatten(1).mean(1) > 0
    assert 0 < of_second.sum() < 12
    assert torch.equal(batch.unknown, torch.stack([of_second, ~of_second], dim=1))
    assert make_batches(cases=cases).make(0).unknown is None


@pytest.mark.parametrize("augmentation_device", [None, torch.device("cpu")])
def test_a_cascade_sees_a_segmentation_that_moves_with_the_labels(augmentation_device):
    """However a patch is warped and flipped, the channels agree with the coarse segmentation."""
    targets = Targets.of_labels({"first": 1, "second": 2})
    cases = [
        replace(case, label=encode_cascade(case.label, (3 - case.label) * (case.label > 0), code_base(targets)))
        for case in small_cases(2)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.dataloading.cascade_labels.OPERATION_PROBABILITY", 0.0)
        patch.setattr("autoseg.dataloading.cascade_labels.REMOVAL_PROBABILITY", 0.0)
        batches = make_batches(cases=cases, previous=targets, augmentation_device=augmentation_device)
        for batch in (batches.make(number) for number in range(5)):
            assert batch.images.shape[1] == 3
            assert batch.labels.dtype == torch.int16
            assert set(batch.labels.unique().tolist()) <= {0, 1, 2}
            assert torch.equal(batch.images[:, 1] == 1, batch.labels == 2)
            assert torch.equal(batch.images[:, 2] == 1, batch.labels == 1)
            assert batch.images[:, 1:].sum() > 0
