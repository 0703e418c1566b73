"""Comparison of two folders of label maps, and the file of a comparison of two runs."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoseg.datasets.scans import PairedLabelMaps, check_values, find_info, pair_label_maps
from autoseg.errors import ProblemsError, UsageError
from autoseg.evaluation.paired import Comparison
from autoseg.evaluation.scores import USUAL_MEASURES, Measures
from autoseg.evaluation.summary import CaseResult, SegmentedCase, Summary, score_case, summarize
from autoseg.evaluation.values import find_unnamed_labels, lay_segments
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_files import load_result
from autoseg.imaging.targets import Targets
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise

MISSING = ("skip", "zero", "fail")
"""What is done with references without a segmentation: left out, counted as empty segmentations, or refused."""


def compare_folders(
    reference: Path,
    prediction: Path,
    labels: dict[str, int] | None,
    reporter: Reporter,
    *,
    measures: Measures = USUAL_MEASURES,
    missing: str = "skip",
) -> Summary:
    """Compares each segmentation of a folder with the reference of the same name, or two files.

    Args:
        reference: Folder of reference label maps, or one of them.
        prediction: Folder of segmentations, or one of them.
        labels: Name of each label to its number. None takes the labels of a dataset.json in or beside either folder, or
            else the numbers that occur in the references.
        reporter: Shows progress, and is told what is left out.
        measures: How they are measured.
        missing: One of `MISSING`.

    Raises:
        UsageError: The tolerance is negative or not finite, or `missing` is none of the choices.
        DatasetError: There is nothing to compare.
        ProblemsError: Pairs cannot be compared, or segmentations are missing and may not; each has its line.
    """
    if not 0 <= measures.tolerance_mm < math.inf:
        raise UsageError(f"{measures.tolerance_mm:g} mm is no tolerance", "take a distance such as 1 or 2.5")
    if missing not in MISSING:
        raise UsageError(f"missing segmentations cannot be treated by {missing!r}", f"choose {', '.join(MISSING)}")
    paired = pair_label_maps(reference, prediction)
    _say_missing(paired, missing, prediction, reporter)
    info = None if labels else find_info(reference, prediction)
    counted = paired.unpredicted if missing == "zero" else {}
    unnamed = None if info or labels else find_unnamed_labels(paired.pairs, counted.values(), reporter)
    targets = unnamed.targets if unnamed else info.targets if info else Targets.of_labels(labels or {})

    def compare(name: str) -> CaseResult:
        ground_truth, segmentation, both_targets = read_pair(name)
        files = paired.pairs[name] if name in paired.pairs else (paired.unpredicted[name], Path())
        if info:
            check_values(files, (ground_truth, segmentation), both_targets)
        case = SegmentedCase(
            name=name,
            reference=ground_truth,
            prediction=segmentation,
            targets=both_targets,
            unannotated=info.unannotated_in(name) if info else (),
            reference_file=files[0].name,
            prediction_file=files[1].name,
        )
        return score_case(case, measures)

    def read_pair(name: str) -> tuple[Volume, Volume, Targets]:
        if name in paired.unpredicted:
            path = paired.unpredicted[name]
            ground_truth, of_case = (unnamed.read_reference(path), targets) if unnamed else load_result(path, targets)
            return ground_truth, replace(ground_truth, array=np.zeros_like(ground_truth.array)), of_case
        reference_file, prediction_file = paired.pairs[name]
        if unnamed:
            pair = unnamed.read_reference(reference_file), unnamed.read_prediction(prediction_file)
            return *lay_segments(pair, paired.pairs[name]), targets
        ground_truth, reference_targets = load_result(reference_file, targets)
        segmentation, both_targets = load_result(prediction_file, reference_targets)  # a number means the same in both
        return *lay_segments((ground_truth, segmentation), paired.pairs[name]), both_targets

    names = sorted([*paired.pairs, *counted])
    results = results_or_raise(map_in_threads(compare, names, title="comparing", reporter=reporter))
    return summarize(results, targets.names, tolerance_mm=measures.tolerance_mm)


def _say_missing(paired: PairedLabelMaps, missing: str, prediction: Path, reporter: Reporter) -> None:
    """Says which references have no segmentation and what becomes of them.

    Raises:
        ProblemsError: They may not be missing, with a line for each.
    """
    if not paired.unpredicted:
        return
    if missing == "fail":
        raise ProblemsError(
            [
                f"{path} has no segmentation in {prediction}; bring it, or choose --missing skip or zero"
                for path in paired.unpredicted.values()
            ]
        )
    count, whole = len(paired.unpredicted), len(paired.pairs) + len(paired.unpredicted)
    done = "they are left out of all means (--missing zero counts them)" if missing == "skip" else "they count as empty"
    reporter.say(f"{count} of {whole} references have no segmentation: {list_names(paired.unpredicted)}; {done}")


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
