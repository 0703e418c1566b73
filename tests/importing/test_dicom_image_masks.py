"""Series of DICOM files whose masks are image files, paired by name and by where their voxels lie."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import ORIENTATIONS, make_series, random_voxels, write_series
from dicom_masks import make_segmentation, save

import autoseg
from autoseg.errors import AutosegError, DatasetError, UsageError
from autoseg.imaging.image_files import read_image, read_label_map

SHAPE = (4, 9, 11)
SPACING_MM = (3.0, 1.5, 1.25)


class Lines:
    """A reporter that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        """Keeps a line."""
        self.lines.append(line)

    def task(self, title: str, total: float):
        """Shows nothing."""
        return autoseg.pipeline.raw_datasets.SILENT.task(title, total)


def affine_of(slices) -> np.ndarray:
    """Returns the matrix from (column, row, slice) to millimetres right, anterior, superior, by the standard."""
    first, last = slices[0], slices[-1]
    position = np.asarray(first.ImagePositionPatient, float)
    cosines = np.asarray(first.ImageOrientationPatient, float)
    step = (np.asarray(last.ImagePositionPatient, float) - position) / max(1, len(slices) - 1)
    affine = np.eye(4)
    affine[:3, 0] = cosines[:3] * float(first.PixelSpacing[1])
    affine[:3, 1] = cosines[3:] * float(first.PixelSpacing[0])
    affine[:3, 2], affine[:3, 3] = step, position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def save_nifti(path: Path, mask: np.ndarray, slices, *, flip_rows: bool = True) -> Path:
    """Writes a mask (z, y, x) as NIfTI; with its rows from back to front, as dcm2niix stores them."""
    affine, array = affine_of(slices), mask.transpose(2, 1, 0)
    if flip_rows:
        array, flip = array[:, ::-1], np.eye(4)
        flip[1, 1], flip[1, 3] = -1, mask.shape[1] - 1
        affine = affine @ flip
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(array), affine), path)
    return path


def make_label(seed: int) -> np.ndarray:
    """Makes a label map of blocks of 1 and 2."""
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[1:3, 2:5, 1 + seed : 6 + seed] = 1
    label[2, 6:9, 3:8] = 2
    return label


def write_patients(folder: Path, *, orientation: str = "axial") -> dict[str, list]:
    """Writes two examinations with two series of different grids each; returns the slices of the second series."""
    portal = {}
    for name in ("anna", "Bert Müller"):
        slices = make_series(
            random_voxels(SHAPE, np.int16),
            orientation=ORIENTATIONS[orientation],
            modality="CT",
            description="portal",
            number=2,
            spacing_mm=SPACING_MM,
        )
        native = make_series(random_voxels((3, 7, 8)), modality="CT", description="native", study=slices[0])
        for data in (*slices, *native):
            data.PatientID = f"ID-{name}"
        write_series(folder / name / "portal", slices)
        write_series(folder / name / "native", native)
        portal[name] = slices
    return portal


