"""Folders of images and masks as people have them, to be imported by tests."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from phantoms import blocks, noise, place, write_json

from autoseg.imaging.image_files import write_image, write_label_map


def files(folder: Path) -> list[str]:
    """Relative paths of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def circle(values: tuple[int, int] = (0, 255), side: int = 32) -> NDArray[np.uint8]:
    """A mask with one filled circle."""
    y, x = np.ogrid[:side, :side]
    inside = (y - side / 2) ** 2 + (x - side / 2) ** 2 < (side / 3) ** 2
    return np.where(inside, values[1], values[0]).astype(np.uint8)


def colours(seed: int, side: int = 32) -> NDArray[np.uint8]:
    """A colour picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, size=(side, side, 3), dtype=np.uint8)


def write_pair(folder: Path, name: str, values: tuple[int, ...] = (0, 1, 2), mask_name: str | None = None) -> None:
    """Writes a volume and its mask into the folders images and labels."""
    write_image(folder / "images" / f"{name}.nii.gz", place(noise(len(name))[np.newaxis]))
    write_label_map(folder / "labels" / f"{mask_name or name}.nii.gz", place(blocks(values)))


def write_decathlon(folder: Path, *, channels: int = 1, listed: bool = True) -> None:
    """Writes a Decathlon folder of two cases and a test scan; with several channels the images have four dimensions."""
    for name, subfolder in (("brain_1", "imagesTr"), ("brain_2", "imagesTr"), ("brain_3", "imagesTs")):
        parts = [sitk.GetImageFromArray(noise(channel).astype(np.int16)) for channel in range(channels)]
        for part in parts:
            part.SetSpacing((0.8, 1.0, 2.5))
        image = parts[0] if channels == 1 else sitk.JoinSeries(parts)
        (folder / subfolder).mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(folder / subfolder / f"{name}.nii.gz"))
        if subfolder == "imagesTr":
            write_label_map(folder / "labelsTr" / f"{name}.nii.gz", place(blocks()))
    (folder / "imagesTr" / "._brain_1.nii.gz").touch()
    (folder / "labelsTr" / "._brain_1.nii.gz").touch()
    pairs = [{"image": f"./imagesTr/brain_{n}.nii.gz", "label": f"./labelsTr/brain_{n}.nii.gz"} for n in (1, 2)]
    content = {
        "name": "Brain Tumour",
        "licence": "CC-BY-SA 4.0",
        "tensorImageSize": "4D",
        "modality": {str(channel): f"m{channel}" for channel in range(channels)},
        "labels": {"0": "Background", "1": "edema", "2": "core"},
        "numTraining": 99,
    }
    write_json(folder / "dataset.json", content | ({"training": pairs} if listed else {}))
