"""A fold goes on with a revision: kept as it was, given its new cases, and refused if it was not trained for them."""

from dataclasses import replace

import pytest
from small_models import small_checkpoint, small_plan

from autoseg.datasets.added_cases import add_to_splits
from autoseg.datasets.splits import make_splits
from autoseg.errors import ModelError, UsageError
from autoseg.model_selection.refined_folds import FoldOfRevision, FoldState, find_trained, list_folds_of_revision
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.workspace import ModelFolder

BEFORE = make_splits(["a", "b", "c", "d", "e"])
AFTER = add_to_splits(BEFORE, ["f"], {})
DIGEST = BEFORE.fold(0).digest


@pytest.fixture
def model(tmp_path):
    """Returns the folder of a configuration of which fold 0 is trained to its end."""
    folder = ModelFolder(path=tmp_path / "3d_fullres")
    write(folder)
    return folder


def write(folder, *, fold=0, shift=0.0, cases=DIGEST, **changes):
    """Writes a fold whose weights are shifted."""
    checkpoint = small_checkpoint()
    weights = {name: value + shift for name, value in checkpoint.weights.items()}
    changes = {"training": {"step": 6}, **changes}
    save_checkpoint(replace(checkpoint, weights=weights, fold=fold, cases=cases, **changes), folder.checkpoint(fold))


def fold_of(model, splits=(BEFORE, AFTER)):
    """Returns fold 0 and the first revision."""
    return FoldOfRevision(model=model, fold=0, revision=1, splits=splits)


def test_fold_is_kept_and_gets_its_new_cases(model):
    """The copy predicts and cannot be trained on; weights and step of the fold stay."""
    (model.validation(0)).mkdir(parents=True)
    (model.validation(0) / "summary.json").write_text("{}")
    fold = fold_of(model)
    assert fold.find_state() is FoldState.WAITING
    for _ in range(2):
        fold.prepare()
        now, kept = load_checkpoint(model.checkpoint(0)), load_checkpoint(fold.kept.checkpoint(0))
        assert (now.cases, now.training["step"]) == (AFTER.fold(0).digest, 6)
        assert (kept.cases, kept.training) == (BEFORE.fold(0).digest, {})
        assert (fold.kept.validation(0) / "summary.json").is_file()
        assert fold.find_state() is FoldState.WAITING
    write(model, shift=1.0, finished=False, cases=AFTER.fold(0).digest)
    assert fold.find_state() is FoldState.BEGUN
    write(model, shift=1.0, cases=AFTER.fold(0).digest)
    assert fold.find_state() is FoldState.DONE


def test_folds_that_cannot_go_on_are_one_line(model):
    """Folds of other cases, that are not finished, that were passed on, or that are not trained."""
    fold = fold_of(model)
    write(model, cases="0123456789abcdef")
    with pytest.raises(UsageError, match=r"fold 0 of 3d_fullres was trained with other cases than splits\.json"):
        fold.check()
    write(model, finished=False)
    with pytest.raises(UsageError, match="fold 0 of 3d_fullres is not trained to its end"):
        fold.check()
    write(model, training={})
    with pytest.raises(ModelError, match="was passed on without what training needs"):
        fold.prepare()
    assert not fold.kept.path.exists()
    with pytest.raises(ModelError, match=r"fold 3 of .* is not trained"):
        find_trained(model, [0, 3], AFTER)
    with pytest.raises(ModelError, match=r"no fold of .* is trained"):
        find_trained(ModelFolder(path=model.path / "nothing"), [], AFTER)
    write(model, fold=2)
    assert [each.fold for each in list_folds_of_revision(model, [], 1, (BEFORE, AFTER))] == [0, 2]


def test_length_is_a_tenth_of_the_training(model):
    """In epochs, or in seconds if the training had a limit of time; never less than one of them."""
    fold = fold_of(model)
    for training, length in (({"epochs": 100}, "10"), ({"epochs": 4}, "1"), ({"budget_seconds": 600.0}, "60s")):
        write(model, plan=small_plan(**training))
        fold.prepare()
        assert fold.default_length() == length
        fold.kept.checkpoint(0).unlink()
