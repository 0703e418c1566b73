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


def parse_groups(groups: object) -> object:
    """Returns "groups" of dataset.json with the name of each group as text; a regular expression stays as it is.

    Example:
        >>> parse_groups({"case_1": 17})
        {'case_1': '17'}

    Raises:
        ValueError: It is neither a regular expression nor case names with their groups.
    """
    if isinstance(groups, str):
        compile_groups(groups)
    if isinstance(groups, str | None):
        return groups
    if not isinstance(groups, dict):
        raise ValueError("it must be a regular expression, or case names with their groups")  # noqa: TRY004
    for name, group in groups.items():
        if not isinstance(group, str | int) or isinstance(group, bool) or group == "":
            raise ValueError(f"the group of {name!r} must be a text or a number; leave out cases that stand alone")
    return {name: str(group) for name, group in groups.items()}  # patient numbers may be written without quotes