LAYOUTS = {
    "by examination": "{name}.nii.gz",
    "with a suffix": "{name}_seg.nii.gz",
    "by series folder": "{name}_portal.nii.gz",
    "in a folder of the examination": "{name}/mask.nii.gz",
    "in a folder, by series": "{name}/portal.nii.gz",
    "by UID": "{uid}.nii.gz",
    "by patient": "ID-{name}.nii.gz",
    "in capital letters": "{upper}.nii.gz",
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_masks_are_paired_by_name_and_series_by_grid(tmp_path, layout):
    """The series is the one on whose voxels the mask lies, and the label map is equal, voxel by voxel."""
    portal = write_patients(tmp_path / "scans")
    for seed, (name, slices) in enumerate(portal.items()):
        path = layout.format(name=name, uid=slices[0].SeriesInstanceUID, upper=name.upper())
        save_nifti(tmp_path / "masks" / path, make_label(seed), slices)
    reporter = Lines()
    dataset = autoseg.import_dataset(
        tmp_path / "scans", 3, labels=tmp_path / "masks", workspace=tmp_path / "work", reporter=reporter
    )
    assert [case.name for case in dataset.cases] == ["Bert_Müller", "anna"] or len(dataset.cases) == 2
    assert dataset.info.channel_names == {"0": "CT"}
    for case, seed in zip(sorted(dataset.cases, key=lambda case: case.name.lower()), (0, 1), strict=True):
        image, label = read_image(case.images), read_label_map(case.label)
        assert np.array_equal(label.array, make_label(seed))
        assert np.array_equal(image.array[0], random_voxels(SHAPE, np.int16))
        assert image.geometry.difference(label.geometry) is None
    assert sum("with mask" in line and "'portal'" in line for line in reporter.lines) == 2
    assert (dataset.folder / "dicom_tags.json").is_file()
    assert autoseg.check(3, workspace=tmp_path / "work") == []


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_masks_of_every_orientation_lie_where_an_independent_reader_puts_them(tmp_path, orientation):
    """SimpleITK reads the series and the mask, and finds the same voxels under the same labels."""
    portal = write_patients(tmp_path / "scans", orientation=orientation)
    for seed, (name, slices) in enumerate(portal.items()):
        save_nifti(tmp_path / "masks" / f"{name}.nii.gz", make_label(seed), slices)
    dataset = autoseg.import_dataset(tmp_path / "scans", 3, labels=tmp_path / "masks", workspace=tmp_path / "work")
    for case, name in zip(sorted(dataset.cases, key=lambda case: case.name.lower()), portal, strict=True):
        mask = sitk.ReadImage(str(tmp_path / "masks" / f"{name}.nii.gz"))
        written = sitk.ReadImage(str(case.label))
        onto = sitk.Resample(mask, written, sitk.Transform(), sitk.sitkNearestNeighbor)
        assert np.array_equal(sitk.GetArrayFromImage(onto), sitk.GetArrayFromImage(written))
        assert sitk.GetArrayFromImage(written).any()


def test_masks_beside_the_series_and_masks_of_structures(tmp_path):
    """A folder of masks in the folder of the examination; structures that overlap are masks of their own."""
    portal = write_patients(tmp_path / "scans")
    for name, slices in portal.items():
        whole, core = make_label(0) == 1, make_label(0) == 1
        core[1] = False
        for structure, mask in (("whole", whole), ("core", core)):
            path = tmp_path / "scans" / name / "segmentations" / f"{structure}.nii.gz"
            save_nifti(path, mask.astype(np.uint8), slices)
    dataset = autoseg.import_dataset(tmp_path / "scans", 3, workspace=tmp_path / "work")
    assert dataset.info.masks
    assert dataset.info.channel_names == {"0": "CT"}
    label = read_label_map(dataset.cases[0].label).array
    assert np.array_equal(np.isin(label, dataset.info.labels["whole"]), make_label(0) == 1)
    assert np.isin(label, dataset.info.labels["core"])[2].any()


def test_folders_of_images_and_of_labels(tmp_path):
    """As the layout of image files; one examination and one mask need no names."""
    portal = write_patients(tmp_path / "source" / "images")
    for name, slices in portal.items():
        save_nifti(tmp_path / "source" / "labels" / f"{name}.nii", make_label(0) * 100, slices, flip_rows=False)
    dataset = autoseg.import_dataset(tmp_path / "source", 3, workspace=tmp_path / "work")
    assert len(dataset.cases) == 2
    assert set(np.unique(read_label_map(dataset.cases[0].label).array)) == {0, 1, 2}
    only = tmp_path / "source" / "images" / "anna"
    save_nifti(tmp_path / "some mask.nii.gz", make_label(0), portal["anna"])
    dataset = autoseg.import_dataset(only, 4, labels=tmp_path / "some mask.nii.gz", workspace=tmp_path / "work")
    assert [case.name for case in dataset.cases] == ["anna"]


def test_a_part_of_a_series_and_one_of_several_channels(tmp_path):
    """A mask that is cut to what was drawn becomes whole; one of the second channel is brought onto the first."""
    slices = write_patients(tmp_path / "scans")["anna"]
    label = make_label(0)
    save_nifti(tmp_path / "masks" / "anna.nii.gz", label[1:3], slices[1:3])
    dataset = autoseg.import_dataset(tmp_path / "scans", 3, labels=tmp_path / "masks", workspace=tmp_path / "work")
    assert np.array_equal(read_label_map(dataset.cases[0].label).array, label)
    dataset = autoseg.import_dataset(
        tmp_path / "scans", 4, labels=tmp_path / "masks", channels=["native", "portal"], workspace=tmp_path / "work"
    )
    assert read_label_map(dataset.cases[0].label).array.shape == (3, 7, 8)
    assert len(dataset.cases[0].images) == 2


def shift(folder: Path, slices: list) -> None:
    """Writes a mask between the voxels of the series."""
    path = save_nifti(folder / "anna.nii.gz", make_label(0), slices)
    image = nibabel.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 0.6
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), path)


def name_otherwise(folder: Path, slices: list) -> None:
    """Writes a mask that has the name of nothing."""
    save_nifti(folder / "patient_seventeen.nii.gz", make_label(0), slices)


def mask_twice(folder: Path, slices: list) -> None:
    """Writes two masks of one examination."""
    save_nifti(folder / "anna.nii.gz", make_label(0), slices)
    save_nifti(folder / "anna_portal.nii.gz", make_label(0), slices)


