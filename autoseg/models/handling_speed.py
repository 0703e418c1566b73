"""A probe of what a scan takes beside the network: the program starts, reads, resamples and writes."""

import os
import subprocess
import sys
import time
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from autoseg.imaging.geometry import Geometry, Shape, Vector, Volume
from autoseg.imaging.image_files import read_image, write_image, write_label_map
from autoseg.planning.plan import Configuration
from autoseg.preprocessing.case import preprocess_case, restore_case

PROBE_VOXELS = 128**3
"""Most voxels of the scan that is handled. Decision: it takes about a second, and larger ones as much longer as they
are larger."""
COARSER = 2.0
"""How many times as coarse the grid of the network is. The way to any coarser grid and back takes much the same: almost
all of it are voxels of the file."""

START = "import autoseg.cli.app, autoseg.inference.folder, autoseg.inference.torch_segmenter"
"""What the command `predict` imports before it reads a scan."""


def measure_start() -> float:
    """Measures the seconds that a new process takes until it has loaded torch and what predicts, when it is alone."""
    clock, before = _Clock(), os.times()
    subprocess.run([sys.executable, "-c", START], check=False, capture_output=True)  # noqa: S603 - our own program
    after = os.times()
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return min(clock.wall_seconds, processor)


class _Clock:
    """A clock that other programs do not slow down: what was waited, or less if the processor was at work for less."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    @property
    def wall_seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._wall

    @property
    def seconds(self) -> float:
        """Seconds since then, or those of all threads on the processor, whichever is less."""
        return min(self.wall_seconds, time.process_time() - self._processor)


def measure_handling(configuration: Configuration, shape: Shape, spacing_mm: Vector) -> float:
    """Measures the seconds that a scan of one structure after another takes beside the network.

    Args:
        configuration: Says how images are normalized, and the number of outputs.
        shape: Shape (z, y, x) of a typical scan in its file.
        spacing_mm: Its spacing (z, y, x).

    Returns:
        Seconds for a scan of that shape, from those of a smaller one.
    """
    scale = min(1.0, (PROBE_VOXELS / prod(shape)) ** (1 / 3))
    z, y, x = (max(1, round(size * scale)) for size in shape)
    geometry, random = Geometry(shape=(z, y, x), spacing_mm=spacing_mm), np.random.default_rng(0)
    channels = len(configuration.normalization)
    coarse = [COARSER * step for step in spacing_mm][3 - len(configuration.spacing_mm) :]
    coarser = configuration.model_copy(update={"spacing_mm": tuple(coarse)})
    with TemporaryDirectory() as name:
        paths = tuple(Path(name) / f"scan_{channel:04d}.nii.gz" for channel in range(channels))
        for path in paths:
            noise = random.normal(100, 30, (1, z, y, x)).round().clip(1).astype(np.float32)
            write_image(path, Volume(array=noise, geometry=geometry), compact=True)
        clock = _Clock()
        case = preprocess_case(read_image(paths), None, axis_order=(0, 1, 2), configuration=coarser)
        before = clock.seconds
        logits = _made_up_logits(configuration.architecture.out_channels, case.record.shape, random)
        clock = _Clock()
        write_label_map(Path(name) / "mask.nii.gz", restore_case(logits, case.record))
        seconds = before + clock.seconds
    return float(seconds * prod(shape) / (z * y * x))


def _made_up_logits(outputs: int, shape: Shape, random: np.random.Generator) -> NDArray[np.float32]:
    """Returns logits of blobs: background, and each structure highest around a centre of its own."""
    logits = np.zeros((outputs, *shape), dtype=np.float32)
    grid = np.ogrid[tuple(slice(0, size) for size in shape)]
    radius = max(2.0, min(shape) / 6)
    for number in range(1, outputs):
        centre = [random.uniform(0, size) for size in shape]
        distance = sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) ** 0.5
        logits[number] = radius - distance
    return logits
