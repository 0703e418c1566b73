"""Corrected label maps brought back into a dataset: revision, fingerprint, folds, and preprocessed cases."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.added_cases import add_to_splits
from autoseg.datasets.dataset import TEST_IMAGES, Dataset
from autoseg.datasets.fingerprinting import remeasure
from autoseg.datasets.revisions import Revision
from autoseg.datasets.scans import find_scans
from autoseg.datasets.splits import Splits
from autoseg.datasets.splitting import group_cases
from autoseg.errors import UsageError
from autoseg.evaluation.metrics import case_overlaps
from autoseg.imaging.targets import Targets
from autoseg.importing.corrections import (
    Corrections,
    find_corrected,
    finish_revisions,
    read_corrections,
    write_revision,
)
from autoseg.inference.scan_records import ScanRecords
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import choose_configurations, configurations_to_preprocess
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders, Fold

FilePath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RefineRequest:
    """What a user asked for.

    Attributes:
        number: Number of the dataset.
        folders: Its folders, as the plan that was named sees them.
        configuration: The configuration that goes on.
        plan_name, workspace, extend, device: See `refine`.
    """

    number: int
    folders: DatasetFolders
    configuration: ConfigurationName
    plan_name: str | None
    workspace: FilePath | None
    extend: str | None
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionSources:
    """The folders that a user gave.

    Attributes:
        label_maps, scans, machine: See `refine`.
    """

    label_maps: Path | None
    scans: Path | None
    machine: Path | None


def choose_trained(name: str | None, plan: Plan, folders: DatasetFolders) -> ConfigurationName:
    """Returns the configuration that was named, or the only one that is trained."""
    if name is not None:
        return choose_configurations(plan, [name])[0]
    trained = [name for name in plan.configurations if folders.model(name).trained_folds()]
    if len(trained) == 1:
        return trained[0]
    what = f"{' and '.join(trained)} are trained" if trained else f"no configuration of {plan.dataset} is trained"
    fix = "name one with -c" if trained else "train one with 'autoseg train', then refine it"
    raise UsageError(what, fix)


def make_revision(
    request: RefineRequest, sources: CorrectionSources, asked: Sequence[Fold], splits: Splits, reporter: Reporter
) -> Revision:
    """Writes a revision of what was corrected, or returns the last one if nothing was.

    Args:
        request: What a user asked for.
        sources: The folders that the user gave.
        asked: The folds that are to learn from it; empty for all that are trained.
        splits: The folds of the dataset.
        reporter: Shows progress, and is told what was corrected.

    Raises:
        UsageError: There is none, or folds are not ready to learn from one.
        ProblemsError: Corrected label maps cannot be used, with a line for each.
    """
    from autoseg.model_selection.refined_folds import list_folds_of_revision

    raw = request.folders.raw
    revisions = finish_revisions(raw, Dataset.open(raw).info.file_ending, reporter)
    dataset = Dataset.open(raw)
    if sources.label_maps is not None:
        corrections = _find_corrections(sources.label_maps, sources, dataset)
        read = read_corrections(corrections, dataset, _measure_dice, reporter)
        if read:
            model = request.folders.model(request.configuration)
            for fold in list_folds_of_revision(model, asked, len(revisions) + 1, (splits, splits)):
                fold.check()
            revisions.append(write_revision(read, corrections, dataset))
    elif sources.scans is not None or sources.machine is not None:
        raise UsageError("--scans and --machine belong to corrected masks", "give these with -i")
    if not revisions:
        raise UsageError("nothing was corrected, so there is nothing to learn from", "give corrected masks with -i")
    reporter.say(revisions[-1].describe())
    return revisions[-1]


def _measure_dice(label: NDArray[np.integer], reference: NDArray[np.integer], targets: Targets) -> Mapping[str, float]:
    return {name: overlap.dice for name, overlap in case_overlaps(reference, label, targets).items()}


def _find_corrections(source: Path, sources: CorrectionSources, dataset: Dataset) -> Corrections:
    """Finds the files that belong to corrected label maps."""
    label_maps = find_corrected(source, dataset)
    known = {case.name for case in dataset.cases}
    folder = dataset.folder / TEST_IMAGES if sources.scans is None else sources.scans
    looks = label_maps.keys() - known and (sources.scans is not None or folder.is_dir())
    scans = find_scans(folder, dataset.info) if looks else []
    if sources.machine is None:
        machine, models = {}, {}
    else:
        machine, records = find_corrected(sources.machine, dataset), ScanRecords(sources.machine)
        loaded = {name: records.load(name) for name in machine}
        models = {name: record.model for name, record in loaded.items() if record is not None}
    return Corrections(label_maps=label_maps, scans={case.name: case for case in scans}, machine=machine, models=models)


def enter_revision(
    revision: Revision, splits: Splits, folders: DatasetFolders, reporter: Reporter
) -> tuple[Splits, Splits]:
    """Brings a revision into fingerprint and folds; done twice, it changes nothing.

    Returns:
        The folds before the revision, and after it.
    """
    kept = folders.splits_before(revision.number)
    if kept.is_file():
        before = Splits.load(kept)
        if splits.names >= set(revision.new_cases):
            return before, splits
    else:
        dataset = Dataset.open(folders.raw)
        remeasure(dataset, list(revision.cases), folders, reporter)
        before = splits
        before.save(kept)
    dataset = Dataset.open(folders.raw)
    groups = group_cases([case.name for case in dataset.cases], dataset.info)
    after = add_to_splits(before, revision.new_cases, groups)
    after.save(folders.splits)
    return before, after


def prepare_changed(request: RefineRequest, plan: Plan, reporter: Reporter) -> None:
    """Prepares the changed cases of all configurations of the plan that are prepared."""
    from autoseg.pipeline import preprocess

    owners = configurations_to_preprocess(plan, list(plan.configurations))
    names = [name for name in owners if any(request.folders.cases(name).glob("*.zip"))]
    for name in configurations_to_preprocess(plan, [request.configuration]):
        if name not in names:
            names.append(name)
    preprocess(
        request.number,
        configurations=names,
        plan_name=request.plan_name,
        workspace=request.workspace,
        reporter=reporter,
    )
