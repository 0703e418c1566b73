"""What `Model.analyse` returns: a segmentation with its measurements and checks, and maps on request."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autoseg.datasets.info import BACKGROUND
from autoseg.datasets.names import compose
from autoseg.errors import UsageError
from autoseg.imaging.geometry import Volume
from autoseg.inference.interfaces import ImagePrediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The segmentation of an image, its measurements and its quality checks.

    The segmentation and maps are of the same type as the image; see `Model.predict`.

    Attributes:
        segmentation: The label map or masks; see `Model.predict`.
        volumes_ml: Name of each structure to its volume in the segmentation; a plane counts as 1 mm thick.
        agreement: Name of each structure to how far folds and mirror images agree about it: the mean, 0 to 1, of the
            Dice between the segmentation of each of them and that of their average, before postprocessing. NaN if the
            latter holds none of the structure, or if the model is one fold without mirroring.
        remarks: Short sentences about what looks unlike the training cases, in the image or in the result; mostly none.
    """

    segmentation: Any
    volumes_ml: dict[str, float]
    agreement: dict[str, float]
    remarks: list[str]
    _prediction: ImagePrediction
    _restore: Callable[[Volume], Any]

    def probabilities(self, label: str) -> Any:
        """Returns the map of the probability of a label, 0 to 1, before postprocessing.

        Args:
            label: Name of the label; "background" too, unless the labels are regions or may overlap.

        Raises:
            UsageError: The model has no such label.
        """
        targets = self._prediction.targets
        outputs = ({BACKGROUND: 0} if targets.exclusive else {}) | targets.output_of
        label = compose(label)
        if label not in outputs:
            raise UsageError(f"the model has no label {label!r}", f"choose from {', '.join(outputs)}")
        [probability] = self._prediction.probabilities([outputs[label]])
        return self._restore(probability)

    def disagreement(self) -> Any:
        """Returns the map of the share, 0 to 1, of folds and mirror images that differ from the segmentation.

        None if the model is one fold without mirroring.
        """
        disagreement = self._prediction.disagreement()
        return None if disagreement is None else self._restore(disagreement)
