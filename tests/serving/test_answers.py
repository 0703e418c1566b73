"""What comes back for a scan: the mask that `predict` writes, its volumes and remarks, in each kind of answer."""

import base64
import gzip
import io
import json
import sys
import zipfile

import nibabel
import numpy as np
import pytest
from dicom_files import make_series, random_voxels, write_series
from served_models import SHAPE, load_small, served, write_noise, write_small_model
from small_models import SMALL_INFO

from autoseg.models.bundle import export_model
from autoseg.pipeline import predict


def send(client, path, answer="json", **options):
    """Sends a file."""
    with path.open("rb") as file:
        return client.post("/segment", params={"answer": answer, **options}, files={"scan": (path.name, file)})


def voxels_of(content: bytes) -> np.ndarray:
    """The voxels of a NIfTI file in memory, by nibabel."""
    return np.asarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)


def test_kind_whose_package_is_missing_is_refused_by_name(client, tmp_path, monkeypatch):
    """A server without SimpleITK says what it lacks and what to send, and goes on."""
    path = write_noise(tmp_path / "a.mha")
    monkeypatch.delitem(sys.modules, "autoseg.imaging.sitk_files", raising=False)
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    answer = send(client, path)
    assert answer.status_code == 415
    assert answer.json()["error"] == "scans of this kind need SimpleITK, which this server lacks; send NIfTI"
    assert send(client, write_noise(tmp_path / "a.nii")).status_code == 200


@pytest.fixture(scope="module")
def predicted(model, scan, tmp_path_factory):
    """The mask that the command writes."""
    output = tmp_path_factory.mktemp("predicted") / "mask.nii.gz"
    predict(scan, output, model=model, device="cpu")
    return output.read_bytes()


def test_mask_is_that_of_predict(client, scan, predicted):
    """Alone, in a zip file, and in JSON; its grid is that of the scan."""
    mask = send(client, scan, "mask")
    assert mask.status_code == 200
    assert mask.headers["content-disposition"] == 'attachment; filename="mask.nii.gz"'
    expected = voxels_of(predicted)
    assert expected.shape == SHAPE[::-1]
    assert len(np.unique(expected)) > 1
    with zipfile.ZipFile(io.BytesIO(send(client, scan, "zip").content)) as archive:
        assert sorted(archive.namelist()) == ["report.json", "scan.nii.gz"]
        zipped, report = archive.read("scan.nii.gz"), json.loads(archive.read("report.json"))
    answer = send(client, scan).json()
    for content in (mask.content, zipped, base64.b64decode(answer["files"]["scan.nii.gz"])):
        assert np.array_equal(voxels_of(content), expected)
    [described] = answer["scans"]
    assert report["scans"] == [described]
    counts = {name: int((expected == number).sum()) for name, number in (("bright", 1), ("dark", 2))}
    assert described["volumes_ml"] == pytest.approx({name: count / 1000 for name, count in counts.items()}, rel=1e-5)
    assert described["files"] == ["scan.nii.gz"]
    assert described["remarks"][0].startswith("bright: folds and mirror images agree little, 0.")


