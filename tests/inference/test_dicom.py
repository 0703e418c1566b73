"""Scans in DICOM are segmented as the same scans in NIfTI are."""

import getpass
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import make_series, write_series
from dicom_readers import list_errors, read_by_highdicom
from pydicom import dcmread
from pydicom.dataset import Dataset
from tiny_workspaces import NUMBER, folders_of
from typer.testing import CliRunner

from autoseg.cli.app import app
from autoseg.datasets.info import DatasetInfo
from autoseg.dicom.selection import SeriesChoiceError
from autoseg.errors import ImageError, ProblemsError, UsageError
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.inference.model import load_model
from autoseg.pipeline import predict


def scan_of(root: Path) -> Path:
    """The new scan of a workspace."""
    return sorted((folders_of(root).raw / "imagesTs").iterdir())[0]


def make_scan(root: Path, description: str = "scan", number: int = 1, study: Dataset | None = None) -> list[Dataset]:
    """Makes a DICOM series of the new scan of a workspace; its numbers are rounded."""
    volume = read_image((scan_of(root),))
    voxels = np.rint(volume.array[0] * 100 / max(1.0, float(np.abs(volume.array).max()) / 300)).astype(np.int16)
    return make_series(
        voxels, spacing_mm=volume.geometry.spacing_mm, description=description, number=number, study=study
    )


def write_nifti(root: Path, path: Path) -> Path:
    """Writes the same scan in NIfTI."""
    slices = make_scan(root)
    pixels = [np.frombuffer(data.PixelData, dtype="<i2").reshape(data.Rows, data.Columns) for data in slices]
    image = sitk.GetImageFromArray(np.stack(pixels))
    image.SetSpacing([float(step) for step in (*slices[0].PixelSpacing[::-1], slices[0].SliceThickness)])
    image.SetOrigin([float(value) for value in slices[0].ImagePositionPatient])
    sitk.WriteImage(image, str(path))
    return path


def run(root: Path, source: Path, output: Path, **options) -> list[Path]:
    """Predicts with the model of a workspace."""
    return predict(source, output, number=NUMBER, folds=0, workspace=root, device="cpu", mirroring=False, **options)


@pytest.fixture(scope="module")
def reference(trained_volumes: Path, tmp_path_factory) -> np.ndarray:
    """The label map of the scan in NIfTI."""
    folder = tmp_path_factory.mktemp("reference")
    [path] = run(trained_volumes, write_nifti(trained_volumes, folder / "scan.nii.gz"), folder / "masks")
    return read_label_map(path).array


def test_folder_zip_and_python_give_the_mask_of_nifti(trained_volumes, tmp_path, reference):
    """The result is named by the folder, and lies on the slices."""
    folder = write_series(tmp_path / "patient7" / "ct", make_scan(trained_volumes)).parent
    with zipfile.ZipFile(tmp_path / "patient7.zip", "w") as archive:
        for path in sorted((folder / "ct").iterdir()):
            archive.write(path, f"ct/{path.name}")
    for source in (folder, tmp_path / "patient7.zip"):
        [path] = run(trained_volumes, source, tmp_path / f"{source.name}_masks")
        assert path.name == "patient7.nii.gz"
        assert np.array_equal(read_label_map(path).array, reference)
    model = load_model(folders_of(trained_volumes).model("3d_fullres").path, folds=0, device="cpu", mirroring=False)
    assert np.array_equal(sitk.GetArrayFromImage(model.predict(folder)), reference)


def test_patients_are_cases_and_one_with_a_gap_does_not_stop_the_others(trained_volumes, tmp_path, reference):
    """A folder per patient; the missing slice of one is named."""
    for name in ("anna", "bert"):
        slices = make_scan(trained_volumes)
        write_series(tmp_path / "scans" / name / "study", slices if name == "anna" else slices[:2] + slices[3:])
    with pytest.raises(ProblemsError, match=r"case 'bert': .*1 slice is missing between IM0001 .* and IM0002"):
        run(trained_volumes, tmp_path / "scans", tmp_path / "masks")
    assert np.array_equal(read_label_map(tmp_path / "masks" / "anna.nii.gz").array, reference)


