"""Reading dataset.json and listing the cases of a raw dataset."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phantoms import write_json

from autoseg.datasets.channel_files import group_channels
from autoseg.datasets.dataset import Dataset, Problem
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ArtifactError, DatasetError
from autoseg.imaging.targets import Targets

BASE = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}
LISTED = {"images": ["a.nii.gz"], "label": "masks/a.nii.gz"}
names = st.text(st.characters(categories=["Ll", "Nd"]), min_size=1, max_size=8)


def make_info(channels: int = 1, ending: str = ".nii.gz") -> DatasetInfo:
    """Builds the content of a dataset.json."""
    return DatasetInfo(
        channel_names={str(channel): f"c{channel}" for channel in range(channels)},
        labels={"background": 0, "liver": 1},
        file_ending=ending,
    )


def touch(folder: Path, *files: str) -> None:
    """Makes empty files."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / file).touch()


def parse(**changes: object) -> DatasetInfo:
    """Parses a dataset.json that differs from the base."""
    return DatasetInfo.parse(json.dumps(BASE | changes), source="dataset.json")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(channels=st.lists(names, min_size=1, max_size=4), organs=st.sets(names, min_size=1, max_size=5))
def test_info_survives_saving(tmp_path: Path, channels: list[str], organs: set[str]) -> None:
    """What is saved is read back, whatever further keys stand beside it."""
    info = DatasetInfo(
        channel_names={str(index): name for index, name in enumerate(channels)},
        labels={"background": 0} | {name: number for number, name in enumerate(sorted(organs), start=1)},
        file_ending=".mha",
    )
    info.save(tmp_path / "dataset.json", {"numTraining": 7, "path": "a key of someone else"})
    assert DatasetInfo.load(tmp_path / "dataset.json") == info
    assert json.loads((tmp_path / "dataset.json").read_text())["numTraining"] == 7


def test_info_orders_labels_and_channels() -> None:
    """Labels and channels are in the order of their numbers, not of the file."""
    info = parse(labels={"b": 2, "background": 0, "a": 1}, channel_names={"1": "ADC", "0": "T2"})
    assert list(info.labels) == ["background", "a", "b"]
    assert list(info.channel_names.values()) == ["T2", "ADC"]
    assert (info.channels, info.targets.outputs, info.targets.structures) == (2, 3, {"a": (1,), "b": (2,)})


def test_regions_are_in_the_order_of_the_file() -> None:
    """As nnU-Net reads them; the same content comes back from the file that is saved."""
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}
    info = parse(labels=labels, regions_class_order=[1, 2, 3])
    assert info.targets == Targets(
        structures={"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)},
        exclusive=False,
        ignore=4,
        region_class_order=(1, 2, 3),
    )
    assert info.targets.outputs == 3
    assert info.targets.output_of == {"whole": 0, "core": 1, "enhancing": 2}
    assert info.targets.values == {0, 1, 2, 3, 4}


def test_unlabelled_voxels_are_no_structure() -> None:
    """They have a number, and no output."""
    targets = parse(labels={"ignore": 3, "b": [2], "background": 0, "a": 1}).targets
    assert (targets.structures, targets.ignore, targets.outputs) == ({"a": (1,), "b": (2,)}, 3, 3)


def test_info_reads_older_spellings() -> None:
    """Channel names as a list, the key "modality" and labels by number mean the same."""
    old = {"modality": ["T2", "ADC"], "labels": {"0": "background", "1": "liver"}, "file_ending": ".nii.gz"}
    info = DatasetInfo.parse(json.dumps(old), source="dataset.json")
    assert info == parse(channel_names={"0": "T2", "1": "ADC"})


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"labels": {"background": 0, "a": [1, 2]}}, "regions such as 'a' need 'regions_class_order'"),
        ({"labels": {"background": 0, "a": 2, "ignore": 1}}, "'ignore' must be the highest number, 2"),
        ({"labels": {"background": 0, "ignore": 1}}, "at least one label"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, "the numbers must differ"),
        (
            {"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [1]},
            "'regions_class_order' must have 2 numbers, one for each of a, b",
        ),
        (
            {"labels": {"background": 0, "a": [1, 2], "b": 2}, "regions_class_order": [2, 1]},
            r"'regions_class_order' \[2, 1\] would write 2 where 1 is, which belongs to other regions",
        ),
        ({"labels": {"background": 0, "a": 2}}, "without gaps"),
        ({"labels": {"background": 0}}, "at least one label"),
        ({"labels": {"liver": 0, "a": 1}}, "background"),
        ({"channel_names": {"0": "a", "2": "b"}}, "without gaps"),
        ({"channel_names": {}}, "channel_names"),
        ({"file_ending": "nii.gz"}, "file_ending"),
        ({"overwrite_image_reader_writer": "MyIO"}, "'MyIO' is no reader of nnU-Net's own"),
    ],
)
def test_info_refuses_what_it_cannot_honour(changes: dict[str, object], complaint: str) -> None:
    """An impossible or unsupported field is named in one line."""
    with pytest.raises(DatasetError, match=complaint) as caught:
        parse(**changes)
    assert "\n" not in str(caught.value)


