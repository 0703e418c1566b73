"""New cases are held out once each, and no case of before changes sides."""

from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.datasets.added_cases import add_to_splits
from autoseg.datasets.splits import Split, Splits, find_leak, make_splits

OLD = [f"case_{number}" for number in range(11)]
NEW = [f"new_{number}" for number in range(7)]


@given(
    st.lists(st.sampled_from(NEW), unique=True),
    st.dictionaries(st.sampled_from(OLD + NEW), st.sampled_from("abc"), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_old_cases_stay_and_groups_stay_together(new, groups):
    """Each new case is held out in exactly one fold, and trained on in all others."""
    before = make_splits(OLD, groups, folds=4)
    after = add_to_splits(before, new, groups)
    for old, now in zip(before.folds, after.folds, strict=True):
        assert set(old.training) <= set(now.training)
        assert set(old.validation) <= set(now.validation)
        assert set(now.training) | set(now.validation) == {*OLD, *new}
    for name in new:
        assert sum(name in fold.validation for fold in after.folds) == 1
    assert find_leak(after, groups) is None


def test_sizes_stay_alike_and_nothing_new_changes_nothing():
    """The fold that holds out the fewest cases gets the next one."""
    before = make_splits(OLD, folds=4)
    after = add_to_splits(before, NEW, {})
    sizes = [len(fold.validation) for fold in after.folds]
    assert max(sizes) - min(sizes) <= 1
    assert add_to_splits(after, NEW, {}) == after
    assert add_to_splits(before, [], {}) == before


def test_groups_that_no_fold_holds_out_stay_in_training():
    """Folds of the user may train on cases that are never held out; their group would leak."""
    folds = Splits(
        folds=(Split(training=("a1", "b"), validation=("c",)), Split(training=("a1", "c"), validation=("b",)))
    )
    grown = add_to_splits(folds, ["a2"], {"a1": "a", "a2": "a"})
    assert all("a2" in fold.training for fold in grown.folds)