def test_several_series_are_listed_and_one_is_chosen(trained_volumes, tmp_path, reference):
    """By number, description or UID; without a choice there is a table and an error."""
    first = make_scan(trained_volumes, "T2 axial", 3)
    second = make_scan(trained_volumes, "DWI", 5, study=first[0])
    folder = write_series(tmp_path / "scan", first)
    write_series(folder / "more", second)
    with pytest.raises(SeriesChoiceError, match=r"2 series that could be meant: 1 is series 3 'T2 axial'"):
        run(trained_volumes, folder, tmp_path / "masks")
    arguments = ["predict", "-d", str(NUMBER), "-i", str(folder), "-o", str(tmp_path / "masks"), "-f", "0"]
    shown = CliRunner().invoke(app, [*arguments, "-w", str(trained_volumes), "--device", "cpu"])
    assert shown.exit_code == 2
    assert all(text in shown.output for text in ("modality", "T2 axial", "DWI", "choose one by its number"))
    for text in ("2", "dw*", second[0].SeriesInstanceUID):
        [path] = run(trained_volumes, folder, tmp_path / f"masks_{text[:3]}", series=text)
        assert np.array_equal(read_label_map(path).array, reference)
    with pytest.raises(SeriesChoiceError, match="holds no series 'FLAIR'"):
        run(trained_volumes, folder, tmp_path / "masks", series="FLAIR")


@pytest.mark.slow
def test_channels_come_from_several_series_and_are_resampled(trained_oblique, tmp_path):
    """The second series has half as many pixels; it is brought onto the grid of the first, which is said."""
    rng = np.random.default_rng(3)
    first = make_series(
        rng.integers(0, 900, (8, 24, 24)).astype(np.int16), spacing_mm=(3.0, 1.0, 1.0), description="T2"
    )
    voxels = rng.integers(0, 900, (8, 12, 12)).astype(np.int16)
    second = make_series(voxels, spacing_mm=(3.0, 2.0, 2.0), description="DWI b800", number=2, study=first[0])
    folder = write_series(tmp_path / "scan", first)
    write_series(folder / "more", second)
    lines: list[str] = []

    class Lines:
        def say(self, line: str) -> None:
            lines.append(line)

        def task(self, title: str, total: float):
            from autoseg.runtime.reporting import SILENT

            return SILENT.task(title, total)

    options = {"number": NUMBER, "folds": 0, "workspace": trained_oblique, "device": "cpu", "mirroring": False}
    [path] = predict(folder, tmp_path / "masks", channels=["t2*", "dwi*"], reporter=Lines(), **options)
    assert any("'DWI b800' (MR) is resampled onto the grid of series 1 'T2'" in line for line in lines)
    assert read_label_map(path).array.shape == (8, 24, 24)
    with pytest.raises(UsageError, match="choose a series for each with --channels"):
        predict(folder, tmp_path / "masks2", **options)


def test_python_names_what_is_not_clear(trained_volumes, tmp_path):
    """In one line, with the series to choose from."""
    model = load_model(folders_of(trained_volumes).model("3d_fullres").path, folds=0, device="cpu", mirroring=False)
    first = make_scan(trained_volumes, "a")
    folder = write_series(tmp_path / "scan", [*first, *make_scan(trained_volumes, "b", 2, study=first[0])])
    with pytest.raises(SeriesChoiceError, match=r"1 is series 1 'a' \(MR\); 2 is series 2 'b' \(MR\)"):
        model.predict(folder)
    assert model.predict(folder, series="b").GetSize()[2] == len(first)
    for name in ("one", "other"):
        write_series(tmp_path / "scans" / name, make_scan(trained_volumes))
    with pytest.raises(UsageError, match=r"holds 2 examinations \(one, other\); give the folder of one"):
        model.predict(tmp_path / "scans")


