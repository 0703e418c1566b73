"""All metrics of one large label map, beside the distance transforms by which most programs measure its surfaces.

    python tests/benchmarks/large_metrics.py [--structures 25 117] [--shape 300 512 512]

The reference is a map of dented balls; the prediction is the same, shifted by one or two voxels along each axis.
Reading is not counted. Distance transforms are timed for three structures, within the box that holds both masks, and
their time is scaled up to all structures. One thread is used. Prints a table in Markdown for RESULTS.md.
"""

import argparse
import time
from collections.abc import Callable
from itertools import islice

import numpy as np
from measured_on import print_machine
from scipy import ndimage
from smooth_scans import make_labels
from threadpoolctl import threadpool_limits

from autoseg.evaluation.masks import MaskPair, crop_masks
from autoseg.evaluation.metrics import case_overlaps
from autoseg.evaluation.scores import score_labels
from autoseg.evaluation.surface import find_border
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.targets import Targets

SPACING_MM = (1.5, 0.8, 0.8)
TRANSFORMED = 3


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--structures", type=int, nargs="+", default=[25, 117])
    parser.add_argument("--shape", type=int, nargs=3, default=[300, 512, 512])
    arguments = parser.parse_args()
    print_machine()
    print("| structures | foreground | Dice and IoU alone, s | all metrics, s | by distance transforms, s |")
    print("|---|---|---|---|---|")
    for count in arguments.structures:
        with threadpool_limits(1):
            print(f"| {count} | {' | '.join(measure(tuple(arguments.shape), count))} |")


def measure(shape: tuple[int, int, int], count: int) -> tuple[str, ...]:
    """Returns the cells of the row of a label map of `count` structures."""
    reference = make_labels(shape, count, seed=0)
    prediction = np.zeros_like(reference)
    prediction[1:, 2:, :-1] = reference[:-1, :-2, 1:]
    targets = Targets.of_labels({str(number): number for number in range(1, count + 1)})
    geometry = Geometry(shape=shape, spacing_mm=SPACING_MM)
    overlaps = clock(lambda: case_overlaps(reference, prediction, targets))
    everything = clock(lambda: score_labels(reference, prediction, targets, geometry))
    pairs = [pair for _, pair in islice(crop_masks(reference, prediction, targets), TRANSFORMED)]
    transforms = clock(lambda: [transform(pair) for pair in pairs]) * count / TRANSFORMED
    return f"{np.mean(reference > 0):.0%}", f"{overlaps:.2f}", f"{everything:.1f}", f"{transforms:.0f}"


def transform(pair: MaskPair) -> None:
    """Calculates the distance of every voxel of the box from each surface."""
    for mask in (pair.reference, pair.prediction):
        ndimage.distance_transform_edt(~find_border(mask, (0, 1, 2)), sampling=SPACING_MM)


def clock(work: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
