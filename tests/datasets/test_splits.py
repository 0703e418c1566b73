"""Folds are the published ones, leak nothing, keep groups together, and adapt to few cases."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.datasets.splits import FOLDS, CrossValidation, Split, Splits, find_leak, list_units, make_splits
from autoseg.errors import ArtifactError, DatasetError, UsageError

LEAVE_ONE_OUT = CrossValidation(leave_one_out=True)

some_groups = st.lists(st.none() | st.integers(0, 8), min_size=2, max_size=60)


def grouped(numbers):
    """Cases that belong to the groups of these numbers, or stand alone: their names, and case name to group."""
    names = [f"case_{index:02d}" for index in range(len(numbers))]
    return names, {name: f"patient_{number}" for name, number in zip(names, numbers, strict=True) if number is not None}


def fold_of(splits):
    """Case name to the fold that holds it out."""
    return {name: number for number, fold in enumerate(splits.folds) for name in fold.validation}


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
@given(st.integers(2, 200), st.booleans())
def test_cases_that_stand_alone_are_assigned_as_kfold_assigns_them(count, in_groups_of_one):
    """The folds are consecutive blocks of the shuffled cases, as scikit-learn's KFold cuts them."""
    names = [f"case_{index:03d}" for index in range(count)]
    order = np.random.RandomState(12345).permutation(count)
    blocks = [[names[index] for index in sorted(block)] for block in np.array_split(order, min(5, count))]
    groups = {name: f"patient of {name}" for name in names} if in_groups_of_one else None
    assert [list(fold.validation) for fold in make_splits(names, groups).folds] == blocks


@settings(max_examples=60, deadline=None)
@given(some_groups)
def test_each_case_is_held_out_once_and_its_group_with_it(numbers):
    """Every case is validated in exactly one fold and trained on in all others; no group is ever on two sides."""
    names, groups = grouped(numbers)
    units = list_units(names, groups)
    if len(units) < 2:
        return
    splits = make_splits(names, groups)
    assert len(splits.folds) == min(FOLDS, len(units))
    assert sorted(name for fold in splits.folds for name in fold.validation) == names
    assert all(sorted(fold.training + fold.validation) == names for fold in splits.folds)
    assert find_leak(splits, groups) is None
    held_out = fold_of(splits)
    assert all(len({held_out[name] for name in unit}) == 1 for unit in units)


@settings(max_examples=60, deadline=None)
@given(some_groups)
def test_folds_differ_by_one_group_at_most(numbers):
    """The largest fold has at most as many cases more than the smallest as the largest group has."""
    names, groups = grouped(numbers)
    units = list_units(names, groups)
    if len(units) < 2:
        return
    sizes = [len(fold.validation) for fold in make_splits(names, groups).folds]
    assert max(sizes) - min(sizes) <= max(len(unit) for unit in units)


@settings(max_examples=30, deadline=None)
@given(some_groups.filter(lambda numbers: len({*numbers}) > 1), st.randoms(use_true_random=False))
def test_only_what_belongs_together_matters(numbers, random):
    """Neither the order of the names nor what the groups are called changes a fold."""
    names, groups = grouped(numbers)
    called_otherwise = {name: group[::-1] for name, group in groups.items()}
    shuffled = random.sample(names, len(names))
    mapping = {name: called_otherwise[name] for name in shuffled if name in groups}
    assert make_splits(shuffled, mapping) == make_splits(names, groups)


def test_groups_of_equal_size_are_assigned_as_cases_are():
    """Two scans of each of ten patients: the published folds of ten cases, with patients in the place of cases."""
    names = [f"c{patient:02d}_{scan}" for patient in range(10) for scan in "ab"]
    splits = make_splits(names, {name: name[:3] for name in names})
    patients = [sorted({name[1:3] for name in fold.validation}) for fold in splits.folds]
    assert patients == [["00", "07"], ["03", "09"], ["04", "06"], ["01", "08"], ["02", "05"]]


def test_a_large_group_has_a_fold_for_itself():
    """The cases of twelve patients with one scan each fill the four other folds."""
    names = [*(f"often_{index}" for index in range(9)), *(f"once_{index:02d}" for index in range(12))]
    splits = make_splits(names, {name: "often" for name in names if name.startswith("often")})
    assert sorted(len(fold.validation) for fold in splits.folds) == [3, 3, 3, 3, 9]


def test_a_case_may_be_called_like_a_group():
    """A case that stands alone does not join the group that has its name."""
    assert list_units(["a", "b", "c"], {"b": "a", "c": "a"}) == [["a"], ["b", "c"]]


