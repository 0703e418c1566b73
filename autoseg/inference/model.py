"""The Python interface of a trained model: load it once, segment images one after the other.

model = autoseg.load_model("results/Dataset004_Hippocampus")     # what find_best chose; or .../3d_fullres
label_map = model.predict("scan.nii.gz")                         # SimpleITK image, on the grid of the scan
label_map = model.predict(array, spacing_mm=(3.0, 0.8, 0.8))     # array (z, y, x), like its input
label_map = model.predict(tensor, spacing_mm=(3.0, 0.8, 0.8))    # tensor of torch, on the same device
label_map = model.predict(nibabel.load("scan.nii.gz"))           # image of nibabel, with the same affine; so of MONAI

analysis = model.analyse("scan.nii.gz")
analysis.volumes_ml, analysis.agreement, analysis.remarks, analysis.probabilities("liver")
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.scan_images import find_omitted, insert_missing, open_examination, read_examination
from autoseg.dicom.detection import holds_dicom
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.conversion import ImagePath, convert_to_volume
from autoseg.imaging.converted_image import ConvertedImage
from autoseg.imaging.sitk_conversion import to_sitk
from autoseg.inference.analysis import Analysis
from autoseg.inference.coarse_model import find_coarse_model
from autoseg.inference.interfaces import ImageSegmenter
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.model_objects import collect_maps, save_objects
from autoseg.inference.quality_checks import ImageProperties, check_quality
from autoseg.models.model_source import find_model
from autoseg.runtime.forks import calculation
from autoseg.workspace import Fold

if TYPE_CHECKING:
    import SimpleITK as sitk


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A trained model in memory; see `load_model`.

    Predictions do not change it, so threads may share it. It can be pickled and copied. A process that is forked after
    it was loaded, such as a worker of `multiprocessing.Pool`, predicts with one thread; a model on a GPU cannot be used
    there, and each process loads its own.

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
    def predict(
        self,
        image: "ImagePath | Sequence[ImagePath] | sitk.Image | Any",
        *,
        series: str | None = None,
        channels: Sequence[str] = (),
        resample_tilt: bool = False,
    ) -> "sitk.Image | Any": ...

    def predict(
        self,
        image: Any,
        *,
        spacing_mm: Sequence[float] | None = None,
        series: str | None = None,
        channels: Sequence[str] = (),
        resample_tilt: bool = False,
    ) -> Any:
        """Segments one image.

        A volume whose orientation is another than that of all training cases is reoriented for the networks, and its
        result oriented back. A model of one channel segments each volume of a series over time; arrays, tensors and
        images of MONAI, whose first axis is that of channels, are no series.

        Args:
            image: A path; an image of SimpleITK (channels as vector components), of nibabel (channels as fourth axis),
                or of MONAI, a MetaTensor (channels as first axis); an array of numpy or a tensor of torch, on any
                device, of shape (z, y, x) or (c, z, y, x), for a plane (y, x) or (c, 1, y, x), with the orientation of
                the training cases; or a list of any of these, one per channel, with None for a channel that the scan
                lacks.
            spacing_mm: For arrays and tensors: distance between voxels along (z, y, x), or (y, x) for a plane.
            series: For a folder, zip file or DICOMDIR of DICOM files: which series, as a number, a pattern of its
                description, or its UID; needed if several could be meant.
            channels: The same for each channel; series of other grids are resampled onto the first.
            resample_tilt: Whether DICOM slices of a tilted gantry are resampled to a straight grid.

        Returns:
            The label map. For an array: an array of shape (z, y, x) or (y, x). For a tensor: a tensor on its device.
            For an image of nibabel or MONAI: an image of the same kind with the same affine. Else: an image of
            SimpleITK with origin, spacing and direction of the input. A model whose structures may overlap returns a
            mask for each, in the order of `labels`: an array, a tensor or an image of MONAI with one more axis, the
            first, or its channels; an image of nibabel with one more axis, the last; or an image with as many
            components. For a series over time: an image of as many volumes.

        Raises:
            ImageError: The image cannot be read, is of another type, has the wrong number of channels or dimensions, or
                holds masked, complex, NaN or infinite voxels; or an array came without the spacing of each axis, or
                another image with one.
            UsageError: This process was forked from one that has the model on a GPU, or that was predicting.
        """
        choice = SeriesChoice(series=series, channels=tuple(channels), resample_tilt=resample_tilt)
        with calculation(self.segmenter.device.type):
            converted = self._convert(image, spacing_mm, choice)
            if converted.check_channels(list(self.segmenter.info.channel_names.values())):
                return converted.give_back_points([self.segmenter.segment(point) for point in converted.points()])
            return converted.give_back(self.segmenter.segment(converted.volume))

    def analyse(
        self,
        image: Any,
        *,
        spacing_mm: Sequence[float] | None = None,
        series: str | None = None,
        channels: Sequence[str] = (),
        resample_tilt: bool = False,
    ) -> Analysis:
        """Segments one image, measures its structures, and checks its quality; for the arguments see `predict`.

        Raises:
            ImageError: The image is a series over time; for other errors see `predict`.
        """
        choice = SeriesChoice(series=series, channels=tuple(channels), resample_tilt=resample_tilt)
        with calculation(self.segmenter.device.type):
            converted = self._convert(image, spacing_mm, choice)
            if converted.check_channels(list(self.segmenter.info.channel_names.values())):
                what = f"the image is a series of {converted.points_in_time} points in time"
                raise ImageError(what, "analyse each by itself, such as image[:, :, :, 0] of SimpleITK")
            prediction = self.segmenter.with_disagreement().predict(converted.volume)
            segmentation, statistics = prediction.segmentation(), self.segmenter.statistics
            missing = find_omitted(image)
            properties = None if statistics is None else ImageProperties.of(converted.volume, statistics, missing)
            agreement = prediction.agreement.structures
            check = check_quality(segmentation, prediction.targets, agreement, statistics, properties)
        return Analysis(
            segmentation=converted.give_back(segmentation),
            volumes_ml=check.volumes_ml,
            agreement=agreement,
            remarks=[*check.remarks, *prediction.list_remarks(segmentation, prediction.targets)],
            _prediction=prediction,
            _restore=converted.give_back,
        )

    def save_dicom(
        self,
        result: "sitk.Image | Analysis",
        source: ImagePath,
        output: ImagePath,
        *,
        kinds: Sequence[str] = ("seg",),
        probabilities: Sequence[str] = (),
        disagreement: bool = False,
        series: str | None = None,
        channels: Sequence[str] = (),
        resample_tilt: bool = False,
    ) -> list[Path]:
        """Writes the segmentation of a DICOM series as DICOM objects, on the slices of the series.

        The objects are those of ``predict --dicom``. A result may be edited before, as long as it keeps its grid.

        Args:
            result: What `predict` or `analyse` returned for the DICOM files.
            source: These files.
            output: Folder for the objects: CASE_seg.dcm and so on, where CASE is the name of the folder of the files.
            kinds: "seg" for binary segments, "labelmap" for a label map segmentation, "rtstruct" for contours.
            probabilities: Labels whose probabilities are written as fractional segments, from an analysis.
            disagreement: Whether the map of disagreement of an analysis is written, as a parametric map.
            series: As for `predict`.
            channels: As for `predict`.
            resample_tilt: As for `predict`.

        Returns:
            The files.

        Raises:
            UsageError: There is no such kind, structures that overlap do not fit into it, the source is no DICOM, maps
                are asked for without an analysis that has them, or it is not clear which series is meant.
            ImageError: The result is no image on the grid of the series, or its headers do not allow objects.
            WriteError: The folder cannot be written.
        """
        choice = SeriesChoice(series=series, channels=tuple(channels), resample_tilt=resample_tilt)
        analysis, image = (result, result.segmentation) if isinstance(result, Analysis) else (None, result)
        if not holds_dicom(Path(source)):
            raise UsageError(f"{source} is no DICOM series, which objects could refer to", "give its DICOM files")
        maps = collect_maps(analysis, probabilities, disagreement=disagreement)
        with open_examination(Path(source), self.segmenter.info, choice) as scan:
            return save_objects(self.segmenter, image, scan, Path(output), kinds, maps)

    def _convert(self, image: Any, spacing_mm: Sequence[float] | None, choice: SeriesChoice) -> ConvertedImage:
        if isinstance(image, str | PathLike) and holds_dicom(Path(image)):
            volume = read_examination(Path(image), self.segmenter.info, choice)
            return ConvertedImage(volume=volume, give_back=to_sitk, channels_are="the series")
        statistics, missing = self.segmenter.statistics, find_omitted(image)
        present = [channel for channel in image if channel is not None] if missing else image
        converted = convert_to_volume(present, spacing_mm, None if statistics is None else statistics.orientation)
        return replace(converted, volume=insert_missing(converted.volume, missing))


def load_model(
    path: ImagePath,
    *,
    folds: Fold | Sequence[Fold] | None = None,
    device: str = "auto",
    quality: str = "best",
    mirroring: bool | None = None,
    crop_by: ImagePath | None = None,
    crop_margin_mm: float | None = None,
    exact: bool = False,
    postprocessing: bool = True,
    runtime: str = "auto",
) -> Model:
    """Loads a trained configuration, or the configurations that `find_best` chose.

    Args:
        path: A model folder, such as ``results/Dataset004_Hippocampus/3d_fullres``; or a folder of several in which
            best.json says which of them predict, such as ``results/Dataset004_Hippocampus``. If a fold changed since
            that was written, a warning says so. Or a bundle, ``model.zip``, or the name of an installed model.
        folds: Folds whose predictions are averaged: by default all numbered ones that are trained to their end, or, if
            none is, those that have begun; "cv" means both. "all" is taken if it is asked for or there is no other.
        device: "auto", "cpu", "cuda" or "mps".
        quality: What accuracy may cost: "best", "balanced" or "fast"; see `pipeline.predict`.
        mirroring: Average over all mirror images, or over none; by default as `quality` says.
        crop_by: A coarse model around whose structures images are segmented; see `pipeline.predict`.
        crop_margin_mm: Margin around these structures; by default 8 voxels of the coarse model.
        exact: Calculate in float32, even where a lower precision is faster; see `pipeline.predict`.
        postprocessing: Remove components as the rules of the model say that `find_best` chose; False leaves them.
        runtime: What calculates the networks; see `pipeline.predict`.

    Returns:
        The model, on its device.

    Raises:
        ModelError, ArtifactError: There is no trained fold, or not the one asked for, or a file is damaged.
        UsageError: The device, the runtime or the quality is not there, folds are given beside best.json, or the path
            is none.
    """
    changed_folds: list[str] = []
    options = PredictionOptions(
        folds=folds,
        device=device,
        quality=quality,
        mirroring=mirroring,
        crop_by=find_coarse_model(crop_by),
        crop_margin_mm=crop_margin_mm,
        exact=exact,
        postprocessing=postprocessing,
        runtime=runtime,
    )
    segmenter = load_segmenter(find_model(path), options, warn=changed_folds.append)
    for line in changed_folds:
        warnings.warn(line, stacklevel=2)
    return Model(segmenter=segmenter)
