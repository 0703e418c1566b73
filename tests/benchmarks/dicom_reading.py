"""Reads a series of CT slices as autoseg does, and by dcm2niix, in turns: seconds of each, and their ratio.

    python tests/benchmarks/dicom_reading.py [--slices 300] [--size 512] [--rounds 5]

dcm2niix writes an uncompressed NIfTI file, which is what it does beside reading; autoseg makes an array of float32.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measured_on import print_machine

from autoseg.dicom.pixels import read_series
from autoseg.dicom.search import find_series

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))


def read_by_autoseg(folder: Path) -> float:
    """Returns the seconds that finding and reading the series takes."""
    started = time.perf_counter()
    [series] = find_series(folder).series
    read_series(series)
    return time.perf_counter() - started


def read_by_dcm2niix(folder: Path) -> float:
    """Returns the seconds that dcm2niix takes."""
    program = shutil.which("dcm2niix", path=os.pathsep.join([os.environ["PATH"], str(Path(sys.executable).parent)]))
    if program is None:
        sys.exit("dcm2niix is not installed")
    with TemporaryDirectory() as output:
        started = time.perf_counter()
        subprocess.run([program, "-z", "n", "-b", "n", "-o", output, str(folder)], check=True, capture_output=True)
        return time.perf_counter() - started


def measure(slices: int, size: int, rounds: int) -> tuple[float, float]:
    """Returns the least seconds of autoseg and of dcm2niix."""
    from dicom_files import make_series, write_series

    voxels = np.random.default_rng(0).integers(0, 4096, size=(slices, size, size)).astype(np.uint16)
    with TemporaryDirectory() as folder:
        write_series(Path(folder) / "ct", make_series(voxels, modality="CT", spacing_mm=(1.0, 0.7, 0.7)))
        pairs = [(read_by_autoseg(Path(folder) / "ct"), read_by_dcm2niix(Path(folder) / "ct")) for _ in range(rounds)]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    print_machine()
    autoseg, dcm2niix = measure(options.slices, options.size, options.rounds)
    print("| program | seconds | times dcm2niix |\n|---|---|---|")
    for program, seconds in (("dcm2niix", dcm2niix), ("autoseg", autoseg)):
        print(f"| {program} | {seconds:.2f} | {seconds / dcm2niix:.2f} |")


if __name__ == "__main__":
    main()
