"""Scans and label maps are found by name, whatever image type they have."""

from unicodedata import normalize

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from phantoms import blocks, place

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.scans import check_channels, check_values, find_scans, pair_label_maps, result_ending
from autoseg.errors import DatasetError, ProblemsError
from autoseg.imaging.formats import split_ending
from autoseg.imaging.image_files import read_label_map, write_label_map

ONE = DatasetInfo(channel_names={"0": "MR"}, labels={"background": 0, "organ": 1}, file_ending=".nii.gz")
TWO = ONE.model_copy(update={"channel_names": {"0": "T1", "1": "T2"}})


def touch(folder, *names):
    """Makes empty files."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_channels_are_grouped(tmp_path):
    """Two files per case of a two-channel model, in the order of their numbers."""
    folder = touch(tmp_path / "in", "b_0001.nii.gz", "b_0000.nii.gz", "a_0000.nii.gz", "a_0001.nii.gz", "notes.txt")
    scans = find_scans(folder, TWO)
    assert [(scan.name, [path.name for path in scan.images]) for scan in scans] == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]


def test_suffix_may_be_left_out_for_one_channel(tmp_path):
    """Both ways of naming, and other image types than those trained on."""
    folder = touch(tmp_path / "in", "a_0000.nii.gz", "b.nii.gz", "c.nrrd", "d.mha", "visit_0002.nii.gz")
    assert [scan.name for scan in find_scans(folder, ONE)] == ["a", "b", "c", "d", "visit_0002"]


def test_numbers_that_go_on_belong_to_the_names_of_one_channel(tmp_path):
    """No scan loses its number while the next one keeps it."""
    folder = touch(tmp_path / "in", "case_0000.nii.gz", "case_0001.NII.GZ", "other_0000.nii.gz", "case_0002.nii.gz")
    assert [scan.name for scan in find_scans(folder, ONE)] == ["case_0000", "case_0001", "case_0002", "other"]


def test_one_file_is_one_scan(tmp_path):
    """A path to a file instead of a folder."""
    scan = touch(tmp_path / "in", "a_0000.nii.gz") / "a_0000.nii.gz"
    assert [case.name for case in find_scans(scan, ONE)] == ["a"]


@pytest.mark.parametrize("other", ["a.nrrd", "a_0000.nii.gz"])
def test_two_scans_of_one_name_are_refused(tmp_path, other):
    """Their results would overwrite each other; the other scans are not touched by it."""
    double, sound = find_scans(touch(tmp_path / "in", "a.nii.gz", other, "b.nii.gz"), ONE)
    with pytest.raises(DatasetError, match=r"a\.nii\.gz.* have the same name; keep one of them"):
        check_channels(double, ONE)
    check_channels(sound, ONE)


@pytest.mark.parametrize("names", [("a_0001", "a_0002"), ("a_0000", "a_0002"), ("a_0000", "a_0001", "a_0002")])
def test_channels_must_be_those_of_the_model(tmp_path, names):
    """A wrong number would be another channel's image; one file may hold all channels, which shows when it is read."""
    [scan] = find_scans(touch(tmp_path / "in", *(f"{name}.nrrd" for name in names)), TWO)
    with pytest.raises(DatasetError, match=r"2 channels \(T1, T2\); bring a_0000 to a_0001"):
        check_channels(scan, TWO)
    for right in (("a_0000.nrrd", "a_0001.nrrd"), ("b.nrrd",)):
        [scan] = find_scans(touch(tmp_path / right[0], *right), TWO)
        check_channels(scan, TWO)


def test_segmentations_of_slicer_are_no_scans(tmp_path):
    """Beside their scan; alone, a file may be a scan of that name."""
    folder = touch(tmp_path / "in", "a.nrrd", "a.seg.nrrd", "b.seg.nrrd")
    assert [scan.name for scan in find_scans(folder, ONE)] == ["a", "b.seg"]