def damage(folder: Path, slices: list) -> None:
    """Cuts a mask off."""
    path = save_nifti(folder / "anna.nii.gz", make_label(0), slices)
    path.write_bytes(path.read_bytes()[:60])


def mix(folder: Path, slices: list) -> None:
    """Writes a label map of one case, and a mask per structure of the other."""
    save_nifti(folder / "anna.nii.gz", make_label(0), slices)
    for structure in ("a", "b"):
        save_nifti(folder / "Bert Müller" / f"{structure}.nii.gz", make_label(0), slices)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (shift, r"does not lie on the voxels of series 1 'native' .*, nor on 1 others"),
        (name_otherwise, r"no mask has the name of an examination or of a series \(masks: patient_seventeen.nii.gz; "),
        (mask_twice, r"are both masks of it; choose one of their series with --series, or remove one"),
        (damage, r"anna\.nii\.gz"),
        (mix, r"is a mask per structure, and .* is one of all structures"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_left(tmp_path, write, message):
    """In one line, before anything is written."""
    write(tmp_path / "masks", write_patients(tmp_path / "scans")["anna"])
    with pytest.raises(AutosegError, match=message):
        autoseg.import_dataset(tmp_path / "scans", 3, labels=tmp_path / "masks", workspace=tmp_path / "work")
    assert not list((tmp_path / "work").rglob("Dataset*"))


def test_options_that_do_not_fit(tmp_path):
    """Masks of series lie where they say, files of series must be converted, and folders must exist."""
    slices = write_patients(tmp_path / "scans")["anna"]
    save_nifti(tmp_path / "masks" / "anna.nii.gz", make_label(0), slices)
    work = tmp_path / "work"
    with pytest.raises(UsageError, match="--geometry image is for image files"):
        autoseg.import_dataset(
            tmp_path / "scans", 3, labels=tmp_path / "masks", name="A", geometry="image", workspace=work
        )
    with pytest.raises(UsageError, match="holds DICOM files, which --link cannot list"):
        autoseg.import_dataset(tmp_path / "scans", 3, labels=tmp_path / "masks", link=True, workspace=work)
    with pytest.raises(UsageError, match="nowhere does not exist"):
        autoseg.import_dataset(tmp_path / "scans", 3, labels=tmp_path / "nowhere", workspace=work)


def test_masks_in_dicom_count_before_image_files(tmp_path):
    """Image files beside them are said to be left out."""
    slices = write_patients(tmp_path / "scans")["anna"]
    save(tmp_path / "scans" / "anna", make_segmentation(slices, {"Liver": make_label(0) == 1}), "seg.dcm")
    save_nifti(tmp_path / "scans" / "anna" / "other.nii.gz", make_label(1), slices)
    reporter = Lines()
    dataset = autoseg.import_dataset(tmp_path / "scans", 3, workspace=tmp_path / "work", reporter=reporter)
    assert dataset.info.labels == {"background": 0, "Liver": 1}
    assert any("image files beside masks in DICOM" in line for line in reporter.lines)
    assert any("with mask anna/seg.dcm" in line for line in reporter.lines)


def test_no_masks_at_all(tmp_path):
    """Says what may be brought."""
    write_patients(tmp_path / "scans")
    with pytest.raises(DatasetError, match="DICOM-SEG or RTSTRUCT of these series, or image files of their names"):
        autoseg.import_dataset(tmp_path / "scans", 3, workspace=tmp_path / "work")


def test_masks_are_checked_before_the_import(tmp_path):
    """One that fits, one that lies between voxels, and one that has the name of nothing."""
    portal = write_patients(tmp_path / "scans")
    save_nifti(tmp_path / "masks" / "Bert Müller.nii.gz", make_label(0), portal["Bert Müller"])
    checked = autoseg.check_dicom(tmp_path / "scans", labels=tmp_path / "masks")
    assert checked.problems == ()
    uid = portal["Bert Müller"][0].SeriesInstanceUID
    assert checked.structures == {uid: ("Bert Müller.nii.gz",)}
    shift(tmp_path / "masks", portal["anna"])
    name_otherwise(tmp_path / "masks", portal["anna"])
    problems = autoseg.check_dicom(tmp_path / "scans", labels=tmp_path / "masks").problems
    assert "patient_seventeen.nii.gz has the name of no examination and no series" in str(problems[0])
    assert "does not lie on the voxels of series" in str(problems[1])
    with pytest.raises(UsageError, match="nowhere does not exist"):
        autoseg.check_dicom(tmp_path / "scans", labels=tmp_path / "nowhere")
