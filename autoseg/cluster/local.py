"""Runs a graph of jobs on this machine: a job on each GPU at a time, or on the CPU one after the other."""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.cluster.graph import EXIT_UNFINISHED, WITHOUT_GPU, Job, JobGraph, record_file
from autoseg.cluster.queue import make_local_id
from autoseg.cluster.records import append_event, last_line, read_submission
from autoseg.errors import ProblemsError, Stopped
from autoseg.runtime.machine import may_have_gpu
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.units import describe_duration
from autoseg.training.stopping import NO_REASON, REASONS
from autoseg.training.watchdog import handled_signals

POLL_SECONDS = 0.2
GRACE_SECONDS = 30.0
"""How long jobs may take to end after they were asked to: a training takes up to ten seconds, and saves its state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A job, or one part of an array.

    Attributes:
        job: The job.
        part: Number of the part, from 1; None if the job has no parts.
    """

    job: Job
    part: int | None

    @property
    def command(self) -> tuple[str, ...]:
        return self.job.command if self.part is None else self.job.part_command(self.part)

    @property
    def title(self) -> str:
        return self.job.name if self.part is None else f"{self.job.name}, part {self.part} of {self.job.parts}"


@dataclass(slots=True, kw_only=True)
class _Running:
    """A step that runs.

    Attributes:
        step: The step.
        process: Its process.
        gpus: The GPUs that it has.
        began_at: When it began, in seconds of the monotonic clock.
        is_asked: Whether it was asked to end. A second request would end a training without saving its state.
    """

    step: _Step
    process: "subprocess.Popen[bytes]"
    gpus: tuple[str, ...]
    began_at: float
    is_asked: bool = False

    def ask_to_end(self) -> None:
        """Asks the step to end, once."""
        if not self.is_asked:
            self.is_asked = True
            self.process.terminate()


@dataclass(slots=True, kw_only=True)
class _Runner:
    """The state of a graph that runs.

    Attributes:
        graph: The jobs.
        reporter: Told when a job begins and ends.
        free: GPUs on which no job runs; without GPUs, one nameless place for a job.
        waiting: Steps that have not begun.
        running: Steps that run.
        failures: Name of each job that failed, or that could not begin, to its line.
        stop_reason: Number of the reason to stop, once a signal has come.
        job_id: Id of all jobs of this run.
    """

    graph: JobGraph
    reporter: Reporter
    free: list[str]
    waiting: list[_Step]
    running: list[_Running] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    stop_reason: int = NO_REASON
    job_id: str = field(default_factory=lambda: make_local_id(os.getpid(), time.time()))

    def run(self) -> None:
        """Runs all steps, and returns when each has ended, or cannot begin because one before it failed."""
        for job in self.graph.jobs:
            self._note(job, "submitted", "local", self.job_id, str(job.parts or 0))
        places = len(self.free)
        while self.waiting or self.running:
            if self.stop_reason != NO_REASON:
                raise Stopped(*REASONS[self.stop_reason])
            self._follow_cancellations()
            self._give_up_without_results()
            self._begin_steps(places)
            self._end_steps()
            time.sleep(POLL_SECONDS)

    def end_all(self) -> None:
        """Asks the steps that run to end, and kills those that do not."""
        for running in self.running:
            running.ask_to_end()
        deadline = time.monotonic() + GRACE_SECONDS
        for running in self.running:
            with suppress(subprocess.TimeoutExpired):
                running.process.wait(max(0.0, deadline - time.monotonic()))
            running.process.kill()
            self._note_step(running.step, "ended", str(_exit_code(running.process.wait())))
        self.running.clear()

    def _follow_cancellations(self) -> None:
        """Drops steps of jobs that 'autoseg stop' has cancelled, and asks those that run to end."""
        steps = [*self.waiting, *(running.step for running in self.running)]
        cancelled = {name for name in {step.job.name for step in steps} if self._is_cancelled(name)}
        for step in [step for step in self.waiting if step.job.name in cancelled]:
            self.waiting.remove(step)
            self._note_step(step, "dropped")
            self.failures.setdefault(step.job.name, f"{step.job.name} was cancelled; run the same command to go on")
        for running in self.running:
            if running.step.job.name in cancelled:
                running.ask_to_end()

    def _is_cancelled(self, name: str) -> bool:
        submission = read_submission(record_file(self.graph.folder, name))
        return submission is not None and submission.job_id == self.job_id and submission.is_cancelled

    def _give_up_without_results(self) -> None:
        """Drops steps that wait for a job that failed."""
        for step in list(self.waiting):
            missing = [name for name in step.job.after if name in self.failures]
            if missing:
                self.waiting.remove(step)
                self._note_step(step, "dropped")
                self.failures.setdefault(step.job.name, f"{step.job.name} was not begun, because it needs {missing[0]}")

    def _begin_steps(self, places: int) -> None:
        unfinished = {step.job.name for step in [*self.waiting, *(running.step for running in self.running)]}
        for step in list(self.waiting):
            needed = min(max(1, step.job.gpus or 1), places)
            if unfinished.isdisjoint(step.job.after) and len(self.free) >= needed:
                self.waiting.remove(step)
                taken, self.free = tuple(self.free[:needed]), self.free[needed:]
                self._begin(step, taken)

    def _begin(self, step: _Step, gpus: tuple[str, ...]) -> None:
        environment = dict(os.environ)
        if "" not in gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        log = self.graph.log(step.job, step.part)
        self._note_step(step, "begun", "-".join(platform.node().split()) or "localhost")
        with log.open("ab") as file:
            process = subprocess.Popen(  # noqa: S603 - the command is this program, and there is no shell
                step.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # so that Ctrl-C reaches it once: from here
            )
        self.running.append(_Running(step=step, process=process, gpus=gpus, began_at=time.monotonic()))
        place = f" on GPU {','.join(gpus)}" if "" not in gpus else ""
        self.reporter.say(f"{step.title} begins{place}: {log}")

    def _end_steps(self) -> None:
        for running in list(self.running):
            returned = running.process.poll()
            if returned is None:
                continue
            self.running.remove(running)
            self.free += running.gpus
            step, code = running.step, _exit_code(returned)
            is_unfinished = code == 0 and step.job.result is not None and not step.job.result.exists()
            if is_unfinished or (code and running.is_asked):
                code = EXIT_UNFINISHED
            self._note_step(step, "ended", str(code))
            taken = describe_duration(time.monotonic() - running.began_at)
            if code:
                self.failures[step.job.name] = _describe_failure(step, code, self.graph.log(step.job, step.part))
                self.reporter.say(f"{step.title} ended with exit code {code} after {taken}")
            else:
                self.reporter.say(f"{step.title} is done after {taken}")

    def _note_step(self, step: _Step, event: str, *detail: str) -> None:
        job_id = self.job_id if step.part is None else f"{self.job_id}_{step.part}"
        self._note(step.job, event, job_id, *detail)

    def _note(self, job: Job, *words: str) -> None:
        append_event(record_file(self.graph.folder, job.name), *words)


