"""The training and validation cases of each fold; splits.json."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, zip_longest
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from autoseg.datasets.names import Name
from autoseg.errors import DatasetError, UsageError
from autoseg.runtime.artifact import Artifact
from autoseg.workspace import Fold

FOLDS = 5
SPLIT_SEED = 12345  # Source: nnU-Net v2.8.1, crossval_split


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossValidation:
    """How cases are held out in turn.

    Attributes:
        repeats: How often all cases are assigned to folds, each time otherwise. With several, each case is held out in
            as many folds, whose results show how much the training and the assignment vary.
        leave_one_out: Whether each case, or each group, is a fold of its own.
    """

    repeats: int = 1
    leave_one_out: bool = False


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

    With repeats, the folds of each repeat follow those of the one before, and every case is held out once in each.

    Attributes:
        folds: The folds, by number.
        repeats: See `CrossValidation`.
        leave_one_out: See `CrossValidation`.

    Example:
        >>> splits = make_splits(["a", "b", "c", "d", "e", "f"])
        >>> [fold.validation for fold in splits.folds]
        [('d', 'f'), ('e',), ('a',), ('b',), ('c',)]
        >>> Splits.parse(splits.to_json(), source="splits.json") == splits
        True
    """

    folds: tuple[Split, ...] = Field(min_length=1)
    repeats: int = Field(default=1, ge=1)
    leave_one_out: bool = False

    @model_serializer(mode="wrap")
    def _leave_out_what_is_usual(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {"repeats": 1, "leave_one_out": False}
        content: dict[str, Any] = serialize(self)
        return {key: value for key, value in content.items() if key not in usual or value != usual[key]}

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
    def scheme(self) -> CrossValidation:
        """How the cases were assigned, unless the folds were edited."""
        return CrossValidation(repeats=self.repeats, leave_one_out=self.leave_one_out)

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


def make_splits(
    names: Sequence[str],
    groups: Mapping[str, str] | None = None,
    folds: int = FOLDS,
    *,
    scheme: CrossValidation = CrossValidation(),
    only_training: Collection[str] = (),
) -> Splits:
    """Assigns the cases to folds of nearly equal size; cases of one group share a fold.

    The result depends on which cases belong together, not on the names of the groups. Without groups, each case forms
    a group of its own, and the folds equal nnU-Net's. Source: nnU-Net v2.8.1: scikit-learn's
    KFold(5, shuffle=True, random_state=12345) over the sorted names, so that results can be compared fold by fold.
    Further repeats are shuffled by the seeds that follow, and so the folds of the first repeat are the usual ones.

    Args:
        names: Names of all cases, in any order.
        groups: Case name to group, such as the patient; a case that is not listed forms a group of its own.
        folds: Number of folds; if there are fewer groups, each group is a fold.
        scheme: How often all cases are assigned, and whether each is a fold of its own.
        only_training: Cases that no fold holds out, such as those labelled by a model. A fold trains on them, unless it
            holds out a case of their group.

    Raises:
        DatasetError: There is only one case that may be held out, or only one group.

    Example:
        >>> splits = make_splits(["p1_a", "p1_b", "p2_a", "p3_a"], {"p1_a": "p1", "p1_b": "p1"}, folds=2)
        >>> [fold.validation for fold in splits.folds]
        [('p1_a', 'p1_b'), ('p2_a', 'p3_a')]
        >>> len(make_splits(["a", "b", "c", "d"], folds=2, scheme=CrossValidation(repeats=3)).folds)
        6
        >>> [fold.training for fold in make_splits(["a", "b", "u"], only_training=["u"]).folds]
        [('a', 'u'), ('b', 'u')]
    """
    names, groups = sorted(names), groups or {}
    judged = [name for name in names if name not in only_training]
    if len(judged) < 2:
        which = " that were not labelled by a model" if len(names) > len(judged) else ""
        raise DatasetError(
            f"cross-validation needs at least two cases{which}, there is {len(judged)}", "add labelled cases"
        )
    units = list_units(judged, groups)
    if len(units) < 2:
        raise DatasetError(
            f"all {len(judged)} cases belong to one group, {groups[judged[0]]!r}, so none can be held out",
            'correct --groups, or "groups" in dataset.json',
        )
    folds = len(units) if scheme.leave_one_out else min(folds, len(units))
    sizes = [len(unit) for unit in units]
    splits = []
    for repeat in range(scheme.repeats):
        fold_of_unit = _assign_units(sizes, folds, SPLIT_SEED + repeat)
        fold_of = {name: fold for unit, fold in zip(units, fold_of_unit, strict=True) for name in unit}
        splits += [_make_fold(names, groups, fold_of, number) for number in range(folds)]
    return Splits(folds=tuple(splits), repeats=scheme.repeats, leave_one_out=scheme.leave_one_out)


def _make_fold(names: Sequence[str], groups: Mapping[str, str], fold_of: Mapping[str, int], number: int) -> Split:
    """Returns a fold, given the fold that holds out each case that may be held out."""
    held_out = tuple(name for name in names if fold_of.get(name) == number)
    groups_out = {groups[name] for name in held_out if name in groups}
    training = (name for name in names if fold_of.get(name) != number and groups.get(name) not in groups_out)
    return Split(training=tuple(training), validation=held_out)


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


def _assign_units(sizes: Sequence[int], folds: int, seed: int) -> list[int]:
    """Returns the number of the fold of each unit.

    The units are shuffled once; then the largest come first, each into the fold with the fewest cases so far.

    KFold cuts the shuffled units into blocks. Here they are assigned in turns, one to each fold: the first of each
    block, then the second of each, and so on. So units of equal size come into the same folds as with KFold. For
    example, with the order 4 1 0 3 2 and two folds, the blocks are 4 1 0 and 3 2, and the units are assigned in the
    order 4 3 1 2 0.

    Args:
        sizes: Number of cases of each unit.
        folds: Number of folds; at most the number of units, so that no fold is left empty.
        seed: Seed of the order.
    """
    order = np.arange(len(sizes))
    np.random.RandomState(seed).shuffle(order)  # the generator the published folds come from
    blocks = [block.tolist() for block in np.array_split(order, folds)]
    in_turns: list[int] = [unit for turn in zip_longest(*blocks) for unit in turn if unit is not None]
    fold_of_unit, filled = [0] * len(sizes), [0] * folds
    for unit in sorted(in_turns, key=lambda unit: -sizes[unit]):
        fold = filled.index(min(filled))
        fold_of_unit[unit] = fold
        filled[fold] += sizes[unit]
    return fold_of_unit
