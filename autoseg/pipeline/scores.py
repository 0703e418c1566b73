"""Scores: the best configuration, qualities of prediction, segmentations beside references, and runs compared."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from autoseg.datasets.dataset import Dataset
from autoseg.errors import UsageError
from autoseg.evaluation.folders import check_ending, compare_folders, save_comparison
from autoseg.evaluation.paired import Comparison, compare_summaries
from autoseg.evaluation.scores import DEFAULT_TOLERANCE_MM, Measures
from autoseg.evaluation.summary import Summary, summary_file, summary_folder
from autoseg.planning.plan import ConfigurationName
from autoseg.planning.plan_file import check_configuration_names
from autoseg.report.page import check_page, write_page
from autoseg.runtime.lock import run_alone
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.writable import check_place
from autoseg.workspace import Fold, dataset_of, find_workspace

if TYPE_CHECKING:
    from autoseg.models.best_model import BestModel
    from autoseg.models.quality_costs import QualityCosts


def find_best(
    number: int,
    *,
    configurations: Sequence[ConfigurationName] | None = None,
    ensembles: bool = True,
    metric: str = "dice",
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
        metric: What decides: the mean over the labels of "dice", "nsd" (the share of the surface within the tolerance)
            or "lesion_f1" (how many lesions are found, whatever their size). Postprocessing is chosen by Dice.
        device: Device on which pairs predict: "auto", "cpu", "cuda" or "mps".
        plan_name: Name of a plan beside the usual one, whose configurations are then compared with no others.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress, and is told what is left out.

    Returns:
        The decision and its evidence, as it stands in best.json.

    Raises:
        DatasetError: There is no such dataset.
        UsageError: The dataset is not preprocessed as its plan says, or has no such configuration, or there is no such
            metric; or another run does the same.
        ProblemsError: No configuration is trained in all folds, with a line for each.
        ArtifactError: The plan or a file of the results is damaged, or the disk is full.

    Example:
        After all folds of two configurations were trained::

            best = autoseg.find_best(4)
            best.configurations
    """
    from autoseg.model_selection.candidates import open_model_selection
    from autoseg.model_selection.find_best import choose_best_model
    from autoseg.models.best_model import MetricName
    from autoseg.runtime.device import resolve_device

    names = get_args(MetricName)
    check_configuration_names(configurations)
    if metric not in names:
        raise UsageError(f"there is no metric {metric!r} to choose by", f"choose from {', '.join(names)}")
    ensemble_device = resolve_device(device) if ensembles else None
    folders = find_workspace(workspace).dataset(number, plan_name)
    selection = open_model_selection(number, folders, configurations)
    with run_alone(folders.models):
        best = choose_best_model(selection, ensemble_device, reporter, metric=cast("MetricName", metric))
        best.save(folders.best_model)
    return best


