"""A pipeline of stages, each in a thread of its own: a stage works on the next item while its last result is used.

Reading the next image, asking the network about this one, and writing the result of the last can go on at the same
time, since all three release Python's global lock. Nothing piles up: a stage is one item ahead, and then it waits.
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from autoseg.runtime.thread_pool import ThreadPool, wait_for

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class _Postponed(Generic[Item]):
    """An item on which work must not begin before the next result is asked for."""

    item: Item


class _Ended:
    """There are no more items."""


def prefetch(
    work: Callable[[Item], Result], items: Iterable[Item], *, apart: Callable[[Item], bool] = lambda _: False
) -> Generator[Result, None, None]:
    """Calls `work` with each item, in their order, one item ahead of the caller that takes the results.

    Stages form a pipeline when the items of one are the results of another. Take the results within
    `contextlib.closing`: then a caller that ends early also ends the earlier stages.

    Args:
        work: Function of one item; called in a thread of its own.
        items: Iterated over in that thread.
        apart: Whether work on an item must not begin before the caller has finished with the previous result, because
            memory does not hold both.

    Yields:
        What `work` returned.

    Raises:
        BaseException: What `work` or `items` raised, in place of the result.

    Example:
        >>> from contextlib import closing
        >>> with closing(prefetch(str.upper, ["read", "predict"])) as results:
        ...     list(results)
        ['READ', 'PREDICT']
    """
    iterator = iter(items)

    def step() -> Result | _Postponed[Item] | _Ended:
        for item in iterator:
            return _Postponed(item) if apart(item) else work(item)
        return _Ended()

    def close() -> None:
        if isinstance(iterator, Generator):
            iterator.close()

    with ThreadPool(1, name="prefetch", at_end=close) as pool:
        ahead = pool.submit(step)
        while not isinstance(result := wait_for(ahead), _Ended):
            if isinstance(result, _Postponed):
                result = wait_for(pool.submit(work, result.item))
            ahead = pool.submit(step)
            yield result
            del result  # it may be gigabytes
