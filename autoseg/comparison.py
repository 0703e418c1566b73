"""Two folders of label maps on disk, compared pair by pair."""

from pathlib import Path

import numpy as np

from autoseg.errors import DatasetError
from autoseg.evaluation.summary import CaseResult, Summary, evaluate_case, summarize
from autoseg.imageio import read_label_map
from autoseg.inference.results import load_result
from autoseg.parallel import all_sound, work_on_each
from autoseg.reporting import Reporter
from autoseg.scans import check_values, find_info, pair_label_maps
from autoseg.targets import Targets


def compare_folders(reference: Path, prediction: Path, labels: dict[str, int] | None, reporter: Reporter) -> Summary:
    """Compares every segmentation of a folder with the reference of the same name.

    Args:
        reference: Folder of reference label maps.
        prediction: Folder of segmentations.
        labels: Name to number; None takes those of a dataset.json beside either, else the numbers that are found.
        reporter: Shows progress.

    Raises:
        DatasetError: Nothing can be compared.
        ProblemsError: Pairs cannot be compared, each with its line.
    """
    pairs = pair_label_maps(reference, prediction)
    info = None if labels else find_info(reference, prediction)
    chosen = info.targets if info else Targets.of_labels(labels or _number_labels(pairs, reporter))

    def compare(name: str) -> CaseResult:
        truth, of_truth = load_result(pairs[name][0], chosen)
        guess, known = load_result(pairs[name][1], of_truth)  # so that a number means the same in both
        files = dict(zip(("reference_file", "prediction_file"), (path.name for path in pairs[name]), strict=True))
        if info:
            check_values(pairs[name], (truth, guess), known)
        result = evaluate_case(name, truth, guess, known, **files)
        return result.without(info.unknown_in(name)) if info else result

    return summarize(all_sound(work_on_each(compare, list(pairs), title="comparing", reporter=reporter)), chosen.names)


def _number_labels(pairs: dict[str, tuple[Path, Path]], reporter: Reporter) -> dict[str, int]:
    """Names the labels by the numbers that the references hold: "label_1", "label_2", ..."""

    def find_numbers(name: str) -> set[int]:
        truth, guess = (read_label_map(path) for path in pairs[name])
        evaluate_case(name, truth, guess, Targets(structures={}))  # whether they can be compared at all
        return set(np.unique(truth.array).tolist())

    found = all_sound(work_on_each(find_numbers, list(pairs), title="looking for labels", reporter=reporter))
    numbers = sorted(set().union(*found) - {0})
    if not numbers:
        raise DatasetError("the reference label maps hold background only", "check the folder of references")
    return {f"label_{number}": number for number in numbers}