def test_an_examination_without_the_series_does_not_stop_others(trained_volumes, tmp_path):
    """It is named at the end, with what it holds instead; if no examination has the series, nothing begins."""
    write_series(tmp_path / "scans" / "anna", make_scan(trained_volumes, "T2"))
    write_series(tmp_path / "scans" / "bert", make_scan(trained_volumes, "T1"))
    with pytest.raises(ProblemsError, match=r"bert holds no series 't2\*'.*1 is series 1 'T1'") as caught:
        run(trained_volumes, tmp_path / "scans", tmp_path / "masks", series="t2*", dicom="seg")
    assert len(caught.value.lines) == 1
    assert {path.name for path in (tmp_path / "masks" / "dicom").iterdir()} == {"anna_seg.dcm"}
    with pytest.raises(ProblemsError, match="anna holds no series 'flair'"):
        run(trained_volumes, tmp_path / "scans", tmp_path / "other", series="flair")
    assert not (tmp_path / "other").exists()


def test_a_damaged_slice_is_named(trained_volumes, tmp_path):
    """The voxels of one slice are cut off."""
    folder = write_series(tmp_path / "scan", make_scan(trained_volumes))
    path = folder / "IM0003"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ProblemsError, match="IM0003 is damaged or cut off"):
        run(trained_volumes, folder, tmp_path / "masks")
    model = load_model(folders_of(trained_volumes).model("3d_fullres").path, folds=0, device="cpu", mirroring=False)
    with pytest.raises(ImageError, match="IM0003 is damaged or cut off"):
        model.predict(folder)


def test_images_beside_dicom_files_come_first(trained_volumes, tmp_path, reference):
    """A folder that holds other image files is read as before."""
    folder = write_series(tmp_path / "scan", make_scan(trained_volumes)[:2])
    write_nifti(trained_volumes, folder / "scan.nii.gz")
    [path] = run(trained_volumes, folder, tmp_path / "masks")
    assert np.array_equal(read_label_map(path).array, reference)


def test_objects_hold_the_segmentation(trained_volumes, tmp_path, reference):
    """Several kinds at once, beside NIfTI, and with probabilities; the folder continues until they are there."""
    slices = make_scan(trained_volumes)
    source = write_series(tmp_path / "secret_case_17", slices)
    options = {"dicom": ("seg", "labelmap", "rtstruct"), "probabilities": "all"}
    [path] = run(trained_volumes, source, tmp_path / "masks", **options)
    assert np.array_equal(read_label_map(path).array, reference)
    folder = tmp_path / "masks" / "dicom"
    labels = DatasetInfo.load(tmp_path / "masks" / "dataset.json").targets
    names = {f"secret_case_17_{kind}.dcm" for kind in ("seg", "labelmap", "rtstruct")}
    names |= {f"secret_case_17_{label}_probabilities.dcm" for label in labels.names}
    assert {file.name for file in folder.iterdir()} == names
    matrix = np.diag([*map(float, slices[0].PixelSpacing[::-1]), float(slices[0].SliceThickness), 1.0])
    matrix[:3, 3] = slices[0].ImagePositionPatient
    for kind in ("seg", "labelmap"):
        masks = read_by_highdicom(folder / f"secret_case_17_{kind}.dcm", matrix, reference.shape)
        for name, numbers in labels.structures.items():
            assert np.array_equal(masks.get(name, 0 * reference), np.isin(reference, numbers))
    assert reference.any()
    for file in folder.iterdir():
        written = dcmread(file)
        assert written.StudyInstanceUID == slices[0].StudyInstanceUID
        for private in ("case_", str(tmp_path), str(trained_volumes), getpass.getuser()):
            assert private.encode() not in file.read_bytes(), private
        assert list_errors(file) == []
    (folder / "secret_case_17_rtstruct.dcm").unlink()
    assert len(run(trained_volumes, source, tmp_path / "masks", resume=True, **options)) == 1
    assert run(trained_volumes, source, tmp_path / "masks", resume=True, **options) == []


