"""The preprocessed cases of a configuration: made, and continued after an interruption, by one run or several.

Each case says what it was made from, and is written whole or not at all. So no marker file says that all is done, which
could be wrong: a folder is complete when each case of the dataset is there, follows the current plan, and is whole.
Whatever ends a run, the next run keeps the cases that are up to date and makes the others. The crash log says at which
cases a run was killed, most likely for lack of memory. `prepared_check` checks the cases before training.
"""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.fingerprint import CaseFacts, Fingerprint
from autoseg.datasets.integrity import load_case
from autoseg.datasets.parts import ANY, choose_part
from autoseg.errors import AutosegError, DatasetError, ProblemsError
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.preprocessing.case import preprocess_case
from autoseg.preprocessing.case_sizes import find_too_large
from autoseg.preprocessing.provenance import PreprocessingSettings, Provenance
from autoseg.preprocessing.store import (
    is_up_to_date,
    list_unused_files,
    save_case,
)
from autoseg.runtime.crash_log import open_crash_log
from autoseg.runtime.leases import open_leases
from autoseg.runtime.lock import run_alone, run_together
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.runtime.shared_work import SharedWork, map_shared
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.workspace import DatasetFolders


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
    dataset: Dataset,
    plan: Plan,
    names: Sequence[ConfigurationName],
    folders: DatasetFolders,
    reporter: Reporter,
    part: str | None = None,
) -> None:
    """Preprocesses all cases for some configurations; cases of an earlier run that are up to date are kept.

    Each case is read once. Cases that another plan made are replaced one by one, and those that are no longer part of
    the dataset are removed at the end, unless this run prepares a part of the cases: others may be writing theirs.
    Cases at which an earlier run was killed come last, one at a time.

    Args:
        dataset: The cases.
        plan: How to preprocess them.
        names: Names of the configurations.
        folders: Where the preprocessed cases are stored.
        reporter: Shows progress, and says how many cases were kept.
        part: Which part of the cases, such as "2/4"; None for all of them, and "any" for those that no other run makes.
            Runs that prepare parts work together.

    Raises:
        ProblemsError: Cases would not fit into the free memory at the spacing of the plan, with a line for each, and
            nothing was done; or cases cannot be preprocessed, with a line for each, and all others are.
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

    cases = choose_part(dataset.cases, part)
    work = _Work(
        dataset=dataset,
        plan=plan,
        targets=targets,
        title=f"preprocessing {', '.join(names)}",
        bytes_each=_estimate_each([target.settings for target in targets], folders),
        reporter=reporter,
    )
    work.check_sizes(cases, folders)
    lock = run_alone if part is None else run_together
    with lock(folders.preprocessed):
        results = work.share(folders.leases) if part == ANY else work.do(cases, folders.crash_log(part))
        kept = sum(results_or_raise(results))
        if kept:
            which = "an earlier run" if part != ANY else "other runs"
            reporter.say(f"{kept} of {len(results)} cases were prepared for {', '.join(names)} by {which}")
        if part is None:
            _remove_unused_files(targets, dataset)
            shutil.rmtree(folders.leases, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """The preparation of cases.

    Attributes:
        dataset: The dataset.
        plan: How to preprocess its cases.
        targets: The configurations.
        title: Title of the progress bar.
        bytes_each: See `map_in_threads`.
        reporter: Shows progress.
    """

    dataset: Dataset
    plan: Plan
    targets: Sequence[_Target]
    title: str
    bytes_each: Callable[[Case], int] | None
    reporter: Reporter

    def check_sizes(self, cases: Sequence[Case], folders: DatasetFolders) -> None:
        """Refuses to begin if cases that are not there yet would not fit into the free memory.

        Raises:
            ProblemsError: There are such cases, with a line for each.
        """
        too_large = find_too_large([target.settings for target in self.targets], folders)
        lines = [too_large[case.name] for case in cases if case.name in too_large and self._find_missing(case)]
        if lines:
            raise ProblemsError(lines)

    def do(self, cases: Sequence[Case], crash_log: Path) -> list[bool | AutosegError]:
        """Makes cases; those at which an earlier run was killed come last, one at a time.

        Returns:
            For each case whether it was there already, or the error.
        """
        with open_crash_log(crash_log) as log:

            def prepare(case: Case) -> bool:
                missing = self._find_missing(case)
                if missing:
                    with log.track(case.name):
                        self._make(case, missing)
                return not missing

            last = [case for case in cases if case.name in log.killed_at]
            first = [case for case in cases if case.name not in log.killed_at]
            results = map_in_threads(
                prepare, first, title=self.title, reporter=self.reporter, bytes_each=self.bytes_each
            )
            if last:
                names_of_last = list_names([case.name for case in last], count_rest=False)
                message = f"an earlier run was killed, perhaps for lack of memory, at {names_of_last}"
                self.reporter.say(f"{message}: now last and alone")
                alone = f"{self.title}, alone"
                results += map_in_threads(prepare, last, title=alone, reporter=self.reporter, most_workers=1)
            return results

    def share(self, leases_folder: Path) -> list[bool | AutosegError]:
        """Makes those cases that no other run makes; ends when all are there.

        Returns:
            For each case whether it was there already, or the error.
        """

        def prepare(case: Case, is_own: Callable[[], bool]) -> None:
            self._make(case, self._find_missing(case), is_own)

        with open_leases(leases_folder) as leases:
            shared: SharedWork[Case] = SharedWork(
                leases=leases,
                is_finished=lambda case: not self._find_missing(case),
                folders=[target.folder for target in self.targets],
                reporter=self.reporter,
            )
            return map_shared(prepare, self.dataset.cases, shared, title=self.title, bytes_each=self.bytes_each)

    def _find_missing(self, case: Case) -> list[tuple[_Target, Provenance]]:
        """Returns the configurations for which a case is missing or outdated."""
        provenances = [(target, Provenance.of(case, target.settings)) for target in self.targets]
        return [pair for pair in provenances if not is_up_to_date(pair[0].folder, case.name, pair[1])]

    def _make(
        self,
        case: Case,
        missing: Sequence[tuple[_Target, Provenance]],
        is_own: Callable[[], bool] = lambda: True,
    ) -> None:
        """Makes a case for some configurations, and writes it unless it is no longer this run's own."""
        with _name_case_in_memory_errors(case.name):
            image, label = load_case(case, self.dataset.info)
            for target, provenance in missing:
                configuration = target.configuration
                prepared = preprocess_case(
                    image,
                    label,
                    axis_order=self.plan.axis_order,
                    configuration=configuration,
                    orientation=self.dataset.info.orientation,
                )
                if not is_own():
                    return
                save_case(
                    target.folder, case.name, prepared, patch_size=configuration.patch_size, provenance=provenance
                )


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


@contextmanager
def _name_case_in_memory_errors(name: str) -> Iterator[None]:
    """Turns a MemoryError into a message that names the case."""
    try:
        yield
    except MemoryError as error:
        raise DatasetError(
            f"case {name!r} does not fit into the memory", "check its spacing, crop it, or use a machine with more"
        ) from error