def test_few_groups_make_few_folds():
    """Three patients make three folds, which "cv" and the error about others count."""
    splits = make_splits(["a1", "a2", "b1", "b2", "c1"], {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c"})
    assert splits.expand(["cv"]) == [0, 1, 2]
    with pytest.raises(UsageError, match="no fold 4; take a number from 0 to 2"):
        splits.fold(4)


def test_one_group_is_refused():
    """If all cases are of one patient, none can be held out."""
    with pytest.raises(DatasetError, match="all 3 cases belong to one group, 'p', so none can be held out; correct"):
        make_splits(["a", "b", "c"], dict.fromkeys("abc", "p"))


def test_a_group_on_both_sides_is_found():
    """The first fold that leaks is named, with a case of either side."""
    sound = Split(training=("a1", "a2"), validation=("b1", "c"))
    leaking = Split(training=("c", "a2"), validation=("b1", "a1"))
    groups = {"a1": "a", "a2": "a", "b1": "b"}
    assert find_leak(Splits(folds=(sound, leaking)), groups) == (1, "a2", "a1")
    assert find_leak(Splits(folds=(sound, leaking)), {}) is None


def test_thousands_of_cases_are_assigned_at_once():
    """Five thousand slices of a thousand patients take far less than a second."""
    names = [f"patient_{index // 5:04d}_{index}" for index in range(5000)]
    groups = {name: name[:12] for name in names}
    began = time.process_time()
    make_splits(names, groups)
    assert time.process_time() - began < 0.5


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


def test_a_case_validated_twice_in_a_fold_is_refused(tmp_path):
    """It would count twice; to train on a case twice as often is allowed."""
    (tmp_path / "splits.json").write_text('{"folds": [{"training": ["a", "a"], "validation": ["b", "c", "b"]}]}')
    with pytest.raises(ArtifactError, match=r"splits\.json: fold 0 is validated on 'b' 2 times"):
        Splits.load(tmp_path / "splits.json")
    assert Splits(folds=(Split(training=("a", "a"), validation=("b",)),)).names == {"a", "b"}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"folds": []}', "folds: Tuple should have at least 1 item"),
        ('{"folds": [{"training": [], "validation": ["b"]}]}', "fold 0 needs at least one case to train on"),
        ('{"folds": [{"training": ["a"], "validation": []}]}', "fold 0 needs at least one case to train on"),
    ],
)
def test_empty_folds_are_refused(tmp_path, content, text):
    """Each fold needs both sides, and there must be a fold."""
    (tmp_path / "splits.json").write_text(content)
    with pytest.raises(ArtifactError, match=text):
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


def test_the_first_repeat_is_the_usual_cross_validation_and_the_others_differ():
    """Every case is held out once in each repeat, together with other cases each time."""
    names = [f"c{index:02d}" for index in range(20)]
    once, thrice = make_splits(names), make_splits(names, scheme=CrossValidation(repeats=3))
    repeats = [thrice.folds[start : start + FOLDS] for start in range(0, 3 * FOLDS, FOLDS)]
    assert repeats[0] == once.folds
    assert all(sorted(name for fold in folds for name in fold.validation) == names for folds in repeats)
    assert len({fold.digest for fold in thrice.folds}) == 3 * FOLDS
    assert thrice.expand(["cv"]) == list(range(15))


def test_leave_one_out_holds_out_each_patient_alone():
    """As many folds as patients, each of whose scans are held out together."""
    groups = {"a1": "a", "a2": "a"}
    splits = make_splits(["a1", "a2", *(f"c{index}" for index in range(8))], groups, scheme=LEAVE_ONE_OUT)
    held_out = [fold.validation for fold in splits.folds]
    assert len(held_out) == 9
    assert ("a1", "a2") in held_out
    assert find_leak(splits, groups) is None


def test_a_scheme_survives_the_disk_and_the_usual_one_is_not_written(tmp_path):
    """A file of five folds is what earlier versions wrote and read."""
    for scheme in (CrossValidation(), CrossValidation(repeats=2), LEAVE_ONE_OUT):
        splits = make_splits(["a", "b", "c"], scheme=scheme)
        splits.save(tmp_path / "splits.json")
        assert Splits.load(tmp_path / "splits.json").scheme == scheme
        assert ("repeats" in splits.to_json()) == (scheme.repeats > 1)


@settings(max_examples=30, deadline=None)
@given(some_groups, st.integers(1, 3))
def test_what_a_model_labelled_is_never_held_out_nor_beside_its_patient(numbers, repeats):
    """Cases for training only are in every fold that does not hold out a case of their patient."""
    names, groups = grouped(numbers)
    machine = names[::3]
    judged = [name for name in names if name not in machine]
    if len(judged) < 2 or len(list_units(judged, groups)) < 2:
        return
    splits = make_splits(names, groups, scheme=CrossValidation(repeats=repeats), only_training=machine)
    assert find_leak(splits, groups) is None
    for fold in splits.folds:
        held_out = {groups[name] for name in fold.validation if name in groups}
        assert not set(fold.validation) & set(machine)
        assert [name for name in machine if groups.get(name) not in held_out or name not in groups] == [
            name for name in fold.training if name in machine
        ]
    assert sorted(name for fold in splits.folds for name in fold.validation) == sorted(judged * repeats)


def test_one_case_that_people_labelled_is_refused():
    """Two cases, one of which was labelled by a model, cannot be split."""
    with pytest.raises(DatasetError, match="two cases that were not labelled by a model, there is 1"):
        make_splits(["a", "b"], only_training=["b"])
