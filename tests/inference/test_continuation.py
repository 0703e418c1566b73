"""A run that goes on with the work of others leaves out what is finished, and only that."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from phantoms import Listener
from small_models import small_checkpoint

from autoseg.errors import ProblemsError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_label_map, write_image
from autoseg.inference.report import read_table
from autoseg.inference.scan_records import FOLDER_NAME
from autoseg.models.checkpoint import save_checkpoint
from autoseg.pipeline.prediction import predict
from autoseg.workspace import ModelFolder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained model."""
    save_checkpoint(small_checkpoint(), ModelFolder(path=tmp_path / "model").checkpoint(0))
    return tmp_path / "model"


def write_scan(path: Path, seed: int = 0) -> None:
    """Noise of eight voxels along each axis; files have the same size, whatever the seed."""
    array = np.random.default_rng(seed).normal(size=(1, 8, 8, 8)).astype(np.float32)
    write_image(path, Volume(array=array, geometry=Geometry(shape=(8, 8, 8), spacing_mm=(1.0, 1.0, 1.0))))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Four scans that are not compressed."""
    for number in range(4):
        write_scan(tmp_path / "scans" / f"case_{number}_0000.nii", number)
    return tmp_path / "scans"


class Runner:
    """Segments scans into one folder, and says what was segmented and what was said."""

    def __init__(self, model: Path, scans: Path, output: Path) -> None:
        self.model, self.scans, self.output, self.lines = model, scans, output, [""]

    def __call__(self, **options: object) -> list[str]:
        """Returns the names of the scans that were segmented; they are the rest of a run unless options differ."""
        listener = Listener()
        given = {"resume": True, "mirroring": False, "device": "cpu", "reporter": listener, **options}
        try:
            return [path.stem for path in predict(self.scans, self.output, model=self.model, **given)]
        finally:
            self.lines = [line for line in listener.lines if "segmented" in line]

    def table(self) -> list[str]:
        """Names of the scans that have a row."""
        return sorted(read_table(self.output / "report.csv"))


@pytest.fixture
def run(model: Path, scans: Path, tmp_path: Path) -> Runner:
    """Runs into an empty folder."""
    return Runner(model, scans, tmp_path / "masks")


ALL = [f"case_{number}" for number in range(4)]


def test_finished_scans_are_left_out(run: Runner) -> None:
    """All of them after a whole run; one whose result or record was lost is segmented again."""
    assert run() == ALL
    assert run() == []
    assert run.lines == ["4 of 4 scans are segmented already"]
    (run.output / "case_1.nii").unlink()
    (run.output / FOLDER_NAME / "case_2.json").unlink()
    (run.output / FOLDER_NAME / "case_3.json").write_text('{"format_')
    assert run() == ["case_1", "case_2", "case_3"]
    assert run.table() == ALL


@pytest.mark.parametrize("kept_time", [False, True])
def test_a_scan_that_was_replaced_is_segmented_again(run: Runner, kept_time: bool) -> None:
    """By another one of the same size, or by one of another size and the same time of change; and that is said."""
    assert run() == ALL
    path = run.scans / "case_2_0000.nii"
    before, mask = path.stat(), read_label_map(run.output / "case_2.nii").array
    write_scan(path, 9)
    if kept_time:
        path.write_bytes(path.read_bytes() + b"\0")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run() == ["case_2"]
    assert run.lines[1] == "segmented again, since their files were changed or replaced afterwards: case_2"
    assert not np.array_equal(read_label_map(run.output / "case_2.nii").array, mask)
    assert run() == []


def test_another_model_and_other_options_are_noticed(run: Runner) -> None:
    """Mirroring and precision change results; the rows of others stay until theirs come."""
    assert run() == ALL
    for options in ({"mirroring": True}, {"exact": True, "mirroring": False}):
        [first, *_] = run(part="1/4", **options)
        assert first == "case_0"
        assert "another model or other options (folds, quality, precision, postprocessing) were used" in run.lines[0]
        assert run.table() == ALL
        models = {row["model"] for row in read_table(run.output / "report.csv").values()}
        assert len(models) == 2
    assert run() == ["case_0"]
    assert "model" not in read_table(run.output / "report.csv")["case_0"]


def test_maps_that_are_asked_for_belong_to_the_scan(run: Runner) -> None:
    """A map is written if it is missing, and again for a scan that was replaced; those for other labels count on."""
    assert run(probabilities="bright") == ALL
    assert run(probabilities="dark") == ALL
    assert run(probabilities=["bright", "dark"]) == []
    write_scan(run.scans / "case_1_0000.nii", 9)
    assert run() == ["case_1"]
    assert run(probabilities="bright") == ["case_1"]


def test_a_folder_of_an_earlier_version_is_gone_on_with(run: Runner) -> None:
    """It has no records; a result counts that is younger than prediction.json and has a row."""
    assert run() == ALL
    shutil.rmtree(run.output / FOLDER_NAME)
    table = run.output / "report.csv"
    table.write_text("".join(line for line in table.read_text().splitlines(keepends=True) if "case_2" not in line))
    os.utime(run.output / "prediction.json", ns=(0, (run.output / "case_0.nii").stat().st_mtime_ns + 1))
    os.utime(run.output / "case_3.nii")
    os.utime(run.output / "case_1.nii")
    assert run() == ["case_0", "case_2"]
    assert run.table() == ALL


def test_scans_that_failed_are_tried_again(run: Runner) -> None:
    """Their row says why they failed, until they have succeeded."""
    path = run.scans / "case_1_0000.nii"
    sound = path.read_bytes()
    path.write_bytes(b"")
    with pytest.raises(ProblemsError):
        run()
    assert "not segmented" in read_table(run.output / "report.csv")["case_1"]["remarks"]
    path.write_bytes(sound)
    assert run() == ["case_1"]
    assert "not segmented" not in read_table(run.output / "report.csv")["case_1"]["remarks"]


KILLED_BEFORE_RECORD = """
import os, signal, sys
import autoseg
from autoseg.inference import report

add, count = report.ReportWriter.add, []
def add_or_die(self, record):
    count.append(record)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    add(self, record)
report.ReportWriter.add = add_or_die
autoseg.predict(sys.argv[1], sys.argv[2], model=sys.argv[3], mirroring=False, device="cpu")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system kills otherwise")
def test_a_kill_between_a_mask_and_its_row_loses_no_row(run: Runner) -> None:
    """The scan counts as not segmented; those before it keep their rows."""
    command = [sys.executable, "-c", KILLED_BEFORE_RECORD, str(run.scans), str(run.output), str(run.model)]
    assert subprocess.run(command, timeout=120, check=False).returncode == -signal.SIGKILL
    assert (run.output / "case_2.nii").exists()
    assert run() == ["case_2", "case_3"]
    assert run.table() == ALL


def test_parts_share_a_folder(run: Runner) -> None:
    """Four parts at the same time: every scan once, one table, nothing half-written."""
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(lambda number: run(part=f"{number}/4", resume=False), range(1, 5))
        assert [name for part in parts for name in part] == ALL
    assert run.table() == ALL
    names = {path.name for path in run.output.iterdir()}
    assert names == {FOLDER_NAME, "dataset.json", "prediction.json", "report.csv", *(f"{name}.nii" for name in ALL)}
    assert {path.name for path in (run.output / FOLDER_NAME).iterdir()} == {f"{name}.json" for name in ALL}
