"""The preprocessed cases of a configuration: made, continued after an interruption, and checked before training.

Each case says what it was made from, and is written whole or not at all. So no marker file says that all is done, which
could be wrong: a folder is complete when each case of the dataset is there, follows the current plan, and is whole.
Whatever ends a run, the next run keeps the cases that are up to date and makes the others. The crash log says at which
cases a run was killed, most likely for lack of memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.fingerprint import CaseFacts, Fingerprint
from autoseg.datasets.integrity import load_case
from autoseg.errors import AutosegError, DatasetError, ProblemsError, UsageError
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.provenance import PreprocessingSettings, Provenance
from autoseg.preprocessing.store import (
    MEMORY_FOR_CASES_BYTES,
    StoredCase,
    is_stored,
    is_up_to_date,
    list_unused_files,
    save_case,
)
from autoseg.runtime.crash_log import open_crash_log
from autoseg.runtime.lock import run_alone
from autoseg.runtime.reporting import SILENT, Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.workspace import DatasetFolders

MOST_LINES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """One configuration to preprocess for.

    Attributes:
        configuration: The configuration.
        settings: What its voxels depend on.
        folder: Folder of its cases.
    """

    configuration: Configuration
    settings: PreprocessingSettings
    folder: Path


def prepare_cases(
    dataset: Dataset, plan: Plan, names: Sequence[ConfigurationName], folders: DatasetFolders, reporter: Reporter
) -> None:
    """Preprocesses all cases for some configurations; cases of an earlier run that are up to date are kept.

    Each case is read once. Cases that another plan made are replaced one by one, and those that are no longer part of
    the dataset are removed at the end. Cases at which an earlier run was killed come last, one at a time.

    Args:
        dataset: The cases.
        plan: How to preprocess them.
        names: Names of the configurations.
        folders: Where the preprocessed cases are stored.
        reporter: Shows progress, and says how many cases were kept.

    Raises:
        ProblemsError: Cases cannot be preprocessed, one line for each; all others are.
        UsageError: Another run is at work on this dataset.
        WriteError: The disk is full, or the folder cannot be written.
    """
    targets = [
        _Target(
            configuration=plan.configurations[name],
            settings=PreprocessingSettings.of(plan, name, dataset.info),
            folder=folders.cases(name),
        )
        for name in names
    ]

    def prepare(case: Case) -> bool:
        """Makes a case for configurations where it is outdated or missing; returns whether there were none."""
        provenances = [(target, Provenance.of(case, target.settings)) for target in targets]
        missing = [pair for pair in provenances if not is_up_to_date(pair[0].folder, case.name, pair[1])]
        if missing:
            with log.track(case.name), _name_case_in_memory_errors(case.name):
                image, label = load_case(case, dataset.info)
                for target, provenance in missing:
                    configuration = target.configuration
                    prepared = preprocess_case(
                        image,
                        label,
                        axis_order=plan.axis_order,
                        configuration=configuration,
                        orientation=dataset.info.orientation,
                    )
                    save_case(
                        target.folder, case.name, prepared, patch_size=configuration.patch_size, provenance=provenance
                    )
        return not missing

    with run_alone(folders.preprocessed), open_crash_log(folders.crash_log) as log:
        last = [case for case in dataset.cases if case.name in log.killed_at]
        first = [case for case in dataset.cases if case.name not in log.killed_at]
        bytes_each = _estimate_each([target.settings for target in targets], folders)
        title = f"preprocessing {', '.join(names)}"
        results = map_in_threads(prepare, first, title=title, reporter=reporter, bytes_each=bytes_each)
        if last:
            names_of_last = list_names([case.name for case in last], count_rest=False)
            message = f"an earlier run was killed, perhaps for lack of memory, at {names_of_last}"
            reporter.say(f"{message}: now last and alone")
            results += map_in_threads(prepare, last, title=f"{title}, alone", reporter=reporter, most_workers=1)
        kept = sum(results_or_raise(results))
        if kept:
            reporter.say(f"{kept} of {len(results)} cases were prepared for {', '.join(names)} by an earlier run")
        _remove_unused_files(targets, dataset)


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


def estimate_bytes(facts: CaseFacts, settings: PreprocessingSettings) -> int:
    """Returns the memory that preprocessing one case takes at most.

    Decision: per voxel of the image 12 bytes for each channel and 12 for label map and mask; per new voxel 12 for each
    channel and 4. Measured peaks of one and of four channels, to finer and to coarser grids, were 0.67 to 0.86 of that.
    """
    before = math.prod(facts.shape or facts.shape_after_crop)
    spacing_mm = [facts.spacing_mm[axis] for axis in settings.axis_order]
    target_mm = (*spacing_mm[: 3 - len(settings.spacing_mm)], *settings.spacing_mm)
    after = math.prod(facts.shape_after_crop) * math.prod(spacing_mm) / math.prod(target_mm)
    return int((12 * settings.channels + 12) * before + (12 * settings.channels + 4) * after)


def _estimate_each(
    all_settings: Sequence[PreprocessingSettings], folders: DatasetFolders
) -> Callable[[Case], int] | None:
    """Returns a function from a case to the memory that preprocessing it takes, by its fingerprint.

    It is None if the fingerprint was imported from nnU-Net, which names no cases.
    """
    if not folders.fingerprint.is_file():
        return None
    facts = {case.name: case for case in Fingerprint.load(folders.fingerprint).cases}

    def estimate(case: Case) -> int:
        case_facts = facts.get(case.name)
        if case_facts is None:
            return 0
        return max((estimate_bytes(case_facts, settings) for settings in all_settings), default=0)

    return estimate


def _remove_unused_files(targets: Sequence[_Target], dataset: Dataset) -> None:
    """Removes cases that are no longer part of the dataset, and files that were left half-written."""
    names = [case.name for case in dataset.cases]
    for target in targets:
        for path in list_unused_files(target.folder, names):
            path.unlink(missing_ok=True)


def _refuse_outdated(
    cases: Sequence[StoredCase], settings: PreprocessingSettings, dataset: str, name: ConfigurationName, fix: str
) -> None:
    """Refuses cases that were made with other settings than the plan has now."""
    outdated = [case.name for case in cases if case.content.origin is None or case.content.origin.recipe != settings]
    if outdated:
        few = list_names(outdated, count_rest=False)
        part = "" if len(outdated) == len(cases) else f" in {len(outdated)} of its cases ({few})"
        raise UsageError(f"plan.json has changed since {dataset} was preprocessed for {name}{part}", fix)


@contextmanager
def _name_case_in_memory_errors(name: str) -> Iterator[None]:
    """Turns a MemoryError into a message that names the case."""
    try:
        yield
    except MemoryError as error:
        raise DatasetError(
            f"case {name!r} does not fit into the memory", "crop it, or use a machine with more"
        ) from error