def test_first_version_names_no_file_type() -> None:
    """It knows one; and whatever it calls label 0, that is the background."""
    first = {"modality": {"0": "CT"}, "labels": {"1": "liver", "0": "Clear Label"}, "tensorImageSize": "4D", "name": 3}
    assert DatasetInfo.parse(json.dumps(first), source="dataset.json") == parse()


def test_an_order_without_regions_means_nothing() -> None:
    """Labels of one number each exclude each other, whatever else dataset.json says, as in nnU-Net."""
    assert parse(regions_class_order=[1]).targets.exclusive
    assert parse(regions_class_order=[1]) == parse()


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NaturalImage2DIO", "Tiff3DIO", "None", None])
def test_readers_that_take_files_as_they_lie_change_nothing(reader: str | None) -> None:
    """Arrays have the order and the direction of the file, whichever of them reads it."""
    assert parse(overwrite_image_reader_writer=reader).orientation is None


def test_one_reader_turns_volumes(tmp_path: Path) -> None:
    """It is kept with dataset.json, and volumes lead upwards, forwards and to the right."""
    info = parse(overwrite_image_reader_writer="NibabelIOWithReorient")
    assert info.orientation == "SAR"
    info.save(tmp_path / "dataset.json")
    assert DatasetInfo.load(tmp_path / "dataset.json") == info


def test_info_says_which_file_is_broken(tmp_path: Path) -> None:
    """A file that is missing or no JSON is named."""
    path = tmp_path / "dataset.json"
    with pytest.raises(ArtifactError, match=r"dataset\.json"):
        DatasetInfo.load(path)
    path.write_text("{")
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        DatasetInfo.load(path)


def test_files_are_grouped_by_channel(tmp_path: Path) -> None:
    """Each case has its files in the order of the channels; hidden and foreign files do not count."""
    touch(tmp_path, "a_0001.nii.gz", "a_0000.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz", "._a_0000.nii.gz", "notes.txt")
    groups = group_channels(tmp_path, make_info(channels=2))
    assert {name: [path.name for path in files] for name, files in groups.items()} == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.nii.gz", "b_0001.nii.gz"],
    }


def test_numbers_of_a_single_channel_belong_to_the_name(tmp_path: Path) -> None:
    """With one channel "liver_0001" is a case, and "liver_0000" beside it is one, unless "liver" is certain."""
    touch(tmp_path, "liver_0000.nii.gz", "liver_0001.nii.gz", "spleen_0000.nii.gz")
    assert list(group_channels(tmp_path, make_info())) == ["liver_0000", "liver_0001", "spleen"]
    assert list(group_channels(tmp_path, make_info(), case_names=["liver"])) == ["liver", "liver_0001", "spleen"]
    assert list(group_channels(tmp_path, make_info(), case_names=["spleen_0000"]))[-1] == "spleen_0000"


def test_two_files_of_one_channel_are_a_problem(tmp_path: Path) -> None:
    """None of them is taken in silence, and the other cases are not touched by it."""
    write_json(tmp_path / "dataset.json", BASE)
    touch(tmp_path / "imagesTr", "liver.nii.gz", "liver_0000.nii.gz", "spleen_0000.nii.gz")
    touch(tmp_path / "labelsTr", "liver.nii.gz", "spleen.nii.gz")
    dataset = Dataset.open(tmp_path)
    assert [case.name for case in dataset.cases] == ["spleen"]
    [problem] = dataset.problems
    assert (problem.case, problem.what) == (
        "liver",
        "imagesTr does not hold one file for its channel (there: liver.nii.gz, liver_0000.nii.gz)",
    )
    assert problem.fix.startswith("keep one of them or leave the case out")


