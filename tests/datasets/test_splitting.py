"""Folds on disk: assigned, kept or loaded; reported to the user; and never with a patient on both sides."""

import json
from pathlib import Path

import pytest
from phantoms import Listener, write_json

from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.splits import Splits, find_leak, make_splits
from autoseg.datasets.splitting import SplitRequest, check_leaks, resolve_splits
from autoseg.errors import ArtifactError, DatasetError, UsageError
from autoseg.workspace import Workspace

PATIENTS = "^(.+?)-IM-"
SLICES = [f"SC-HF-I-{patient:02d}-IM-{scan:04d}" for patient in range(1, 8) for scan in range(patient)]
PATIENT_OF = {name: name.split("-IM-")[0] for name in SLICES}
INFO = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "heart": 1}, "file_ending": ".nii.gz"}
STANDING = [f"c{index:02d}" for index in range(10)]


@pytest.fixture
def folders(tmp_path):
    """The places of a dataset that is not there yet."""
    return Workspace(root=tmp_path).folders("Dataset001_Heart")


def settle(folders, names, *, listed=None, **options):
    """The folds, and all that was said about them; `listed` are the groups of dataset.json."""
    listener = Listener()
    info = DatasetInfo.model_validate({**INFO, "groups": listed})
    return resolve_splits(names, folders, info, listener, SplitRequest(**options)), listener.lines


def refusal(kind, folders, names, **options):
    """The line of the error that the user meets."""
    with pytest.raises(kind) as caught:
        settle(folders, names, **options)
    return str(caught.value)


def write_ours(path, *folds):
    """A splits.json as people write it: for each fold, names to train on and to hold out, with blanks between."""
    content = [{"training": one.split(), "validation": other.split()} for one, other in folds]
    write_json(path, {"folds": content})
    return path