def measure_quality(
    source: int | str | os.PathLike[str],
    *,
    configuration: ConfigurationName | None = None,
    folds: Fold | Sequence[Fold] | None = None,
    device: str = "auto",
    plan_name: str | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> "dict[str, QualityCosts]":
    """Measures what "fast", "balanced" and "best" of `predict` cost: work, and Dice on the cases that folds held out.

    Each fold segments the cases that it held out once by each quality, from their images, so this takes a little longer
    than its validation took. Each configuration is measured by itself, also if `find_best` chose a pair. The result is
    kept in quality_costs.json of the model folder; `export_model` packs it and shows it in the model card.

    Args:
        source: Number of the dataset that was trained: what `find_best` chose, else its only trained configuration; or
            a model folder among the results of a dataset.
        configuration: Configuration to measure, if several are trained, instead of what `find_best` chose.
        folds: Folds to measure; by default all that held cases out.
        device: Device of the networks: "auto", "cpu", "cuda" or "mps".
        plan_name: Name of the plan that was trained, if it is not the usual one.
        workspace: See `find_best`.
        reporter: Shows progress.

    Returns:
        Name of each configuration to its costs.

    Raises:
        UsageError: The model is no folder among the results of a dataset, or it is not clear which one is meant.
        ModelError: A fold is missing or damaged, or none held cases out.
        DatasetError, ImageError: A case or its label is missing or cannot be read.

    Example:
        ::

            costs = autoseg.measure_quality(4)["3d_fullres"]
            costs.qualities["fast"].foreground_mean_dice, costs.share_of_work("fast")
    """
    from autoseg.model_selection.quality_measurement import measure_quality_costs
    from autoseg.models.model_source import find_model, resolve_members, select_folds
    from autoseg.runtime.device import resolve_device

    path = find_model(source, configuration, plan_name=plan_name, workspace=workspace)
    folders = dataset_of(path)
    if folders is None or not path.is_dir():
        what = f"{path} is no folder among the results of a dataset, so its held-out cases are not known"
        raise UsageError(what, "measure the model where it was trained")
    dataset, chosen_device, costs = Dataset.open(folders.raw), resolve_device(device), {}
    for member in resolve_members(path, folds).members:
        measured = measure_quality_costs(
            dataset, member.folder, select_folds(member.folder, member.folds), chosen_device, reporter
        )
        measured.save(member.folder.quality_costs)
        costs[member.name or member.folder.path.name] = measured
    return costs


def evaluate(
    reference: str | os.PathLike[str],
    prediction: str | os.PathLike[str],
    *,
    labels: dict[str, int] | None = None,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
    centrelines: bool = False,
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
        centrelines: Whether to measure the centreline Dice of vessels and other thin structures as well.
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
    if save and output is not None:
        check_place(as_path(output, "output") / "summary.json")
    summary = compare_folders(
        as_path(reference, "reference"),
        as_path(prediction, "prediction"),
        labels,
        reporter,
        measures=Measures(tolerance_mm=tolerance_mm, centrelines=centrelines),
        missing=missing,
    )
    folder = summary_folder(Path(prediction), None if output is None else as_path(output, "output"))
    if save and folder is not None:
        summary.write(folder)
    return summary


def compare(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    number: int | None = None,
    workspace: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Comparison:
    """Compares the scores of two runs, case by case, on the cases that both have.

    Args:
        first: A summary.json, or a folder that holds one: a folder of segmentations, or a model folder.
        second: The summary.json, or the folder, of the other run.
        output: File for the comparison: .csv for the table, .json for everything.
        report: A page for the browser, which ends in ".html": differences, and the cases that changed with pictures.
        number: Number of the dataset whose scans the page shows; by default that whose results hold one of the runs.
        workspace: Where that dataset is; see `find_best`.
        reporter: Shows how far the page is.

    Returns:
        For each label and metric: both means, the mean difference with its confidence interval, and a p value.

    Raises:
        UsageError: `output` ends neither in .csv nor in .json, or `report` not in .html.
        ArtifactError: There is no such summary, or it is damaged.
        DatasetError: The two have no case or label in common, or were evaluated differently; or there is no dataset of
            that number.
        WriteError: `output` or `report` cannot be written.

    Example:
        >>> import autoseg
        >>> labels = autoseg.make_demo_dataset("Dataset001_Demo", cases=2).folder / "labelsTr"
        >>> summary = autoseg.evaluate(labels, labels)
        >>> comparison = autoseg.compare(labels, labels)
        >>> comparison.cases, comparison.rows[0].metric, comparison.rows[0].difference
        (('demo_001', 'demo_002'), 'dice', 0.0)
    """
    if output is not None:
        check_ending(as_path(output, "output"))  # before the comparison, which takes seconds
        check_place(as_path(output, "output"))
    page = None if report is None else check_page(as_path(report, "report"))
    runs = [as_path(first, "first"), as_path(second, "second")]
    files = [summary_file(path) if path.is_dir() else path for path in runs]
    summaries = [Summary.load(file) for file in files]
    comparison = compare_summaries(*summaries, names=(str(first), str(second)))
    if output is not None:
        save_comparison(comparison, Path(output))
    if page is not None:
        from autoseg.report.comparison_report import RunScores, make_comparison_page
        from autoseg.report.run_files import find_dataset

        check_place(page)
        dataset = find_dataset([file.parent for file in files], number, find_workspace(workspace))
        compared = tuple(
            RunScores(folder=file.parent, summary=summary) for file, summary in zip(files, summaries, strict=True)
        )
        write_page(page, make_comparison_page(comparison, compared, dataset, reporter))
    return comparison
