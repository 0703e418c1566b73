"""The interfaces that a single configuration and an ensemble of configurations share, from image to label map.

    ImageSegmenter   .prepare(image)   ->   PreparedImage   .predict()   ->   ImagePrediction   .segmentation()

`segmenter.Segmenter`, `segmenter.Prepared` and `prediction.Prediction` are those of a single configuration,
`ensemble.EnsembleSegmenter`, `EnsemblePrepared` and `EnsemblePrediction` those of several.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_files import SegmentationSource
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import Agreement
from autoseg.inference.crop import Crop
from autoseg.inference.sliding_window import OnProgress, ignore_progress
from autoseg.models.training_statistics import TrainingStatistics
from autoseg.runtime.arrays import Device


class ImagePrediction(SegmentationSource, Protocol):
    """The prediction of an image, from which its segmentation and its probabilities follow."""

    @property
    def agreement(self) -> Agreement:
        """How far folds and mirror images agree."""

    @property
    def crop(self) -> Crop | None:
        """What of the image was predicted; None for all of it."""

    def list_remarks(self, segmentation: Volume, targets: Targets) -> tuple[str, ...]:
        """Returns remarks about what was predicted of the image, given its segmentation; see `crop.list_remarks`."""

    def probabilities(self, outputs: Sequence[int]) -> Iterator[Volume]:
        """Yields maps of the probabilities of some outputs, 0 to 1, on the grid of the image; before postprocessing."""

    def disagreement(self) -> Volume | None:
        """Returns the share of votes, 0 to 1, that differ from their mean, on the grid of the image.

        None if it was not asked for; see `ImageSegmenter.with_disagreement`.
        """


class ResultWriter(Protocol):
    """Writes further files of a scan beside its segmentation, such as DICOM objects or meshes."""

    def list_files(self, scan: Case, maps: Mapping[int, str]) -> tuple[str, ...]:
        """Returns the paths of the files of a scan, from the folder of the results on; for `maps` see `write`."""

    def write(self, scan: Case, result: Path, output: Path, maps: Mapping[int, str]) -> None:
        """Writes the files of a scan.

        Args:
            scan: The scan.
            result: Its segmentation, which is written already.
            output: Folder of the results.
            maps: The outputs whose probabilities were written too, to the names of their files.

        Raises:
            ImageError: The files cannot be made of this scan.
            WriteError: A file cannot be written.
        """


class PreparedImage(Protocol):
    """An image that is preprocessed for the networks."""

    @property
    def logits_bytes(self) -> int:
        """The memory in bytes that the logits take in full precision."""

    def predict(self, on_progress: OnProgress = ignore_progress) -> ImagePrediction:
        """Runs the networks.

        Args:
            on_progress: Called with the share of the work, 0 to 1, that each step adds.

        Raises:
            ModelError: A network returned infinite values or NaN.
            AutosegError: The device's memory is full.
        """


class ImageSegmenter(Protocol):
    """A trained model in memory, ready to segment any number of images."""

    @property
    def info(self) -> DatasetInfo:
        """Channels and labels."""

    @property
    def device(self) -> Device:
        """Device of the networks."""

    @property
    def dataset(self) -> str:
        """Name of the dataset that the model was trained on."""

    @property
    def rules(self) -> PostprocessingRules:
        """Postprocessing of each segmentation."""

    @property
    def statistics(self) -> TrainingStatistics | None:
        """Statistics of the training cases, with which images and segmentations are compared."""

    @property
    def votes(self) -> int:
        """Number of predictions of each tile that are averaged and compared."""

    @property
    def maps_disagreement(self) -> bool:
        """Whether predictions have a map of disagreement."""

    @property
    def digest(self) -> str:
        """Sixteen characters that identify the model: its networks, its plan and its postprocessing."""

    def with_disagreement(self) -> Self:
        """Returns the same model, whose predictions have a map of disagreement as well."""

    def prepare(self, image: Volume) -> PreparedImage:
        """Preprocesses an image (c, z, y, x).

        Raises:
            ImageError: The image has another number of channels than the model, or colours outside 0 to 255.
        """

    def predict(self, image: Volume, on_progress: OnProgress = ignore_progress) -> ImagePrediction:
        """Preprocesses an image (c, z, y, x) and runs the networks; see `prepare` and `PreparedImage.predict`."""

    def segment(self, image: Volume, on_progress: OnProgress = ignore_progress) -> Volume:
        """Returns the label map (z, y, x), or the masks (structures, z, y, x), of an image on its grid."""
