"""From an archive to a model and back: stored, sent, received, segmented, stored, fetched, and compared."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_series, write_series
from dicom_readers import read_by_highdicom
from orthanc import free_port, run_orthanc
from tiny_workspaces import folders_of
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.dicom.search import list_dicom_files
from autoseg.errors import TransferError
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.pipeline import listen_dicom, predict, pull_dicom, push_dicom

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("pynetdicom")
pytest.importorskip("dicomweb_client")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # pynetdicom leaves sockets open
]


@pytest.fixture
def archive(tmp_path):
    """An archive that is empty."""
    with run_orthanc(tmp_path / "orthanc") as running:
        yield running


@pytest.fixture
def slices(trained_volumes):
    """The slices of a scan that the tiny model can segment."""
    scan = sorted((folders_of(trained_volumes).raw / "imagesTs").iterdir())[0]
    volume = read_image((scan,))
    voxels = np.rint(volume.array[0] * 100 / max(1.0, float(np.abs(volume.array).max()) / 300)).astype(np.int16)
    return make_series(voxels, spacing_mm=volume.geometry.spacing_mm, description="Scan axial", number=3)


def model_of(root: Path) -> Path:
    """The model of a workspace."""
    return folders_of(root).model("3d_fullres").path


class Lines:
    """Keeps the lines of the service."""

    def __init__(self):
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keeps a line."""
        self.lines.append(line)


def listen_until_done(queue: Path, archive, model: Path, studies: int, *, send=None, seconds=120, **options) -> Lines:
    """Runs the service until it has said a line for each study."""
    reporter, port, sent, end = Lines(), free_port(), [], time.monotonic() + seconds

    def until() -> bool:
        if send is not None and not sent:
            sent.append(True)
            send(port)
        assert time.monotonic() < end, reporter.lines
        return sum(line.startswith("study ") for line in reporter.lines) >= studies

    listen_dicom(
        queue, archive.web, model=model, port=port, settle_seconds=0.5, device="cpu", reporter=reporter, until=until,
        **options,
    )  # fmt: skip
    return reporter


def test_round_trip_voxel_by_voxel(trained_volumes, tmp_path, archive, slices):
    """The object that the archive has in the end holds what predict gives for the same files."""
    source = write_series(tmp_path / "scan", slices)
    assert push_dicom([source], archive.peer) == len(slices)
    model = model_of(trained_volumes)
    reporter = listen_until_done(
        tmp_path / "queue", archive, model, 1, send=lambda port: archive.send_all_to("AUTOSEG", port),
        modality=str(slices[0].Modality), description="scan*",
    )  # fmt: skip
    study = str(slices[0].StudyInstanceUID)
    assert f"study {study}: 1 objects stored at {archive.web}" in reporter.lines[-1]
    assert [list((tmp_path / "queue" / name).iterdir()) for name in ("received", "working", "failed")] == [[], [], []]
    paths = pull_dicom(archive.web, tmp_path / "back", study=study)
    assert len(paths) == len(slices) + 1
    [path] = [path for path in paths if pydicom.dcmread(path).Modality == "SEG"]
    [expected] = predict(source, tmp_path / "masks", model=model, device="cpu")
    label = read_label_map(expected).array
    matrix = np.diag([*map(float, slices[0].PixelSpacing[::-1]), float(slices[0].SliceThickness), 1.0])
    matrix[:3, 3] = slices[0].ImagePositionPatient
    masks = read_by_highdicom(path, matrix, label.shape)
    for number, name in enumerate(("bright", "dark"), start=1):
        assert np.array_equal(masks.get(name, 0 * label), label == number)


def test_fetch_and_store_by_commands(tmp_path, archive, slices):
    """By DICOMweb and by C-STORE, the files come back as they were."""
    source = write_series(tmp_path / "scan", slices)
    study, series = str(slices[0].StudyInstanceUID), str(slices[0].SeriesInstanceUID)
    shown = CliRunner().invoke(app, ["dicom", "push", str(source), "--to", archive.web])
    assert (shown.exit_code, f"{len(slices)} files stored" in shown.output) == (0, True), shown.output
    for extra in ([], ["--series", series]):
        folder = tmp_path / f"back{len(extra)}"
        command = ["dicom", "pull", archive.web, "-o", str(folder), "--study", study, *extra]
        shown = CliRunner().invoke(app, command)
        assert shown.exit_code == 0, shown.output
        files = {pydicom.dcmread(path).SOPInstanceUID: path for path in list_dicom_files(folder)}
        for data in slices:
            assert pydicom.dcmread(files[data.SOPInstanceUID]).PixelData == data.PixelData
    with pytest.raises(TransferError, match=r"dicom-web"):
        pull_dicom(archive.web, tmp_path / "none", study="1.2.3")
    shown = CliRunner().invoke(app, ["dicom", "pull", archive.web, "-o", str(tmp_path / "none"), "--study", "x/../y"])
    assert (shown.exit_code, shown.output.count("\n")) == (2, 1)


