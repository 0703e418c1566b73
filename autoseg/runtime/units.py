"""Amounts of memory and durations as people write them, such as "8GB" and "2h"."""

import re

from autoseg.errors import UsageError

DECIMAL_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
BYTES = {**DECIMAL_BYTES, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
SECONDS = {"s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}

AMOUNT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*$")


def parse_memory(text: str) -> int:
    """Returns an amount of memory in bytes.

    Args:
        text: An amount such as "8GB" (8e9 bytes), "11.5 GiB" or "800MB".

    Raises:
        UsageError: The text is not a positive amount of memory.

    Example:
        >>> parse_memory("8GB"), parse_memory("2 KiB")
        (8000000000, 2048)
    """
    return max(1, int(_parse(text, BYTES, "an amount of memory such as 8GB")))


def parse_duration(text: str) -> float:
    """Returns a duration in seconds.

    Args:
        text: A duration such as "90s", "5m", "2h" or "1.5d".

    Raises:
        UsageError: The text is not a positive duration.

    Example:
        >>> parse_duration("90s"), parse_duration("1.5 h")
        (90.0, 5400.0)
    """
    return _parse(text, SECONDS, "a duration such as 90s, 5m or 2h")


def describe_duration(seconds: float) -> str:
    """Returns a duration as people read it.

    Example:
        >>> describe_duration(42), describe_duration(303), describe_duration(7500)
        ('42 s', '5 min 03 s', '2 h 05 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def describe_memory(amount_bytes: float) -> str:
    """Returns an amount of memory as people read it, in decimal units.

    Example:
        >>> describe_memory(812e6), describe_memory(7.9e9)
        ('812 MB', '7.9 GB')
    """
    if amount_bytes < 10**9:
        return f"{amount_bytes / 10**6:.0f} MB"
    return f"{amount_bytes / 10**9:.1f} GB"


def _parse(text: str, units: dict[str, float] | dict[str, int], expected: str) -> float:
    match = AMOUNT.match(text)
    if match is None or match[2].lower() not in units or float(match[1]) == 0:
        raise UsageError(f"{text!r} is not {expected}", f"use one of the units {', '.join(units)}")
    return float(match[1]) * units[match[2].lower()]
