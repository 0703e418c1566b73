"""Work that is done while what it made before is dealt with: each stage of a line in a thread of its own.

Reading the next image, asking the network about this one, and writing the result of the last can go on at the same
time, since all three release Python's global lock. Nothing piles up: a stage is one item ahead, and then it waits.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from threading import Condition, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

GRACE_SECONDS = 10
"""When nobody wants results any more, work that was begun has that long to come to its end."""

LOOK_SECONDS = 1.0
"""Between two looks at what others did; on Windows, Ctrl-C waits for the next one."""


def prefetch(
    work: Callable[[Item], Result], items: Iterable[Item], *, apart: Callable[[Item], bool] = lambda _: False
) -> Generator[Result, None, None]:
    """Calls `work` with each item, in their order, one item ahead of whoever takes the results.

    Stages stand in line where the items of one are the results of another. Take the results within
    `contextlib.closing`: then a caller that ends early also ends the stages before.

    Args:
        work: Called in a thread of its own.
        items: Gone through in that thread.
        apart: Whether work on an item must not begin before the former result was dealt with, because memory does not
            hold both.

    Yields:
        What `work` returned.

    Raises:
        BaseException: What `work` or `items` raised, in place of the result.
    """
    stage = _Stage(work, items, apart)
    thread = Thread(target=stage.run, daemon=True)  # Python does not wait for such a thread when the program ends
    thread.start()
    try:
        yield from stage.take_all()
    finally:
        stage.close()
        thread.join(GRACE_SECONDS)


class _Stage(Generic[Item, Result]):
    """What the thread and the taker share: how many results were asked for, made, and taken."""

    def __init__(self, work: Callable[[Item], Result], items: Iterable[Item], apart: Callable[[Item], bool]) -> None:
        self._work, self._items, self._apart = work, iter(items), apart
        self._changed = Condition()
        self._asked = self._made = self._taken = 0
        self._waiting: list[Result] = []  # One at most
        self._error: BaseException | None = None
        self._ended = self._closed = False

    def run(self) -> None:
        """What the thread does."""
        try:
            while self._wait(lambda: self._taken == self._made):
                item = next(self._items)
                if self._apart(item) and not self._wait(lambda: self._asked > self._made):
                    return
                result = self._work(item)
                with self._changed:
                    self._waiting.append(result)
                    self._made += 1
                    self._changed.notify_all()
                del item, result  # which may be gigabytes
        except StopIteration:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again where the results are taken
            self._error = error
        finally:
            if isinstance(self._items, Generator):
                self._items.close()
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def take_all(self) -> Iterator[Result]:
        """What the taker does."""
        while True:
            with self._changed:
                self._asked += 1
                self._changed.notify_all()
                while not self._waiting and not self._ended:
                    self._changed.wait(LOOK_SECONDS)
                if not self._waiting:
                    break
                result = self._waiting.pop()
                self._taken += 1
                self._changed.notify_all()
            yield result
            del result
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Ends the thread after what it is at."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool]) -> bool:
        """Waits; False if nobody wants results any more."""
        with self._changed:
            while not ready() and not self._closed:
                self._changed.wait(LOOK_SECONDS)
            return not self._closed
