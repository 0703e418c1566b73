"""One work that several runs share by leases: each item is done once, by whichever run comes to it first.

A run begins at an item of its own, passes over what is finished or what others have in work, and stays until
everything is finished. So what a killed run had begun is taken over, even if all others were nearly done. It is tried
last, and alone, since it may have ended that run for lack of memory.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event
from typing import Generic, Protocol, TypeVar

from autoseg.errors import AutosegError, WriteError
from autoseg.runtime.leases import LOOK_SECONDS, Leases, ask_again
from autoseg.runtime.leftovers import sweep
from autoseg.runtime.reporting import SILENT, Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads


class Named(Protocol):
    """An item with a name by which a file can be named."""

    @property
    def name(self) -> str:
        """The name, which no other item has."""


Item = TypeVar("Item", bound=Named)


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedWork(Generic[Item]):
    """A work that this run shares with others.

    Attributes:
        leases: The leases of this run on its items.
        is_finished: Whether the result of an item is there.
        folders: The folders of the results.
        reporter: Told what is taken over, and what is waited for.
        told: Whether it was told what is waited for.
    """

    leases: Leases
    is_finished: Callable[[Item], bool]
    folders: Sequence[Path]
    reporter: Reporter
    told: Event = field(default_factory=Event)

    def take(self, item: Item, *, take_over: bool) -> bool | None:
        """Takes an item that is to be done; `Leases.release` gives it back.

        Args:
            item: The item.
            take_over: See `Leases.take`.

        Returns:
            Whether this run has it now; False if it is finished, and None if another run has it.

        Raises:
            AutosegError: See `Leases.take`.
        """
        if self.is_finished(item):
            return False
        if not self.leases.take(item.name, take_over=take_over):
            return None
        for folder in self.folders:
            ask_again(folder)
        if self.is_finished(item):  # it was finished since the first look
            self.leases.release(item.name)
            return False
        if self.leases.is_taken_over(item.name):
            for folder in self.folders:
                sweep(folder)
            self.reporter.say(f"{item.name} is taken over from a run that has ended")
        return True

    def take_or_fail(self, item: Item, *, take_over: bool) -> bool | AutosegError | None:
        """Takes an item as `take` does, and returns the error that concerns this item alone."""
        try:
            return self.take(item, take_over=take_over)
        except WriteError:
            raise
        except AutosegError as error:
            return error

    def say_waiting(self, items: Sequence[Item]) -> None:
        """Says which items other runs have, once; nothing if there are none."""
        if not items or self.told.is_set():
            return
        self.told.set()
        names = list_names([item.name for item in items], most=3)
        where = self.leases.describe_others()
        self.reporter.say(f"waiting for what other runs have in work: {names} ({where})")


def map_shared(
    work: Callable[[Item, Callable[[], bool]], None],
    items: Sequence[Item],
    shared: SharedWork[Item],
    *,
    title: str,
    bytes_each: Callable[[Item], int] | None = None,
) -> list[bool | AutosegError]:
    """Works on items in threads; returns when all are finished, by this run or another.

    Args:
        work: Function of an item, and of a function that says whether the item is still this run's own; asked before
            the result is written. See `Leases.holds`.
        items: The items.
        shared: How they are shared.
        title: Title of the progress bar.
        bytes_each: See `map_in_threads`.

    Returns:
        For each item, in an order of this run's own, whether another run has finished it, or an error.
    """

    def attempt(item: Item, *, take_over: bool) -> bool | None:
        taken = shared.take(item, take_over=take_over)
        if not taken:
            return None if taken is None else True
        try:
            is_own = partial(shared.leases.holds, item.name)
            work(item, is_own)
            return False if is_own() else None
        finally:
            shared.leases.release(item.name)

    waiting = _rotate(items)
    found = map_in_threads(
        partial(attempt, take_over=False), waiting, title=title, reporter=shared.reporter, bytes_each=bytes_each
    )
    results: list[bool | AutosegError] = [result for result in found if result is not None]
    waiting = [item for item, result in zip(waiting, found, strict=True) if result is None]
    while waiting and not shared.leases.wait(LOOK_SECONDS):
        last = partial(attempt, take_over=True)
        found = map_in_threads(last, waiting, title="", reporter=SILENT, most_workers=1)
        results += [result for result in found if result is not None]
        waiting = [item for item, result in zip(waiting, found, strict=True) if result is None]
        shared.say_waiting(waiting)
    return results


def take_turns(items: Sequence[Item], shared: SharedWork[Item]) -> Iterator[tuple[Item, AutosegError | None]]:
    """Yields each item that this run has taken, or an error in place of it; ends when all others are finished.

    The caller gives each item back, with `Leases.release`, when its result is written.

    Args:
        items: The items.
        shared: How they are shared.
    """
    waiting, take_over = _rotate(items), False
    while waiting:
        held = []
        for item in waiting:
            taken = shared.take_or_fail(item, take_over=take_over)
            if taken is None:
                held.append(item)
            elif taken is not False:
                yield item, None if taken is True else taken
        shared.say_waiting(held if take_over else ())
        if held and shared.leases.wait(LOOK_SECONDS):
            return
        waiting, take_over = held, True


def _rotate(items: Sequence[Item]) -> list[Item]:
    """Returns the items from a random one on, so that runs which begin together seldom meet."""
    start = secrets.randbelow(max(1, len(items)))
    return [*items[start:], *items[:start]]
