"""A trained model from Python: load it once, segment images one after the other.

model = autoseg.load_model("results/Dataset004_Hippocampus")     # what find_best chose; or .../3d_fullres
label_map = model.predict("scan.nii.gz")                         # SimpleITK image, on the scan's grid
label_map = model.predict(array, spacing_mm=(3.0, 0.8, 0.8))     # array (z, y, x), as given
label_map = model.predict(nibabel.load("scan.nii.gz"))           # image of nibabel, with the same affine

found = model.analyse("scan.nii.gz")
found.volumes_ml, found.agreement, found.remarks, found.probabilities("liver")
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.info import BACKGROUND
from autoseg.errors import UsageError
from autoseg.imaging.conversion import ConvertedImage, ImagePath, convert_to_volume
from autoseg.imaging.geometry import Volume
from autoseg.inference.interfaces import ImagePrediction, ImageSegmenter
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.quality_checks import ImageProperties, check_quality
from autoseg.models.model_source import find_model
from autoseg.workspace import Fold

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """All that a model says of an image. Maps are of the kind of the image, as `Model.predict` returns it.

    Attributes:
        segmentation: See `Model.predict`.
        volumes_ml: Name of each structure to its volume in the segmentation; a plane counts as 1 mm thick.
        agreement: Name of each structure to how far folds and mirror images agree about it: the mean Dice, 0 to 1, of
            what each of them found with what they found together, before postprocessing. NaN if that is nothing, or
            if the model is one fold without mirroring.
        remarks: Short sentences about what looks unlike training, in the image or in the result; mostly none.
    """

    segmentation: Any
    volumes_ml: dict[str, float]
    agreement: dict[str, float]
    remarks: list[str]
    _prediction: ImagePrediction
    _give_back: Callable[[Volume], Any]

    def probabilities(self, label: str) -> Any:
        """The probability of a label, 0 to 1, before postprocessing; also that of "background" if labels exclude it.

        Raises:
            UsageError: The model has no such label.
        """
        targets = self._prediction.targets
        known = ({BACKGROUND: 0} if targets.exclusive else {}) | targets.output_of
        if label not in known:
            raise UsageError(f"the model has no label {label!r}", f"choose from {', '.join(known)}")
        [found] = self._prediction.probabilities([known[label]])
        return self._give_back(found)

    def disagreement(self) -> Any:
        """The share, 0 to 1, of folds and mirror images that would have decided otherwise; None if there is but one."""
        found = self._prediction.disagreement()
        return None if found is None else self._give_back(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Trained configurations in memory, mostly one. Predictions do not change them: threads may share a model."""

    segmenter: ImageSegmenter

    @property
    def labels(self) -> dict[str, int | tuple[int, ...]]:
        """Name to number of every label, the background included; to several numbers for a region."""
        return dict(self.segmenter.info.labels)

    @overload
    def predict(self, image: NDArray[np.generic], *, spacing_mm: Sequence[float]) -> NDArray[np.integer]: ...
    @overload
    def predict(self, image: "ImagePath | Sequence[ImagePath] | sitk.Image | Any") -> "sitk.Image | Any": ...

    def predict(self, image: Any, *, spacing_mm: Sequence[float] | None = None) -> Any:
        """Segments one image.

        A volume whose axes lead elsewhere than those of all training cases is turned for the networks, and its result
        turned back.

        Args:
            image: A path; one path per channel; an image of SimpleITK (channels as vector components) or of nibabel
                (channels as fourth axis); or an array of shape (z, y, x) or (c, z, y, x), for a plane (y, x) or
                (c, 1, y, x), whose axes lead where those of the training cases do.
            spacing_mm: Of an array: distance between voxels along (z, y, x), or (y, x) for a plane.

        Returns:
            Label map: an array of shape (z, y, x), or (y, x), for an array; an image of nibabel with the same affine
            for one of nibabel; else an image of SimpleITK in the place of the input. A model whose structures may
            overlap gives a mask for each, in the order of `labels`: an array with one axis more, the first; an image of
            nibabel with one axis more, the last; or an image with as many components.

        Raises:
            ImageError: The image cannot be read, has the wrong number of channels or dimensions, or holds NaN; or an
                array came without the spacing of each axis.
        """
        taken = self._take(image, spacing_mm)
        return taken.give_back(self.segmenter.segment(taken.volume))

    def analyse(self, image: Any, *, spacing_mm: Sequence[float] | None = None) -> Analysis:
        """Segments one image, and says what it measures, how sure that is, and what looks odd; see `predict`."""
        taken = self._take(image, spacing_mm)
        prediction = self.segmenter.with_disagreement().predict(taken.volume)
        segmentation, statistics = prediction.segmentation(), self.segmenter.statistics
        properties = None if statistics is None else ImageProperties.of(taken.volume, statistics)
        agreement = prediction.agreement.structures
        check = check_quality(segmentation, prediction.targets, agreement, statistics, properties)
        return Analysis(
            segmentation=taken.give_back(segmentation),
            volumes_ml=check.volumes_ml,
            agreement=agreement,
            remarks=list(check.remarks),
            _prediction=prediction,
            _give_back=taken.give_back,
        )

    def _take(self, image: Any, spacing_mm: Sequence[float] | None) -> ConvertedImage:
        statistics = self.segmenter.statistics
        return convert_to_volume(image, spacing_mm, None if statistics is None else statistics.orientation)


def load_model(
    path: ImagePath,
    *,
    folds: Fold | Sequence[Fold] | None = None,
    device: str = "auto",
    mirroring: bool = True,
    exact: bool = False,
) -> Model:
    """Loads a trained configuration, or those that `find_best` chose.

    Args:
        path: A model folder, such as ``results/Dataset004_Hippocampus/3d_fullres``; or a folder of several in which
            best.json says which of them predict, such as ``results/Dataset004_Hippocampus``. If a fold changed since
            that was written, a warning says so. Or a bundle, ``model.zip``, or the name of an installed model.
        folds: Which to average. By default all numbers that are trained to their end, or, if none is, those that are
            begun; for "cv" both. A model of "all" cases is taken if it is asked for, or the only one.
        device: "auto", "cpu", "cuda" or "mps".
        mirroring: Average over mirror images, which takes several times as long and is a little more accurate.
        exact: Calculate in float32, whatever is faster; see `pipeline.predict`.

    Raises:
        ModelError: There is no trained fold, or not the one asked for, or a checkpoint is damaged.
        ArtifactError: postprocessing.json or best.json is damaged.
        UsageError: The device is not there, or folds are given beside best.json, which names them.
    """
    changes: list[str] = []
    options = PredictionOptions(folds=folds, device=device, mirroring=mirroring, exact=exact)
    segmenter = load_segmenter(find_model(path), options, warn=changes.append)
    for line in changes:
        warnings.warn(line, stacklevel=2)
    return Model(segmenter=segmenter)