def test_a_killed_service_loses_no_study(trained_volumes, tmp_path, archive, slices):
    """Files are on disk once their sender is told so; the next service segments them."""
    source, port, queue = write_series(tmp_path / "scan", slices), free_port(), tmp_path / "queue"
    model = model_of(trained_volumes)
    command = [
        sys.executable, "-m", "autoseg", "dicom", "listen", "--queue", str(queue), "--to", archive.web, "-m",
        str(model), "--port", str(port), "--settle", "3600", "--device", "cpu",
    ]  # fmt: skip
    with (tmp_path / "log.txt").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
    try:
        end = time.monotonic() + 120
        while "listens at" not in (tmp_path / "log.txt").read_text():
            assert time.monotonic() < end, (tmp_path / "log.txt").read_text()
            time.sleep(0.2)
        push_dicom([source], f"AUTOSEG@127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    study = str(slices[0].StudyInstanceUID)
    assert len(list((queue / "received" / study).rglob("*.dcm"))) == len(slices)
    working = queue / "working" / study
    working.mkdir()
    (queue / "received" / study).rename(working / "images")  # as if it had been killed in the middle of its work
    reporter = listen_until_done(queue, archive, model, 1)
    assert "1 objects stored" in reporter.lines[-1]
    assert len(pull_dicom(archive.web, tmp_path / "back", study=study)) == 1


def test_studies_that_cannot_be_segmented_are_put_aside(trained_volumes, tmp_path, archive, slices):
    """A slice is missing: one line says which, and the files stay; the next study is segmented."""
    queue, other = tmp_path / "queue", make_series(np.zeros((4, 8, 8), np.int16), description="other")

    def send(port):
        for name, part in (("gap", slices[:2] + slices[3:]), ("other", other)):
            push_dicom([write_series(tmp_path / name, part)], f"AUTOSEG@127.0.0.1:{port}")

    reporter = listen_until_done(queue, archive, model_of(trained_volumes), 2, send=send, description="scan*")
    lines = {line.split(":")[0]: line for line in reporter.lines if line.startswith("study ")}
    assert "missing" in lines[f"study {slices[0].StudyInstanceUID}"]
    assert "no series to segment" in lines[f"study {other[0].StudyInstanceUID}"]
    [aside] = (queue / "failed").iterdir()
    assert len(list(aside.rglob("*.dcm"))) == len(slices) - 1
    assert archive.call("/studies") == []


def test_series_of_a_study_are_channels(trained_oblique, tmp_path, archive):
    """Two series of one study are segmented together, and the object lies on the first of them."""
    rng = np.random.default_rng(3)
    first = make_series(rng.integers(0, 900, (8, 24, 24)).astype(np.int16), description="T2")
    second = make_series(
        rng.integers(0, 900, (8, 24, 24)).astype(np.int16), description="DWI b800", number=2, study=first[0]
    )
    folder = write_series(tmp_path / "scan" / "1", first).parent
    write_series(folder / "2", second)
    model, channels = model_of(trained_oblique), ["t2*", "dwi*"]
    reporter = listen_until_done(
        tmp_path / "queue", archive, model, 1, channels=channels,
        send=lambda port: push_dicom([folder], f"AUTOSEG@127.0.0.1:{port}"),
    )  # fmt: skip
    assert "1 objects stored" in reporter.lines[-1]
    [path] = pull_dicom(archive.web, tmp_path / "back", study=str(first[0].StudyInstanceUID))
    written = pydicom.dcmread(path)
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == first[0].SeriesInstanceUID
    [expected] = predict(folder, tmp_path / "masks", model=model, device="cpu", channels=channels)
    label = read_label_map(expected).array
    matrix = np.diag([*map(float, first[0].PixelSpacing[::-1]), float(first[0].SliceThickness), 1.0])
    matrix[:3, 3] = first[0].ImagePositionPatient
    assert sum(mask.sum() for mask in read_by_highdicom(path, matrix, label.shape).values()) == (label > 0).sum()
