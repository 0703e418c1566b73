"""The examples in docstrings do what they show."""

import doctest
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import autoseg

PACKAGE = Path(autoseg.__file__).parent
EXTRAS = {"einops", "mlflow", "monai", "tensorboard", "torch.utils.tensorboard"}


def modules_with_examples() -> Iterator[str]:
    """Names of the modules whose text holds a prompt, found without importing them."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if ">>> " in path.read_text(encoding="utf-8"):
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def load(name: str):
    """Imports a module; skips the test if the module needs an optional package that is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        pytest.skip(f"{name} needs {error.name}")


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every example of the module prints what its docstring says, in an empty folder of its own."""
    monkeypatch.delenv("AUTOSEG_WORKSPACE", raising=False)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    for number, example in enumerate(doctest.DocTestFinder(exclude_empty=True).find(load(name))):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        runner.run(example)
    assert runner.failures == 0
    assert runner.tries > 0, f"{name} has a prompt that is no example"


def test_there_are_examples():
    """The search finds the example of a module that is known to have one."""
    assert "autoseg.workspace" in set(modules_with_examples())
