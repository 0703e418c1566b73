"""The states of folds and of other jobs, on this machine or on a cluster."""

import os

from autoseg.cluster.job_state import find_job_states
from autoseg.cluster.status import WorkState, describe_dataset, describe_jobs
from autoseg.datasets.splits import FOLDS, Splits
from autoseg.workspace import find_workspace


def status(
    number: int | None = None, *, plan_name: str | None = None, workspace: str | os.PathLike[str] | None = None
) -> list[WorkState]:
    """Returns the state of every fold of a dataset, and of its other jobs.

    It follows from what is on disk: results, locks, and what jobs recorded of themselves. Slurm is asked about jobs
    that have not ended, if it answers; its accounting is not needed.

    Args:
        number: Number of the dataset; None for predictions by models that were named by their paths.
        plan_name: Name of a plan beside the usual one.
        workspace: See `train`.

    Returns:
        Each fold of the configurations that were begun or submitted, then other jobs.

    Raises:
        DatasetError: There is no such dataset.
        ArtifactError: splits.json or the scores of a fold are damaged.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("work/raw/Dataset001_Demo", cases=2)
        >>> autoseg.status(1, workspace="work")
        []
    """
    place = find_workspace(workspace)
    if number is None:
        return list(describe_jobs(find_job_states(place.jobs(None))))
    folders = place.dataset(number, plan_name)
    folds = len(Splits.load(folders.splits).folds) if folders.splits.is_file() else FOLDS
    return describe_dataset(folders, place.jobs(folders.raw.name, plan_name), folds)