def list_gpus(graph: JobGraph, device: str) -> list[str]:
    """Returns the CUDA GPUs of this machine among which jobs can be shared, as CUDA_VISIBLE_DEVICES names them.

    Args:
        graph: The jobs.
        device: The device that the user named. Of one GPU, or without one, there is nothing to share.
    """
    if device not in ("auto", "cuda") or all(job.kind in WITHOUT_GPU for job in graph.jobs) or not may_have_gpu():
        return []
    import torch  # noqa: PLC0415 - it takes a second to load

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]


def run_locally(graph: JobGraph, gpus: Sequence[str], reporter: Reporter) -> None:
    """Runs the jobs of a graph on this machine, each in a process of its own with its log.

    A job that fails does not end the others, but those that wait for it are not begun. SIGTERM and Ctrl-C are passed
    on, so that trainings save their states; a run of the same jobs goes on from there.

    Args:
        graph: The jobs.
        gpus: Names of the CUDA GPUs as CUDA_VISIBLE_DEVICES has them; without any, one job runs at a time.
        reporter: Told when a job begins and ends.

    Raises:
        ProblemsError: Jobs failed, with a line for each.
        Stopped: The run was asked to stop. All jobs have ended.
        WriteError: The folder of the logs cannot be written.
    """
    steps = [
        _Step(job=job, part=part)
        for job in graph.jobs
        for part in ([None] if job.parts is None else range(1, job.parts + 1))
    ]
    runner = _Runner(graph=graph, reporter=reporter, free=list(gpus) or [""], waiting=steps)

    def note(reason: int) -> None:
        runner.stop_reason = reason

    with handled_signals(note), _ended_with(runner.end_all):
        runner.run()
    if runner.failures:
        raise ProblemsError(list(runner.failures.values()))


@contextmanager
def _ended_with(end_all: Callable[[], None]) -> Iterator[None]:
    try:
        yield
    finally:
        end_all()


def _exit_code(returned: int) -> int:
    """Returns the exit code of a process as shells report it: 128 and the number of the signal that ended it."""
    return 128 - returned if returned < 0 else returned


def _describe_failure(step: _Step, code: int, log: Path) -> str:
    if code == EXIT_UNFINISHED:
        return f"{step.title} was stopped before its end; run the same command to go on"
    cause = last_line(log).removeprefix("error: ") or "it said nothing"
    return f"{step.title} ended with exit code {code}: {cause}; see {log}"