def test_numbered_colour_pictures_are_cases(tmp_path: Path) -> None:
    """Numbers that do not count the three colours count pictures."""
    info = make_info(channels=3, ending=".png")
    touch(tmp_path / "frames", *(f"frame_{number:04d}.png" for number in range(5)))
    touch(tmp_path / "split", "a_0000.png", "a_0001.png", "a_0002.png", "b_0000.png", "c.png")
    assert [len(files) for files in group_channels(tmp_path / "frames", info).values()] == [1] * 5
    assert {name: len(files) for name, files in group_channels(tmp_path / "split", info).items()} == {
        "a": 3, "b": 1, "c": 1,
    }  # fmt: skip


def test_missing_folder_holds_no_cases(tmp_path: Path) -> None:
    """A folder that is not there has no images."""
    assert group_channels(tmp_path / "imagesTs", make_info()) == {}


def test_open_lists_whole_cases_and_the_problems_of_others(tmp_path: Path) -> None:
    """Cases without image, label or channel are problems, and the others are cases."""
    write_json(tmp_path / "dataset.json", BASE | {"channel_names": {"0": "T2", "1": "ADC"}})
    touch(tmp_path / "imagesTr", "whole_0000.nii.gz", "whole_0001.nii.gz", "bare_0000.nii.gz", "bare_0001.nii.gz")
    touch(tmp_path / "imagesTr", "half_0000.nii.gz", "gap_0000.nii.gz", "gap_0002.nii.gz")
    touch(tmp_path / "labelsTr", "whole.nii.gz", "half.nii.gz", "gap.nii.gz", "lonely.nii.gz")
    dataset = Dataset.open(tmp_path)
    assert [case.name for case in dataset.cases] == ["whole"]
    assert {problem.case: problem.what for problem in dataset.problems} == {
        "bare": "its label labelsTr/bare.nii.gz is missing",
        "gap": "imagesTr does not hold one file for each of its 2 channels (there: gap_0000.nii.gz, gap_0002.nii.gz)",
        "half": "imagesTr does not hold one file for each of its 2 channels (there: half_0000.nii.gz)",
        "lonely": "its image is missing in imagesTr",
    }
    assert all("--skip" in str(problem) for problem in dataset.problems)


def test_open_refuses_an_empty_dataset(tmp_path: Path) -> None:
    """A dataset without any file of its ending says where they belong."""
    write_json(tmp_path / "dataset.json", BASE)
    touch(tmp_path / "imagesTr", "a_0000.nrrd")
    with pytest.raises(DatasetError, match=r"imagesTr.*\.nii\.gz"):
        Dataset.open(tmp_path)


def test_without_leaves_out_cases_and_their_problems(tmp_path: Path) -> None:
    """A skipped case is gone together with its problems; an unknown name is refused."""
    write_json(tmp_path / "dataset.json", BASE)
    touch(tmp_path / "imagesTr", "a_0000.nii.gz", "b_0000.nii.gz", "c_0000.nii.gz")
    touch(tmp_path / "labelsTr", "a.nii.gz", "b.nii.gz")
    left = Dataset.open(tmp_path).without(["b", "c"])
    assert ([case.name for case in left.cases], left.problems) == (["a"], ())
    with pytest.raises(DatasetError, match="'d'"):
        left.without(["d"])


def test_problem_is_one_line() -> None:
    """A problem names its case, or none if it belongs to the dataset."""
    assert str(Problem(case="a", what="is bad", fix="mend it")) == "case 'a': is bad; mend it"
    assert str(Problem(case="", what="is bad", fix="mend it")) == "is bad; mend it"


# --- Files in place ---------------------------------------------------------------------------------------------------


def list_files(folder: Path, listed: object, **changes: object) -> Dataset:
    """Opens a dataset whose dataset.json lists its files."""
    write_json(folder / "dataset.json", BASE | {"dataset": listed} | changes)
    return Dataset.open(folder)


