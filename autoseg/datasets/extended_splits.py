"""The folds of a dataset to which cases were added that a model has labelled."""

from collections.abc import Sequence

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.machine_labels import list_machine_labelled
from autoseg.datasets.splits import Split, Splits
from autoseg.datasets.splitting import group_cases


def extend_splits(splits: Splits, labelled: Sequence[str], dataset: Dataset) -> Splits:
    """Returns the folds of labelled cases, each of which also learns from those that a model has labelled.

    Args:
        splits: The folds of before; labels that a model made for them are dropped.
        labelled: Names of the cases that people have labelled.
        dataset: The new dataset, whose groups are kept together: a fold learns from no scan of a group of which it
            holds a case out.
    """
    people, groups = set(labelled), group_cases([case.name for case in dataset.cases], dataset.info)
    machine = list_machine_labelled([case.name for case in dataset.cases], dataset.info)

    def extend(fold: Split) -> Split:
        held_out = {groups[name] for name in fold.validation if name in groups}
        new = [name for name in machine if groups.get(name) not in held_out]
        kept = [name for name in fold.training if name in people]
        return Split(training=tuple(sorted([*kept, *new])), validation=fold.validation)

    return splits.model_copy(update={"folds": tuple(map(extend, splits.folds))})
