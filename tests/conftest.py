"""Trained workspaces that several test files look at.

They are made once, for all processes of a run: copy them before you change anything.
"""

import os

# What is compiled is kept. Tests start hundreds of programs, and each would compile the package anew; so would pytest
# its tests, in each of its processes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Steps of tiny networks are several times slower on two threads that wait for each other. Must be set before torch is
# loaded, and is inherited by the programs that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from browsers import start_browser
from custom_parts import register_all
from drawn_once import like_pictures_drawn_once
from hypothesis import settings
from made_once import made_once
from tiny_workspaces import NUMBER, plan_tiny, tilted, write_volumes
from xdist.scheduler import LoadFileScheduling

from autoseg.pipeline.training import train
from autoseg.planning import plugins
from autoseg.runtime import gpu_decisions

CONFIGURATION = "3d_fullres"

sys.dont_write_bytecode = False  # neither by this process

# Programs that tests start find the modules of tests/support as the tests do.
SUPPORT = str(Path(__file__).parent / "support")
os.environ["PYTHONPATH"] = os.pathsep.join([SUPPORT, *filter(None, [os.environ.get("PYTHONPATH")])])

# A shell tells the programs that it runs in the background to ignore Ctrl-C; tests send themselves that signal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples on every machine and day: what passed once must not fail by chance in someone else's change.
settings.register_profile("same_each_time", derandomize=True)
settings.load_profile("same_each_time")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests for a GPU are skipped where there is none, so `-m gpu` may be run anywhere."""
    for_a_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if for_a_gpu and not torch.cuda.is_available():
        for item in for_a_gpu:
            item.add_marker(pytest.mark.skip(reason="no CUDA GPU"))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """The tests of a file run in one process, so that its fixtures train once; those that take minutes are spread."""
    return LoadFileScheduling(config, log) if "not slow" in config.option.markexpr else None


@pytest.fixture(scope="session", autouse=True)
def drawn_once() -> Iterator[None]:
    """Pictures of one kind are drawn once by each process; a picture takes as long as a tiny training."""
    with like_pictures_drawn_once():
        yield


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser without a window, one for all tests of a process: playwright's driver does not start twice."""
    with start_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def trained_volumes(request: pytest.FixtureRequest) -> Path:
    """A workspace of equal-sided voxels and one channel; the folds 0, 1 and "all" are trained."""
    return made_once(request, "volumes", _train_volumes)


@pytest.fixture(scope="session")
def trained_oblique(request: pytest.FixtureRequest) -> Path:
    """A workspace of two channels whose slices are tilted and stacked along the file's first axis; all are learned."""
    return made_once(request, "oblique", _train_oblique)


@pytest.fixture
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is registered but the parts of `custom_parts`; the tables are as before when the test has ended."""
    monkeypatch.setattr(plugins, "_REGISTERED", {})
    monkeypatch.setattr(plugins, "_LOADED", {})
    register_all()


@pytest.fixture
def gpu_beliefs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of decisions about GPUs is as if nobody had measured one."""
    table = gpu_decisions.read_decisions()
    beliefs = {
        name: tuple(row for row in getattr(table, name) if row.measured_on is None)
        for name in ("channels_last", "compile", "augment_on_device")
    }
    monkeypatch.setattr(gpu_decisions, "read_decisions", lambda: table.model_copy(update=beliefs))


def _train_volumes(root: Path) -> None:
    write_volumes(root)
    plan_tiny(root, epochs=2, steps_per_epoch=4)
    train(NUMBER, CONFIGURATION, [0, 1, "all"], device="cpu", workspace=root)


def _train_oblique(root: Path) -> None:
    write_volumes(
        root, shape=(26, 30, 8), spacing_mm=(1.0, 0.8, 4.0), direction=tilted(20, -15, 30), channels=2, cases=2
    )
    plan_tiny(root, epochs=2, steps_per_epoch=20)
    train(NUMBER, CONFIGURATION, [0, "all"], device="cpu", workspace=root)
