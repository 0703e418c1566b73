"""Writes segmentations in all orientations as DICOM objects, and counts the voxels that other programs read otherwise.

    python tests/benchmarks/dicom_round_trip.py [--slices 20] [--size 65]

A reader whose program is not installed is left out. Voxels of readers that lie more than 1e-4 mm beside those of the
series end the program.
"""

import argparse
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measured_on import print_machine

from autoseg.dicom.segmentation_objects import write_segmentation
from autoseg.dicom.series import Series
from autoseg.dicom.structure_sets import write_structure_set

STRUCTURES = {"shell": (1,), "core": (2,), "elsewhere": (3,)}
PROGRAMS = {"highdicom": None, "dcmqi": "segimage2itkimage", "plastimatch": "plastimatch"}

Masks = dict[str, np.ndarray]


def make_label(shape: tuple[int, int, int]) -> np.ndarray:
    """Returns a hollow ball, its core, and a structure in many islands."""
    middle = (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    radius = (((np.indices(shape) - middle) / middle) ** 2).sum(axis=0)
    islands = (np.indices(shape).sum(axis=0) % 5 < 2) & (radius > 1.2)
    label: np.ndarray = (radius < 0.8).astype(np.uint8) + (radius < 0.2) + 3 * islands.astype(np.uint8)
    return label


def read_all(kind: str, path: Path, series: Series, folder: Path) -> dict[str, Callable[[], Masks]]:
    """Returns the readers of an object, by name."""
    from dicom_readers import read_by_dcmqi, read_by_highdicom, read_by_plastimatch
    from dicom_series import affine

    grid = affine(series.geometry), series.geometry.shape
    images = series.frames[0].path.parent
    if kind == "rtstruct":
        return {"plastimatch": lambda: read_by_plastimatch(path, images, folder / "plastimatch", *grid)}
    return {
        "highdicom": lambda: read_by_highdicom(path, *grid),
        "dcmqi": lambda: read_by_dcmqi(path, folder / f"dcmqi_{kind}", *grid),
    }


def count(series: Series, folder: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Returns the voxels of structures, and those that differ, for each object and reader of one series."""
    from dicom_series import slice_segmentation

    label, counts = make_label(series.geometry.shape), {}
    segmentation = slice_segmentation(series, label, STRUCTURES)
    for kind in ("seg", "labelmap", "rtstruct"):
        path = folder / f"{kind}.dcm"
        if kind == "rtstruct":
            write_structure_set(path, segmentation)
        else:
            write_segmentation(path, segmentation, kind)
        for reader, read in read_all(kind, path, series, folder).items():
            if PROGRAMS[reader] is not None and not is_installed(str(PROGRAMS[reader])):
                continue
            masks = read()
            wrong = sum(int((masks[name] != np.isin(label, own)).sum()) for name, own in STRUCTURES.items())
            counts[kind, reader] = int((label > 0).sum()), wrong
    return counts


def is_installed(program: str) -> bool:
    """Returns whether a program is beside Python or on the path."""
    return bool(shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent)))


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=20)
    parser.add_argument("--size", type=int, default=65)
    options = parser.parse_args(arguments)
    print_machine()
    from dicom_series import ORIENTATIONS, write_series

    total: dict[tuple[str, str], np.ndarray] = {}
    for orientation in ORIENTATIONS:
        for backwards in (False, True):
            with TemporaryDirectory() as folder:
                shape = (options.slices, options.size, options.size - 2)
                series = write_series(Path(folder) / "in", shape=shape, orientation=orientation, backwards=backwards)
                for key, counts in count(series, Path(folder)).items():
                    total[key] = total.get(key, np.zeros(3, int)) + np.array([1, *counts])
    print("| object | reader | series | voxels of structures | that differ |\n|---|---|---|---|---|")
    for (kind, reader), (series_read, voxels, wrong) in total.items():
        print(f"| {kind} | {reader} | {series_read} | {voxels:,} | {wrong} |")


if __name__ == "__main__":
    main()
