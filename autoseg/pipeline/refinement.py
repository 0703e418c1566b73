"""Corrected label maps go back into a dataset, and its trained folds learn from them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autoseg.datasets.revisions import Revision
from autoseg.datasets.splits import Splits
from autoseg.pipeline.corrected_masks import (
    CorrectionSources,
    RefineRequest,
    choose_trained,
    enter_revision,
    make_revision,
    prepare_changed,
)
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import load_plan_and_splits, open_planned_dataset
from autoseg.runtime.lock import run_alone
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import Fold, find_workspace, list_folds

if TYPE_CHECKING:
    from autoseg.evaluation.summary import Summary
    from autoseg.model_selection.refined_folds import FoldOfRevision

FilePath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """What became of corrections.

    Attributes:
        revision: The record of what was corrected.
        summary: Scores of the held-out cases of all folds trained so far; None if nothing was trained.
        dice_before, dice_after: Mean Dice of the held-out cases that were held out before and after, and whose labels
            are the same; None if nothing was trained, or there is none.
        compared: Number of these cases.
    """

    revision: Revision
    summary: "Summary | None" = None
    dice_before: float | None = None
    dice_after: float | None = None
    compared: int = 0


def refine(
    number: int,
    source: FilePath | None = None,
    *,
    scans: FilePath | None = None,
    machine: FilePath | None = None,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] = (),
    extend: str | None = None,
    training: bool = True,
    device: str = "auto",
    plan_name: str | None = None,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Refinement:
    """Brings corrected label maps back into a dataset as a revision, and trains its folds on for a while.

    The label maps of before are kept, and so are those of the model and the folds as they were; see
    `datasets.revisions` and `model_selection.refined_folds`. Only changed cases are prepared again. Each fold goes on
    with its weights; cases that it held out stay held out, and each new case is held out in one fold. A run that was
    stopped goes on when it is called again, with or without `source`.

    Args:
        number: Number of the dataset.
        source: Folder of corrected label maps, by the names of cases or of scans; None to go on with the last revision.
        scans: Folder of the scans of new cases; by default that of the dataset's test scans.
        machine: Folder of the label maps as a model made them, such as one of `predict`; what was changed is counted
            against them, and their model is recorded.
        configuration: Which one goes on; by default the only one that is trained.
        folds: Its folds that go on; by default all that are trained.
        extend: Epochs, such as "50", or a time, such as "30m", by which each fold goes on; by default a tenth of its
            length. The learning rate falls once more, from where the longer schedule would be by then.
        training: Whether the folds go on now; else `train` can extend them later.
        device: See `train`.
        plan_name: Name of the plan, if it is not the usual one.
        workspace: See `train`.
        reporter: Shows progress and states results.

    Returns:
        The record of the revision, and the scores.

    Raises:
        ProblemsError: Corrected label maps are damaged, or do not fit their scan or the labels, with a line for each;
            nothing is changed then.
        UsageError: There is nothing to learn from, it is not clear which configuration is meant, or folds are not
            trained to their end.
        ModelError: A fold is not trained, or its checkpoint is damaged.
        DatasetError: There is no such dataset, or no folder of corrections.
        WriteError: The disk is full, or the workspace cannot be written.

    Example:
        After scans were predicted into "masks", and some of the masks were corrected in "corrected"::

            refinement = autoseg.refine(4, "corrected", scans="scans", machine="masks")
            refinement.revision.cases["liver_1"].changed_voxels
    """
    folders = find_workspace(workspace).dataset(number, plan_name)
    plan, splits = load_plan_and_splits(number, folders)
    request = RefineRequest(
        number=number,
        folders=folders,
        configuration=choose_trained(configuration, plan, folders),
        plan_name=plan_name,
        workspace=workspace,
        extend=extend,
        device=device,
    )
    sources = CorrectionSources(
        label_maps=None if source is None else as_path(source, "source"),
        scans=None if scans is None else as_path(scans, "scans"),
        machine=None if machine is None else as_path(machine, "machine"),
    )
    with run_alone(folders.preprocessed):
        revision = make_revision(request, sources, list_folds(folds), splits, reporter)
        both = enter_revision(revision, splits, folders, reporter)
    prepare_changed(request, plan, reporter)
    open_planned_dataset(number, folders, plan, both[1])
    prepared = _prepare_folds(request, list_folds(folds), revision, both)
    if not training:
        reporter.say(f"to train the folds on: autoseg refine -d {number}{folders.plan_option}")
        return Refinement(revision=revision)
    return _train_on(request, prepared, revision, reporter)


def _prepare_folds(
    request: RefineRequest, asked: Sequence[Fold], revision: Revision, splits: tuple[Splits, Splits]
) -> "list[FoldOfRevision]":
    """Keeps the folds as they were, and lets them go on with the cases of the revision."""
    from autoseg.model_selection.refined_folds import FoldState, list_folds_of_revision

    model = request.folders.model(request.configuration)
    folds = list_folds_of_revision(model, asked, revision.number, splits)
    waiting = [fold for fold in folds if fold.find_state() is FoldState.WAITING]
    for fold in waiting:
        fold.check()
    for fold in waiting:
        fold.prepare()
    return folds


def _train_on(
    request: RefineRequest, folds: "Sequence[FoldOfRevision]", revision: Revision, reporter: Reporter
) -> Refinement:
    """Trains the folds on, or to the end where a run was stopped, and compares their scores with those of before."""
    from autoseg.model_selection.refined_folds import FoldState, compare_scores
    from autoseg.pipeline import train

    summary = None
    for fold in folds:
        state = fold.find_state()
        if state is FoldState.DONE:
            reporter.say(f"fold {fold.fold} has learned from revision {revision.number} already")
        summary = train(
            request.number,
            request.configuration,
            fold.fold,
            extend=(request.extend or fold.default_length()) if state is FoldState.WAITING else None,
            device=request.device,
            plan_name=request.plan_name,
            workspace=request.workspace,
            reporter=reporter,
        )
    changed = [name for name, case in revision.cases.items() if not case.is_new]
    compared = compare_scores(folds, changed)
    if compared is None:
        return Refinement(revision=revision, summary=summary)
    before, after, cases = compared
    reporter.say(f"mean Dice of {cases} held-out cases before the revision {before:.4f}, after it {after:.4f}")
    return Refinement(revision=revision, summary=summary, dice_before=before, dice_after=after, compared=cases)
