"""Names that people give to cases and labels: one name, however it is spelt, and names that are too much alike."""

import re
from collections.abc import Iterable
from typing import Annotated, Any
from unicodedata import normalize

from pydantic import AfterValidator

from autoseg.runtime.reporting import list_names


def compose(name: str) -> str:
    r"""Returns a name with its letters and accents composed (NFC); Linux and macOS spell such names in two ways.

    Example:
        >>> compose("Mu\u0308ller") == "M\u00fcller"
        True
    """
    return normalize("NFC", name)


Name = Annotated[str, AfterValidator(compose)]
"""The name of a case or of a label in a file."""


def compose_all(value: Any) -> Any:
    """Returns a value of JSON with all its texts composed, keys as well.

    Raises:
        ValueError: Two keys of an object are one name that is spelt in two ways.

    Example:
        >>> compose_all({"le\u0301sion": [1, "a\u0301"]}) == {"l\u00e9sion": [1, "\u00e1"]}
        True
    """
    if isinstance(value, str):
        return compose(value)
    if isinstance(value, list | tuple):
        return [compose_all(item) for item in value]
    if not isinstance(value, dict):
        return value
    composed = {compose_all(key): compose_all(item) for key, item in value.items()}
    if len(composed) < len(value):
        names = [compose_all(key) for key in value]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice, spelt in two ways that look the same; rename one")
    return composed


FORMULA = re.compile(r"[=@\t\r]|[+-].*[(|!]", re.DOTALL)
"""Texts that a spreadsheet runs if it opens a CSV file with them. Source: OWASP, CSV injection. Decision: a sign alone,
as in "+C_01" or "-3", is harmless: such a text becomes a number or the name of nothing."""

FORMULA_FIX = "rename it, since a spreadsheet that opens a table with it would run it as a formula"
"""What to do about the name of a case or of a label that is a formula."""


def is_formula(name: str) -> bool:
    """Returns whether a spreadsheet would run the name of a case or of a label as a formula.

    Decision: names stay as they are in CSV files, since programs read them back, and quotes do not keep a spreadsheet
    from running them. So such names are refused where they come from: by import, prediction and evaluation.

    Example:
        >>> is_formula("=cmd|'/c calc'!A0"), is_formula("+C_01")
        (True, False)
    """
    return FORMULA.match(name) is not None


ON_FOLDING = "on Windows and macOS they would share their files, so rename all but one"
"""What follows from names of files that differ in capital letters only."""


def find_lookalikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the groups of names that differ in capital letters only, each in the order of its names.

    Example:
        >>> find_lookalikes(["liver", "spleen", "Liver"])
        [('Liver', 'liver')]
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(name.casefold(), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def describe_lookalikes(what: str, names: Iterable[str], consequence: str) -> list[str]:
    """Returns a line on names that differ in capital letters only; none if there are no such names.

    Args:
        what: What has these names, such as "cases".
        names: The names.
        consequence: What follows from it, or what to do about it.

    Example:
        >>> describe_lookalikes("labels", ["liver", "Liver"], "rename one if they are the same")
        ["labels that differ only in capital letters: 'Liver' and 'liver'; rename one if they are the same"]
    """
    groups = [" and ".join(map(repr, group)) for group in find_lookalikes(names)]
    return [f"{what} that differ only in capital letters: {list_names(groups)}; {consequence}"] if groups else []


PORTS = (f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10))
RESERVED = frozenset({"con", "prn", "aux", "nul", *PORTS})
"""Names that no file has on Windows, whatever its ending. Source: Microsoft, "Naming Files, Paths, and Namespaces"."""


def describe_reserved(what: str, names: Iterable[str]) -> list[str]:
    """Returns a line on names that no file has on Windows; none if there are no such names.

    Args:
        what: What has these names, such as "cases".
        names: The names.

    Example:
        >>> describe_reserved("cases", ["liver", "AUX", "con.1"])
        ["cases whose files cannot be opened on Windows: 'AUX', 'con.1'; rename them to use them there"]
    """
    reserved = [repr(name) for name in names if name.split(".")[0].strip().lower() in RESERVED]
    where = f"{what} whose files cannot be opened on Windows: {list_names(reserved)}"
    return [f"{where}; rename them to use them there"] if reserved else []
