"""Reads whole images as autoseg does, and by SimpleITK, in turns: seconds of each, and their ratio.

    python tests/benchmarks/reading_images.py [--size 256] [--slices 128] [--picture 2048] [--rounds 5]

A volume of 16-bit numbers is smooth with noise, as CT is; a picture has colours of 8 bits. Both programs make an array
of float32, channels first. What autoseg does beside is to check the file before it is believed, and every voxel for
being finite.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk
from measured_on import print_machine
from scipy.ndimage import gaussian_filter

from autoseg.imaging.image_files import read_image

VOLUMES = (
    ("NIfTI, compressed", "a.nii.gz", True),
    ("NIfTI", "a.nii", False),
    ("NRRD, compressed", "a.nrrd", True),
    ("NRRD", "b.nrrd", False),
    ("MetaImage, compressed", "a.mha", True),
    ("MetaImage", "b.mha", False),
    ("TIFF, volume", "a.tif", False),
)
"""Title, file name, and whether the voxels are compressed."""

PICTURES = (("PNG", "c.png"), ("BMP", "c.bmp"), ("TIFF, colours", "c.tif"))
"""Title and file name; decoders of JPEG round in different ways, so their numbers could not be compared."""


def make_volume(slices: int, size: int) -> sitk.Image:
    """Returns a volume of smooth structures with noise, 16 bits, at 1.5 x 0.8 x 0.8 mm."""
    rng = np.random.default_rng(0)
    smooth = gaussian_filter(rng.normal(0, 1, (slices // 2 + 1, size // 2 + 1, size // 2 + 1)).astype(np.float32), 3)
    smooth = (400 / smooth.std()) * smooth.repeat(2, 0).repeat(2, 1).repeat(2, 2)[:slices, :size, :size]
    image = sitk.GetImageFromArray((smooth + rng.normal(0, 20, smooth.shape)).astype(np.int16))
    image.SetSpacing((0.8, 0.8, 1.5))
    return image


def make_picture(size: int) -> sitk.Image:
    """Returns a picture of smooth colours with noise, 8 bits."""
    rng = np.random.default_rng(1)
    smooth = gaussian_filter(rng.normal(0, 1, (size, size, 3)).astype(np.float32), (9, 9, 0))
    colours = 128 + (40 / smooth.std()) * smooth + rng.normal(0, 3, smooth.shape)
    return sitk.GetImageFromArray(colours.clip(0, 255).astype(np.uint8), isVector=True)


def read_by_sitk(path: Path) -> np.ndarray:
    """Reads a file by SimpleITK, as float32 and channels first."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayViewFromImage(image).astype(np.float32)
    return np.moveaxis(array, -1, 0)[:, np.newaxis] if image.GetNumberOfComponentsPerPixel() > 1 else array[np.newaxis]


def write_files(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, Path]]:
    """Writes a file of each format, and yields its title and path."""
    volume, picture = make_volume(options.slices, options.size), make_picture(options.picture)
    for title, name, is_packed in VOLUMES:
        sitk.WriteImage(volume, str(folder / name), useCompression=is_packed)
        yield title, folder / name
    for title, name in PICTURES:
        sitk.WriteImage(picture, str(folder / name))
        yield title, folder / name


def seconds_of(read: Callable[[], object]) -> float:
    """Returns the seconds that a function takes."""
    started = time.perf_counter()
    read()
    return time.perf_counter() - started


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256, help="columns and rows of the volume")
    parser.add_argument("--slices", type=int, default=128, help="slices of the volume")
    parser.add_argument("--picture", type=int, default=2048, help="columns and rows of the picture")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    print_machine()
    print("| file | MB | autoseg, s | SimpleITK, s | times SimpleITK |\n|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for title, path in write_files(Path(folder), options):
            mine, theirs = read_image((path,)).array, read_by_sitk(path)
            if not np.array_equal(mine, theirs):
                raise SystemExit(f"{title}: the programs read different numbers")
            pairs = [
                (seconds_of(lambda: read_image((path,))), seconds_of(lambda: read_by_sitk(path)))  # noqa: B023
                for _ in range(options.rounds)
            ]
            ours, other = (min(pair[side] for pair in pairs) for side in (0, 1))
            size = path.stat().st_size / 1e6
            print(f"| {title} | {size:.1f} | {ours:.3f} | {other:.3f} | {ours / other:.2f} |", flush=True)


if __name__ == "__main__":
    main()
