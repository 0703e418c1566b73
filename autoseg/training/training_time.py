"""How long a training will take: said before the first step where the work can be counted, else after a few steps."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from autoseg.models.speed import measure_speed
from autoseg.models.work import measure_patch_work
from autoseg.planning.cpu_preset import COARSE, CPU_PRESET
from autoseg.planning.machine_speed import (
    MachineSpeed,
    describe_roughly,
    fold_seconds,
    mean_step_seconds,
    validation_seconds,
)
from autoseg.runtime.device import wait_for
from autoseg.runtime.machine import is_busy
from autoseg.runtime.reporting import Reporter, Task, log_line
from autoseg.runtime.units import describe_duration
from autoseg.training.fold_job import FoldJob

DAY = 24 * 3600.0
FEW_STEPS = 0.1
"""Share of the steps of the plan below which labels may stay half-learned. Decision: that of the budget "quick", the
shortest that the program offers by name."""
WARM_UP_STEPS = 5
"""Steps that choose algorithms or compile the network, and do not count."""
TIMED_STEPS = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldTime:
    """The estimated rest of a fold.

    Attributes:
        job: The fold.
        step_seconds: Seconds of a training step.
        training_seconds: Seconds of the steps that are left, or what is left of the time that was asked for.
        validation_seconds: Seconds in which the held-out cases are predicted afterwards.
    """

    job: FoldJob
    step_seconds: float
    training_seconds: float
    validation_seconds: float

    @property
    def seconds(self) -> float:
        """Seconds until the fold is validated."""
        return self.training_seconds + self.validation_seconds


def describe_training_time(jobs: Sequence[FoldJob]) -> Iterator[str]:
    """Yields lines on how long a step takes on this device, when the folds end, and what to do if that is too long.

    The device is measured for about a second. Nothing is said for a CUDA GPU, nor for a network whose work cannot be
    counted; see `PacedReporter`.

    Args:
        jobs: The folds that are trained one after the other.
    """
    first = jobs[0]
    work = None if first.device.type == "cuda" else measure_patch_work(first.configuration)
    if work is None:
        return
    speed = measure_speed(first.device)
    times = [time for time in (estimate_fold(job, speed, work) for job in jobs) if time.seconds > 0]
    if not times:
        return
    beside = ", beside other programs" if is_busy() else ""
    step = f"a training step takes about {describe_roughly(times[0].step_seconds)} here ({speed.describe()}{beside})"
    yield f"{step}: {describe_end(times)}"
    if times[0].job.plan.training.budget_seconds is not None:
        yield from _describe_budget(times[0])
    if sum(fold.seconds for fold in times) > DAY:
        yield f"that is more than a day; instead, {'; or '.join(_list_ways_out(times))}"


def estimate_fold(job: FoldJob, speed: MachineSpeed, patch_work: int) -> FoldTime:
    """Estimates the rest of a fold, which may have been begun.

    Args:
        job: The fold.
        speed: The speed of the device.
        patch_work: Multiply-adds of the forward pass of a patch.
    """
    settings, configuration = job.plan.training, job.configuration
    checkpoint = None if job.restart else job.load_checkpoint(mapped=True)
    state = {} if checkpoint is None else checkpoint.training
    if checkpoint is not None and not state:
        left = 0.0  # it was trained elsewhere, to its end
    elif settings.budget_seconds is not None:
        left = max(0.0, settings.budget_seconds - state.get("elapsed_seconds", 0.0))
    else:
        steps = settings.epochs * settings.steps_per_epoch
        left = fold_seconds(configuration, settings, speed, patch_work) * max(0.0, 1 - state.get("step", 0) / steps)
    scan = validation_seconds(job.plan, job.configuration_name, speed, patch_work)
    return FoldTime(
        job=job,
        step_seconds=mean_step_seconds(configuration, speed, patch_work),
        training_seconds=left,
        validation_seconds=len(job.split.validation) * scan if left > 0 else 0.0,
    )


def describe_end(times: Sequence[FoldTime]) -> str:
    """Returns when the first fold ends, and all of them, in words."""
    first, total = times[0], sum(fold.seconds for fold in times)
    text = f"fold {first.job.fold} ends in about {describe_roughly(first.seconds)}"
    if first.validation_seconds > 0.1 * first.seconds:
        text += f", of which validation takes {describe_roughly(first.validation_seconds)}"
    return text if len(times) == 1 else f"{text}; all {len(times)} folds in about {describe_roughly(total)}"


def _describe_budget(fold: FoldTime) -> Iterator[str]:
    """Yields how many steps fit into the time that is left, and a warning if they are far fewer than in the plan."""
    settings = fold.job.plan.training
    fitting, planned = fold.training_seconds / fold.step_seconds, settings.epochs * settings.steps_per_epoch
    number = f"about {float(f'{fitting:.1g}'):.0f} steps fit" if fitting >= 1.5 else "a single step fits"
    text = f"{number} into {describe_duration(fold.training_seconds)}; the plan provides {planned}"
    if fitting < FEW_STEPS * planned:
        whole = describe_roughly(planned * fold.step_seconds)
        text += f", about {whole}: labels may stay half-learned, so give more time or leave --budget out"
    yield text


def _list_ways_out(times: Sequence[FoldTime]) -> Iterator[str]:
    """Yields what shortens a training that would take more than a day."""
    first, plan = times[0], times[0].job.plan
    if plan.preset != CPU_PRESET:
        yield f"plan_and_preprocess with --preset {CPU_PRESET}, which is made for a CPU"
    if first.training_seconds > DAY:
        yield "--budget 3h, which ends the training of a fold after three hours"
    if first.validation_seconds > DAY / 2 and COARSE in plan.configurations and first.job.configuration_name != COARSE:
        yield f"-c {COARSE}, whose images have far fewer voxels"
    if len(times) > 1:
        yield f"-f {first.job.fold} alone, which takes about {describe_roughly(first.seconds)}"
    yield "a machine with a GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedReporter:
    """A reporter that says after a few training steps how long a step takes, and when the folds end.

    Attributes:
        reporter: Shows everything else.
        job: The fold that is trained.
        folds: Number of folds that are left, with this one.
    """

    reporter: Reporter
    job: FoldJob
    folds: int

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:
        """Opens a task; the one of the training is timed."""
        with self.reporter.task(title, total) as task:
            yield _PacedTask(task, self) if title == "training" else task

    def say(self, line: str) -> None:
        """Passes a message on."""
        self.reporter.say(line)

    def log(self, line: str) -> None:
        """Passes a line for log files on."""
        log_line(self.reporter, line)

    def say_pace(self, step_seconds: float, steps_left: float) -> None:
        """Says how long a step takes, and when this fold and all others end."""
        rest, settings = steps_left * step_seconds, self.job.plan.training
        text = f"a training step takes about {describe_roughly(step_seconds)} here: fold {self.job.fold} is trained in "
        text += f"about {describe_roughly(rest)}"
        if self.folds > 1:
            others = (self.folds - 1) * settings.epochs * settings.steps_per_epoch * step_seconds
            text += f", all {self.folds} folds in about {describe_roughly(rest + others)}"
        self.say(text)


class _PacedTask:
    """The task of a training, which advances once per step by its share of the whole."""

    def __init__(self, task: Task, reporter: PacedReporter) -> None:
        self._task, self._reporter = task, reporter
        self._done, self._steps, self._started = 0.0, -1, 0.0  # the first advance is what was done before this run

    def advance(self, units: float = 1) -> None:
        """Advances the task, and times some of the first steps."""
        self._task.advance(units)
        self._done += units
        self._steps += self._steps < 0 or units > 0
        if units <= 0 or self._steps not in (WARM_UP_STEPS, WARM_UP_STEPS + TIMED_STEPS):
            return
        wait_for(self._reporter.job.device)
        if self._steps == WARM_UP_STEPS:
            self._started = time.perf_counter()
            return
        seconds = (time.perf_counter() - self._started) / TIMED_STEPS
        self._reporter.say_pace(seconds, max(0.0, 1 - self._done) / units)


def paced(job: FoldJob, reporter: Reporter, *, folds: int) -> Reporter:
    """Returns a reporter that times the first steps, where nothing could be said before them.

    That is on a CUDA GPU, and for a network whose work cannot be counted; a training of limited time knows its end.

    Args:
        job: The fold.
        reporter: Shows progress.
        folds: Number of folds that are left, with this one.
    """
    is_counted = job.device.type != "cuda" and measure_patch_work(job.configuration) is not None
    if is_counted or job.plan.training.budget_seconds is not None:
        return reporter
    return PacedReporter(reporter=reporter, job=job, folds=folds)
