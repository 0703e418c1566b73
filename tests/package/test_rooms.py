"""The package is a house of rooms: short files, short chains of imports, and tests that mirror the rooms."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import autoseg

PACKAGE = Path(autoseg.__file__).parent
TESTS = Path(__file__).parents[1]

MOST_MODULES_AT_THE_ROOT = 4
"""Besides `__init__`, `__main__` and `_version`: those that all rooms read."""

LONGEST_FILE = 300

LONG_FILES = {
    "workspace.py": "every path of a workspace stands here, and nowhere else",
}
"""Files that may be longer, and why."""

LONGEST_CHAIN = 17
"""Files on the longest chain of imports, those inside functions included, but not names that a package loads lazily."""

OTHER_TESTS = {"attack", "benchmarks", "golden", "guide", "package", "parity", "support"}
"""Folders of tests that belong to no single room."""


def name_module(path: Path) -> str:
    """Returns the name by which a file of the package is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_module(path): path for path in PACKAGE.rglob("*.py")}


def list_imports(tree: ast.AST) -> Iterator[str]:
    """Yields the modules of the package that some code imports when it runs; imports for type checkers do not count."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                member = f"{node.module}.{alias.name}"
                yield member if member in MODULES else node.module
        yield from list_imports(node)


@cache
def longest_chain(module: str) -> tuple[str, ...]:
    """Returns the longest chain of imports that begins with a module."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    chains = [longest_chain(name) for name in set(list_imports(tree)) - {module}]
    return (module, *max(chains, key=len, default=()))


def test_few_modules_stand_outside_the_rooms():
    """A subject has a folder; only what all rooms read stands at the root."""
    root = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__", "_version"}
    assert len(root) <= MOST_MODULES_AT_THE_ROOT, sorted(root)


def test_files_are_short():
    """A file fits on a few screens, and one that does not has its reason."""
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values()
    }
    assert {name for name, lines in lengths.items() if lines > LONGEST_FILE} == set(LONG_FILES)


def test_chains_of_imports_are_short():
    """Whoever follows one subject to the ground opens few files."""
    chain = max((longest_chain(module) for module in MODULES), key=len)
    assert len(chain) <= LONGEST_CHAIN, "\n".join(chain)


def test_tests_mirror_the_rooms():
    """The tests of a room lie in a folder of its name; no test lies outside the folders."""
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and not path.name.startswith(("_", "."))}
    assert rooms <= folders <= rooms | OTHER_TESTS, sorted(folders ^ rooms)
    assert {path.name for path in TESTS.glob("*.py")} == {"conftest.py", "check.py"}
