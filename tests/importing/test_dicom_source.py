"""Series of DICOM files and their masks become datasets."""

import json
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from dicom_files import AXIAL, make_series, random_voxels, write_series
from dicom_masks import make_segmentation, make_structure_set, save
from pydicom.dataset import Dataset
from typer.testing import CliRunner

import autoseg
from autoseg.cli.app import app
from autoseg.dicom.selection import SeriesChoiceError
from autoseg.errors import AutosegError, DatasetError, UsageError
from autoseg.imaging.image_files import read_image, read_label_map

SHAPE = (4, 9, 11)


def make_masks(seed: int, *, overlap: bool = False) -> dict[str, np.ndarray]:
    """Makes masks of two structures."""
    rng = np.random.default_rng(seed)
    first, second = rng.random(SHAPE) > 0.6, rng.random(SHAPE) > 0.7
    return {"Liver": first, "Tumour": second if overlap else second & ~first}


def write_case(folder: Path, seed: int, *, modality: str = "CT", overlap: bool = False) -> dict[str, np.ndarray]:
    """Writes a series, a series without a mask, and a segmentation; returns the masks."""
    slices = make_series(random_voxels(SHAPE, np.int16), modality=modality, description="portal", number=2)
    other = make_series(random_voxels(SHAPE), modality=modality, description="native", number=1, study=slices[0])
    masks = make_masks(seed, overlap=overlap)
    save(folder / "masks", make_segmentation(slices, masks), "seg.dcm")
    write_series(folder / "portal", slices)
    write_series(folder / "native", other)
    return masks


def test_segmentations_become_label_maps(tmp_path):
    """Names become labels; the series is the one that was drawn on, and CT is known to be CT."""
    expected = {name: write_case(tmp_path / "source" / name, seed) for seed, name in enumerate(("anna", "bert"))}
    dataset = autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")
    assert dataset.info.labels == {"background": 0, "Liver": 1, "Tumour": 2}
    assert dataset.info.channel_names == {"0": "CT"}
    assert [case.name for case in dataset.cases] == ["anna", "bert"]
    for case in dataset.cases:
        assert case.label is not None
        label, image = read_label_map(case.label), read_image(case.images)
        masks = expected[case.name]
        assert np.array_equal(label.array, masks["Liver"] + 2 * masks["Tumour"])
        assert np.array_equal(image.array[0], random_voxels(SHAPE, np.int16))
        assert label.geometry.difference(image.geometry) is None
        assert nibabel.load(case.images[0]).get_data_dtype() == np.int16
    assert autoseg.check(3, workspace=tmp_path / "work") == []


def test_what_is_kept_names_nobody(tmp_path):
    """The kernel and the manufacturer are kept; names, numbers and dates of the patient are not."""
    slices = make_series(random_voxels(SHAPE, np.int16), modality="CT", description="portal")
    for data in slices:
        data.ConvolutionKernel, data.Manufacturer, data.StudyDate = "B30f", "Example", "20200102"
        data.PatientBirthDate, data.InstitutionName, data.OperatorsName = "19500304", "Some Hospital", "Roe^Rick"
    save(tmp_path / "source", make_segmentation(slices, make_masks(0)), "seg.dcm")
    write_series(tmp_path / "source", slices)
    dataset = autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")
    text = (dataset.folder / "dicom_tags.json").read_text(encoding="utf-8")
    [tags] = json.loads(text)["source"]
    assert tags["ConvolutionKernel"] == "B30f"
    assert tags["SeriesDescription"] == "portal"
    assert float(tags["SliceThickness"]) == 3.0
    everything = "".join(path.read_text(encoding="utf-8", errors="replace") for path in dataset.folder.rglob("*.json"))
    for secret in ("Doe", "patient-7", "2020", "1950", "Hospital", "Roe", slices[0].SeriesInstanceUID):
        assert secret not in everything


def test_overlapping_segments_are_masks_of_their_own(tmp_path):
    """As folders of masks are."""
    masks = write_case(tmp_path / "source", 0, overlap=True)
    dataset = autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")
    assert dataset.info.masks
    [case] = dataset.cases
    assert case.label is not None
    label = read_label_map(case.label).array
    for name, mask in masks.items():
        assert np.array_equal(np.isin(label, dataset.info.labels[name]), mask)


def test_structure_sets_elsewhere_and_a_zip_file(tmp_path):
    """Masks in another folder, drawn as contours; the series are packed."""
    slices = make_series(random_voxels(SHAPE, np.int16), modality="MR", description="T2 axial")
    start, x, y = np.asarray(slices[1].ImagePositionPatient, float), 1.25, 1.5
    corners = [(1.5, 2.5), (1.5, 7.5), (5.5, 7.5), (5.5, 2.5)]
    square = np.array([start + np.array([column * x, row * y, 0.0]) for row, column in corners])
    save(tmp_path / "masks", make_structure_set(slices, {"Prostate": [square]}), "rt.dcm")
    folder = write_series(tmp_path / "scans", slices)
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    dataset = autoseg.import_dataset(
        tmp_path / "scans.zip", 3, labels=tmp_path / "masks", name="Prostate", workspace=tmp_path / "work"
    )
    [case] = dataset.cases
    assert case.label is not None
    expected = np.zeros(SHAPE, dtype=int)
    expected[1, 2:6, 3:8] = 1
    assert np.array_equal(read_label_map(case.label).array, expected)
    assert dataset.info.channel_names == {"0": "T2 axial"}


