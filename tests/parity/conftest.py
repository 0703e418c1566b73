"""Fixtures of the tests beside nnU-Net: its interpreter, the datasets that both programs prepare, and the results.

    AUTOSEG_NNUNET_PYTHON=PATH/TO/python pytest tests/parity --parity-table FILE

PATH/TO/python belongs to an environment of its own that holds nnunetv2 2.8.1; README.md says how to make one. Without
it the tests that run nnU-Net are skipped.
"""

import os
from pathlib import Path

import pytest
from both_programs import Bench
from figures import Figures
from phantoms import REALDATA

from autoseg.runtime import device

PYTHON_VARIABLE = "AUTOSEG_NNUNET_PYTHON"
FIGURES = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option that names the file of the table."""
    parser.addoption("--parity-table", metavar="FILE", help="write the results as a table in Markdown")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests here more time, because they train, and run two programs."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def nnunet() -> Path:
    """The interpreter of nnU-Net's environment."""
    named = os.environ.get(PYTHON_VARIABLE)
    if not named:
        pytest.skip(f"{PYTHON_VARIABLE} does not name the python of an environment with nnunetv2 2.8.1")
    if not Path(named).is_file():
        pytest.fail(f"{PYTHON_VARIABLE} names {named}, which is no file")
    return Path(named)


@pytest.fixture(scope="session")
def bench(nnunet: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A workspace in which both programs work on the same datasets; each is made when it is first asked for."""
    if not REALDATA.is_dir():
        pytest.skip("no real scans beside the checkout")
    return Bench(root=tmp_path_factory.mktemp("parity"), python=nnunet)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """The results so far, for the table."""
    path = pytestconfig.getoption("--parity-table", default=None)
    return pytestconfig.stash.setdefault(FIGURES, Figures(path=Path(path) if path else None))


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks calculate in float32 here, as nnU-Net's do on a CPU."""
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Shows the table at the end of the run."""
    found = config.stash.get(FIGURES, None)
    if found is None or not found.rows:
        return
    terminalreporter.section("parity with nnU-Net")
    terminalreporter.write_line(found.table())
