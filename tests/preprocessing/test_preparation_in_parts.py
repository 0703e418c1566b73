"""Preprocessing that several machines share: each prepares its part, and together they prepare the whole."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_workspaces import NUMBER, folders_of, write_volumes

from autoseg.errors import UsageError
from autoseg.pipeline.datasets import plan_and_preprocess, preprocess
from autoseg.workspace import DatasetFolders

CASES = 5


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetFolders:
    """A workspace whose cases are prepared."""
    write_volumes(tmp_path, cases=CASES)
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 3000)
    plan_and_preprocess(NUMBER, preset="small", workspace=tmp_path)
    return folders_of(tmp_path)


def contents(folders: DatasetFolders) -> dict[str, bytes]:
    """The prepared cases of all configurations."""
    paths = folders.preprocessed.glob("*d*/*.zip")
    return {str(path.relative_to(folders.preprocessed)): path.read_bytes() for path in paths}


def test_parts_make_the_whole(folders):
    """Each case is prepared once, as without parts; more parts than cases are no harm."""
    root, whole = folders.raw.parents[1], contents(folders)
    for names in ("2d", "3d_fullres"):
        shutil.rmtree(folders.cases(names))
    made: dict[str, bytes] = {}
    for part in range(1, 8):
        preprocess(NUMBER, part=f"{part}/7", workspace=root)
        now = contents(folders)
        assert len(now) - len(made) == (2 if part <= CASES else 0)
        assert now.items() >= made.items()
        made = now
    assert made == whole
    assert not list(folders.preprocessed.glob(".*"))


def test_a_part_leaves_the_files_of_others_alone(folders):
    """They may be half-written by another machine; a run of the whole removes what nobody finished."""
    root, half = folders.raw.parents[1], folders.cases("2d") / ".writing_0123_case_9.zip"
    half.write_bytes(b"half")
    preprocess(NUMBER, part="1/2", workspace=root)
    assert half.exists()
    preprocess(NUMBER, workspace=root)
    assert not half.exists()


HOLD = """
import sys
from pathlib import Path
from autoseg.runtime import lock
with getattr(lock, sys.argv[2])(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(("how", "part"), [("run_together", None), ("run_alone", "1/2")])
def test_parts_run_at_once_but_not_beside_the_whole(folders, how, part):
    """Which would remove what they are writing."""
    root, command = folders.raw.parents[1], [sys.executable, "-c", HOLD, str(folders.preprocessed), how]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match="another run is at work"):
        preprocess(NUMBER, part=part, workspace=root)
    if how == "run_together":
        preprocess(NUMBER, part="1/2", workspace=root)
    process.communicate("")


def test_a_part_that_is_none_is_refused(folders):
    """Before anything is read."""
    with pytest.raises(UsageError, match="'3/2' is no part of a whole"):
        preprocess(NUMBER, part="3/2", workspace=folders.raw.parents[1])
