"""Leases: several runs, on any machines that share a folder, take the items of one work, each of them once.

A run that takes an item makes a file for it, which the file system lets only one run make. A run that was killed leaves
such files behind. So each run also has a file with a counter, its pulse, which it raises every few seconds. Others know
that a run has ended if its process is one of their own machine and is gone, or if its pulse has stood still for
`EXPIRED_SECONDS`. Each of them measures that by its own clock, between two looks of its own: no clock is compared with
that of another machine, nor with the time stamps of files. Locks are not needed either, only what all file systems have
that several machines share: if two programs make one file exclusively, one of them fails.

    FOLDER/NAME.1            the run that took the item first
    FOLDER/NAME.2            the run that took it over, since the first had ended; the highest number counts
    FOLDER/RUN.pulse         the process, the machine and the pulse of a run

Who takes an item must look afterwards whether it was finished meanwhile. Files of items that are finished are removed.
A run that stood still for longer than `EXPIRED_SECONDS`, and goes on, may work on an item that another one has taken
over; `Leases.holds` tells.

>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as name:
...     folder = Path(name) / "leases"
...     with open_leases(folder) as leases, open_leases(folder) as others:
...         leases.take("liver_1"), others.take("liver_1"), others.take("liver_2")
...         leases.release("liver_1")
...         others.take("liver_1")
...     folder.exists()
(True, False, True)
True
False
"""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from threading import Event, Lock, Thread
from time import monotonic

from autoseg.errors import AutosegError, WriteError
from autoseg.runtime.leftovers import has_ended, identify_system
from autoseg.runtime.os_errors import advise_writing, reason_of
from autoseg.runtime.reporting import list_names

PULSE_SECONDS = 5.0
"""Interval at which a run raises its pulse."""

EXPIRED_SECONDS = 90.0
"""Time without a pulse after which a run counts as ended. Decision: a file server that fails is back by then, or all of
its runs stand still together."""

LOOK_SECONDS = 1.0
"""Interval at which a run that has nothing else to do looks whether others have finished, or ended."""

MOST_RUNS = 3
"""Number of runs that may end while they work on one item. Decision: it is then the reason, for example because it does
not fit into the memory, and would end one machine after the other."""

MOST_ATTEMPTS = 10
"""How often the folder is made that the last of other runs removes at the same moment."""

PULSE, PULSE_WORDS = ".pulse", 4


