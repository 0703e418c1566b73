"""Tiny datasets on disk, and a reporter that listens, for tests."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Geometry, Vector, Volume
from autoseg.runtime.reporting import Task

SHAPE = (6, 9, 8)
SPACING_MM: Vector = (2.5, 1.0, 0.8)
REALDATA = Path(__file__).parents[3] / "shared" / "data"


class Listener:
    """A reporter that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.advanced: dict[str, float] = {}
        self.totals: dict[str, float] = {}

    @contextmanager
    def task(self, title: str, total: float) -> Iterator[Task]:
        """Opens a task and counts how far it comes."""
        self.totals[title] = total
        self.advanced[title] = 0
        listener = self

        class Counting:
            def advance(self, units: float = 1) -> None:
                listener.advanced[title] += units

        yield Counting()

    def say(self, line: str) -> None:
        """Remembers a line."""
        self.lines.append(line)

    @property
    def text(self) -> str:
        """All lines that were said."""
        return "\n".join(self.lines)


def place(array: NDArray[np.generic], spacing_mm: Vector = SPACING_MM, origin_mm: Vector = (0.0, 0.0, 0.0)) -> Volume:
    """Puts an array of shape (z, y, x) or (c, z, y, x) on a grid."""
    return Volume(array=array, geometry=Geometry(shape=array.shape[-3:], spacing_mm=spacing_mm, origin_mm=origin_mm))


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.float32]:
    """An image of whole numbers from 1 to 99."""
    return np.random.default_rng(seed).integers(1, 100, size=shape).astype(np.float32)


def blocks(values: Sequence[int] = (0, 1, 2), shape: tuple[int, int, int] = SHAPE) -> NDArray[np.int32]:
    """A label map in which each value fills a slab along y."""
    label = np.zeros(shape, np.int32)
    for slab, value in zip(np.array_split(np.arange(shape[1]), len(values)), values, strict=True):
        label[:, slab] = value
    return label


def write_case(folder: Path, name: str, *, channels: int = 1, seed: int = 0, ending: str = ".nii.gz") -> None:
    """Writes a case with the labels 0, 1 and 2 into imagesTr and labelsTr."""
    from autoseg.imaging.image_files import write_image, write_label_map  # tests of GPUs do without SimpleITK

    for channel in range(channels):
        path = folder / "imagesTr" / f"{name}_{channel:04d}{ending}"
        write_image(path, place(noise(seed * 10 + channel)[np.newaxis]))
    write_label_map(folder / "labelsTr" / f"{name}{ending}", place(blocks()))


def write_dataset(folder: Path, *, cases: int = 3, channels: int = 1, ending: str = ".nii.gz") -> Dataset:
    """Writes a raw dataset of sound cases "case_1", "case_2", ... with the labels "a" and "b"."""
    info = DatasetInfo(
        channel_names={str(channel): f"channel_{channel}" for channel in range(channels)},
        labels={"background": 0, "a": 1, "b": 2},
        file_ending=ending,
    )
    info.save(folder / "dataset.json", {"numTraining": cases})
    for number in range(1, cases + 1):
        write_case(folder, f"case_{number}", channels=channels, seed=number, ending=ending)
    return Dataset.open(folder)


def write_picture(path: Path, array: NDArray[np.uint8]) -> None:
    """Writes a grey picture of shape (y, x) or a colour one of shape (y, x, 3); the ending chooses the format."""
    import SimpleITK as sitk

    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=array.ndim == 3), str(path))


def write_json(path: Path, content: object) -> None:
    """Writes a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
