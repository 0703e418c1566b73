"""Scores: segmentations compared with references, runs compared with each other, the best configuration found."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.evaluation.folders import compare_folders
from autoseg.evaluation.paired import Comparison, compare_summaries
from autoseg.evaluation.scores import DEFAULT_TOLERANCE_MM
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import check_names
from autoseg.runtime.lock import run_alone
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import find_workspace

if TYPE_CHECKING:
    from autoseg.models.best_model import BestModel


def compare_runs(first: Path, second: Path) -> Comparison:
    """Compares the scores of two runs on the cases that both have.

    Args:
        first: A summary.json, or a folder that holds one: of segmentations, or a model folder.
        second: Another.

    Raises:
        ArtifactError: There is no such file, or it is damaged.
        DatasetError: The two cannot be compared.
    """
    one, other = (Summary.load(summary_file(path) if path.is_dir() else path) for path in (first, second))
    return compare_summaries(one, other, names=(str(first), str(second)))


def find_best(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    ensembles: bool = True,
    device: str = "auto",
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> "BestModel":
    """Finds out which trained configuration, or pair of them, is best, and what postprocessing helps it.

    All are judged on the same held-out cases: those of all folds, each segmented by the fold that never saw it. The
    decision is written to best.json, by which `predict` goes from then on. A run that was stopped goes on.

    Args:
        number: Of the dataset.
        configurations: Which may be chosen; by default all of the plan, and what is trained by plans beside the usual
            one. Those that are not trained in all folds are left out.
        ensembles: Whether pairs are tried as well, whose probabilities are averaged.
        device: Where pairs predict: "auto", "cpu", "cuda" or "mps".
        plan_name: Of a plan beside the usual one, whose configurations are then compared with no others.
        workspace: See `find_workspace`.
        reporter: Shows progress, and is told what is left out.

    Returns:
        The decision and its evidence, as it stands in best.json.

    Raises:
        DatasetError: There is no such dataset.
        UsageError: It is not preprocessed as its plan says, or has no such configuration; or another run does the same.
        ProblemsError: No configuration is trained in all folds; each has its line.
        ArtifactError: A file of plan or results is damaged, or the disk is full.
    """
    from autoseg.model_selection.candidates import open_model_selection
    from autoseg.model_selection.find_best import choose_best_model
    from autoseg.runtime.device import resolve_device

    check_names(configurations)
    place = resolve_device(device) if ensembles else None
    folders = find_workspace(workspace).dataset(number, plan_name)
    selection = open_model_selection(number, folders, configurations)
    with run_alone(folders.models):
        choice = choose_best_model(selection, place, reporter)
        choice.save(folders.best_model)
    return choice


def evaluate(
    reference: str | os.PathLike[str],
    prediction: str | os.PathLike[str],
    *,
    labels: dict[str, int] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    reporter: Reporter = SILENT,
) -> Summary:
    """Compares a folder of segmentations with a folder of reference label maps, by file name.

    Writes summary.json and summary.csv into the folder of the segmentations.

    Args:
        reference: Label maps.
        prediction: Segmentations; each must have its reference, but references may have none.
        labels: Name to number, the background left out; by default those of the dataset.json in or beside the folder of
            references or among the segmentations, else the numbers that the references hold.
        tolerance_mm: How far surfaces may be apart for NSD, the normalized surface Dice.
        reporter: Shows progress.

    Returns:
        The scores, as they stand in summary.json.

    Raises:
        UsageError: The tolerance is no distance.
        DatasetError: Nothing can be compared.
        ProblemsError: Pairs are damaged, lie on different grids or hold values that dataset.json does not name; each
            has its line.
    """
    summary = compare_folders(Path(reference), Path(prediction), labels, reporter, tolerance_mm=tolerance_mm)
    summary.write(Path(prediction))
    return summary
