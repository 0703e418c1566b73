"""Parts of the work on many cases or scans, for several machines that share a folder."""

import re
from collections.abc import Sequence
from typing import TypeVar

from autoseg.errors import UsageError

PART = re.compile(r"^(\d{1,6})/(\d{1,6})\Z", re.ASCII)

ANY = "any"
"""The part of a run that takes whatever no other run has; see `runtime.shared_work`."""

T = TypeVar("T")


def choose_part(items: Sequence[T], part: str | None) -> list[T]:
    """Returns the items for one of several machines: "2/4" takes the second, the sixth, and so on.

    Args:
        items: All items, in an order that is the same on every machine.
        part: The part; None for all items, and so for `ANY`, which decides about each item later.

    Raises:
        UsageError: The text is no part such as "2/4".

    Example:
        >>> choose_part(["a", "b", "c", "d", "e"], "2/2")
        ['b', 'd']
    """
    if part in (None, ANY):
        return list(items)
    match = PART.match(part or "")
    number, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= count:
        raise UsageError(f"{part!r} is no part of a whole", "write 1/4, 2/4, 3/4 and 4/4 for four machines, or any")
    return list(items[number - 1 :: count])
