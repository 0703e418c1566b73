"""The values of label maps of which no dataset.json says what they mean."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autoseg.errors import DatasetError
from autoseg.evaluation.summary import SegmentedCase, score_case
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.placing import lay_on_grid
from autoseg.imaging.targets import Targets
from autoseg.imaging.volume_files.segment_file import read_segments
from autoseg.runtime.reporting import Reporter, list_names
from autoseg.runtime.thread_map import map_in_threads, results_or_raise


@dataclass(frozen=True, slots=True, kw_only=True)
class UnnamedLabels:
    """Labels that are named after the values which the references hold, whatever these are.

    Attributes:
        in_references: Values of the references, without 0, in order; each is a label.
        in_predictions: Value of the predictions that stands for each of them.
    """

    in_references: tuple[int, ...]
    in_predictions: tuple[int, ...]

    @property
    def targets(self) -> Targets:
        """The labels "label_1", "label_2", ..., with numbers from 1."""
        return Targets.of_labels({f"label_{value}": number for number, value in enumerate(self.in_references, start=1)})

    def read_reference(self, path: Path) -> Volume:
        """Reads a reference, with the numbers of `targets`."""
        return _number(read_label_map(path), self.in_references)

    def read_prediction(self, path: Path) -> Volume:
        """Reads a prediction, with the numbers of `targets`; values that no reference holds become 0."""
        return _number(read_label_map(path), self.in_predictions)


def find_unnamed_labels(
    pairs: Mapping[str, tuple[Path, Path]], unpredicted: Iterable[Path], reporter: Reporter
) -> UnnamedLabels:
    """Finds the values of all label maps, and says which of them only one side has.

    Decision: labels are those of the references, since what only predictions hold was not looked for. If each side has
    one value beside 0, such as 1 and 255, it is the same label.

    Args:
        pairs: Name to the paths of (reference, prediction).
        unpredicted: References without a prediction that count as well.
        reporter: Shows progress, and is told of differences.

    Raises:
        DatasetError: The references hold background only.
        ProblemsError: Files cannot be read, or lie on different grids; each has its line.
    """

    def find_values(name: str) -> tuple[set[int], set[int]]:
        files = pairs[name]
        reference, prediction = lay_segments((read_label_map(files[0]), read_label_map(files[1])), files)
        no_targets = Targets(structures={})  # so that only the grids are compared
        score_case(SegmentedCase(name=name, reference=reference, prediction=prediction, targets=no_targets))
        return set(np.unique(reference.array).tolist()), set(np.unique(prediction.array).tolist())

    names = list(pairs)
    values = results_or_raise(map_in_threads(find_values, names, title="looking for labels", reporter=reporter))
    in_references, in_predictions = (set().union(*sides) - {0} for sides in zip(*values, strict=True))
    for path in unpredicted:
        in_references |= set(np.unique(read_label_map(path).array).tolist()) - {0}
    references, predictions = tuple(sorted(in_references)), tuple(sorted(in_predictions))
    if not references:
        raise DatasetError("the reference label maps hold background only", "check the folder of references")
    if len(references) == len(predictions) == 1 and references != predictions:
        reporter.say(f"the only label is {references[0]} in the references and {predictions[0]} in the segmentations")
        return UnnamedLabels(in_references=references, in_predictions=predictions)
    for side, other, values_of_side in (
        ("segmentations", "reference", sorted(in_predictions - in_references)),
        ("references", "segmentation", sorted(in_references - in_predictions)),
    ):
        if values_of_side:
            consequence = "they count as background" if side == "segmentations" else "nothing of them was found"
            listed = list_names(map(str, values_of_side))
            reporter.say(f"the {side} also hold {listed}, which no {other} holds; {consequence}")
    return UnnamedLabels(in_references=references, in_predictions=references)


def lay_segments(pair: tuple[Volume, Volume], files: tuple[Path, Path]) -> tuple[Volume, Volume]:
    """Lays segmentations of 3D Slicer, which are cut to what was drawn, on the grid of the other label map.

    Args:
        pair: Reference and segmentation, shape (z, y, x) each.
        files: Their files.
    """
    reference, segmentation = pair
    if reference.geometry.difference(segmentation.geometry) is None:
        return pair
    if read_segments(files[0]):
        reference = lay_on_grid(reference, segmentation.geometry) or reference
    elif read_segments(files[1]):
        segmentation = lay_on_grid(segmentation, reference.geometry) or segmentation
    return reference, segmentation


def _number(label_map: Volume, values: tuple[int, ...]) -> Volume:
    """Replaces each value by its place among some values, counted from 1, and all others by 0."""
    ordered = np.sort(values)
    places = np.argsort(values) + 1
    nearest = np.minimum(np.searchsorted(ordered, label_map.array), len(ordered) - 1)
    numbers = np.where(ordered[nearest] == label_map.array, places[nearest], 0)
    return Volume(array=numbers.astype(np.int32), geometry=label_map.geometry)
