"""Folds of a dataset to which cases were added: nobody who was held out is trained on, and the new ones are held out.

So a fold that goes on with its weights, which know its former training cases, is judged as honestly as before.
"""

from collections.abc import Mapping, Sequence

from autoseg.datasets.splits import Split, Splits, list_units


def add_to_splits(splits: Splits, names: Sequence[str], groups: Mapping[str, str]) -> Splits:
    """Returns the folds with further cases, each of which is held out in one fold and trained on in all others.

    A case of a group that the folds have already stays on the side of its group. The others come, group by group, into
    the fold that holds out the fewest cases so far. Every case of before stays on its side of every fold.

    Args:
        splits: The folds of before.
        names: Names of the new cases.
        groups: Case name to group of all cases; a case that is not listed forms a group of its own.

    Example:
        >>> splits = Splits(folds=({"training": ["a1"], "validation": ["b", "c"]},
        ...                        {"training": ["b", "c"], "validation": ["a1"]}))
        >>> grown = add_to_splits(splits, ["a2", "d"], {"a1": "a", "a2": "a"})
        >>> [(fold.training, fold.validation) for fold in grown.folds]
        [(('a1', 'a2'), ('b', 'c', 'd')), (('b', 'c', 'd'), ('a1', 'a2'))]
    """
    folds = [(list(fold.training), list(fold.validation)) for fold in splits.folds]
    for unit in list_units([name for name in names if name not in splits.names], groups):
        group = groups.get(unit[0])
        holding = [number for number, fold in enumerate(splits.folds) if _holds(fold.validation, group, groups)]
        if not holding and not any(_holds(fold.training, group, groups) for fold in splits.folds):
            holding = [min(range(len(folds)), key=lambda number: len(folds[number][1]))]
        for number, (training, validation) in enumerate(folds):
            (validation if number in holding else training).extend(unit)
    return splits.model_copy(
        update={
            "folds": tuple(
                Split(training=tuple(sorted(training)), validation=tuple(sorted(validation)))
                for training, validation in folds
            )
        }
    )


def _holds(names: Sequence[str], group: str | None, groups: Mapping[str, str]) -> bool:
    """Returns whether cases of a group are among some names."""
    return group is not None and any(groups.get(name) == group for name in names)
