"""Writes segmentation objects of a made-up CT, and prints seconds, memory and sizes.

    python tests/benchmarks/dicom_objects.py                        (512 x 512 x 300 voxels, 20 structures)
    python tests/benchmarks/dicom_objects.py --size 32 --slices 8   (a moment)

Every kind runs in a process of its own, so that the memory is that of the kind. Seconds of the processor are those to
compare on a busy machine.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measured_on import print_machine

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

KINDS = ("seg", "overlapping", "labelmap", "rtstruct")


def make_label(slices: int, size: int, structures: int) -> np.ndarray:
    """Returns a label map of balls, of shape (slices, size, size)."""
    random, label = np.random.default_rng(0), np.zeros((slices, size, size), np.uint8)
    z, y, x = np.ogrid[:slices, :size, :size]
    for number in range(1, structures + 1):
        centre = random.uniform(0.2, 0.8, 3) * label.shape
        radius = random.uniform(0.06, 0.12) * size
        label[(z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2] = number
    return label


def write(kind: str, folder: Path, slices: int, size: int, structures: int) -> dict[str, float]:
    """Writes one object; returns seconds, gigabytes of memory, and megabytes of the file."""
    from dicom_series import slice_segmentation, write_series

    from autoseg.dicom.segmentation_objects import write_segmentation
    from autoseg.dicom.structure_sets import write_structure_set

    pixels = np.zeros((slices, size, size), np.int16)
    series = write_series(folder / "series", shape=pixels.shape, spacing_mm=(1.0, 0.7, 0.7), pixels=pixels)
    label = make_label(slices, size, structures)
    overlapping = (structures,) if kind == "overlapping" else ()
    names = {f"structure {number}": (number, *overlapping) for number in range(1, structures + 1)}
    names[f"structure {structures}"] = (structures,)
    path = folder / "object.dcm"
    wall, processor = time.perf_counter(), time.process_time()
    segmentation = slice_segmentation(series, label, names)
    if kind == "rtstruct":
        write_structure_set(path, segmentation)
    else:
        write_segmentation(path, segmentation, "labelmap" if kind == "labelmap" else "seg")
    return {
        "seconds": time.perf_counter() - wall,
        "processor": time.process_time() - processor,
        "gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "megabytes": path.stat().st_size / 1e6,
    }


def main(arguments: list[str] | None = None) -> None:
    """Runs each kind in a process, and prints a row for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--structures", type=int, default=20)
    parser.add_argument("--kind", choices=KINDS)
    options = parser.parse_args(arguments)
    if options.kind:
        with tempfile.TemporaryDirectory() as folder:
            row = write(options.kind, Path(folder), options.slices, options.size, options.structures)
        print(json.dumps(row))
        return
    sizes = ["--slices", str(options.slices), "--size", str(options.size), "--structures", str(options.structures)]
    print_machine()
    print("| object | seconds | of the processor | memory, GB | file, MB |\n|---|---|---|---|---|")
    for kind in KINDS:
        command = [sys.executable, __file__, "--kind", kind, *sizes]
        row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        numbers = (row["seconds"], row["processor"], row["gigabytes"], row["megabytes"])
        print(f"| {kind} | " + " | ".join(f"{number:.1f}" for number in numbers) + " |", flush=True)


if __name__ == "__main__":
    main()
