"""The same work in several processes of this machine, one for each GPU, which train together; see `training.ranks`.

This process does none of the work. It passes on what the first one says, and what a user asks for: to stop, or to end
at once. If one of the others dies, in whatever way, it ends all within seconds and names the first cause.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar, cast

import torch.distributed as dist
from torch.multiprocessing import get_context

from autoseg.errors import AutosegError, UsageError
from autoseg.runtime.device import resolve_device
from autoseg.runtime.reporting import Reporter, Task
from autoseg.training.ranks import check_device, is_distributed
from autoseg.training.worker import INTERRUPT, STOP, Word, work_as_rank

CAUSE_SECONDS = 2.0
"""Who loses a partner fails too, and may be heard first; so long is waited for what the others have to say."""

GRACE_SECONDS = 5.0
"""Processes that are told to end have that long to leave nothing half-written and let go of their locks."""

T = TypeVar("T")


def check_gpus(count: int, device: str) -> None:
    """Makes sure that so many processes can train on this machine.

    Args:
        count: One for each GPU.
        device: As the user named it; on "cpu" they share the cores, which helps nobody but tests.

    Raises:
        UsageError: There are fewer GPUs, or torchrun has started the processes already.
    """
    if count < 1:
        raise UsageError(f"training takes at least one GPU, not {count}", "leave out --gpus")
    if is_distributed():
        raise UsageError("torchrun has started the processes already", "leave out --gpus")
    place = resolve_device(device)
    if place.type == "cpu" and device == "auto":
        what = f"this machine has no CUDA GPU, let alone {count}"
        raise UsageError(what, f"leave out --gpus, or add --device cpu for {count} processes that share the CPU")
    check_device(place, count)


def launch(work: Callable[..., T], count: int, device: str, reporter: Reporter) -> T:
    """Does the same work in several processes.

    As always with Python's `multiprocessing`, a script that calls this must do so below `if __name__ == "__main__"`.

    Args:
        work: Called in each, with a `reporter`; it finds its rank by `init_ranks`. It can be pickled, and so can its
            result.
        count: How many processes; a single one is this one.
        device: Where they work; see `check_gpus`.
        reporter: Is told what the first one says.

    Returns:
        The result of the first one.

    Raises:
        UsageError: See `check_gpus`.
        Stopped, AutosegError: As the work raised it.
        AutosegError: A process was killed.
        RuntimeError: A bug, with its traceback in the process.
    """
    check_gpus(count, device)
    if count == 1:
        return work(reporter=reporter)
    meeting = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    crew: list[_Member] = []
    try:
        for rank in range(count):
            crew.append(_start(work, rank, count, meeting.port))
        with _passing_on_sigterm(crew):
            return cast(T, _Listener(reporter, crew).listen())
    finally:
        _dismiss(crew)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Member:
    """One of the processes, and the line to it."""

    rank: int
    process: BaseProcess
    line: "Connection[Any, Any]"

    def tell(self, word: str) -> None:
        """Asks it for something; one that has ended hears nothing."""
        with suppress(OSError):
            self.line.send(word)


def _start(work: Callable[..., Any], rank: int, count: int, port: int) -> _Member:
    context = get_context("spawn")
    mine, theirs = context.Pipe()
    process: SpawnProcess = context.Process(target=work_as_rank, args=(work, rank, count, port, theirs))
    process.start()
    theirs.close()
    return _Member(rank=rank, process=process, line=mine)


@contextmanager
def _passing_on_sigterm(crew: Sequence[_Member]) -> Iterator[None]:
    """Tells all members of the first SIGTERM; a second one ends this process at once, and the others with it.

    The signal is left to a program that already listens for it, and to other threads than the main one.
    """

    def pass_on(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for member in crew:
            member.tell(STOP)

    in_main = threading.current_thread() is threading.main_thread()
    listens = in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if listens:
        signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    finally:
        if listens:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _dismiss(crew: Sequence[_Member]) -> None:
    """Ends what has not ended, in peace if it can."""
    for member in crew:
        member.tell(INTERRUPT)
    deadline = time.monotonic() + GRACE_SECONDS
    for member in crew:
        member.process.join(max(0.0, deadline - time.monotonic()))
        member.process.kill()
        member.process.join()
        member.line.close()


@dataclass(slots=True)
class _Listener:
    """Hears what the members say until all have said their last word, or until one has failed."""

    reporter: Reporter
    crew: Sequence[_Member]
    tasks: dict[int, tuple[ExitStack, Task]] = field(default_factory=dict)
    causes: list[tuple[int, BaseException]] = field(default_factory=list)
    result: Any = None

    def listen(self) -> Any:
        """Gives the result of the first member, or raises the first cause of a failure."""
        members = {member.line: member for member in self.crew}
        deadline: float | None = None
        while members and (deadline is None or time.monotonic() < deadline):
            for line in wait(list(members), timeout=None if deadline is None else CAUSE_SECONDS / 10):
                if self._hear(members[line]):  # type: ignore[index]
                    del members[line]  # type: ignore[arg-type]
            if self.causes and deadline is None:
                deadline = time.monotonic() + CAUSE_SECONDS
        if not self.causes:
            return self.result
        cause = min(self.causes, key=lambda cause: cause[0])[1]
        for context, _ in reversed(self.tasks.values()):
            context.__exit__(type(cause), cause, None)
        raise cause

    def _hear(self, member: _Member) -> bool:
        """Hears one word of a member; says whether it was the last one."""
        try:
            word: Word = member.line.recv()
        except (EOFError, OSError):
            self.causes.append((1, _describe_death(member, len(self.crew))))
            return True
        return bool(getattr(self, f"_on_{word.what}")(member, *word.values))

    def _on_say(self, _: _Member, line: str) -> None:
        self.reporter.say(line)

    def _on_begin(self, _: _Member, number: int, title: str, total: float) -> None:
        context = ExitStack()
        self.tasks[number] = context, context.enter_context(self.reporter.task(title, total))

    def _on_advance(self, _: _Member, number: int, units: float) -> None:
        self.tasks[number][1].advance(units)

    def _on_end(self, _: _Member, number: int) -> None:
        self.tasks.pop(number)[0].close()

    def _on_done(self, member: _Member, result: Any) -> bool:
        if member.rank == 0:
            self.result = result
        return True

    def _on_failed(self, _: _Member, error: BaseException) -> bool:
        self.causes.append((0, error))
        return True

    def _on_crashed(self, member: _Member, text: str) -> bool:
        self.causes.append((2, RuntimeError(f"process {member.rank} of {len(self.crew)} failed:\n{text}")))
        return True


def _describe_death(member: _Member, count: int) -> AutosegError:
    member.process.join(GRACE_SECONDS)
    code = member.process.exitcode or 0
    how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
    return AutosegError(
        f"process {member.rank} of {count} ended without a word ({how})",
        "see whether the machine ran out of memory, and run the command again: it goes on after the last epoch",
    )
