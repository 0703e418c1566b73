"""How alike different scans are, and copies of one scan, by the measure that the data report compares with 0.995.

    python tests/benchmarks/duplicates.py "DATA/Task04_Hippocampus/imagesTr/*.nii.gz" "DATA/open_ms/*/FLAIR.nii.gz"

Each argument is a set of scans: a pattern of paths, in quotes. Files whose names agree in the first bracket of
--patient are scans of one patient, and are not compared. Copies are made with another brightness, with noise of a tenth
of the range of intensities, at 0.7 of the resolution, and without the outermost twentieth of each side. Prints a table
in Markdown for RESULTS.md.
"""

import argparse
import glob
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from measured_on import print_machine
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.image_files import read_image
from autoseg.report.case_measures import sign
from autoseg.report.duplicates import ALIKE

Array = NDArray[np.float32]


def add_noise(array: Array) -> Array:
    """Adds noise whose standard deviation is a tenth of the range of intensities."""
    noise = np.random.default_rng(0).normal(0, 0.1 * float(np.ptp(array)), array.shape)
    return np.asarray(array + noise, dtype=np.float32)


def crop(array: Array) -> Array:
    """Removes a twentieth of the voxels at each side; along axes of one voxel nothing."""
    edges = [size // 20 for size in array.shape]
    return array[tuple(slice(edge, size - edge) for edge, size in zip(edges, array.shape, strict=True))]


COPIES: dict[str, Callable[[Array], Array]] = {
    "brightness": lambda array: 1.7 * array + 25,
    "noise": add_noise,
    "0.7 of the resolution": lambda array: ndimage.zoom(
        array, [0.7 if size > 1 else 1 for size in array.shape], order=1
    ),
    "cropped": crop,
}


def sign_copy(scan: Volume, change: Callable[[Array], Array]) -> Array:
    """Returns the signature of a changed copy."""
    array = change(scan.array[0])[np.newaxis]
    geometry = Geometry(shape=array.shape[1:], spacing_mm=scan.geometry.spacing_mm, direction=scan.geometry.direction)
    return sign(Volume(array=array, geometry=geometry))


def find_highest(signatures: Sequence[Array], patients: Sequence[str]) -> float:
    """Returns the highest correlation between scans of different patients; NaN if there is only one."""
    stacked = np.stack(signatures)
    correlations = stacked @ stacked.T
    other = np.array([[first != second for second in patients] for first in patients])
    return float(correlations[other].max()) if other.any() else float("nan")


def measure(paths: Sequence[Path], patient: re.Pattern[str]) -> list[float]:
    """Measures a set of scans: different scans, then the lowest of each of `COPIES`."""
    signatures, names, lowest = [], [], dict.fromkeys(COPIES, 1.0)
    for path in paths:
        scan = read_image((path,))
        own = sign(scan)
        match = patient.match(path.name)
        signatures.append(own)
        names.append(match[1] if match else str(path))
        copies = {name: sign_copy(scan, change) for name, change in COPIES.items()}
        for name, copy in copies.items():
            lowest[name] = min(lowest[name], float(own @ copy))
    return [find_highest(signatures, names), *lowest.values()]


def main() -> None:
    """Measures each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="+", metavar="PATTERN")
    parser.add_argument("--patient", default="(.+)-IM-", help="regular expression for names of files")
    arguments = parser.parse_args()
    print_machine()
    print(f"The data report calls scans alike from {ALIKE} on.\n")
    print(f"| scans | number | different patients, highest | {', lowest | '.join(COPIES)}, lowest |")
    print("|---" * (3 + len(COPIES)) + "|")
    for pattern in arguments.patterns:
        paths = sorted(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207 - the pattern may be absolute
        if not paths:
            parser.error(f"no file matches {pattern}")
        figures = " | ".join(f"{value:.4f}" for value in measure(paths, re.compile(arguments.patient)))
        print(f"| {'/'.join(Path(pattern).parts[-3:])} | {len(paths)} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
