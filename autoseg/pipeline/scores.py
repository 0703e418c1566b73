"""Scores: the best configuration, segmentations compared with references, and runs compared with each other."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoseg.evaluation.folders import check_ending, compare_folders, save_comparison
from autoseg.evaluation.paired import Comparison, compare_summaries
from autoseg.evaluation.scores import DEFAULT_TOLERANCE_MM
from autoseg.evaluation.summary import Summary, summary_file, summary_folder
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import check_configuration_names
from autoseg.runtime.lock import run_alone
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import find_workspace

if TYPE_CHECKING:
    from autoseg.models.best_model import BestModel


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

    All are compared on the same held-out cases: those of all folds, each segmented by the fold that was not trained on
    it. The decision is written to best.json, which `predict` follows from then on. A run that was stopped goes on.

    Args:
        number: Number of the dataset.
        configurations: Configurations that may be chosen; by default all of the plan, and all that are trained by plans
            beside the usual one. Those that are not trained in all folds are left out.
        ensembles: Whether pairs, whose probabilities are averaged, are tried as well.
        device: Device on which pairs predict: "auto", "cpu", "cuda" or "mps".
        plan_name: Name of a plan beside the usual one, whose configurations are then compared with no others.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress, and is told what is left out.

    Returns:
        The decision and its evidence, as it stands in best.json.

    Raises:
        DatasetError: There is no such dataset.
        UsageError: The dataset is not preprocessed as its plan says, or has no such configuration; or another run does
            the same.
        ProblemsError: No configuration is trained in all folds, with a line for each.
        ArtifactError: The plan or a file of the results is damaged, or the disk is full.

    Example:
        After all folds of two configurations were trained::

            best = autoseg.find_best(4)
            best.configurations
    """
    from autoseg.model_selection.candidates import open_model_selection
    from autoseg.model_selection.find_best import choose_best_model
    from autoseg.runtime.device import resolve_device

    check_configuration_names(configurations)
    ensemble_device = resolve_device(device) if ensembles else None
    folders = find_workspace(workspace).dataset(number, plan_name)
    selection = open_model_selection(number, folders, configurations)
    with run_alone(folders.models):
        best = choose_best_model(selection, ensemble_device, reporter)
        best.save(folders.best_model)
    return best


def evaluate(
    reference: str | os.PathLike[str],
    prediction: str | os.PathLike[str],
    *,
    labels: dict[str, int] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    missing: str = "skip",
    output: str | os.PathLike[str] | None = None,
    save: bool = True,
    reporter: Reporter = SILENT,
) -> Summary:
    """Compares a folder of segmentations with a folder of reference label maps, by file name; or two files.

    Writes summary.json and summary.csv into the folder of the segmentations; for two files only if `output` is given.

    Args:
        reference: Folder of reference label maps, or one label map.
        prediction: Folder of segmentations, each of which must have its reference; or one segmentation.
        labels: Name to number, the background left out; by default those of the dataset.json in or beside the folder of
            references or among the segmentations, else the numbers that the references hold.
        tolerance_mm: Distance up to which surfaces agree for NSD, the normalized surface Dice.
        missing: What is done with references without a segmentation: "skip" leaves them out and says so, "zero" counts
            them as empty segmentations, "fail" refuses them.
        output: Folder for summary.json and summary.csv; by default that of the segmentations.
        save: Whether to write them at all.
        reporter: Shows progress, and is told of missing segmentations and of labels that only one side has.

    Returns:
        The scores, as they stand in summary.json.

    Raises:
        UsageError: The tolerance is no distance, or `missing` is no choice.
        DatasetError: Nothing can be compared.
        ProblemsError: Pairs are damaged, lie on different grids or hold values that dataset.json does not name, or
            segmentations are missing that may not, with a line for each.
        WriteError: The folder cannot be written.

    Example:
        >>> import autoseg
        >>> labels = autoseg.make_demo_dataset("Dataset001_Demo", cases=2).folder / "labelsTr"
        >>> autoseg.evaluate(labels, labels).mean["liver"].dice
        1.0
    """
    summary = compare_folders(
        Path(reference), Path(prediction), labels, reporter, tolerance_mm=tolerance_mm, missing=missing
    )
    folder = summary_folder(Path(prediction), None if output is None else Path(output))
    if save and folder is not None:
        summary.write(folder)
    return summary


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Compares the scores of two runs, case by case, on the cases that both have.

    Args:
        first: A summary.json, or a folder that holds one: a folder of segmentations, or a model folder.
        second: The summary.json, or the folder, of the other run.
        output: File for the comparison: .csv for the table, .json for everything.

    Returns:
        For each label and metric: both means, the mean difference with its confidence interval, and a p value.

    Raises:
        UsageError: `output` ends neither in .csv nor in .json.
        ArtifactError: There is no such summary, or it is damaged.
        DatasetError: The two have no case or label in common, or were evaluated differently.
        WriteError: `output` cannot be written.

    Example:
        >>> import autoseg
        >>> labels = autoseg.make_demo_dataset("Dataset001_Demo", cases=2).folder / "labelsTr"
        >>> summary = autoseg.evaluate(labels, labels)
        >>> comparison = autoseg.compare(labels, labels)
        >>> comparison.cases, comparison.rows[0].metric, comparison.rows[0].difference
        (('demo_001', 'demo_002'), 'dice', 0.0)
    """
    if output is not None:
        check_ending(Path(output))  # before the comparison, which takes seconds
    runs = [Path(first), Path(second)]
    summaries = [Summary.load(summary_file(path) if path.is_dir() else path) for path in runs]
    comparison = compare_summaries(*summaries, names=(str(first), str(second)))
    if output is not None:
        save_comparison(comparison, Path(output))
    return comparison
