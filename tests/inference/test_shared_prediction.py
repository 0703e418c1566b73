"""Scans that several runs share by leases: each is segmented once, though one of the runs is killed."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from phantoms import Listener
from small_models import small_checkpoint

from autoseg.errors import ProblemsError, UsageError
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import write_image
from autoseg.inference.folder import LEASES_FOLDER
from autoseg.inference.report import read_table
from autoseg.models.checkpoint import save_checkpoint
from autoseg.pipeline.prediction import predict
from autoseg.runtime import leases
from autoseg.workspace import ModelFolder

SCANS = 8

RUN = """
import sys, time
from pathlib import Path
from autoseg.inference import scan_pipeline
from autoseg.pipeline.prediction import predict

scans, output, model, log, hangs_after = sys.argv[1:]
read, calls = scan_pipeline.read_scan, []

def read_slowly(scan):
    calls.append(scan.name)
    with Path(log).open("a") as file:
        file.write(scan.name + "\\n")
    time.sleep(1000 if len(calls) > int(hangs_after) else 0.05)
    return read(scan)

scan_pipeline.read_scan = read_slowly
predict(scans, output, model=model, part="any", mirroring=False, device="cpu")
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An untrained model."""
    save_checkpoint(small_checkpoint(), ModelFolder(path=tmp_path / "model").checkpoint(0))
    return tmp_path / "model"


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder of scans that are not compressed."""
    geometry = Geometry(shape=(8, 8, 8), spacing_mm=(1.0, 1.0, 1.0))
    for number in range(SCANS):
        array = np.random.default_rng(number).normal(size=(1, 8, 8, 8)).astype(np.float32)
        write_image(tmp_path / "scans" / f"case_{number}_0000.nii", Volume(array=array, geometry=geometry))
    return tmp_path / "scans"


@pytest.fixture
def stopped_at_end() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that do not survive a test that fails."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def segment(scans: Path, output: Path, model: Path, **options: object) -> list[str]:
    """Returns the names of the scans that this run has segmented."""
    options = {"mirroring": False, "device": "cpu", **options}
    return sorted(path.stem for path in predict(scans, output, model=model, **options))


def wait_for_lines(log: Path, count: int) -> None:
    """Waits until a run has begun so many scans."""
    while len(log.read_text().split()) < count:
        time.sleep(0.02)


def masks(output: Path) -> dict[str, bytes]:
    """The segmentations of a folder."""
    return {path.name: path.read_bytes() for path in output.glob("*.nii")}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_three_runs_of_which_one_is_killed(scans, model, tmp_path, stopped_at_end):
    """What the killed one had in work is taken over, nothing else is segmented twice, and all have their row."""
    logs, output = [tmp_path / f"log_{number}" for number in range(3)], tmp_path / "masks"
    for log, hangs_after in zip(logs, (2, 1000, 1000), strict=True):
        log.touch()
        words = [sys.executable, "-c", RUN, scans, output, model, log, hangs_after]
        stopped_at_end.append(subprocess.Popen([str(word) for word in words]))
        wait_for_lines(logs[0], 3)  # the first run has stopped answering before the others begin
    wait_for_lines(logs[1], 1)
    killed, *others = stopped_at_end
    killed.kill()
    killed.wait()
    assert [other.wait(timeout=120) for other in others] == [0, 0]

    begun = Counter(name for log in logs for name in log.read_text().split())
    assert len(begun) == SCANS
    assert max(begun.values()) <= 2
    assert {name for name, times in begun.items() if times > 1} <= set(logs[0].read_text().split())
    assert sum(begun.values()) <= SCANS + 3  # one is read, one predicted, one written
    segment(scans, tmp_path / "alone", model)
    assert masks(output) == masks(tmp_path / "alone")
    assert sorted(read_table(output / "report.csv")) == [f"case_{number}" for number in range(SCANS)]
    assert not (output / LEASES_FOLDER).exists()


def test_a_run_leaves_out_what_is_finished_or_in_work(scans, model, tmp_path, monkeypatch):
    """It waits for the latter, and takes it when the other run gives it back."""
    monkeypatch.setattr("autoseg.runtime.shared_work.LOOK_SECONDS", 0.01)
    output, listener = tmp_path / "masks", Listener()
    with leases.open_leases(output / LEASES_FOLDER) as other:
        assert other.take("case_5")
        say = listener.say

        def say_and_release(line: str) -> None:
            say(line)
            if line.startswith("waiting for what other runs have in work: case_5 ("):
                other.release("case_5")

        monkeypatch.setattr(listener, "say", say_and_release)
        names = segment(scans, output, model, part="any", reporter=listener)
    assert names == [f"case_{number}" for number in range(SCANS)]
    assert segment(scans, output, model, part="any") == []
    (output / "case_2.nii").unlink()
    assert segment(scans, output, model, part="any") == ["case_2"]


def test_a_scan_that_cannot_be_segmented_is_named(scans, model, tmp_path):
    """All others are segmented, and no lease is left."""
    (scans / "case_3_0000.nii").write_bytes(b"nothing")
    output = tmp_path / "masks"
    with pytest.raises(ProblemsError, match="case_3"):
        segment(scans, output, model, part="any")
    assert len(masks(output)) == SCANS - 1
    assert not (output / LEASES_FOLDER).exists()


def test_a_scan_that_ends_its_runs_is_not_tried_again(scans, model, tmp_path, monkeypatch):
    """Its row says why it was not segmented."""
    monkeypatch.setattr("autoseg.runtime.shared_work.LOOK_SECONDS", 0.01)
    monkeypatch.setattr(leases, "EXPIRED_SECONDS", 0.0)
    output = tmp_path / "masks"
    for number in range(1, leases.MOST_RUNS + 1):
        (output / LEASES_FOLDER).mkdir(parents=True, exist_ok=True)
        (output / LEASES_FOLDER / f"case_4.{number}").write_text(f"run {number}")
    with pytest.raises(ProblemsError, match="'case_4': 3 runs ended while they worked on it"):
        segment(scans, output, model, part="any")
    assert len(masks(output)) == SCANS - 1
    assert "3 runs ended" in read_table(output / "report.csv")["case_4"]["remarks"]


def test_one_file_is_not_shared(scans, model, tmp_path):
    """Before anything is read."""
    with pytest.raises(UsageError, match="which several runs cannot share; give a folder with -o"):
        predict(scans / "case_1_0000.nii", tmp_path / "mask.nii", model=model, part="any", device="cpu")
