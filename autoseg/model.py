"""A trained model from Python: load it once, segment images one after the other.

model = autoseg.load_model("results/Dataset004_Hippocampus/3d_fullres")
label_map = model.predict("scan.nii.gz")                         # SimpleITK image, on the scan's grid
label_map = model.predict(array, spacing_mm=(3.0, 0.8, 0.8))     # array (z, y, x), as given
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from autoseg.checkpoint import load_checkpoint
from autoseg.device import resolve_device
from autoseg.errors import ImageError, ModelError
from autoseg.geometry import Geometry, Volume
from autoseg.imageio import from_sitk, read_image, to_sitk
from autoseg.inference.case import Segmenter, make_segmenter
from autoseg.postprocessing import NO_RULES, PostprocessingRules
from autoseg.workspace import Fold, ModelFolder, list_folds

if TYPE_CHECKING:
    import SimpleITK as sitk

ImagePath = str | PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained configuration in memory. Predictions do not change it: threads may share one."""

    segmenter: Segmenter

    @property
    def labels(self) -> dict[str, int | tuple[int, ...]]:
        """Name to number of every label, the background included; to several numbers for a region."""
        return dict(self.segmenter.info.labels)

    @overload
    def predict(self, image: NDArray[np.generic], *, spacing_mm: Sequence[float]) -> NDArray[np.integer]: ...
    @overload
    def predict(self, image: "ImagePath | Sequence[ImagePath] | sitk.Image") -> "sitk.Image": ...

    def predict(
        self,
        image: "NDArray[np.generic] | ImagePath | Sequence[ImagePath] | sitk.Image",
        *,
        spacing_mm: Sequence[float] | None = None,
    ) -> "NDArray[np.integer] | sitk.Image":
        """Segments one image.

        Args:
            image: A path; one path per channel; an image of SimpleITK (channels as vector components); or an array of
                shape (z, y, x) or (c, z, y, x), for a plane (y, x) or (c, 1, y, x).
            spacing_mm: Of an array: distance between voxels along (z, y, x), or (y, x) for a plane.

        Returns:
            Label map: an array of shape (z, y, x), or (y, x), for an array; else an image of SimpleITK in the place of
            the input. A model whose structures may overlap gives a mask for each, in the order of `labels`: an array
            with one axis more, the first, or an image with as many components.

        Raises:
            ImageError: The image cannot be read, has the wrong number of channels or dimensions, or holds NaN; or an
                array came without the spacing of each axis.
        """
        if isinstance(image, np.ndarray):
            volume = _volume_of_array(image, spacing_mm)
            segmented = self.segmenter.segment(volume).array
            return segmented[..., 0, :, :] if image.ndim == 2 else segmented
        return to_sitk(self.segmenter.segment(_read(image)))


def load_model(path: ImagePath, *, folds: Fold | Sequence[Fold] | None = None, device: str = "auto") -> Model:
    """Loads a trained configuration.

    Args:
        path: A model folder, such as ``results/Dataset004_Hippocampus/3d_fullres``.
        folds: Which to average. By default all numbers that are trained to their end, or, if none is, those that are
            begun; for "cv" both. A model of "all" cases is taken if it is asked for, or the only one.
        device: "auto", "cpu", "cuda" or "mps".

    Raises:
        ModelError: There is no trained fold, or not the one asked for, or a checkpoint is damaged.
        ArtifactError: postprocessing.json is damaged.
        UsageError: The device is not there.
    """
    return Model(segmenter=load_segmenter(ModelFolder(path=Path(path)), folds=folds, device=device))


def load_segmenter(folder: ModelFolder, *, folds: Fold | Sequence[Fold] | None, device: str) -> Segmenter:
    """Loads the ensemble of some folds of a model folder; see `load_model`."""
    trained = folder.trained_folds()
    if not trained:
        raise ModelError(f"{folder.path} holds no trained fold", "train one with 'autoseg train', or check the path")
    numbers = [fold for fold in trained if fold != "all"] or trained
    asked = [] if folds is None else list_folds(folds)
    chosen = numbers if not asked or "cv" in asked else list(dict.fromkeys(asked))
    missing = [fold for fold in chosen if fold not in trained]
    if missing:
        present = ", ".join(map(str, trained))
        raise ModelError(f"fold {missing[0]} of {folder.path} is not trained (there: {present})", "choose with -f")
    rules = PostprocessingRules.load(folder.postprocessing) if folder.postprocessing.is_file() else NO_RULES
    checkpoints = [load_checkpoint(folder.checkpoint(fold)) for fold in chosen]
    if not asked:  # a fold whose training goes on has no say, unless there is no other
        checkpoints = [checkpoint for checkpoint in checkpoints if checkpoint.finished] or checkpoints
    former = checkpoints[0].configuration.previous
    previous = None
    if former is not None:
        beside = ModelFolder(path=folder.path.with_name(former))
        if not beside.trained_folds():
            what = f"{folder.path} is a cascade, which needs the model of {former} beside it"
            raise ModelError(what, f"copy or train {beside.path}")
        previous = load_segmenter(beside, folds=None, device=device)
    return make_segmenter(checkpoints, rules, resolve_device(device), previous=previous)


def _read(image: "ImagePath | Sequence[ImagePath] | sitk.Image") -> Volume:
    if isinstance(image, str | PathLike):
        return read_image((Path(image),))
    if isinstance(image, Sequence):
        return read_image(tuple(Path(path) for path in image))
    try:
        return _as_float(from_sitk(image))
    except ValueError as error:
        raise ImageError(str(error), "give one volume or plane") from error


def _volume_of_array(array: NDArray[np.generic], spacing_mm: Sequence[float] | None) -> Volume:
    """Places (y, x), (z, y, x) or (c, z, y, x) in space."""
    if array.ndim not in (2, 3, 4):
        raise ImageError(f"an array of shape {array.shape} is no image", "give (z, y, x) or (c, z, y, x)")
    spaced = array.reshape((1,) * (4 - array.ndim) + array.shape)
    _, z, y, x = spaced.shape
    steps = [] if spacing_mm is None else [float(step) for step in spacing_mm]
    if len(steps) == 2 and z == 1:
        steps.insert(0, max(steps))  # as `imageio` places planes
    if len(steps) != 3 or not all(0 < step < math.inf for step in steps):
        raise ImageError(f"an array needs its spacing, not {spacing_mm}", "pass spacing_mm=(z, y, x) in millimetres")
    z_mm, y_mm, x_mm = steps
    return _as_float(Volume(array=spaced, geometry=Geometry(shape=(z, y, x), spacing_mm=(z_mm, y_mm, x_mm))))


def _as_float(volume: Volume) -> Volume:
    array = volume.array.astype(np.float32)
    if array.size == 0 or not np.isfinite(array).all():
        raise ImageError("the image is empty or holds NaN or infinite voxels", "replace them by numbers")
    return Volume(array=array, geometry=volume.geometry)
