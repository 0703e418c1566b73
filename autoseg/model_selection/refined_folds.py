"""Trained folds that go on with a dataset whose labels were corrected, or to which cases were added.

    results/Dataset004_Hippocampus/3d_fullres/before_revision_1/fold_0/
        checkpoint.pt    the fold as it predicted before, without what training needs to go on
        validation/      its scores

A fold goes on with the very weights, momentum and step that it ended with. It is judged on the cases that it held out
before, which it has never seen, and on its share of the new ones; see `datasets.added_cases`.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum

from autoseg.datasets.splits import Split, Splits
from autoseg.errors import ModelError, UsageError
from autoseg.evaluation.summary import Summary, summarize, summary_file
from autoseg.models.checkpoint import Checkpoint, check_resumable, load_checkpoint, save_checkpoint
from autoseg.models.weight_digest import digest_weights
from autoseg.runtime.lock import run_alone
from autoseg.workspace import Fold, ModelFolder

LENGTH_SHARE = 10
"""A fold is trained on for its length divided by this. Decision: the learning rate begins at a ninth of its highest."""


class FoldState(Enum):
    """How far a fold has learned from a revision."""

    WAITING = "has not begun"
    BEGUN = "was stopped"
    DONE = "has learned from it"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldOfRevision:
    """A fold and a revision that it is to learn from.

    Attributes:
        model: Folder of the configuration.
        fold: The fold.
        revision: Number of the revision.
        splits: The folds of the dataset before the revision, and after it.
    """

    model: ModelFolder
    fold: Fold
    revision: int
    splits: tuple[Splits, Splits]

    @property
    def kept(self) -> ModelFolder:
        """The folder of the folds as they were before the revision."""
        return ModelFolder(path=self.model.path / f"before_revision_{self.revision}")

    @property
    def before(self) -> Split:
        """The cases of the fold before the revision."""
        return self.splits[0].fold(self.fold)

    @property
    def after(self) -> Split:
        """The cases of the fold after the revision."""
        return self.splits[1].fold(self.fold)

    def find_state(self) -> FoldState:
        """Returns how far the fold has learned from the revision.

        Raises:
            ModelError: A checkpoint is damaged.
        """
        if not self.kept.checkpoint(self.fold).is_file():
            return FoldState.WAITING
        now = load_checkpoint(self.model.checkpoint(self.fold), mapped=True)
        if not now.finished:
            return FoldState.BEGUN
        then = load_checkpoint(self.kept.checkpoint(self.fold), mapped=True)
        is_same = digest_weights(now.weights) == digest_weights(then.weights)
        return FoldState.WAITING if is_same else FoldState.DONE

    def check(self) -> Checkpoint:
        """Returns the checkpoint of a fold that is to learn from the revision, mapped to its file.

        Raises:
            UsageError: It is not trained to its end, or with other cases than splits.json had.
            ModelError: It was passed on without what training needs, or is damaged.
        """
        path = self.model.checkpoint(self.fold)
        checkpoint = load_checkpoint(path, mapped=True)
        if checkpoint.cases not in (self.before.digest, self.after.digest):
            what = f"fold {self.fold} of {self.model.path.name} was trained with other cases than splits.json gives it"
            raise UsageError(what, "train it anew with 'autoseg train --restart'")
        if not checkpoint.finished:
            what = f"fold {self.fold} of {self.model.path.name} is not trained to its end"
            raise UsageError(what, "train it to its end with 'autoseg train', then refine it")
        check_resumable(checkpoint, path)
        return checkpoint

    def prepare(self) -> None:
        """Keeps the fold as it was, and lets it go on with the cases of the revision; done twice, it changes nothing.

        Raises:
            UsageError, ModelError: See `check`.
        """
        with run_alone(self.model.fold(self.fold)):
            checkpoint = self.check()
            if not self.kept.checkpoint(self.fold).is_file():
                validation = self.model.validation(self.fold)
                if validation.is_dir():
                    shutil.copytree(validation, self.kept.validation(self.fold), dirs_exist_ok=True)
                save_checkpoint(checkpoint.to_pass_on(), self.kept.checkpoint(self.fold))
            if checkpoint.cases != self.after.digest:
                own = load_checkpoint(self.model.checkpoint(self.fold))
                save_checkpoint(replace(own, cases=self.after.digest), self.model.checkpoint(self.fold))

    def default_length(self) -> str:
        """Returns how long the fold is trained on by default, as `--extend` takes it."""
        training = load_checkpoint(self.kept.checkpoint(self.fold), mapped=True).plan.training
        if training.budget_seconds is not None:
            return f"{max(1, round(training.budget_seconds / LENGTH_SHARE))}s"
        return str(max(1, training.epochs // LENGTH_SHARE))


def compare_scores(folds: Sequence[FoldOfRevision], corrected: Sequence[str]) -> tuple[float, float, int] | None:
    """Returns the mean Dice of held-out cases before and after a revision, and their number.

    Counted are the cases that were held out before and after, and whose labels were not corrected, so that both are
    judged by the same labels.

    Args:
        folds: The folds.
        corrected: Names of the cases whose labels the revision changed.

    Returns:
        None if there is no such case.
    """
    before, after, labels = [], [], []
    for fold in folds:
        files = [summary_file(model.validation(fold.fold)) for model in (fold.kept, fold.model)]
        if not all(file.is_file() for file in files):
            continue
        summaries = [Summary.load(file) for file in files]
        labels = list(summaries[1].mean)
        old, new = ({case.name: case for case in summary.cases} for summary in summaries)
        for name in sorted(old.keys() & new.keys() - set(corrected)):
            before.append(old[name])
            after.append(new[name])
    if not before:
        return None
    means = [summarize(cases, labels).foreground_mean.dice for cases in (before, after)]
    return means[0], means[1], len(before)


def find_trained(model: ModelFolder, asked: Sequence[Fold], splits: Splits) -> list[Fold]:
    """Returns the folds to refine: those that were asked for, or all that are trained.

    Raises:
        ModelError: None is trained, or one that was asked for is not.
    """
    trained = model.trained_folds()
    if not asked:
        if not trained:
            raise ModelError(f"no fold of {model.path} is trained", "train it first, then refine it")
        return trained
    folds = splits.expand(asked)
    if missing := [fold for fold in folds if fold not in trained]:
        raise ModelError(f"fold {missing[0]} of {model.path} is not trained", "train it first, then refine it")
    return folds


def list_folds_of_revision(
    model: ModelFolder, asked: Sequence[Fold], number: int, splits: tuple[Splits, Splits]
) -> list[FoldOfRevision]:
    """Returns the folds that learn from the revision of a number; see `find_trained` and `FoldOfRevision`."""
    return [
        FoldOfRevision(model=model, fold=fold, revision=number, splits=splits)
        for fold in find_trained(model, asked, splits[1])
    ]
