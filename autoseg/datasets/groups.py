"""The regular expression that groups cases, such as the scans of one patient."""

import re

LONGEST_PATTERN = 200
"""Longest regular expression that groups cases, in characters. Decision: longer text is taken for a mistake."""


def compile_groups(pattern: str) -> re.Pattern[str]:
    """Compiles the regular expression whose first bracket, or whole match, in a case's name is its group.

    Raises:
        ValueError: It is not a regular expression, or longer than `LONGEST_PATTERN`.

    Example:
        >>> compile_groups("^(.+?)_").search("patient7_scan2")[1]
        'patient7'
    """
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"a pattern of {len(pattern)} characters is too long; {LONGEST_PATTERN} are allowed")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError) as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from error
