"""A name is the same however it is spelt, and names that are too much alike are said."""

import json
from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.names import compose, compose_all, describe_lookalikes, find_lookalikes, is_formula
from autoseg.datasets.nnunet_files import read_splits
from autoseg.datasets.splits import Splits
from autoseg.errors import DatasetError
from autoseg.nnunet.held_out import read_held_out

COMPOSED, DECOMPOSED = normalize("NFC", "Läsion é"), normalize("NFD", "Läsion é")
BASE = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}


@given(st.text())
def test_both_spellings_are_one_name(name):
    """And composing once is enough."""
    assert compose(normalize("NFD", name)) == compose(name) == compose(compose(name))


def test_every_text_of_a_value_is_composed():
    """Keys as well, and numbers stay."""
    assert compose_all({DECOMPOSED: [DECOMPOSED, 1, {"a": DECOMPOSED}]}) == {COMPOSED: [COMPOSED, 1, {"a": COMPOSED}]}
    with pytest.raises(ValueError, match="is there twice, spelt in two ways"):
        compose_all({DECOMPOSED: 1, COMPOSED: 2})


def test_dataset_json_is_composed():
    """Labels, cases with unknown labels, groups and channels, from whichever system the file comes."""
    text = json.dumps(
        {
            **BASE,
            "labels": {"background": 0, DECOMPOSED: 1, "b": 2},
            "annotated": {DECOMPOSED: [COMPOSED]},
            "groups": {DECOMPOSED: DECOMPOSED},
        }
    )
    info = DatasetInfo.parse(text, source="dataset.json")
    assert info.targets.names == (COMPOSED, "b")
    assert info.unannotated_in(COMPOSED) == ("b",)
    assert info.groups == {COMPOSED: COMPOSED}
    with pytest.raises(DatasetError, match="is there twice"):
        DatasetInfo.parse(json.dumps({**BASE, "labels": {"background": 0, DECOMPOSED: 1, COMPOSED: 2}}), source="x")


def test_folds_are_composed(tmp_path):
    """Those of this program and those of nnU-Net."""
    fold = {"training": [DECOMPOSED], "validation": ["b"]}
    splits = Splits.parse(json.dumps({"folds": [fold]}), source="splits.json")
    assert splits.names == {COMPOSED, "b"}
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": [DECOMPOSED], "val": ["b"]}]))
    assert read_splits(path) == [([COMPOSED], ["b"])]


def test_segmentations_of_nnunet_are_composed(tmp_path):
    """The names of the files, and those in the scores."""
    folder = tmp_path / "fold_0" / "validation"
    folder.mkdir(parents=True)
    (folder / f"{DECOMPOSED}.nii.gz").touch()
    scores = {"metric_per_case": [{"prediction_file": f"/there/{DECOMPOSED}.nii.gz"}]}
    (folder / "summary.json").write_text(json.dumps(scores))
    held_out = read_held_out(tmp_path, 0, ".nii.gz")
    assert list(held_out.masks) == [COMPOSED]
    assert held_out.scored == {COMPOSED}


def test_listed_files_are_found_by_either_spelling(tmp_path):
    """The list was written on another system than the files."""
    for folder in ("images", "labels"):
        (tmp_path / DECOMPOSED / folder).mkdir(parents=True)
        (tmp_path / DECOMPOSED / folder / f"{DECOMPOSED}.nii.gz").touch()
    listed = {
        COMPOSED: {"images": [f"{COMPOSED}/images/{COMPOSED}.nii.gz"], "label": f"{COMPOSED}/labels/{COMPOSED}.nii.gz"}
    }
    (tmp_path / "dataset.json").write_text(json.dumps({**BASE, "dataset": listed}))
    dataset = Dataset.open(tmp_path)
    assert dataset.problems == ()
    assert [case.name for case in dataset.cases] == [COMPOSED]
    assert all(path.is_file() for case in dataset.cases for path in case.files)


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (("liver", "spleen"), []),
        (("liver", "Liver", "LIVER", "b"), [("LIVER", "Liver", "liver")]),
        (("straße", "STRASSE"), [("STRASSE", "straße")]),
        (("liver", "liver"), []),
    ],
)
def test_names_that_differ_in_capitals_are_found(names, groups):
    """As file systems of Windows and macOS compare them."""
    assert find_lookalikes(names) == groups
    assert len(describe_lookalikes("cases", names, "rename one")) == len(groups[:1])


def write_raw(folder: Path, *cases: str, labels: dict[str, int] | None = None, ending: str = ".nii.gz") -> Path:
    """Writes a raw dataset of empty files."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir()
    for case in cases:
        (folder / "imagesTr" / f"{case}_0000{ending}").touch()
        (folder / "labelsTr" / f"{case}{ending}").touch()
    content = {**BASE, "labels": labels or BASE["labels"]}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_a_dataset_says_which_names_are_alike(tmp_path):
    """Cases and labels, and cases that Windows cannot hold; nothing of others."""
    labels = {"background": 0, "Liver": 1, "liver": 2}
    remarks = Dataset.open(write_raw(tmp_path, "Case_1", "case_1", "b", "aux", labels=labels)).remarks
    assert [line.split(";")[0] for line in remarks] == [
        "cases that differ only in capital letters: 'Case_1' and 'case_1'",
        "cases whose files cannot be opened on Windows: 'aux'",
        "labels that differ only in capital letters: 'Liver' and 'liver'",
    ]


@pytest.mark.parametrize("ending", [".nii.gz", ".NII.GZ", ".Nii.gz"])
def test_endings_count_in_any_letters(tmp_path, ending):
    """Whatever dataset.json says."""
    dataset = Dataset.open(write_raw(tmp_path, "a", "b", ending=ending))
    assert ([case.name for case in dataset.cases], dataset.problems) == (["a", "b"], ())


def test_two_files_that_differ_in_the_letters_of_the_ending_are_both_listed(tmp_path):
    """Neither is taken in silence."""
    folder = write_raw(tmp_path, "a", "b")
    (folder / "imagesTr" / "a_0000.NII.GZ").touch()
    dataset = Dataset.open(folder)
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert [problem.case for problem in dataset.problems] == ["a_0000.NII.GZ"]


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "\tx", "\r=1", "+cmd|' /C calc'!A0", "-HYPERLINK(1)"])
def test_names_that_a_spreadsheet_would_run_are_formulas(name):
    """By their first letter, and signs by what a function or another program needs."""
    assert is_formula(name)


@pytest.mark.parametrize("name", ["liver_01", "+C_01", "-3", "a=b", "a(b)!", "'=1", "1-2", ""])
def test_other_names_are_no_formulas(name):
    """They may stay."""
    assert not is_formula(name)
