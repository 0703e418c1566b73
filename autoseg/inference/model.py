"""The Python interface of a trained model: load it once, segment images one after the other.

model = autoseg.load_model("results/Dataset004_Hippocampus")     # what find_best chose; or .../3d_fullres
label_map = model.predict("scan.nii.gz")                         # SimpleITK image, on the grid of the scan
label_map = model.predict(array, spacing_mm=(3.0, 0.8, 0.8))     # array (z, y, x), like its input
label_map = model.predict(nibabel.load("scan.nii.gz"))           # image of nibabel, with the same affine

analysis = model.analyse("scan.nii.gz")
analysis.volumes_ml, analysis.agreement, analysis.remarks, analysis.probabilities("liver")
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained model in memory; see `load_model`. Predictions do not change it, so threads may share it.

    Attributes:
        segmenter: One configuration, or several that predict together.
    """

    segmenter: ImageSegmenter

    @property
    def labels(self) -> dict[str, int | tuple[int, ...]]:
        """Name of each label, the background included, to its number; to several numbers for a region."""
        return dict(self.segmenter.info.labels)

    @overload
    def predict(self, image: NDArray[np.generic], *, spacing_mm: Sequence[float]) -> NDArray[np.integer]: ...
    @overload
    def predict(self, image: "ImagePath | Sequence[ImagePath] | sitk.Image | Any") -> "sitk.Image | Any": ...

    def predict(self, image: Any, *, spacing_mm: Sequence[float] | None = None) -> Any:
        """Segments one image.

        A volume whose orientation is another than that of all training cases is reoriented for the networks, and its
        result oriented back.

        Args:
            image: A path; one path per channel; an image of SimpleITK (channels as vector components) or of nibabel
                (channels as fourth axis); or an array of shape (z, y, x) or (c, z, y, x), for a plane (y, x) or
                (c, 1, y, x), with the orientation of the training cases.
            spacing_mm: For an array: distance between voxels along (z, y, x), or (y, x) for a plane.

        Returns:
            The label map. For an array: an array of shape (z, y, x) or (y, x). For an image of nibabel: an image of
            nibabel with the same affine. Else: an image of SimpleITK with origin, spacing and direction of the input. A
            model whose structures may overlap returns a mask for each, in the order of `labels`: an array with one more
            axis, the first; an image of nibabel with one more axis, the last; or an image with as many components.

        Raises:
            ImageError: The image cannot be read, has the wrong number of channels or dimensions, or holds NaN; or an
                array came without the spacing of each axis.
        """
        converted = self._convert(image, spacing_mm)
        return converted.give_back(self.segmenter.segment(converted.volume))

    def analyse(self, image: Any, *, spacing_mm: Sequence[float] | None = None) -> Analysis:
        """Segments one image, measures its structures, and checks its quality; for the arguments see `predict`."""
        converted = self._convert(image, spacing_mm)
        prediction = self.segmenter.with_disagreement().predict(converted.volume)
        segmentation, statistics = prediction.segmentation(), self.segmenter.statistics
        properties = None if statistics is None else ImageProperties.of(converted.volume, statistics)
        agreement = prediction.agreement.structures
        check = check_quality(segmentation, prediction.targets, agreement, statistics, properties)
        return Analysis(
            segmentation=converted.give_back(segmentation),
            volumes_ml=check.volumes_ml,
            agreement=agreement,
            remarks=list(check.remarks),
            _prediction=prediction,
            _restore=converted.give_back,
        )

    def _convert(self, image: Any, spacing_mm: Sequence[float] | None) -> ConvertedImage:
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
    """Loads a trained configuration, or the configurations that `find_best` chose.

    Args:
        path: A model folder, such as ``results/Dataset004_Hippocampus/3d_fullres``; or a folder of several in which
            best.json says which of them predict, such as ``results/Dataset004_Hippocampus``. If a fold changed since
            that was written, a warning says so. Or a bundle, ``model.zip``, or the name of an installed model.
        folds: Folds whose predictions are averaged. By default all numbered folds that are trained to their end, or, if
            none is, those whose training has begun; "cv" means both. A model that was trained on "all" cases is taken
            if it is asked for, or if there is no other.
        device: "auto", "cpu", "cuda" or "mps".
        mirroring: Average over mirror images, which takes several times as long and is a little more accurate.
        exact: Calculate in float32, even where a lower precision is faster; see `pipeline.predict`.

    Returns:
        The model, on its device.

    Raises:
        ModelError: There is no trained fold, or not the one asked for, or a checkpoint is damaged.
        ArtifactError: postprocessing.json or best.json is damaged.
        UsageError: The device is not there, or folds are given beside best.json, which names them.
    """
    changed_folds: list[str] = []
    options = PredictionOptions(folds=folds, device=device, mirroring=mirroring, exact=exact)
    segmenter = load_segmenter(find_model(path), options, warn=changed_folds.append)
    for line in changed_folds:
        warnings.warn(line, stacklevel=2)
    return Model(segmenter=segmenter)
