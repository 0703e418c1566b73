"""Measures one resampling by autoseg or by nnU-Net; the program that `preprocessing.py` starts.

    PYTHON tests/benchmarks/measure_resampling.py autoseg|nnunet image|labels|export INPUT.npy OUTPUT.npy Z Y X

Reads an array, brings it to Z x Y x X voxels, writes the result, and prints seconds and bytes as JSON. Imports, reading
and writing are not counted. The memory is the peak that the system counted for this process during the call, and how
far it is above what the process held just before. Needs Linux, numpy, and the program that it measures.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

SPACING_MM = (1.0, 1.0, 1.0)
TARGET_SPACING_MM = (0.9, 1.1, 1.1)  # far from anisotropic: no slices are kept apart

Resampling = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    """Measures one call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", choices=("autoseg", "nnunet"))
    parser.add_argument("task", choices=("image", "labels", "export"))
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("shape", type=int, nargs=3)
    parser.add_argument("--classes", type=int, metavar="N", help="resample only the first N classes of the logits")
    arguments = parser.parse_args()
    choose = {"autoseg": choose_ours, "nnunet": choose_theirs}[arguments.program]
    work = choose(arguments.task, tuple(arguments.shape))
    array = np.load(arguments.input, mmap_mode="r")
    array = np.array(array[: arguments.classes] if arguments.classes else array)

    before = reset_peak()
    started = time.perf_counter()
    result = work(array)
    seconds = time.perf_counter() - started
    most = read_memory("VmHWM")

    np.save(arguments.output, result)
    print(json.dumps({"seconds": seconds, "growth": most - before, "most": most}))


def choose_ours(task: str, shape: tuple[int, int, int]) -> Resampling:
    """Returns the function that autoseg calls in preprocessing or export."""
    from autoseg.preprocessing.label_resampling import resample_labels
    from autoseg.preprocessing.output_choice import choose_class, resample_and_choose
    from autoseg.preprocessing.resampling import resample_image

    if task == "image":
        return lambda image: resample_image(image[np.newaxis], SPACING_MM, shape, TARGET_SPACING_MM)[0]
    if task == "labels":
        return lambda labels: resample_labels(labels, SPACING_MM, shape, TARGET_SPACING_MM)
    return lambda logits: resample_and_choose(logits, choose_class, SPACING_MM, shape, TARGET_SPACING_MM)


def choose_theirs(task: str, shape: tuple[int, int, int]) -> Resampling:
    """Returns the function that nnU-Net calls in preprocessing or export, with the settings of its default plan."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    def resample(array: np.ndarray) -> np.ndarray:
        settings = {"is_seg": task == "labels", "order": 3 if task == "image" else 1, "order_z": 0}
        return resample_data_or_seg_to_shape(
            array, shape, SPACING_MM, TARGET_SPACING_MM, force_separate_z=None, **settings
        )

    def export(logits: np.ndarray) -> np.ndarray:
        labels = {"background": 0, **{f"label {number}": number for number in range(1, len(logits))}}
        winners = LabelManager(labels, regions_class_order=None).convert_logits_to_segmentation(resample(logits))
        return np.asarray(winners).astype(np.uint8)

    return export if task == "export" else lambda array: resample(array[np.newaxis])[0]


def reset_peak() -> int:
    """Lets the system count the peak of this process's memory anew; returns what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return read_memory("VmRSS")


def read_memory(name: str) -> int:
    """Returns a size in bytes from the system's record of this process; 0 if it keeps none of that name."""
    match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


if __name__ == "__main__":
    main()
