"""Thousands of small made-up cases, written quickly: volumes of noise with two boxes, each with its label.

A case has 16 x 20 x 18 voxels (x, y, z), int16, in compressed NIfTI. No two are the same.
"""

import gzip
import json
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

SHAPE = (16, 20, 18)
LABELS = {"background": 0, "near": 1, "far": 2}
NOISE, BRIGHTNESS = 40, 100
NOISE_VALUES = 2**16 + 7
"""Length of the noise that all cases are cut from, each at a place of its own. Decision: drawn anew it would take
longer than the file."""

COMPRESSION = 1


def write_raw_dataset(folder: Path, cases: int) -> None:
    """Writes a raw dataset in nnU-Net's format."""
    images, labels = folder / "imagesTr", folder / "labelsTr"
    for path in (images, labels):
        path.mkdir(parents=True)
    header, noise = make_header(), make_noise()
    for number in range(cases):
        image, label = make_case(number, noise)
        write_volume(images / f"case_{number:05d}_0000.nii.gz", header, image)
        write_volume(labels / f"case_{number:05d}.nii.gz", header, label)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": LABELS,
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def write_scans(folder: Path, scans: int) -> None:
    """Writes scans without labels into a folder."""
    folder.mkdir(parents=True)
    header, noise = make_header(), make_noise()
    for number in range(scans):
        write_volume(folder / f"scan_{number:05d}_0000.nii.gz", header, make_case(number, noise)[0])


def make_case(number: int, noise: NDArray[np.int16]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Returns the image and the label map of a case, (x, y, z)."""
    start = number * 37 % (len(noise) - np.prod(SHAPE))
    image = noise[start : start + np.prod(SHAPE)].reshape(SHAPE) + np.int16(number % 50)
    label = np.zeros(SHAPE, dtype=np.int16)
    left, top, front = number % 4, number // 4 % 4, number // 16 % 4
    label[left : left + 5, top : top + 6, front : front + 5] = 1
    label[left + 6 : left + 11, top + 8 : top + 14, front + 7 : front + 12] = 2
    return image + label * np.int16(BRIGHTNESS), label


def make_noise() -> NDArray[np.int16]:
    """Returns the noise that all cases are cut from."""
    values = np.random.default_rng(5).normal(300, NOISE, NOISE_VALUES)
    return values.astype(np.int16)


def make_header() -> bytes:
    """Returns the bytes before the voxels, which are the same for all files."""
    image = nibabel.Nifti1Image(np.zeros(SHAPE, dtype=np.int16), np.diag([-1.0, -1.0, 1.2, 1.0]))
    return image.to_bytes()[:352]


def write_volume(path: Path, header: bytes, voxels: NDArray[np.int16]) -> None:
    """Writes a volume, (x, y, z), in compressed NIfTI."""
    path.write_bytes(gzip.compress(header + voxels.tobytes(order="F"), COMPRESSION, mtime=0))