def test_channels_of_several_series_and_a_mask_of_the_second(tmp_path):
    """The mask is brought onto the grid of the first."""
    first = make_series(random_voxels((4, 18, 22)), spacing_mm=(3.0, 0.75, 0.625), description="T2")
    second = make_series(random_voxels(SHAPE), description="DWI", number=2, study=first[0])
    mask = np.zeros(SHAPE, dtype=bool)
    mask[1:3, 2:6, 3:8] = True
    save(tmp_path / "source", make_segmentation(second, {"Lesion": mask}), "seg.dcm")
    write_series(tmp_path / "source" / "1", first)
    write_series(tmp_path / "source" / "2", second)
    dataset = autoseg.import_dataset(tmp_path / "source", 3, channels=["T2", "DWI"], workspace=tmp_path / "work")
    [case] = dataset.cases
    assert case.label is not None
    label = read_label_map(case.label)
    assert label.array.shape == (4, 18, 22)
    assert abs(int(label.array.sum()) - 4 * int(mask.sum())) <= 0.25 * 4 * int(mask.sum())
    assert dataset.info.channel_names == {"0": "T2", "1": "DWI"}
    assert read_image(case.images).array.shape == (2, 4, 18, 22)


def test_a_tilted_series_is_straightened_with_its_mask(tmp_path):
    """Image and mask stay together."""
    column = (0.0, np.cos(0.3), np.sin(0.3))
    voxels = np.zeros((6, 30, 30), dtype=np.uint16)
    voxels[1:5, 10:20, 10:20] = 1000
    slices = make_series(voxels, orientation=(AXIAL[0], column), spacing_mm=(3.0, 1.0, 1.0), modality="CT")
    for index, data in enumerate(slices):
        data.ImagePositionPatient = [0.0, 0.0, 3.0 * index]
    save(tmp_path / "source", make_segmentation(slices, {"Cube": voxels > 0}), "seg.dcm")
    write_series(tmp_path / "source", slices)
    with pytest.raises(AutosegError, match="--resample-tilt"):
        autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")
    dataset = autoseg.import_dataset(tmp_path / "source", 3, resample_tilt=True, workspace=tmp_path / "work")
    [case] = dataset.cases
    assert case.label is not None
    image, label = read_image(case.images).array[0] > 500, read_label_map(case.label).array > 0
    assert 2 * (image & label).sum() / (image.sum() + label.sum()) > 0.95


def cut(path: Path) -> None:
    """Cuts a file off."""
    path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "masks" / "seg.dcm").unlink(), "none of 0 segmentations and structure sets"),
        (
            lambda folder: (folder / "masks" / "seg2.dcm").write_bytes((folder / "masks" / "seg.dcm").read_bytes()),
            r"both hold 'Liver'; leave one of them out",
        ),
        (lambda folder: (folder / "portal" / "IM0002").unlink(), "1 slice is missing"),
        (
            lambda folder: cut(folder / "masks" / "seg.dcm"),
            "seg.dcm is damaged or cut off",
        ),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path, change, message):
    """In one line, before anything is written."""
    write_case(tmp_path / "source", 0)
    change(tmp_path / "source")
    with pytest.raises(AutosegError, match=message):
        autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")
    assert not list((tmp_path / "work").rglob("Dataset*"))


def test_series_are_chosen_and_links_are_refused(tmp_path):
    """Two series with masks need a choice, which the command shows in a table."""
    slices = make_series(random_voxels(SHAPE), description="early", number=1)
    late = make_series(random_voxels(SHAPE), description="late", number=2, study=slices[0])
    for index, part in enumerate((slices, late)):
        save(tmp_path / "source", make_segmentation(part, make_masks(index)), f"seg{index}.dcm")
        write_series(tmp_path / "source" / str(index), part)
    with pytest.raises(SeriesChoiceError, match="2 series that could be meant"):
        autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")
    arguments = ["import", str(tmp_path / "source"), "-d", "3", "-w", str(tmp_path / "work")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 2
    assert "early" in shown.output
    refused = r"holds DICOM files, which --link cannot list: .*; leave --link out, and the series are converted"
    with pytest.raises(UsageError, match=refused):
        autoseg.import_dataset(tmp_path / "source", 3, series="late", link=True, workspace=tmp_path / "work")
    shown = CliRunner().invoke(app, [*arguments, "--series", "late"])
    assert shown.exit_code == 0, shown.output
    label = read_label_map(next((tmp_path / "work").rglob("labelsTr/*.nii.gz"))).array
    assert np.array_equal(label == 1, make_masks(1)["Liver"])


def test_a_folder_without_masks_says_what_to_bring(tmp_path):
    """Series alone are no dataset."""
    write_series(tmp_path / "source", make_series(random_voxels(SHAPE)))
    with pytest.raises(DatasetError, match="bring DICOM-SEG or RTSTRUCT of these series"):
        autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")


def test_a_structure_that_a_case_lacks_was_not_annotated(tmp_path):
    """As for folders of masks."""
    write_case(tmp_path / "source" / "a", 0)
    slices: list[Dataset] = make_series(random_voxels(SHAPE, np.int16), modality="CT")
    save(tmp_path / "source" / "b", make_segmentation(slices, {"Liver": make_masks(1)["Liver"]}), "seg.dcm")
    write_series(tmp_path / "source" / "b", slices)
    dataset = autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")
    assert dataset.info.annotated == {"b": ("Liver",)}
