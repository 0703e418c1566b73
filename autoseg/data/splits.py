"""Which cases a fold learns from and which it is judged on; splits.json."""

from collections.abc import Sequence
from itertools import chain
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from autoseg.artifact import Artifact
from autoseg.errors import DatasetError, UsageError
from autoseg.workspace import Fold

FOLDS = 5
SPLIT_SEED = 12345  # Source: the reference method (nnU-Net v2.8.1, crossval_split)


class Split(BaseModel):
    """One fold: names of the cases it is trained on and of those it is validated on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: tuple[str, ...]
    validation: tuple[str, ...]


class Splits(Artifact):
    """All folds. Every case is held out in exactly one of them unless the user edits the file."""

    version: ClassVar[int] = 1

    folds: tuple[Split, ...]

    @model_validator(mode="after")
    def _nothing_leaks(self) -> "Splits":
        for number, fold in enumerate(self.folds):
            shared = sorted(set(fold.training) & set(fold.validation))
            if shared:
                raise ValueError(f"fold {number} both trains on and is validated on {shared[0]!r}")
            if not fold.training or not fold.validation:
                raise ValueError(f"fold {number} needs at least one case to train on and one to be validated on")
        return self

    @property
    def names(self) -> set[str]:
        """The cases of all folds together."""
        return {name for fold in self.folds for name in (*fold.training, *fold.validation)}

    def expand(self, folds: Sequence[Fold]) -> list[Fold]:
        """The folds that are meant: "cv" stands for each number, and doubles count once."""
        every: list[Fold] = list(range(len(self.folds)))
        meant = (every if fold == "cv" else [fold] for fold in folds)
        return list(dict.fromkeys(chain.from_iterable(meant)))

    def fold(self, fold: Fold) -> Split:
        """The cases of one fold; "all" trains on every case and holds none out.

        Raises:
            UsageError: There is no such fold.
        """
        if fold == "all":
            return Split(training=tuple(sorted(self.names)), validation=())
        if not isinstance(fold, int) or not 0 <= fold < len(self.folds):
            raise UsageError(f"there is no fold {fold}", f"take a number from 0 to {len(self.folds) - 1}, or 'all'")
        return self.folds[fold]


def make_splits(names: Sequence[str], folds: int = FOLDS) -> Splits:
    """Shuffles the cases once and deals them into folds of nearly equal size.

    Source: the reference method: scikit-learn's KFold(5, shuffle=True, random_state=12345) over the sorted names, so
    that results can be compared fold by fold. With fewer cases than folds each case is a fold of its own.

    Raises:
        DatasetError: There is only one case.
    """
    names = sorted(names)
    if len(names) < 2:
        raise DatasetError(f"cross-validation needs at least two cases, there is {len(names)}", "add labelled cases")
    order = np.arange(len(names))
    np.random.RandomState(SPLIT_SEED).shuffle(order)  # the generator the published folds come from
    held_out = [sorted(part) for part in np.array_split(order, min(folds, len(names)))]
    splits = [
        Split(
            training=tuple(name for index, name in enumerate(names) if index not in part),
            validation=tuple(names[index] for index in part),
        )
        for part in held_out
    ]
    return Splits(folds=tuple(splits))
