"""Scans and label maps are found by name, whatever image type they have."""

from unicodedata import normalize

import pytest
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
