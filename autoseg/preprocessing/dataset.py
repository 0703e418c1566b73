"""The preprocessed cases of a configuration: made, gone on with after any stop, and checked before training.

Each case tells what it was made from, and is written whole or not at all. So there is no sign that all is done, which
could lie: a folder is prepared when each case of the dataset is there, follows the plan as it stands, and is whole.
Whatever ends a run, the next one takes over what is sound, and makes the rest. The work log tells at which cases a run
was killed, most likely for want of memory.
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
    """Where the cases of one configuration belong, and what makes them."""

    configuration: Configuration
    recipe: PreprocessingSettings
    folder: Path


def prepare_cases(
    dataset: Dataset, plan: Plan, names: Sequence[ConfigurationName], folders: DatasetFolders, reporter: Reporter
) -> None:
    """Prepares all cases for some configurations; those that an earlier run left sound are taken over.

    Each case is read once. Cases that another plan made are replaced one by one, and those that are no longer
    part of the dataset are removed at the end. Cases at which an earlier run was killed come last, one at a time.

    Args:
        dataset: The cases.
        plan: What to do with them.
        names: Of the configurations.
        folders: Where they belong.
        reporter: Shows progress, and is told how many cases were taken over.

    Raises:
        ProblemsError: Cases cannot be prepared, each with its line; all others are.
        UsageError: Another run is at work on this dataset.
        WriteError: The disk is full, or the folder cannot be written.
    """
    targets = [
        _Target(
            configuration=plan.configurations[name],
            recipe=PreprocessingSettings.of(plan, name, dataset.info),
            folder=folders.cases(name),
        )
        for name in names
    ]

    def prepare(case: Case) -> bool:
        """Makes a case for all configurations for which it is not there, and says whether there was none."""
        origins = [(target, Provenance.of(case, target.recipe)) for target in targets]
        missing = [
            (target, origin) for target, origin in origins if not is_up_to_date(target.folder, case.name, origin)
        ]
        if missing:
            with log.track(case.name), _name_case_in_memory_errors(case.name):
                image, label = load_case(case, dataset.info)
                for target, origin in missing:
                    one = target.configuration
                    prepared = preprocess_case(
                        image,
                        label,
                        axis_order=plan.axis_order,
                        configuration=one,
                        orientation=dataset.info.orientation,
                    )
                    save_case(target.folder, case.name, prepared, patch_size=one.patch_size, origin=origin)
        return not missing

    with run_alone(folders.preprocessed), open_crash_log(folders.work_log) as log:
        last = [case for case in dataset.cases if case.name in log.killed_at]
        first = [case for case in dataset.cases if case.name not in log.killed_at]
        bytes_each = _estimate_each([target.recipe for target in targets], folders)
        title = f"preprocessing {', '.join(names)}"
        results = map_in_threads(prepare, first, title=title, reporter=reporter, bytes_each=bytes_each)
        if last:
            names_of_last = list_names([case.name for case in last], count_rest=False)
            what = f"an earlier run was killed, perhaps for want of memory, at {names_of_last}"
            reporter.say(f"{what}: now last and alone")
            results += map_in_threads(prepare, last, title=f"{title}, alone", reporter=reporter, most_workers=1)
        taken_over = sum(results_or_raise(results))
        if taken_over:
            reporter.say(f"{taken_over} of {len(results)} cases were prepared for {', '.join(names)} by an earlier run")
        _remove_unused_files(targets, dataset)


def check_prepared(dataset: Dataset, plan: Plan, name: ConfigurationName, folders: DatasetFolders, number: int) -> None:
    """Makes sure that the cases were prepared as the plan says now, and that their files are whole.

    All files are compared with their checksums if training will read them whole at its start anyway; of more than that,
    only the sizes are.

    Args:
        dataset: The cases to train on.
        plan: What they must follow.
        name: Of the configuration.
        folders: Where they are.
        number: Of the dataset.

    Raises:
        UsageError: They were not prepared, or by another plan.
        ProblemsError: Some are missing or damaged; each has its line.
    """
    folder, names = folders.cases(name), [case.name for case in dataset.cases]
    fix = f"run 'autoseg preprocess -d {number} -c {name}{folders.plan_option}'"
    there = [one for one in names if is_stored(folder, one)]
    if not there:
        raise UsageError(f"{plan.dataset} is not preprocessed for {name}", f"{fix} first")
    opened = map_in_threads(partial(StoredCase.open, folder), there, title="", reporter=SILENT)
    stored = [one for one in opened if isinstance(one, StoredCase)]
    _refuse_outdated(stored, PreprocessingSettings.of(plan, name, dataset.info), plan.dataset, name, f"{fix} first")
    whole = sum(one.nbytes for one in stored) <= MEMORY_FOR_CASES_BYTES
    verified = map_in_threads(StoredCase.verify, stored if whole else [], title="", reporter=SILENT)
    errors = [error for error in (*opened, *verified) if isinstance(error, AutosegError)]
    lines = [f"{error.what}; {fix}, which makes it anew" for error in errors[:MOST_LINES]]
    if len(errors) > MOST_LINES:
        lines.append(f"{len(errors) - MOST_LINES} more cases are damaged; {fix}, which makes them anew")
    if missing := sorted(set(names) - set(there)):
        few = list_names(missing, count_rest=False)
        what = f"{len(missing)} of {len(names)} cases are not preprocessed for {name}: {few}"
        lines.append(f"{what}; {fix}, which goes on with them")
    if lines:
        raise ProblemsError(lines)


def estimate_bytes(facts: CaseFacts, recipe: PreprocessingSettings) -> int:
    """The memory that preparing one case takes at most.

    Decision: per voxel of the image 12 bytes for each channel and 12 for label map and mask; per new voxel 12 for each
    channel and 4. Measured peaks of one and of four channels, to finer and to coarser grids, were 0.67 to 0.86 of that.
    """
    before = math.prod(facts.shape or facts.shape_after_crop)
    spacing_mm = [facts.spacing_mm[axis] for axis in recipe.axis_order]
    target_mm = (*spacing_mm[: 3 - len(recipe.spacing_mm)], *recipe.spacing_mm)
    after = math.prod(facts.shape_after_crop) * math.prod(spacing_mm) / math.prod(target_mm)
    return int((12 * recipe.channels + 12) * before + (12 * recipe.channels + 4) * after)


def _estimate_each(recipes: Sequence[PreprocessingSettings], folders: DatasetFolders) -> Callable[[Case], int] | None:
    """What each case takes by its fingerprint; None if nnU-Net took that, which names no cases."""
    if not folders.fingerprint.is_file():
        return None
    facts = {one.name: one for one in Fingerprint.load(folders.fingerprint).cases}

    def estimate(case: Case) -> int:
        known = facts.get(case.name)
        return 0 if known is None else max((estimate_bytes(known, recipe) for recipe in recipes), default=0)

    return estimate


def _remove_unused_files(targets: Sequence[_Target], dataset: Dataset) -> None:
    """Removes cases that are no longer part of the dataset, and what was left half-written."""
    names = [case.name for case in dataset.cases]
    for target in targets:
        for path in list_unused_files(target.folder, names):
            path.unlink(missing_ok=True)


def _refuse_outdated(
    cases: Sequence[StoredCase], recipe: PreprocessingSettings, dataset: str, name: ConfigurationName, fix: str
) -> None:
    """Refuses cases that follow another recipe."""
    stale = [one.name for one in cases if one.content.origin is None or one.content.origin.recipe != recipe]
    if stale:
        few = list_names(stale, count_rest=False)
        part = "" if len(stale) == len(cases) else f" in {len(stale)} of its cases ({few})"
        raise UsageError(f"plan.json has changed since {dataset} was preprocessed for {name}{part}", fix)


@contextmanager
def _name_case_in_memory_errors(name: str) -> Iterator[None]:
    """Says which case does not fit into the memory."""
    try:
        yield
    except MemoryError as error:
        raise DatasetError(
            f"case {name!r} does not fit into the memory", "crop it, or use a machine with more"
        ) from error
