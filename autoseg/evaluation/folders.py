"""Comparison of two folders of label maps, and the file of a comparison of two runs."""

import math
from pathlib import Path

import numpy as np

from autoseg.datasets.scans import check_values, find_info, pair_label_maps
from autoseg.errors import DatasetError, UsageError
from autoseg.evaluation.paired import Comparison
from autoseg.evaluation.scores import DEFAULT_TOLERANCE_MM
from autoseg.evaluation.summary import CaseResult, SegmentedCase, Summary, score_case, summarize
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.label_files import load_result
from autoseg.imaging.targets import Targets
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise


def compare_folders(
    reference: Path,
    prediction: Path,
    labels: dict[str, int] | None,
    reporter: Reporter,
    *,
    tolerance_mm: float = DEFAULT_TOLERANCE_MM,
) -> Summary:
    """Compares each segmentation of a folder with the reference of the same name.

    Args:
        reference: Folder of reference label maps.
        prediction: Folder of segmentations.
        labels: Name of each label to its number. None takes the labels of a dataset.json in or beside either folder, or
            else the numbers that occur in the references.
        reporter: Shows progress.
        tolerance_mm: Tolerance of NSD.

    Raises:
        UsageError: The tolerance is negative or not finite.
        DatasetError: There is nothing to compare.
        ProblemsError: Pairs cannot be compared; each has its line.
    """
    if not 0 <= tolerance_mm < math.inf:
        raise UsageError(f"{tolerance_mm:g} mm is no tolerance", "take a distance such as 1 or 2.5")
    pairs = pair_label_maps(reference, prediction)
    info = None if labels else find_info(reference, prediction)
    targets = info.targets if info else Targets.of_labels(labels or _number_labels(pairs, reporter))

    def compare(name: str) -> CaseResult:
        reference_file, prediction_file = pairs[name]
        ground_truth, reference_targets = load_result(reference_file, targets)
        segmentation, both_targets = load_result(prediction_file, reference_targets)  # a number means the same in both
        if info:
            check_values(pairs[name], (ground_truth, segmentation), both_targets)
        case = SegmentedCase(
            name=name,
            reference=ground_truth,
            prediction=segmentation,
            targets=both_targets,
            unannotated=info.unannotated_in(name) if info else (),
            reference_file=reference_file.name,
            prediction_file=prediction_file.name,
        )
        return score_case(case, tolerance_mm=tolerance_mm)

    results = results_or_raise(map_in_threads(compare, list(pairs), title="comparing", reporter=reporter))
    return summarize(results, targets.names, tolerance_mm=tolerance_mm)


def save_comparison(comparison: Comparison, path: Path) -> None:
    """Writes a comparison: as a table if the name of the file ends in .csv, completely if it ends in .json.

    Args:
        comparison: The comparison.
        path: Path of the file.

    Raises:
        UsageError: The name has another ending.
        WriteError: The file cannot be written.
    """
    writers = {".csv": comparison.save_csv, ".json": comparison.save}
    check_ending(path)
    writers[path.suffix.lower()](path)


def check_ending(path: Path) -> None:
    """Checks that the name of a file for a comparison ends in .csv or in .json.

    Raises:
        UsageError: It has another ending.
    """
    if path.suffix.lower() not in (".csv", ".json"):
        raise UsageError(
            f"{path} is neither a .csv nor a .json file", "name the file COMPARISON.csv or COMPARISON.json"
        )


def _number_labels(pairs: dict[str, tuple[Path, Path]], reporter: Reporter) -> dict[str, int]:
    """Names the labels after the numbers that occur in the references: "label_1", "label_2", ..."""

    def find_numbers(name: str) -> set[int]:
        reference, prediction = (read_label_map(path) for path in pairs[name])
        no_targets = Targets(structures={})  # so that only the grids are compared
        score_case(SegmentedCase(name=name, reference=reference, prediction=prediction, targets=no_targets))
        return set(np.unique(reference.array).tolist())

    numbers_of_cases = map_in_threads(find_numbers, list(pairs), title="looking for labels", reporter=reporter)
    numbers = sorted(set().union(*results_or_raise(numbers_of_cases)) - {0})
    if not numbers:
        raise DatasetError("the reference label maps hold background only", "check the folder of references")
    return {f"label_{number}": number for number in numbers}
