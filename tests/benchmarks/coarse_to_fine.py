"""A scan segmented whole, and only around what a coarse model finds in it: tiles, seconds, and equal voxels.

    python tests/benchmarks/coarse_to_fine.py [--shape 128 160 160] [--patch 64 64 64] [--radius 24] [--features 16]

The scan is made up: a bright ball of so many voxels' radius in noise. So are the models (see made_up_model.py): the
coarse one sees it in voxels of 4 mm and tells bright from dark, the fine one has 14 classes. Prints a table in Markdown
for RESULTS.md; the coarse model's time is part of the seconds.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from made_up_model import STEEPNESS, make_model
from measured_on import print_machine
from programs import limit_cores
from smooth_scans import make_field

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.workspace import ModelFolder

CLASSES = 14
COARSE_MM = 4.0
MARGINS_MM = (8.0, 16.0, 32.0)
BRIGHT = 1.0  # In standard deviations of the whole scan; the ball lies above, the noise below


def main() -> None:
    """Makes the scan and the models, and prints a row for the whole scan and for each margin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 160, 160), metavar=("Z", "Y", "X"))
    parser.add_argument("--patch", type=int, nargs=3, default=(64, 64, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--radius", type=int, default=24)
    parser.add_argument("--features", type=int, default=16)
    arguments = parser.parse_args()
    limit_cores()
    print_machine(torch.device("cpu"))
    scan = make_ball(tuple(arguments.shape), arguments.radius)
    with TemporaryDirectory() as folder:
        fine, coarse = make_models(Path(folder), scan.geometry.shape, tuple(arguments.patch), arguments.features)
        options = PredictionOptions(device="cpu")
        started = time.perf_counter()
        whole = load_segmenter(fine, options).segment(scan)
        seconds = time.perf_counter() - started
        print("| segmented | tiles | seconds | times as fast | equal voxels inside |")
        print("|---|---:|---:|---:|---:|")
        print(f"| whole scan | | {seconds:.1f} | 1 | |", flush=True)
        for margin_mm in MARGINS_MM:
            segmenter = load_segmenter(fine, replace(options, crop_by=coarse, crop_margin_mm=margin_mm))
            started = time.perf_counter()
            prediction = segmenter.predict(scan)
            labels = prediction.segmentation()
            cropped = time.perf_counter() - started
            crop, record = prediction.crop, prediction.record
            if crop is None or crop.kept is None:
                raise SystemExit("the coarse model found nothing")
            mine, theirs = (record.crop(volume.array)[crop.kept.slices] for volume in (labels, whole))
            equal = f"{100 * (mine == theirs).mean():.3f} %"
            cells = [f"{crop.tiles} of {crop.all_tiles}", f"{cropped:.1f}", f"{seconds / cropped:.1f}", equal]
            print(f"| ball and {margin_mm:g} mm | {' | '.join(cells)} |", flush=True)


def make_ball(shape: tuple[int, int, int], radius: int) -> Volume:
    """Returns a scan in Hounsfield units: a ball whose brightness varies, off the centre, in noise."""
    random = np.random.default_rng(5)
    field = make_field(shape, random)
    axes = np.ogrid[tuple(slice(0, size) for size in shape)]
    distance = sum((axis - size * 0.4) ** 2 for axis, size in zip(axes, shape, strict=True)) ** 0.5
    noise = random.normal(-700, 20, shape)
    image = np.where(distance < radius, 500 + 150 * field / field.std(), noise).astype(np.float32)
    return Volume(array=image[np.newaxis], geometry=Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0)))


def make_models(
    folder: Path, shape: tuple[int, int, int], patch: tuple[int, int, int], features: int
) -> tuple[Path, Path]:
    """Writes the fine and the coarse model; the coarse one sees the whole scan in one tile."""
    fine, coarse = folder / "fine", folder / "coarse"
    make_model(fine, classes=CLASSES, spacing_mm=(1.0,) * 3, patch=patch, features=features, mirrored=False)
    z, y, x = (8 * -(-size // (8 * int(COARSE_MM))) for size in shape)
    make_model(coarse, classes=2, spacing_mm=(COARSE_MM,) * 3, patch=(z, y, x), features=8, mirrored=False)
    file = ModelFolder(path=coarse).checkpoint(0)
    fold = load_checkpoint(file)
    fold.weights["heads.0.weight"][:, 0, 0, 0, 0] = torch.tensor([-STEEPNESS, STEEPNESS])
    fold.weights["heads.0.weight"][:, 1, 0, 0, 0] = torch.tensor([STEEPNESS, -STEEPNESS])
    fold.weights["heads.0.bias"].copy_(torch.tensor([STEEPNESS * BRIGHT, -STEEPNESS * BRIGHT]))
    save_checkpoint(fold, file)
    return fine, coarse


if __name__ == "__main__":
    main()
