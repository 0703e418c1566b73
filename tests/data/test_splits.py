"""Folds are the published ones, leak nothing, and adapt to few cases."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.data.splits import Split, Splits, make_splits
from autoseg.errors import ArtifactError, DatasetError, UsageError


@pytest.mark.parametrize(
    ("count", "held_out"),
    [
        (10, ["00 07", "03 09", "04 06", "01 08", "02 05"]),
        (20, ["03 08 13 16", "00 10 12 15", "06 07 11 17", "09 14 18 19", "01 02 04 05"]),
    ],
)
def test_folds_equal_those_of_the_reference_method(count, held_out):
    """Golden folds of nnU-Net v2.8.1 for ten and twenty cases."""
    splits = make_splits([f"c{index:02d}" for index in range(count)])
    assert [" ".join(name[1:] for name in fold.validation) for fold in splits.folds] == held_out


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60))
def test_each_case_is_held_out_once(count):
    """Every case is validated in exactly one fold and trained on in all others."""
    names = [f"case_{index}" for index in range(count)]
    splits = make_splits(names)
    assert sorted(name for fold in splits.folds for name in fold.validation) == sorted(names)
    assert all(sorted(fold.training + fold.validation) == sorted(names) for fold in splits.folds)


def test_the_order_of_the_names_does_not_matter():
    """The same cases give the same folds however the file system lists them."""
    names = [f"case_{index}" for index in range(17)]
    assert make_splits(names) == make_splits(names[::-1])


def test_one_case_is_refused():
    """A single case cannot be split."""
    with pytest.raises(DatasetError, match="at least two cases"):
        make_splits(["only"])


def test_unknown_folds_are_refused():
    """A fold that does not exist is named, with the folds that do."""
    splits = make_splits(["a", "b", "c"])
    with pytest.raises(UsageError, match="no fold 3; take a number from 0 to 2"):
        splits.fold(3)


def test_fold_all_trains_on_everything():
    """Fold "all" holds nothing out."""
    fold = make_splits(["a", "b", "c"]).fold("all")
    assert fold.training == ("a", "b", "c")
    assert fold.validation == ()


def test_a_leaking_fold_in_an_edited_file_is_refused(tmp_path):
    """A case on both sides of a fold is an error that names it."""
    (tmp_path / "splits.json").write_text('{"folds": [{"training": ["a", "b"], "validation": ["b"]}]}')
    with pytest.raises(ArtifactError, match="fold 0 both trains on and is validated on 'b'"):
        Splits.load(tmp_path / "splits.json")


def test_splits_survive_the_disk(tmp_path):
    """What is saved is what is loaded."""
    splits = Splits(folds=(Split(training=("a",), validation=("b",)),))
    splits.save(tmp_path / "splits.json")
    assert Splits.load(tmp_path / "splits.json") == splits


def test_cv_stands_for_every_number():
    """As many as the file has, each once, in order of mention."""
    splits = make_splits(["a", "b", "c"])
    assert splits.expand(["cv"]) == [0, 1, 2]
    assert splits.expand([2, "cv", "all", "all"]) == [2, 0, 1, "all"]
    assert splits.names == {"a", "b", "c"}
