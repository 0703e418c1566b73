"""Segmentations of DICOM series, written as DICOM objects beside the image files of a folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import BACKGROUND
from autoseg.datasets.scans import DICOM_FOLDER, DISAGREEMENT_FOLDER, PROBABILITIES_FOLDER, result_ending
from autoseg.dicom.codes import LabelCode, find_codes
from autoseg.dicom.maps import LARGEST, write_disagreement, write_probabilities
from autoseg.dicom.object_content import ModelIdentity, SlicedSegmentation
from autoseg.dicom.segmentation_objects import check_kind, write_segmentation
from autoseg.dicom.series import Series
from autoseg.dicom.source import Source, place_on_slices, read_source
from autoseg.dicom.structure_sets import write_structure_set
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.formats import split_ending
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.label_files import load_result
from autoseg.imaging.targets import Targets
from autoseg.inference.interfaces import ImageSegmenter

OBJECT_KINDS = ("seg", "labelmap", "rtstruct")
"""Objects that can be asked for: binary segments, a label map, contours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectWriter:
    """Writes the objects of scans, from the image files that were written before; a `ResultWriter`.

    Attributes:
        kinds: The objects that were asked for, of `OBJECT_KINDS`.
        model: What objects say of the model.
        targets: The structures.
        codes: Name of each structure to its code.
        maps_disagreement: Whether there are maps of disagreement.
    """

    kinds: tuple[str, ...]
    model: ModelIdentity
    targets: Targets
    codes: Mapping[str, LabelCode]
    maps_disagreement: bool = False

    def list_files(self, scan: Case, maps: Mapping[int, str]) -> tuple[str, ...]:
        """Returns the paths of the objects of a scan, from the folder of the results on; for `maps` see `write`."""
        names = [f"{scan.name}_{kind}" for kind in self.kinds]
        names += [f"{split_ending(Path(name))[0]}_probabilities" for name in maps.values()]
        names += [f"{scan.name}_disagreement"] if self.maps_disagreement else []
        return tuple(f"{DICOM_FOLDER}/{name}.dcm" for name in names)

    def write(self, scan: Case, result: Path, output: Path, maps: Mapping[int, str]) -> None:
        """Writes the objects of a scan: those of `kinds`, and those of the maps that were asked for.

        Args:
            scan: The scan, whose first series the objects are drawn on.
            result: The segmentation.
            output: Folder of the results; the objects go into a subfolder.
            maps: The outputs whose probabilities were written too, to the names of their files.

        Raises:
            ImageError: The headers of the series do not allow it, or a file cannot be read.
            WriteError: A file cannot be written.
        """
        with objects_of(scan.series[0]) as source:
            paths = iter([output / name for name in self.list_files(scan, maps)])
            self.write_structures(source, load_result(result, self.targets), paths)
            names = {number: name for name, number in self.targets.output_of.items()}
            for number, file in maps.items():
                shares = _read_shares(output / PROBABILITIES_FOLDER / file)
                self.write_probability(next(paths), source, shares, names.get(number, BACKGROUND))
            if self.maps_disagreement:
                shares = _read_shares(output / DISAGREEMENT_FOLDER / (scan.name + result_ending(scan)))
                self.write_map(next(paths), source, shares)

    def write_structures(self, source: Source, result: tuple[Volume, Targets], paths: Iterator[Path]) -> None:
        """Writes the objects of `kinds`, each to the next path.

        Args:
            source: The series that the objects are drawn on.
            result: A label map, and what its numbers mean.
            paths: Their files.

        Raises:
            WriteError: A file cannot be written.
        """
        segmentation = self._segmentation(source, *result)
        for kind, path in zip(self.kinds, paths, strict=False):  # the other paths are those of maps
            if kind == "rtstruct":
                write_structure_set(path, segmentation)
            else:
                write_segmentation(path, segmentation, cast("Literal['seg', 'labelmap']", kind))

    def write_probability(self, path: Path, source: Source, shares: Volume, name: str) -> None:
        """Writes the map of the probability of a structure, 0 to 1; for the rest see `write_structures`."""
        segmentation = self._segmentation(source, _empty_like(shares), Targets.of_labels({name: 1}))
        write_probabilities(path, place_on_slices(shares, source), segmentation)

    def write_map(self, path: Path, source: Source, shares: Volume) -> None:
        """Writes the map of disagreement, 0 to 1; for the rest see `write_structures`."""
        segmentation = self._segmentation(source, _empty_like(shares), self.targets)
        write_disagreement(path, place_on_slices(shares, source), segmentation)

    def _segmentation(self, source: Source, volume: Volume, targets: Targets) -> SlicedSegmentation:
        return SlicedSegmentation(
            label=place_on_slices(volume, source),
            structures=targets.structures,
            codes={name: self.codes.get(name) or find_codes([name])[name] for name in targets.structures},
            source=source,
            model=self.model,
        )


@contextmanager
def objects_of(series: Series) -> Iterator[Source]:
    """Gives the slices of a series for the objects that are drawn on them.

    Raises:
        ImageError: The headers of the series do not allow it.
    """
    try:
        yield read_source(series)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        what = f"no DICOM object can be written on {series.name}: {' '.join(str(error).split())}"
        raise ImageError(what, "mend the headers of the series, or leave out the objects") from error


def _read_shares(path: Path) -> Volume:
    """Reads a map of 0 to 255 as one of 0 to 1."""
    volume = read_label_map(path)
    return Volume(array=volume.array.astype(np.float32) / LARGEST, geometry=volume.geometry)


def _empty_like(volume: Volume) -> Volume:
    """Returns the label map of an object whose content is a map."""
    return Volume(array=np.zeros(volume.array.shape, np.uint8), geometry=volume.geometry)


def check_kinds(kinds: Sequence[str], segmenter: ImageSegmenter) -> None:
    """Checks that the objects that are asked for exist, and can hold what the model segments.

    Raises:
        UsageError: There is no such kind, or the model's structures do not fit into it.
    """
    for kind in kinds:
        if kind not in OBJECT_KINDS:
            raise UsageError(f"there is no DICOM object {kind!r}", f"choose from {', '.join(OBJECT_KINDS)}")
        check_kind(kind, segmenter.info.targets.structures)


def choose_objects(kinds: Sequence[str], segmenter: ImageSegmenter, scans: Sequence[Case]) -> ObjectWriter | None:
    """Returns what writes the objects that are asked for; None if none is.

    Raises:
        UsageError: There is no such kind, the model's structures do not fit into it, or a scan is no DICOM series.
    """
    if not kinds:
        return None
    check_kinds(kinds, segmenter)
    for scan in scans:
        if not scan.series:
            what = f"{scan.images[0]} is no DICOM series, so there are no slices that a DICOM object could refer to"
            raise UsageError(what, "give the DICOM files with -i, or leave out --dicom")
    return ObjectWriter(
        kinds=tuple(dict.fromkeys(kinds)),
        model=ModelIdentity(name=segmenter.dataset, digest=segmenter.digest),
        targets=segmenter.info.targets,
        codes=find_codes(segmenter.info.targets.names, segmenter.info.codes, segmenter.info.sides),
        maps_disagreement=segmenter.maps_disagreement,
    )