def test_the_log_names_nobody(server, scan):
    """Neither names of files nor of cases; each scan is a line."""
    client, _, lines = server
    before = len(lines)
    send(client, scan)
    assert len(lines) == before + 1
    assert "1 segmented" in lines[-1]
    assert "ller" not in lines[-1]


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha", ".NII.GZ"])
def test_formats_stay(client, tmp_path, ending):
    """The mask has the format of the scan; letters may be capital."""
    path = write_noise(tmp_path / f"a{ending}")
    answer = send(client, path, "mask")
    assert answer.headers["content-disposition"].endswith(f'mask{ending.lower()}"')
    assert answer.content


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A zip file of a series in a folder with a name."""
    pytest.importorskip("highdicom")
    root = tmp_path_factory.mktemp("dicom")
    write_series(root / "files" / "Müller", make_series(random_voxels((12, 16, 14))))
    path = root / "series.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(path for path in (root / "files").rglob("*") if path.is_file()):
            archive.write(file, file.relative_to(root / "files").as_posix())
    return path


def test_dicom_becomes_a_segmentation_object(client, series):
    """It is the mask; a NIfTI file lies beside it. It holds what `predict --dicom seg` writes."""
    pydicom = pytest.importorskip("pydicom")
    answer = send(client, series, "mask")
    assert answer.headers["content-type"] == "application/dicom", answer.text[:300]
    written = pydicom.dcmread(io.BytesIO(answer.content))
    assert written.Modality == "SEG"
    with zipfile.ZipFile(io.BytesIO(send(client, series, "zip").content)) as archive:
        assert sorted(archive.namelist()) == ["dicom/scan_seg.dcm", "report.json", "scan.nii.gz"]
        report, mask = json.loads(archive.read("report.json")), voxels_of(archive.read("scan.nii.gz"))
    assert report["scans"][0]["files"] == ["dicom/scan_seg.dcm", "scan.nii.gz"]
    assert int(written.pixel_array.sum()) == int(np.count_nonzero(mask))
    files = send(client, series, dicom="rtstruct").json()["files"]
    assert sorted(files) == ["dicom/scan_rtstruct.dcm", "scan.nii.gz"]
    assert sorted(send(client, series, dicom="none").json()["files"]) == ["scan.nii.gz"]


def test_a_single_dicom_file_needs_no_ending(client, tmp_path):
    """Its first bytes say what it is; a series of one slice has no spacing, which is said."""
    pytest.importorskip("pydicom")
    [file] = sorted(write_series(tmp_path / "one", make_series(random_voxels((1, 16, 14)))).iterdir())
    answer = client.post("/segment", files={"scan": ("IM0001", file.read_bytes())})
    assert answer.status_code in (200, 422)
    assert "kind" not in answer.text


def test_several_volumes_are_points_in_time(client, tmp_path):
    """Each is a scan of its own; a mask alone cannot be asked for."""
    array = np.random.default_rng(0).normal(0, 1, (8, 9, 10, 2)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / "film.nii.gz")
    answer = send(client, tmp_path / "film.nii.gz").json()
    assert [scan["name"] for scan in answer["scans"]] == ["scan_t00", "scan_t01"]
    assert [scan["files"] for scan in answer["scans"]] == [["scan_t00.nii.gz"], ["scan_t01.nii.gz"]]
    refused = send(client, tmp_path / "film.nii.gz", "mask")
    assert (refused.status_code, refused.json()["error"]) == (
        422, "the result is 2 files, which are no single mask; ask for answer=zip or answer=json",
    )  # fmt: skip


def test_models_of_several_channels(tmp_path):
    """A file for each channel, in order; one is too few, and the line of the command says so."""
    files = [write_noise(tmp_path / f"{seed}.nii.gz", seed=seed) for seed in range(2)]
    with served(load_small(write_small_model(tmp_path / "3d_fullres", channels=2))) as (client, _, _lines):
        uploads = [("scan", (f"channel {number}.nii.gz", file.read_bytes())) for number, file in enumerate(files)]
        answer = client.post("/segment?answer=json", files=uploads)
        assert answer.status_code == 200, answer.text
        assert [scan["name"] for scan in answer.json()["scans"]] == ["scan"]
        alone = client.post("/segment", files=uploads[:1])
        assert alone.status_code == 422
        assert "the image has 1 channels, the model wants 2" in alone.json()["error"]


def test_exported_models_are_served(model, scan, predicted, tmp_path):
    """A bundle without checkpoints, by ONNX Runtime or OpenVINO."""
    pytest.importorskip("onnxruntime")
    bundle = export_model(model, tmp_path / "small.zip", runtime="onnx")
    with served(load_small(bundle)) as (client, _, _lines):
        assert client.get("/model").json()["labels"] == list(SMALL_INFO.targets.names)
        mask = voxels_of(send(client, scan, "mask").content)
    assert np.mean(mask == voxels_of(predicted)) > 0.99