def test_a_folder_of_other_things_says_what_they_are(tmp_path):
    """Each kind once, with what to do."""
    folder = touch(tmp_path / "in", "brain.mgz", "a.nii.zip", "notes.txt")
    touch(folder / "patient", "scan.nii.gz")
    with pytest.raises(DatasetError) as caught:
        find_scans(folder, ONE)
    assert "holds no image files that are read here, but a.nii.zip, a packed NIfTI image" in str(caught.value)
    assert "and brain.mgz, a FreeSurfer image" in caught.value.what
    assert "and patient, a subfolder with images" in caught.value.what
    assert caught.value.fix.count("; ") == 2
    assert "mri_convert" in caught.value.fix


@pytest.mark.parametrize("names", [(), ("notes.txt",)])
def test_folder_without_scans_is_refused(tmp_path, names):
    """Empty, or full of other things."""
    with pytest.raises(DatasetError, match="holds no image files"):
        find_scans(touch(tmp_path / "in", *names), ONE)


def test_missing_folder_is_refused(tmp_path):
    """The path is named."""
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        find_scans(tmp_path / "nowhere", ONE)


def test_results_keep_the_file_type_but_jpeg(tmp_path):
    """JPEG would change labels."""
    endings = [result_ending(scan) for scan in find_scans(touch(tmp_path / "in", "a.nrrd", "b.jpg", "c.nii"), ONE)]
    assert endings == [".nrrd", ".png", ".nii"]


def test_endings_are_split_off():
    """The longest known ending wins; case does not matter; unknown endings stay."""
    from pathlib import Path

    assert split_ending(Path("a.b.nii.gz")) == ("a.b", ".nii.gz")
    assert split_ending(Path("A.NII.GZ")) == ("A", ".NII.GZ")
    assert split_ending(Path("a.txt")) == ("a.txt", "")


def test_label_maps_are_paired_by_name(tmp_path):
    """Every prediction needs a reference, a reference needs no prediction, tables and pictures are passed over."""
    ground_truth = touch(tmp_path / "truth", "a.nii.gz", "b.nii.gz", "c.nrrd")
    guess = touch(tmp_path / "guess", "a.nii.gz", "c.nii.gz", "summary.json", "overlay_worst.png")
    assert list(pair_label_maps(ground_truth, guess).pairs) == ["a", "c"]
    touch(guess, "d.nii.gz")
    touch(guess, "e.nii.gz", "a.nrrd")
    with pytest.raises(ProblemsError) as caught:
        pair_label_maps(ground_truth, guess)
    first, second, third = str(caught.value).splitlines()
    assert "a.nii.gz and a.nrrd have the same name" in first
    assert "d.nii.gz has no reference" in second
    assert "e.nii.gz has no reference" in third


@pytest.mark.parametrize(("reference", "prediction"), [("a.seg.nrrd", "a.nii.gz"), ("a.nrrd", "a.SEG.nrrd")])
def test_segmentations_of_slicer_are_those_of_their_scan(tmp_path, reference, prediction):
    """Whichever side Slicer wrote; a scan that has the name itself stays what it is."""
    touch(tmp_path / "truth", reference, "b.seg.nrrd")
    touch(tmp_path / "guess", prediction, "b.seg.nrrd")
    assert list(pair_label_maps(tmp_path / "truth", tmp_path / "guess").pairs) == ["a", "b.seg"]
    touch(tmp_path / "truth", "a.mha", "a.nii")
    with pytest.raises(ProblemsError, match="have the same name; keep one of them"):
        pair_label_maps(tmp_path / "truth", tmp_path / "guess")


@pytest.mark.parametrize("value", [-1, 2, 300])
def test_values_must_be_named(value):
    """Label maps hold what dataset.json names and nothing else."""
    from pathlib import Path

    sound, wrong = place(blocks((0, 1))), place(blocks((0, value)))
    check_values([Path("a.nii.gz")], [sound], ONE.targets)
    with pytest.raises(DatasetError, match=rf"b\.nii\.gz holds the value {value}, but dataset\.json names 0 to 1"):
        check_values([Path("a.nii.gz"), Path("b.nii.gz")], [sound, wrong], ONE.targets)