class Leases:
    """The leases of a run; see `open_leases`. May be used from several threads."""

    def __init__(self, folder: Path) -> None:
        """Prepares the leases of a run, and writes its first pulse.

        Raises:
            WriteError: The folder cannot be written.
        """
        self._folder, self._run = folder, token_hex(8)
        self._beats, self._ended, self._lock = 0, Event(), Lock()
        self._held: dict[str, int] = {}
        self._seen: dict[str, tuple[bytes, float]] = {}  # of other runs: their pulse, and since when it has been so
        self._beat()

    def take(self, name: str, *, take_over: bool = True) -> bool:
        """Takes an item, unless a run that has not ended has it.

        Args:
            name: Name of the item, by which a file can be named.
            take_over: Whether to take what another run has begun that has ended.

        Returns:
            Whether this run has the item now. If not, a later call may take it.

        Raises:
            AutosegError: `MOST_RUNS` runs have ended while they had the item.
            WriteError: The folder cannot be written.
        """
        number, former = 1, None
        while (run := self._read(name, number)) is not None:
            if self._is_alive(run or f"{name}.{number}") and self._read(name, number + 1) is None:
                return False
            number, former = number + 1, run
        if number > 1 and not take_over:
            return False
        if number > MOST_RUNS:
            what = f"{name!r}: {MOST_RUNS} runs ended while they worked on it, perhaps for lack of memory"
            raise AutosegError(what, "close other programs, and run the command without --part for it")
        if not self._make(name, number):
            return False
        if number > 1 and self._read(name, number - 1) != former:  # another run has given it back meanwhile
            self._path(name, number).unlink(missing_ok=True)
            return False
        with self._lock:
            self._held[name] = number
        return True

    def is_taken_over(self, name: str) -> bool:
        """Returns whether an item that this run has was begun by another one that has ended."""
        return self._held[name] > 1

    def wait(self, seconds: float) -> bool:
        """Waits, and returns whether the leases were closed meanwhile."""
        return self._ended.wait(seconds)

    def holds(self, name: str) -> bool:
        """Returns whether an item that this run has taken was not taken over by another one."""
        return self._is_own(name, self._held[name])

    def release(self, name: str) -> None:
        """Gives an item back, and removes what ended runs left of it; does nothing if this run no longer has it."""
        with self._lock:
            number = self._held.pop(name, None)
        if number is not None and self._is_own(name, number):
            for earlier in range(1, number + 1):
                with suppress(OSError):  # such as a file server that fails: the item is finished all the same
                    self._path(name, earlier).unlink(missing_ok=True)

    def describe_others(self) -> str:
        """Returns the machines of the other runs that have been met and have not ended, for messages."""
        words = [self._read_pulse(run).decode(errors="replace").split() for run in list(self._seen)]
        return list_names(sorted({word[2] for word in words if len(word) == PULSE_WORDS}), most=3) or "elsewhere"

    def close(self) -> None:
        """Ends the pulse; gives back what is still held, and removes what ended runs left."""
        self._ended.set()
        for name in list(self._held):
            self.release(name)
        with suppress(OSError):
            self._sweep()
        with suppress(OSError):
            self._pulse_path(self._run).unlink(missing_ok=True)
            self._folder.rmdir()  # fails if another run has a file there

    def keep_alive(self) -> None:
        """Raises the pulse until the leases are closed; called in a thread of its own."""
        while not self._ended.wait(PULSE_SECONDS):
            with suppress(WriteError):  # it may be written the next time
                self._beat()

    def _beat(self) -> None:
        self._beats += 1
        host = "".join(platform.node().split()) or "this_machine"
        text = f"{identify_system()} {os.getpid()} {host} {self._beats:012d}\n"
        with _write_errors(self._folder):
            for left in reversed(range(MOST_ATTEMPTS)):
                self._folder.mkdir(parents=True, exist_ok=True)
                try:
                    _write(self._pulse_path(self._run), text, os.O_CREAT)
                except FileNotFoundError:  # the last of other runs has removed the folder
                    if not left:
                        raise
                else:
                    return

    def _make(self, name: str, number: int) -> bool:
        """Makes the file of a lease; returns False if another run has just made it."""
        with _write_errors(self._folder):
            try:
                _write(self._path(name, number), self._run, os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                return False
        return True

    def _read(self, name: str, number: int) -> str | None:
        """Returns which run made the file of a lease; empty if it has not yet written it; None if there is no file."""
        try:
            return self._path(name, number).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def _is_own(self, name: str, number: int) -> bool:
        """Returns whether a lease of this run is still there, and is the last of its item."""
        ask_again(self._folder)
        return self._read(name, number) == self._run and self._read(name, number + 1) is None

    def _is_alive(self, run: str) -> bool:
        """Returns whether a run is at work, as far as can be told; a lease without the name of a run counts as one."""
        if run == self._run:
            return True
        pulse = self._read_pulse(run)
        words = pulse.decode(errors="replace").split()
        if len(words) == PULSE_WORDS and words[1].isdecimal() and has_ended(words[0], int(words[1])):
            return False
        with self._lock:
            former, since = self._seen.get(run, (None, 0.0))
            if former != pulse:
                self._seen[run] = pulse, monotonic()
                return True
        return monotonic() - since < EXPIRED_SECONDS

    def _read_pulse(self, run: str) -> bytes:
        try:
            return self._pulse_path(run).read_bytes()
        except OSError:
            return b""

    def _sweep(self) -> None:
        """Removes leases and pulses of runs that have ended; items at which too many runs have ended keep theirs."""
        for name in sorted({name for name, _ in self._list_leases()}):
            with suppress(AutosegError):
                if self.take(name):
                    self.release(name)
        needed = {self._read(name, number) for name, number in self._list_leases()}
        for path in list(self._folder.glob(f"*{PULSE}")):
            if path.stem not in needed and not self._is_alive(path.stem):
                path.unlink(missing_ok=True)

    def _list_leases(self) -> list[tuple[str, int]]:
        """Returns the name of the item and the number of each lease."""
        parts = [path.name.rpartition(".") for path in self._folder.iterdir()]
        return [(name, int(number)) for name, _, number in parts if number.isdecimal()]

    def _path(self, name: str, number: int) -> Path:
        return self._folder / f"{name}.{number}"

    def _pulse_path(self, run: str) -> Path:
        return self._folder / f"{run}{PULSE}"


@contextmanager
def open_leases(folder: Path) -> Iterator[Leases]:
    """Opens the leases of a run on the items of a work; what is still held at the end is given back.

    Args:
        folder: Folder of the leases, which all runs of this work share; it is removed by the last one.

    Raises:
        WriteError: The folder cannot be written.
    """
    leases = Leases(folder)
    Thread(target=leases.keep_alive, daemon=True, name="pulse").start()
    try:
        yield leases
    finally:
        leases.close()


def ask_again(folder: Path) -> None:
    """Makes the next look for files in a folder ask the file server, which may know more than this machine remembers.

    Source: nfs(5), "close-to-open cache consistency": a client asks whether a folder has changed when it is opened.
    """
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY))


def _write(path: Path, text: str, flags: int) -> None:
    """Writes a small file in one step, and waits until the file server has it."""
    file = os.open(path, os.O_WRONLY | flags, 0o666)
    try:
        os.write(file, text.encode())
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {reason_of(error)}", advise_writing(error)) from error
