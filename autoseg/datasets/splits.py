"""The training and validation cases of each fold; splits.json."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain, zip_longest

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from autoseg.datasets.names import Name
from autoseg.errors import DatasetError, UsageError
from autoseg.runtime.artifact import Artifact
from autoseg.workspace import Fold

FOLDS = 5
SPLIT_SEED = 12345  # Source: nnU-Net v2.8.1, crossval_split


class Split(BaseModel):
    """The cases of one fold.

    Attributes:
        training: Names of the training cases; a case that is listed twice is sampled twice as often.
        validation: Names of the held-out cases.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: tuple[Name, ...]
    validation: tuple[Name, ...]

    @property
    def digest(self) -> str:
        """A digest that changes if a case is added, leaves, or changes sides, and does not reveal the names."""
        sides = (sorted(self.training), sorted(self.validation))
        return sha256(json.dumps(sides).encode()).hexdigest()[:16]


class Splits(Artifact):
    """All folds; every case is held out in exactly one, unless the user edits the file or brings another.

    Example:
        >>> splits = make_splits(["a", "b", "c", "d", "e", "f"])
        >>> [fold.validation for fold in splits.folds]
        [('d', 'f'), ('e',), ('a',), ('b',), ('c',)]
        >>> Splits.parse(splits.to_json(), source="splits.json") == splits
        True
    """

    folds: tuple[Split, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _nothing_leaks(self) -> "Splits":
        for number, fold in enumerate(self.folds):
            shared = sorted(set(fold.training) & set(fold.validation))
            if shared:
                raise ValueError(f"fold {number} both trains on and is validated on {shared[0]!r}")
            if not fold.training or not fold.validation:
                raise ValueError(f"fold {number} needs at least one case to train on and one to be validated on")
            [(name, times)] = Counter(fold.validation).most_common(1)
            if times > 1:
                raise ValueError(f"fold {number} is validated on {name!r} {times} times")
        return self

    @property
    def names(self) -> set[str]:
        """Names of the cases of all folds together."""
        return {name for fold in self.folds for name in (*fold.training, *fold.validation)}

    def expand(self, folds: Sequence[Fold]) -> list[Fold]:
        """Returns the folds with "cv" replaced by each number, and without repetitions."""
        numbers: list[Fold] = list(range(len(self.folds)))
        expanded = (numbers if fold == "cv" else [fold] for fold in folds)
        return list(dict.fromkeys(chain.from_iterable(expanded)))

    def fold(self, fold: Fold) -> Split:
        """Returns the cases of one fold; "all" trains on every case and holds none out.

        Raises:
            UsageError: There is no such fold.
        """
        if fold == "all":
            return Split(training=tuple(sorted(self.names)), validation=())
        if not isinstance(fold, int) or not 0 <= fold < len(self.folds):
            raise UsageError(f"there is no fold {fold}", f"take a number from 0 to {len(self.folds) - 1}, or 'all'")
        return self.folds[fold]


def make_splits(names: Sequence[str], groups: Mapping[str, str] | None = None, folds: int = FOLDS) -> Splits:
    """Assigns the cases to folds of nearly equal size; cases of one group share a fold.

    The result depends on which cases belong together, not on the names of the groups. Without groups, each case forms
    a group of its own, and the folds equal nnU-Net's. Source: nnU-Net v2.8.1: scikit-learn's
    KFold(5, shuffle=True, random_state=12345) over the sorted names, so that results can be compared fold by fold.

    Args:
        names: Names of all cases, in any order.
        groups: Case name to group, such as the patient; a case that is not listed forms a group of its own.
        folds: Number of folds; if there are fewer groups, each group is a fold.

    Raises:
        DatasetError: There is only one case, or only one group.

    Example:
        >>> splits = make_splits(["p1_a", "p1_b", "p2_a", "p3_a"], {"p1_a": "p1", "p1_b": "p1"}, folds=2)
        >>> [fold.validation for fold in splits.folds]
        [('p1_a', 'p1_b'), ('p2_a', 'p3_a')]
    """
    names, groups = sorted(names), groups or {}
    if len(names) < 2:
        raise DatasetError(f"cross-validation needs at least two cases, there is {len(names)}", "add labelled cases")
    units = list_units(names, groups)
    if len(units) < 2:
        raise DatasetError(
            f"all {len(names)} cases belong to one group, {groups[names[0]]!r}, so none can be held out",
            'correct --groups, or "groups" in dataset.json',
        )
    folds = min(folds, len(units))
    fold_of_unit = _assign_units([len(unit) for unit in units], folds)
    fold_of = {name: fold for unit, fold in zip(units, fold_of_unit, strict=True) for name in unit}
    splits = [
        Split(
            training=tuple(name for name in names if fold_of[name] != number),
            validation=tuple(name for name in names if fold_of[name] == number),
        )
        for number in range(folds)
    ]
    return Splits(folds=tuple(splits))


def list_units(names: Sequence[str], groups: Mapping[str, str]) -> list[list[str]]:
    """Returns the units that are assigned as a whole: the cases of each group, and each case without a group.

    The units are in the order of their first names.
    """
    units: dict[tuple[str, bool], list[str]] = {}
    for name in sorted(names):
        units.setdefault((groups.get(name, name), name in groups), []).append(name)
    return list(units.values())


def find_leak(splits: Splits, groups: Mapping[str, str]) -> tuple[int, str, str] | None:
    """Finds the first fold that has cases of one group on both sides.

    Returns:
        Number of the fold, name of a training case, and name of a held-out case of the same group; None if no fold has
        such cases.
    """
    for number, fold in enumerate(splits.folds):
        held_out = {groups[name]: name for name in reversed(fold.validation) if name in groups}
        for name in fold.training:
            if groups.get(name) in held_out:
                return number, name, held_out[groups[name]]
    return None


def _assign_units(sizes: Sequence[int], folds: int) -> list[int]:
    """Returns the number of the fold of each unit.

    The units are shuffled once; then the largest come first, each into the fold with the fewest cases so far.

    KFold cuts the shuffled units into blocks. Here they are assigned in turns, one to each fold: the first of each
    block, then the second of each, and so on. So units of equal size come into the same folds as with KFold. For
    example, with the order 4 1 0 3 2 and two folds, the blocks are 4 1 0 and 3 2, and the units are assigned in the
    order 4 3 1 2 0.

    Args:
        sizes: Number of cases of each unit.
        folds: Number of folds; at most the number of units, so that no fold is left empty.
    """
    order = np.arange(len(sizes))
    np.random.RandomState(SPLIT_SEED).shuffle(order)  # the generator the published folds come from
    blocks = [block.tolist() for block in np.array_split(order, folds)]
    in_turns: list[int] = [unit for turn in zip_longest(*blocks) for unit in turn if unit is not None]
    fold_of_unit, filled = [0] * len(sizes), [0] * folds
    for unit in sorted(in_turns, key=lambda unit: -sizes[unit]):
        fold = filled.index(min(filled))
        fold_of_unit[unit] = fold
        filled[fold] += sizes[unit]
    return fold_of_unit