def write_nnunet(path, *folds):
    """The same as nnU-Net writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"train": one.split(), "val": other.split()} for one, other in folds]))
    return path


def write_raw(folders, names):
    """Empty files in the places of images and labels."""
    write_json(folders.raw / "dataset.json", INFO)
    for name in names:
        for place in (f"imagesTr/{name}_0000.nii.gz", f"labelsTr/{name}.nii.gz"):
            (folders.raw / place).parent.mkdir(exist_ok=True)
            (folders.raw / place).touch()


def mark_trained(folders, configuration, fold):
    """An empty file in the place of a checkpoint."""
    path = folders.model(configuration).checkpoint(fold)
    path.parent.mkdir(parents=True)
    path.touch()


def test_without_groups_the_folds_are_the_published_ones(folders):
    """Nothing is said, nothing is written, and the second time is like the first."""
    splits, lines = settle(folders, STANDING)
    assert splits == make_splits(STANDING)
    assert lines == []
    assert not folders.splits.exists()
    splits.save(folders.splits)
    assert settle(folders, STANDING) == (splits, [])


@pytest.mark.parametrize("listed", [PATIENTS, PATIENT_OF])
def test_slices_of_a_patient_stay_together(folders, listed):
    """Whether a pattern is an option or stands in dataset.json, or the patients are listed there, is all the same."""
    splits, lines = settle(folders, SLICES, listed=listed)
    assert lines == ["groups of cases that stay together: 7, with 28 of 28 cases; the largest is 'SC-HF-I-07' with 7"]
    assert splits == settle(folders, SLICES, groups=PATIENTS)[0] == make_splits(SLICES, PATIENT_OF)
    assert find_leak(splits, PATIENT_OF) is None
    splits.save(folders.splits)
    assert settle(folders, SLICES, listed=listed) == (splits, lines)


def test_the_option_goes_before_the_file(folders):
    """Groups of dataset.json do not count if a pattern is given."""
    splits, _ = settle(folders, SLICES, groups=PATIENTS, listed={"unknown": "x"})
    assert splits == make_splits(SLICES, PATIENT_OF)


@pytest.mark.parametrize(
    ("pattern", "together"),
    [
        (r"^[a-z]+", [["a_1", "a_2"], ["b_1", "b_2"]]),  # the whole match
        (r"^(?:[a-z])_([12])", [["a_1", "b_1"], ["a_2", "b_2"]]),  # the first bracket that captures
        (r"_(?P<scan>\d)$", [["a_1", "b_1"], ["a_2", "b_2"]]),  # anywhere in the name
        (r"^(a)?", [["a_1", "a_2"], ["b_1"], ["b_2"]]),  # an empty match is none
    ],
)
def test_what_of_a_match_is_the_group(folders, pattern, together):
    """The first bracket, or the whole match; a case without either stands alone."""
    splits, _ = settle(folders, ["a_1", "a_2", "b_1", "b_2"], groups=pattern)
    assert sorted(list(fold.validation) for fold in splits.folds) == together


def test_cases_that_a_pattern_passes_over_are_counted(folders):
    """They stand alone, and the user hears how many and sees one."""
    splits, lines = settle(folders, [*SLICES, "extra_2", "extra_1"], groups=PATIENTS)
    assert splits.names == {*SLICES, "extra_1", "extra_2"}
    assert lines == [
        "groups of cases that stay together: 7, with 28 of 30 cases; the largest is 'SC-HF-I-07' with 7",
        "cases that the groups '^(.+?)-IM-' do not match: 2 of 30, such as 'extra_1'; each stands alone",
    ]


def test_cases_that_are_not_listed_stand_alone(folders):
    """A mapping need not name all cases; numbers of patients are names as well."""
    splits, lines = settle(folders, STANDING, listed={"c00": 7, "c01": "7"})
    assert splits == make_splits(STANDING, {"c00": "7", "c01": "7"})
    assert lines == ["groups of cases that stay together: 1, with 2 of 10 cases; the largest is '7' with 2"]


def test_groups_of_one_are_remarked(folders):
    """The pattern does nothing, which the user may not have meant."""
    splits, lines = settle(folders, STANDING, groups=r"^c\d\d")
    assert splits == make_splits(STANDING)
    assert lines == ["no two cases have the same group, so the cases are assigned as if there were none"]


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (["a_1", "a_2", "b_1", "c_1"], "3 groups make 3 folds instead of 5"),
        (["a_1", "a_2", "b_1", "alone"], "3 groups, single cases included, make 3 folds instead of 5"),
    ],
)
def test_few_groups_are_remarked(folders, names, line):
    """There are as many folds as groups, and the user is told."""
    splits, lines = settle(folders, names, groups="^(.)_")
    assert len(splits.folds) == 3
    assert lines[-1] == line


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (
            "(",
            "--groups: '(' is no regular expression: missing ), unterminated subpattern at position 0; give one such",
        ),
        ("a{99999999999}", "--groups: 'a{99999999999}' is no regular expression: the repetition number is too large"),
        ("x" * 201, "--groups: a pattern of 201 characters is too long; 200 are allowed; give one such as '^(.+?)_'"),
        (
            "^patient",
            "the groups '^patient' match none of 10 cases, such as 'c00'; correct --groups, or \"groups\" in",
        ),
        ("", "the groups '' match none of 10 cases, such as 'c00'"),
    ],
)
def test_patterns_that_find_no_groups_are_refused(folders, pattern, line):
    """A mistake in the pattern must not look like a dataset without groups."""
    assert line in refusal(UsageError, folders, STANDING, groups=pattern)


def test_one_group_for_all_is_refused(folders):
    """No case could be held out."""
    line = refusal(DatasetError, folders, STANDING, groups="^c")
    assert line == (
        "all 10 cases belong to one group, 'c', so none can be held out; "
        'correct --groups, or "groups" in dataset.json'
    )


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ("[", "dataset.json: groups: '[' is no regular expression: unterminated character set at position 0; mend"),
        (["a"], "dataset.json: groups: it must be a regular expression, or case names with their groups; mend"),
        ({"a": ""}, "groups: the group of 'a' must be a text or a number; leave out cases that stand alone; mend"),
        ({"a": None}, "groups: the group of 'a' must be a text or a number"),
        ({"a": True}, "groups: the group of 'a' must be a text or a number"),
    ],
)
def test_groups_that_mean_nothing_are_refused(tmp_path, groups, text):
    """The field of dataset.json is checked when the file is read."""
    write_json(tmp_path / "dataset.json", {**INFO, "groups": groups})
    with pytest.raises(DatasetError) as caught:
        DatasetInfo.load(tmp_path / "dataset.json")
    assert text in str(caught.value)


@pytest.mark.parametrize("groups", [PATIENTS, {"a": "1", "b": "1"}, None])
def test_groups_survive_the_disk(tmp_path, groups):
    """What is saved is what is loaded."""
    info = DatasetInfo.model_validate({**INFO, "groups": groups})
    info.save(tmp_path / "dataset.json")
    assert DatasetInfo.load(tmp_path / "dataset.json") == info


def test_listed_cases_that_do_not_exist_are_refused(folders):
    """A misspelt name would leave its case without a group; a case that was skipped may keep its own."""
    write_raw(folders, STANDING)
    listed = {"c00": "a", "c01": "a", "c09": "a"}
    splits, _ = settle(folders, STANDING[:-1], listed=listed)
    assert splits == make_splits(STANDING[:-1], {"c00": "a", "c01": "a"})
    line = refusal(DatasetError, folders, STANDING, listed={**listed, "c1": "a", "c2": "b"})
    assert line == (
        f"\"groups\" in {folders.raw / 'dataset.json'} names 'c1', which Dataset001_Heart does not have "
        "(2 such names); correct the names there"
    )


def test_folds_of_other_cases_are_assigned_anew(folders):
    """Folds that nobody edited follow the cases, with groups and without."""
    settle(folders, STANDING)[0].save(folders.splits)
    splits, lines = settle(folders, STANDING[1:])
    assert splits == make_splits(STANDING[1:])
    assert lines == [f"assigned the cases anew, because {folders.splits} held others"]
    settle(folders, SLICES, groups=PATIENTS)[0].save(folders.splits)
    splits, lines = settle(folders, SLICES[:-1], groups=PATIENTS)
    assert splits == make_splits(SLICES[:-1], PATIENT_OF)
    assert lines[-1] == f"assigned the cases anew, because {folders.splits} held others"


def test_folds_without_the_groups_are_assigned_anew(folders):
    """Groups that are given later mend folds that nobody edited."""
    settle(folders, SLICES)[0].save(folders.splits)
    splits, lines = settle(folders, SLICES, groups=PATIENTS)
    assert splits == make_splits(SLICES, PATIENT_OF)
    assert lines[-1] == f"assigned the cases anew, because {folders.splits} did not keep the groups together"


def test_folds_with_groups_outlive_a_forgotten_option(folders):
    """Planning anew without the pattern does not fall back to folds that leak."""
    grouped, _ = settle(folders, SLICES, groups=PATIENTS)
    grouped.save(folders.splits)
    splits, lines = settle(folders, SLICES)
    assert splits == grouped
    assert lines == [f"kept the folds of {folders.splits}; remove it to have the cases assigned anew"]


def test_edited_folds_are_kept(folders):
    """The user hears so, and which cases are not used."""
    write_ours(folders.splits, ("c00 c01", "c02"), ("c02", "c03"))
    splits, lines = settle(folders, STANDING)
    assert splits == Splits.load(folders.splits)
    assert lines == [
        f"kept the folds of {folders.splits}; remove it to have the cases assigned anew",
        "cases in no fold: 6 of 10, such as 'c04'; they are neither trained on nor validated",
    ]


def test_edited_folds_of_cases_that_went_are_refused(folders):
    """They are neither obeyed nor overwritten; the first missing case is named."""
    write_ours(folders.splits, ("c00 c01", "c12 c11"))
    before = folders.splits.read_bytes()
    assert refusal(UsageError, folders, STANDING) == (
        f"{folders.splits} names 'c11', which Dataset001_Heart does not have, or --skip leaves out (2 such names); "
        "correct the file, or remove it to have the cases assigned anew"
    )
    assert folders.splits.read_bytes() == before


def test_edited_folds_that_tear_a_group_are_refused(folders):
    """The fold, the group and a case of either side are named."""
    write_ours(folders.splits, ("a_1 b_1", "c_1"), ("a_1 b_1", "b_2"))
    assert refusal(UsageError, folders, ["a_1", "b_1", "b_2", "c_1"], groups="^(.)_") == (
        f"{folders.splits}: fold 1 trains on 'b_1' and is validated on 'b_2', which both belong to the group 'b'; "
        "correct the file, or remove it to have the cases assigned anew"
    )


def test_cases_that_are_validated_in_several_folds_are_counted(folders):
    """Repeated cross-validation is allowed."""
    write_ours(folders.splits, ("c00", "c01"), ("c01", "c00"), ("c02", "c00 c01"))
    splits, lines = settle(folders, STANDING[:3])
    assert splits.expand(["cv"]) == [0, 1, 2]
    assert lines[1:] == [
        "cases validated in several folds: 2 of 3, such as 'c00'; scores of all folds together count each time"
    ]


def test_a_damaged_file_is_named(folders):
    """It is not passed over, because it may have been edited; but a source makes it superfluous."""
    folders.splits.parent.mkdir(parents=True)
    folders.splits.write_text('{"folds": 3}')
    assert f"{folders.splits}: folds: " in refusal(ArtifactError, folders, STANDING)
    source = write_ours(folders.raw / "mine.json", ("c00", "c01"))
    assert settle(folders, STANDING[:2], source=source)[0] == Splits.load(source)


@pytest.mark.parametrize("place", ["raw", "preprocessed"])
def test_folds_of_nnunet_are_taken_over(folders, place):
    """They lie beside the cases; afterwards they are kept as edited ones are."""
    path = write_nnunet(getattr(folders, place) / "splits_final.json", ("c00 c01", "c02 c03"), ("c02 c03", "c00 c01"))
    splits, lines = settle(folders, STANDING[:4])
    assert [fold.validation for fold in splits.folds] == [("c02", "c03"), ("c00", "c01")]
    assert lines == [f"took over 2 folds that nnU-Net left in {path}"]
    splits.save(folders.splits)
    path.unlink()
    assert settle(folders, STANDING[:4])[0] == splits


def test_edited_folds_go_before_those_of_nnunet(folders):
    """Those that this program assigned do not."""
    settle(folders, STANDING[:4])[0].save(folders.splits)
    write_nnunet(folders.raw / "splits_final.json", ("c00 c01 c03", "c02"))
    assert len(settle(folders, STANDING[:4])[0].folds) == 1
    write_ours(folders.splits, ("c00", "c01 c02 c03"), ("c03", "c00 c01"))
    assert len(settle(folders, STANDING[:4])[0].folds) == 2


@pytest.mark.parametrize("write", [write_ours, write_nnunet])
def test_a_source_goes_before_all(folders, tmp_path, write):
    """Both formats are known by their content, whatever the file is called."""
    write_ours(folders.splits, ("c00", "c01"), ("c01", "c00"))
    source = write(tmp_path / "mine.json", ("c00 c01", "c02"), ("c00 c02", "c01"), ("c01 c02", "c00"))
    splits, lines = settle(folders, STANDING[:3], source=source)
    assert [fold.validation for fold in splits.folds] == [("c02",), ("c01",), ("c00",)]
    assert lines == [f"took 3 folds from {source}"]


@pytest.mark.parametrize("write", [write_ours, write_nnunet])
@pytest.mark.parametrize(
    ("fold", "kind", "text"),
    [
        (
            ("c00", "c99"),
            UsageError,
            "mine.json names 'c99', which Dataset001_Heart does not have, or --skip leaves",
        ),
        (("c00 c02", "c01"), UsageError, "mine.json: fold 0 trains on 'c02' and is validated on 'c01', which both"),
        (("c00 c01", "c01"), ArtifactError, "fold 0 both trains on and is validated on 'c01'"),
        (("c00", "c01 c01"), ArtifactError, "fold 0 is validated on 'c01' 2 times"),
        (("", "c01"), ArtifactError, "fold 0"),
        (("c00", ""), ArtifactError, "fold 0"),
    ],
)
def test_a_source_that_leaks_or_does_not_fit_is_refused(folders, tmp_path, write, fold, kind, text):
    """Each mistake has its line."""
    source = write(tmp_path / "mine.json", fold)
    line = refusal(kind, folders, STANDING, listed={"c01": "x", "c02": "x"}, source=source)
    assert text in line
    assert str(source) in line


@pytest.mark.parametrize("content", ["", "[3]", "[", "[]", "{}", '{"folds": 1}', '[{"train": ["c00"]}]', "\x00"])
def test_a_source_that_holds_no_folds_is_refused(folders, tmp_path, content):
    """The file is named."""
    source = tmp_path / "mine.json"
    source.write_text(content)
    assert str(source) in refusal(ArtifactError, folders, STANDING, source=source)


def test_a_missing_source_is_refused(folders, tmp_path):
    """So is one that a folder does not hold."""
    for path, file in ((tmp_path / "none.json", "none.json"), (tmp_path, "splits_final.json")):
        assert refusal(UsageError, folders, STANDING, source=path) == (
            f"there is no file {tmp_path / file}; check the path given to --splits"
        )


def test_a_folder_of_nnunet_may_be_given(folders, tmp_path):
    """That of its preprocessed dataset, in which its folds lie."""
    source = tmp_path / "nnUNet_preprocessed" / "Dataset001_X" / "splits_final.json"
    write_json(source, [{"train": STANDING[1:], "val": STANDING[:1]}])
    assert settle(folders, STANDING, source=source.parent)[0].folds[0].validation == (STANDING[0],)


def test_folds_that_were_trained_on_another_division_are_named(folders):
    """Going on with them would mix two divisions; fold "all" has none."""
    settle(folders, STANDING)[0].save(folders.splits)
    for configuration, fold in (("3d_fullres", 1), ("2d", 0), ("2d", "all")):
        mark_trained(folders, configuration, fold)
    mark_trained(folders.with_plan("wide"), "2d", 2)
    assert settle(folders, STANDING)[1] == []
    assert settle(folders, STANDING[1:])[1][-1] == (
        "trained before the folds changed: fold 0 of 2d, fold 1 of 3d_fullres, fold 2 of wide/2d; "
        "train anew with --restart"
    )


@pytest.mark.parametrize("names", [[], ["c00"]])
def test_too_few_cases_are_refused(folders, names):
    """Whatever the groups are."""
    assert "at least two cases" in refusal(DatasetError, folders, names, groups="^c")


def test_repeats_are_asked_for_once_and_remembered(folders):
    """Later calls without the option keep the scheme, also for more cases; one repeat goes back to five folds."""
    splits, lines = settle(folders, STANDING, repeats=2)
    assert len(splits.folds) == 10
    assert lines == ["2 times 5 folds, 0 to 9: each case is held out once in each repeat"]
    splits.save(folders.splits)
    assert settle(folders, STANDING)[0] == splits
    assert len(settle(folders, [*STANDING, "new"])[0].folds) == 10
    back, lines = settle(folders, STANDING, repeats=1)
    assert back == make_splits(STANDING)
    assert lines == [f"assigned the cases anew, because {folders.splits} held them out in another way"]


def test_leaving_one_out_is_said(folders):
    """Ten cases, ten folds."""
    splits, lines = settle(folders, STANDING, leave_one_out=True)
    assert [len(fold.validation) for fold in splits.folds] == [1] * 10
    assert lines == ["leave one out: 10 folds, each of which holds out one case"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"repeats": 0}, "--repeats 0 is impossible; take a number from 1 to 100"),
        ({"repeats": 2, "leave_one_out": True}, "with --leave-one-out there is one way to assign the cases"),
        ({"repeats": 2, "source": Path("folds.json")}, "--splits names the folds; leave out --repeats"),
    ],
)
def test_impossible_schemes_are_refused(folders, options, text):
    """Before anything is read."""
    assert text in refusal(UsageError, folders, STANDING, **options)


def test_edited_folds_are_not_replaced_by_a_scheme(folders):
    """What somebody wrote by hand is kept, and the option that would undo it refused."""
    write_ours(folders.splits, ("c00 c01", "c02"))
    assert f"{folders.splits} says which folds there are; leave out" in refusal(
        UsageError, folders, STANDING, repeats=2
    )


def test_folds_that_hold_out_what_a_model_labelled_are_refused(folders):
    """A model would be judged by a model's opinion."""
    write_ours(folders.splits, ("c00 c01", "c02"))
    info = DatasetInfo.model_validate({**INFO, "machine_labelled": ["c02"]})
    with pytest.raises(UsageError, match="fold 0 holds out 'c02', which was labelled by a model; correct the file"):
        resolve_splits(STANDING, folders, info, Listener())
    with pytest.raises(UsageError, match="fold 0 holds out 'c02', which was labelled by a model"):
        check_leaks(Splits.load(folders.splits), folders, info)


def test_unknown_cases_that_a_model_is_said_to_have_labelled_are_named(folders):
    """A slip in dataset.json would let a model be judged by its own labels."""
    write_raw(folders, STANDING)
    info = DatasetInfo.model_validate({**INFO, "machine_labelled": ["c02", "c0x"]})
    with pytest.raises(DatasetError, match=r'"machine_labelled" in .*dataset\.json names \'c0x\', which .* does not'):
        resolve_splits(STANDING, folders, info, Listener())