def test_objects_need_dicom_and_a_known_kind(trained_volumes, tmp_path):
    """One line each, before the work."""
    scan = write_nifti(trained_volumes, tmp_path / "scan.nii.gz")
    with pytest.raises(UsageError, match=r"scan.nii.gz is no DICOM series.*leave out --dicom"):
        run(trained_volumes, scan, tmp_path / "masks", dicom="seg")
    source = write_series(tmp_path / "scan", make_scan(trained_volumes))
    with pytest.raises(UsageError, match="no DICOM object 'sr'; choose from seg, labelmap, rtstruct"):
        run(trained_volumes, source, tmp_path / "masks", dicom=["sr"])
    with pytest.raises(UsageError, match=r"mask.nii.gz is one file.*DICOM objects"):
        run(trained_volumes, source, tmp_path / "mask.nii.gz", dicom="seg")
    arguments = ["predict", "-d", str(NUMBER), "-i", str(source), "-o", str(tmp_path / "out"), "-f", "0"]
    command = [*arguments, "-w", str(trained_volumes), "--device", "cpu", "--dicom", "seg", "rtstruct"]
    shown = CliRunner().invoke(app, command)
    assert shown.exit_code == 0, shown.output
    assert "DICOM objects: " in shown.output
    assert len(list((tmp_path / "out" / "dicom").iterdir())) == 2


def test_python_writes_the_same_objects(trained_volumes, tmp_path, reference):
    """Those of `predict --dicom`, of a result in memory, which may have been edited; from a zip file as well."""
    slices = make_scan(trained_volumes)
    source = write_series(tmp_path / "case17", slices)
    model = load_model(folders_of(trained_volumes).model("3d_fullres").path, folds=0, device="cpu")
    analysis = model.analyse(source)
    label = next(name for name in model.labels if name != "background")
    files = model.save_dicom(
        analysis,
        source,
        tmp_path / "objects",
        kinds=["seg", "labelmap", "rtstruct"],
        probabilities=[label],
        disagreement=True,
    )
    names = ["seg", "labelmap", "rtstruct", f"{label}_probabilities", "disagreement"]
    assert [path.name for path in files] == [f"case17_{name}.dcm" for name in names]
    assert all(list_errors(path) == [] for path in files)
    matrix = np.diag([*map(float, slices[0].PixelSpacing[::-1]), float(slices[0].SliceThickness), 1.0])
    matrix[:3, 3] = slices[0].ImagePositionPatient
    expected = sitk.GetArrayFromImage(analysis.segmentation)
    for path in files[:2]:
        masks = read_by_highdicom(path, matrix, expected.shape)
        for name, numbers in model.segmenter.info.targets.structures.items():
            assert np.array_equal(masks.get(name, 0 * expected), np.isin(expected, numbers))
    maps = read_by_highdicom(files[3], matrix, expected.shape)
    shares = sitk.GetArrayFromImage(analysis.probabilities(label))
    assert np.abs(maps[label] / 255 - shares).max() <= 0.5 / 255 + 1e-6
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        for path in sorted(source.iterdir()):
            archive.write(path, path.name)
    edited = sitk.GetImageFromArray(0 * expected + 1)
    edited.CopyInformation(analysis.segmentation)
    [path] = model.save_dicom(edited, tmp_path / "packed.zip", tmp_path / "objects")
    assert path.name == "packed_seg.dcm"
    assert read_by_highdicom(path, matrix, expected.shape)[label].all()


def test_python_refuses_objects_that_would_lie(trained_volumes, tmp_path):
    """Of another grid, of an array, of no DICOM, or maps that are not there."""
    source = write_series(tmp_path / "scan", make_scan(trained_volumes))
    other = write_series(tmp_path / "other", make_scan(trained_volumes)[:-1])
    model = load_model(folders_of(trained_volumes).model("3d_fullres").path, folds=0, device="cpu", mirroring=False)
    mask = model.predict(source)
    for arguments, options, error, message in (
        ((mask, other), {}, ImageError, "the segmentation does not lie on the grid of series 1 'scan'"),
        ((sitk.GetArrayFromImage(mask), source), {}, ImageError, "is ndarray, which says nothing of where"),
        ((mask, scan_of(trained_volumes)), {}, UsageError, "is no DICOM series"),
        ((mask, source), {"disagreement": True}, UsageError, "maps are those of an analysis"),
        ((model.analyse(source), source), {"disagreement": True}, UsageError, "which cannot disagree"),
        ((mask, source), {"kinds": ["sr"]}, UsageError, "no DICOM object 'sr'"),
        ((mask, source), {"kinds": []}, UsageError, "no object is asked for"),
    ):
        with pytest.raises(error, match=message):
            model.save_dicom(*arguments, tmp_path / "objects", **options)
    assert not (tmp_path / "objects").exists()