def test_listed_files_stay_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths are absolute, or relative to the dataset, or hold variables; endings and folders are free."""
    folder, elsewhere = tmp_path / "raw" / "Dataset001_X", tmp_path / "else where"
    touch(elsewhere, "scan 7.mha", "mask.nrrd")
    touch(folder, "near.nii.gz")
    touch(folder / "imagesTr", "ignored_0000.nii.gz")
    monkeypatch.setenv("SCANS", str(elsewhere))
    dataset = list_files(
        folder,
        {
            "b": {"images": ["near.nii.gz"], "label": "$SCANS/mask.nrrd", "remark": "of someone else"},
            "a": {"images": [str(elsewhere / "scan 7.mha")], "label": "../../else where/mask.nrrd"},
        },
    )
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert (dataset.problems, dataset.remarks) == ((), ())
    assert [[path.resolve() for path in case.files] for case in dataset.cases] == [
        [elsewhere / "scan 7.mha", elsewhere / "mask.nrrd"],
        [folder / "near.nii.gz", elsewhere / "mask.nrrd"],
    ]


def test_parents_of_a_linked_folder_are_its_own(tmp_path: Path) -> None:
    """A relative path leads where it led before the folder of datasets was linked into a workspace."""
    theirs = tmp_path / "theirs" / "nnUNet_raw"
    touch(tmp_path / "theirs" / "scans", "a.nii.gz", "m.nii.gz")
    listed = {"a": {"images": ["../../scans/a.nii.gz"], "label": "../../scans/m.nii.gz"}}
    list_files(theirs / "Dataset001_X", listed)
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "raw").symlink_to(theirs, target_is_directory=True)
    assert Dataset.open(tmp_path / "workspace" / "raw" / "Dataset001_X").problems == ()


@pytest.mark.parametrize("listed", ["series", "series/IM0001", "series/IM0002.dcm"])
def test_listed_dicom_files_are_to_be_imported(tmp_path: Path, listed: str) -> None:
    """A folder of them, or a single file, whatever its name."""
    (tmp_path / "series").mkdir()
    for name in ("IM0001", "IM0002.dcm"):
        (tmp_path / "series" / name).write_bytes(bytes(128) + b"DICM" + bytes(200))
    (tmp_path / "mask.nii.gz").touch()
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
        "file_ending": ".nii.gz",
        "dataset": {"a": {"images": [listed], "label": "mask.nii.gz"}},
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    [problem] = Dataset.open(tmp_path).problems
    assert "and datasets list image files; convert the series and masks with 'autoseg import" in str(problem)


def test_listed_cases_that_lack_files_are_problems(tmp_path: Path) -> None:
    """Each has its line with the real path; the others are used."""
    touch(tmp_path, "a.nii.gz", "b.nii.gz")
    touch(tmp_path / "masks", "a.nii.gz")
    gone = {"images": ["gone.nii.gz", "b.nii.gz"], "label": "masks/a.nii.gz"}
    dataset = list_files(
        tmp_path,
        {
            "fine": {**LISTED, "images": ["a.nii.gz", "b.nii.gz"]},
            "colours": LISTED,
            "gone": gone,
            "three": {**LISTED, "images": ["a.nii.gz", "b.nii.gz", "a.nii.gz"]},
        },
        channel_names={"0": "T1", "1": "T2"},
    )
    assert [case.name for case in dataset.cases] == ["colours", "fine"]
    assert {problem.case: problem.what for problem in dataset.problems} == {
        "gone": f"{tmp_path / 'gone.nii.gz'} does not exist",
        "three": '"dataset" in dataset.json lists 3 images for 2 channels',
    }


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ({}, "dataset: .*at least 1 item"),
        ({"a": {"images": ["a.nii.gz"]}}, r"dataset\.a\.label: Field required"),
        ({"a": {**LISTED, "images": []}}, r"dataset\.a\.images: "),
        ({"a": {**LISTED, "images": "a.nii.gz"}}, r"dataset\.a\.images: "),
        ({"../a": LISTED}, "cannot be the name of a case"),
        (["a.nii.gz"], "dataset: "),
    ],
)
def test_impossible_lists_are_refused(tmp_path: Path, listed: object, complaint: str) -> None:
    """In one line, with the field."""
    with pytest.raises(DatasetError, match=complaint) as caught:
        list_files(tmp_path, listed)
    assert "\n" not in str(caught.value)


def test_another_number_of_cases_is_said(tmp_path: Path) -> None:
    """Cases whose files are incomplete are there too; without a number there is nothing to say."""
    touch(tmp_path / "imagesTr", "a_0000.nii.gz", "b_0000.nii.gz")
    touch(tmp_path / "labelsTr", "a.nii.gz")
    said = {}
    for count in (None, 2, 3):
        write_json(tmp_path / "dataset.json", BASE | {"numTraining": count})
        said[count] = Dataset.open(tmp_path).remarks
    assert said == {None: (), 2: (), 3: ("dataset.json states 3 training cases (numTraining), and 2 are there",)}


def test_spacing_files_belong_to_a_case(tmp_path: Path) -> None:
    """A case follows from them as well: whoever changes one has another case."""
    touch(tmp_path / "imagesTr", "a_0000.tif", "a.json")
    touch(tmp_path / "labelsTr", "a.tif", "b.json")
    write_json(tmp_path / "dataset.json", BASE | {"file_ending": ".tif"})
    [case] = Dataset.open(tmp_path).cases
    assert [path.name for path in case.files] == ["a_0000.tif", "a.tif", "a.json"]
