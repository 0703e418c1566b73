"""Folders that one process of a test run fills, and all others look at."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from autoseg.runtime.lock import run_alone


def made_once(request: pytest.FixtureRequest, name: str, make: Callable[[Path], object]) -> Path:
    """The folder of this name; the first process that asks for it fills it, while the others wait.

    What `make` left before it failed or was killed is removed, and made anew by the next process.

    Args:
        request: The request of the fixture that returns the folder.
        name: Name of the folder, which no other fixture uses.
        make: Fills the empty folder that it is given.
    """
    own: Path = request.getfixturevalue("tmp_path_factory").getbasetemp()
    place = (own.parent if hasattr(request.config, "workerinput") else own) / "made_once" / name
    folder, ready = place / name, place / "ready"
    with run_alone(place, waiting=lambda _: None):
        if not ready.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            ready.touch()
    return folder