@pytest.mark.parametrize("pair", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_the_same_however_accents_are_spelt(tmp_path, pair):
    """Linux and macOS spell them differently: reference and prediction, channels of a scan, image and label."""
    composed, decomposed = (normalize(form, "Müller") for form in pair)
    touch(tmp_path / "references", f"{composed}.nii.gz")
    touch(tmp_path / "masks", f"{decomposed}.nii.gz")
    [(reference, prediction)] = pair_label_maps(tmp_path / "references", tmp_path / "masks").pairs.values()
    assert reference.exists()
    assert prediction.exists()
    touch(tmp_path / "scans", f"{composed}_0000.nii.gz", f"{decomposed}_0001.nii.gz")
    [scan] = find_scans(tmp_path / "scans", TWO)
    assert (scan.name, len(scan.images)) == (normalize("NFC", "Müller"), 2)
    folder = touch(tmp_path / "Dataset001_A")
    ONE.save(folder / "dataset.json")
    touch(folder / "imagesTr", f"{composed}_0000.nii.gz")
    touch(folder / "labelsTr", f"{decomposed}.nii.gz")
    dataset = Dataset.open(folder)
    assert dataset.problems == ()
    assert dataset.cases[0].label.exists()
    assert len(dataset.only([decomposed]).cases) == 1
    assert len(dataset.without([composed]).cases) == 0


def test_two_spellings_in_one_folder_are_two_files(tmp_path):
    """None of them is lost without a word."""
    names = [normalize(form, "Jäger") + ".nii.gz" for form in ("NFC", "NFD")]
    scans = find_scans(touch(tmp_path / "in", *names), ONE)
    assert sorted(path.name for scan in scans for path in scan.images) == sorted(names)


@pytest.mark.parametrize(
    ("name", "ending"),
    [("A.NII.GZ", ".NII.GZ"), ("a.Nrrd", ".Nrrd"), ("a.JPG", ".png"), ("a.mhd", ".mha"), ("a.img", ".nii.gz")],
)
def test_results_get_an_ending_that_can_be_written(tmp_path, name, ending):
    """That of the scan, in its letters, wherever one file holds labels."""
    case = Case(name="a", images=(tmp_path / name,))
    assert result_ending(case) == ending
    if ending.lower() != ".png":
        write_label_map(tmp_path / f"result{ending}", place(blocks()))
        assert read_label_map(tmp_path / f"result{ending}").array.tolist() == blocks().tolist()
        assert [path.name for path in tmp_path.iterdir()] == [f"result{ending}"]


def test_several_volumes_are_points_in_time_of_a_model_of_one_channel(tmp_path):
    """And the channels of any other; colours, damaged files and one volume are one scan."""
    for name, shape in (("a_0000.nii.gz", (2, 3, 4, 3)), ("b.nii", (2, 3, 4)), ("c.nii.gz", (2, 3, 4, 1))):
        nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), tmp_path / name)
    sitk.WriteImage(sitk.Image([2, 3, 4], sitk.sitkVectorUInt8, 3), str(tmp_path / "d.mha"))
    touch(tmp_path, "e.nii.gz", "f.nrrd")
    names = [scan.name for scan in find_scans(tmp_path, ONE)]
    assert names == ["a_t00", "a_t01", "a_t02", "b", "c", "d", "e", "f"]
    assert [scan.name for scan in find_scans(tmp_path, TWO)] == ["a", "b", "c", "d", "e", "f"]
    assert [scan.time_point for scan in find_scans(tmp_path / "a_0000.nii.gz", ONE)] == [0, 1, 2]


def test_names_that_are_formulas_are_refused(tmp_path):
    """Scan by scan in prediction, with a line each in evaluation, and for the labels of a model; others are taken."""
    folder = touch(tmp_path / "in", "=cmd(1).nii.gz", "+C_01.nii.gz")
    formula, scan = sorted(find_scans(folder, ONE), key=lambda found: found.name, reverse=True)
    check_channels(scan, ONE)
    with pytest.raises(DatasetError, match="name of its file is a formula; rename it, since a spreadsheet"):
        check_channels(formula, ONE)
    with pytest.raises(ProblemsError, match=r"=cmd\(1\)\.nii\.gz is a formula; rename it"):
        pair_label_maps(folder, folder)
    hostile = ONE.model_copy(update={"labels": {"background": 0, "=cmd(1)": 1}})
    with pytest.raises(DatasetError, match=r"the label '=cmd\(1\)' of the model is a formula"):
        find_scans(folder, hostile)
