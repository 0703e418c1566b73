"""Convolutions are tried in a process of its own, which may do anything."""

import subprocess
import sys

import pytest

from autoseg.networks.convolutions import convolve
from autoseg.pipeline import convolution_trial
from autoseg.pipeline.convolution_trial import STRIDED, THIN, Trial, is_wrong, read_trial, try_convolutions, try_step

RUN = subprocess.run
BEGUN = "import sys; print('begun', flush=True)"


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["AVX2", "DEFAULT"])
def test_own_convolutions_are_right(instructions, monkeypatch):
    """With the instructions of older CPUs and of this one, whatever torch's own do."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", instructions)
    trial = try_convolutions()
    assert trial.ours == ()
    assert set(trial.torch) <= {THIN, STRIDED}


@pytest.mark.parametrize(
    ("lines", "ended", "expected"),
    [
        (["false"] * 4, False, Trial((), ())),
        (["false"] * 4, True, Trial((), (STRIDED,))),
        (["false"] * 3, True, Trial((), (STRIDED,))),
        (["false", "false", "true"], True, Trial((), (THIN, STRIDED))),
        (["false", "false", "true", "true"], False, Trial((), (THIN, STRIDED))),
        (["false"], True, Trial((STRIDED,), ())),
        ([], True, Trial((THIN,), ())),
        (["true", "false", "false", "false"], False, Trial((THIN,), ())),
    ],
)
def test_crash_is_a_fault_of_the_step_that_it_was_at(lines, ended, expected):
    """After the last step, damage shows when memory is freed."""
    assert read_trial(["begun", *lines], ended=ended) == expected


def pretend(monkeypatch, program):
    """Lets another program be started in place of the trial."""
    monkeypatch.setattr(
        convolution_trial.subprocess, "run", lambda _command, **options: RUN([sys.executable, "-c", program], **options)
    )


def test_process_that_hangs_is_ended(monkeypatch):
    """What it has said by then counts; a process that says nothing is no fault of a convolution."""
    pretend(monkeypatch, f"{BEGUN}; print('false', flush=True); import time; time.sleep(60)")
    assert try_convolutions(seconds=2) == Trial((STRIDED,), ())
    pretend(monkeypatch, "import time; time.sleep(60)")
    with pytest.raises(RuntimeError, match="did not begin within 1 seconds"):
        try_convolutions(seconds=1)


def test_process_that_crashes_or_fails(monkeypatch):
    """A crash is a fault, an error before the beginning is told, and so is a process that cannot be started."""
    pretend(monkeypatch, f"{BEGUN}; import os; os.abort()")
    assert try_convolutions() == Trial((THIN,), ())
    pretend(monkeypatch, "raise OSError('no library')")
    with pytest.raises(RuntimeError, match="no library"):
        try_convolutions()
    monkeypatch.undo()
    monkeypatch.setattr(convolution_trial.sys, "executable", "/nowhere/python")
    with pytest.raises(RuntimeError, match="No such file"):
        try_convolutions()


@pytest.mark.parametrize("kind", [THIN, STRIDED])
def test_wrong_gradients_are_recognized(kind):
    """A convolution that is wrong by half, or not a number, is found; the program's own is not."""
    assert not try_step(convolve, kind)
    for factor in (1.5, float("nan")):
        assert is_wrong(
            lambda x, w, b, factor=factor, **options: convolve(x, w * factor, b, **options),
            (2, 4, 8, 8),
            kernel=1,
            stride=2,
            lower=False,
        )
