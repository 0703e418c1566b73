"""Paths that Python users give, which may be no paths at all."""

import os
from pathlib import Path

from autoseg.errors import UsageError


def as_path(value: object, argument: str) -> Path:
    """Returns the path that a user gave.

    Args:
        value: What was given.
        argument: Name of the argument, for the message.

    Raises:
        UsageError: It is no path.

    Examples:
        >>> as_path("scans", "source").name
        'scans'
        >>> as_path(None, "source")
        Traceback (most recent call last):
        autoseg.errors.UsageError: source is of type NoneType and no path; give the path of a file or a folder
    """
    if isinstance(value, str | os.PathLike):
        return Path(value)
    raise UsageError(f"{argument} is of type {type(value).__name__} and no path", "give the path of a file or a folder")
