"""Checks before training that the cases of a configuration are prepared as the plan says, and whole."""

from collections.abc import Sequence
from functools import partial

from autoseg.datasets.dataset import Dataset
from autoseg.errors import AutosegError, ProblemsError, UsageError
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.preprocessing.provenance import PreprocessingSettings
from autoseg.preprocessing.store import MEMORY_FOR_CASES_BYTES, StoredCase, is_stored
from autoseg.runtime.reporting import SILENT, list_names
from autoseg.runtime.thread_map import map_in_threads
from autoseg.workspace import DatasetFolders

MOST_LINES = 10


def check_prepared(dataset: Dataset, plan: Plan, name: ConfigurationName, folders: DatasetFolders, number: int) -> None:
    """Checks that the cases were preprocessed as the plan says now, and that their files are whole.

    All files are compared with their checksums if training will read them whole at its start anyway; if they take more
    memory than that, only their sizes are checked.

    Args:
        dataset: The cases to train on.
        plan: The plan that they must follow.
        name: Name of the configuration.
        folders: Where the preprocessed cases are stored.
        number: Number of the dataset, for messages.

    Raises:
        UsageError: They were not preprocessed, or by another plan.
        ProblemsError: Some are missing or damaged; one line for each.
    """
    folder, names = folders.cases(name), [case.name for case in dataset.cases]
    fix = f"run 'autoseg preprocess -d {number} -c {name}{folders.plan_option}'"
    existing = [case for case in names if is_stored(folder, case)]
    if not existing:
        raise UsageError(f"{plan.dataset} is not preprocessed for {name}", f"{fix} first")
    opened = map_in_threads(partial(StoredCase.open, folder), existing, title="", reporter=SILENT)
    stored = [case for case in opened if isinstance(case, StoredCase)]
    _refuse_outdated(stored, PreprocessingSettings.of(plan, name, dataset.info), plan.dataset, name, f"{fix} first")
    whole = sum(case.nbytes for case in stored) <= MEMORY_FOR_CASES_BYTES
    verified = map_in_threads(StoredCase.verify, stored if whole else [], title="", reporter=SILENT)
    errors = [error for error in (*opened, *verified) if isinstance(error, AutosegError)]
    lines = [f"{error.what}; {fix}, which preprocesses it again" for error in errors[:MOST_LINES]]
    if len(errors) > MOST_LINES:
        lines.append(f"{len(errors) - MOST_LINES} more cases are damaged; {fix}, which preprocesses them again")
    if missing := sorted(set(names) - set(existing)):
        few = list_names(missing, count_rest=False)
        message = f"{len(missing)} of {len(names)} cases are not preprocessed for {name}: {few}"
        lines.append(f"{message}; {fix}, which preprocesses them")
    if lines:
        raise ProblemsError(lines)


def _refuse_outdated(
    cases: Sequence[StoredCase], settings: PreprocessingSettings, dataset: str, name: ConfigurationName, fix: str
) -> None:
    """Refuses cases that were made with other settings than the plan has now."""
    outdated = [case.name for case in cases if case.content.origin is None or case.content.origin.recipe != settings]
    if outdated:
        few = list_names(outdated, count_rest=False)
        part = "" if len(outdated) == len(cases) else f" in {len(outdated)} of its cases ({few})"
        raise UsageError(f"plan.json has changed since {dataset} was preprocessed for {name}{part}", fix)
