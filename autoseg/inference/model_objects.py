"""DICOM objects of a segmentation in memory: what `Model.save_dicom` writes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from autoseg.datasets.dataset import Case
from autoseg.datasets.names import compose
from autoseg.dicom.pixels import grid_of_voxels
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.converted_image import name_type
from autoseg.imaging.geometry import Volume
from autoseg.imaging.label_combinations import number_masks
from autoseg.imaging.label_files import file_stem
from autoseg.imaging.sitk_conversion import from_sitk
from autoseg.imaging.targets import Targets
from autoseg.inference.dicom_objects import choose_objects, objects_of
from autoseg.inference.interfaces import ImageSegmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectMaps:
    """Maps of numbers from 0 to 1 that are written beside a segmentation, as images of SimpleITK.

    Attributes:
        probabilities: Name of a label to the map of its probability.
        disagreement: Where folds and mirror images disagree; None leaves it out.
    """

    probabilities: Mapping[str, Any] = field(default_factory=dict)
    disagreement: Any = None


class MappedAnalysis(Protocol):
    """An analysis that has maps; see `analysis.Analysis`."""

    def probabilities(self, label: str) -> Any:
        """Returns the map of the probability of a label."""

    def disagreement(self) -> Any:
        """Returns the map of disagreement; None if there is none."""


def collect_maps(analysis: MappedAnalysis | None, probabilities: Sequence[str], *, disagreement: bool) -> ObjectMaps:
    """Returns the maps of an analysis that are asked for.

    Raises:
        UsageError: There is no analysis, no such label, or no map of disagreement.
    """
    if analysis is None:
        if probabilities or disagreement:
            raise UsageError("maps are those of an analysis, and this is a segmentation", "give what analyse returned")
        return ObjectMaps()
    shares = {label: analysis.probabilities(label) for label in map(compose, probabilities)}
    where = analysis.disagreement() if disagreement else None
    if disagreement and where is None:
        what = "the model is one fold without mirroring, which cannot disagree"
        raise UsageError(what, "load it with mirroring or with more folds, or leave disagreement out")
    return ObjectMaps(probabilities=shares, disagreement=where)


def save_objects(
    segmenter: ImageSegmenter,
    segmentation: Any,
    scan: Case,
    output: Path,
    kinds: Sequence[str],
    maps: ObjectMaps,
) -> list[Path]:
    """Writes the objects of a segmentation; each file whole or not at all.

    Args:
        segmenter: The model.
        segmentation: What it returned for the scan: a label map, or an image with a mask per component.
        scan: The scan, whose first series the objects are drawn on.
        output: Folder for the objects; made if it is missing.
        kinds: See `dicom_objects.OBJECT_KINDS`.
        maps: Further maps.

    Returns:
        The files: of each kind, of each probability, of the disagreement.

    Raises:
        UsageError: There is no such kind, the structures do not fit into it, or nothing is asked for.
        ImageError: The segmentation is no image on the grid of the series, or its headers do not allow objects.
        WriteError: A file cannot be written.
    """
    writer = choose_objects(kinds or ("seg",), segmenter, [scan])
    if writer is None or not (kinds or maps.probabilities or maps.disagreement is not None):
        raise UsageError("no object is asked for", "name some with kinds, such as 'seg'")
    volume, targets = _as_label_map(_on_grid(segmentation, scan), segmenter.info.targets)
    names = [f"{scan.name}_{kind}" for kind in dict.fromkeys(kinds)]
    names += [f"{scan.name}_{file_stem(name)}_probabilities" for name in maps.probabilities]
    names += [f"{scan.name}_disagreement"] if maps.disagreement is not None else []
    files = [output / f"{name}.dcm" for name in names]
    paths = iter(files)
    with objects_of(scan.series[0]) as source:
        if kinds:
            writer.write_structures(source, (volume, targets), paths)
        for name, image in maps.probabilities.items():
            writer.write_probability(next(paths), source, _on_grid(image, scan), name)
        if maps.disagreement is not None:
            writer.write_map(next(paths), source, _on_grid(maps.disagreement, scan))
    return files


def _on_grid(image: Any, scan: Case) -> Volume:
    """Returns an image of SimpleITK as a volume, with its components along the first axis if it has several."""
    if name_type(image) != "SimpleITK.Image":
        what = f"the segmentation is {type(image).__name__}, which says nothing of where its voxels lie"
        raise ImageError(what, "give the image that predict or analyse returned for the DICOM files")
    volume = from_sitk(image)
    array = volume.array
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    grid = grid_of_voxels(scan.series[0])
    if (difference := grid.difference(replace(volume.geometry, dimensions=grid.dimensions))) is not None:
        what = f"the segmentation does not lie on the grid of {scan.series[0].name}: {difference}"
        raise ImageError(what, "give what predict returned for this series, with the same series and resample_tilt")
    return Volume(array=array, geometry=grid)


def _as_label_map(volume: Volume, targets: Targets) -> tuple[Volume, Targets]:
    """Returns a label map, and what its numbers mean; masks that may overlap are combined."""
    if not targets.as_masks:
        if volume.array.ndim != 3 or np.issubdtype(volume.array.dtype, np.floating):
            raise ImageError("the segmentation is no label map of whole numbers", "give what predict returned")
        return volume, targets
    masks = volume.array[np.newaxis] if volume.array.ndim == 3 else volume.array
    if len(masks) != len(targets.names):
        what = f"the segmentation has {len(masks)} masks, and the model {len(targets.names)} structures"
        raise ImageError(what, "give what predict returned")
    label, numbered = number_masks((mask != 0 for mask in masks), volume.geometry.shape, targets)
    return Volume(array=label, geometry=volume.geometry), numbered
