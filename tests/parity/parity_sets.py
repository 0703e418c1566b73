"""The datasets on which both programs are compared: small, made of real scans, and with all kinds of grids.

hippocampus   one channel, 1 mm in all directions
thick         the same with every fourth slice, and two spacings: its slices are resampled one by one
across        the same with its coarse axis last: its axes are transposed
ms            four channels in a wide border of zeros: it is cropped, and normalized over voxels that are not zero
pictures      colour pictures
regions       hippocampus with overlapping regions, and with unannotated voxels
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from phantoms import REALDATA, write_picture
from scipy import ndimage
from skimage import io

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import IDENTITY, Geometry, Vector, Volume
from autoseg.imaging.image_files import read_image, read_label_map, write_image, write_label_map
from autoseg.planning.plan import ConfigurationName

TRAINING_CASES, TEST_CASES = 12, 3
LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}
MS_CHANNELS = ("FLAIR", "T1", "T1POST", "T2")

Scan = tuple[Volume, Volume]
"""Image (c, z, y, x) and label map (z, y, x)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParitySet:
    """A dataset for both programs.

    Attributes:
        number: Number of the dataset.
        info: Content of its dataset.json.
        configurations: Configurations that are preprocessed and trained.
        scans: Makes its cases, the last three of which are for testing only.
    """

    number: int
    info: DatasetInfo
    configurations: tuple[ConfigurationName, ...]
    scans: Callable[[], Iterator[Scan]]

    def write(self, folder: Path) -> None:
        """Writes the dataset as both programs read it."""
        ending = self.info.file_ending
        scans = list(self.scans())
        self.info.save(folder / "dataset.json", {"numTraining": len(scans) - TEST_CASES})
        for number, (image, label) in enumerate(scans):
            name, is_test = f"case_{number:02d}", number >= len(scans) - TEST_CASES
            images, labels = (folder / f"{kind}{'Ts' if is_test else 'Tr'}" for kind in ("images", "labels"))
            if ending == ".png":
                write_picture(images / f"{name}_0000.png", image.array[:, 0].transpose(1, 2, 0).astype(np.uint8))
                write_picture(labels / f"{name}.png", label.array[0].astype(np.uint8))
                continue
            for channel in range(len(image.array)):
                one = replace(image, array=image.array[channel : channel + 1])
                write_image(images / f"{name}_{channel:04d}{ending}", one)
            write_label_map(labels / f"{name}{ending}", label)


def place(image: np.ndarray, label: np.ndarray, spacing_mm: Vector) -> Scan:
    """Puts an image (c, z, y, x) and a label map (z, y, x) on a grid."""
    geometry = Geometry(shape=label.shape, spacing_mm=spacing_mm, origin_mm=(5.0, -7.5, 20.0), direction=IDENTITY)
    volumes = (Volume(array=np.ascontiguousarray(one), geometry=geometry) for one in (image, label))
    return next(volumes), next(volumes)


def read_hippocampi() -> Iterator[Scan]:
    """Reads crops of T1 MR, whose voxels are of 1 mm."""
    folder = REALDATA / "Task04_Hippocampus"
    for path in sorted((folder / "labelsTr").glob("*.nii.gz"))[: TRAINING_CASES + TEST_CASES]:
        yield read_image((folder / "imagesTr" / path.name,)), read_label_map(path)


def make_thick() -> Iterator[Scan]:
    """Makes scans of every fourth slice, half of them with the spacing of larger voxels."""
    for number, (image, label) in enumerate(read_hippocampi()):
        spacing_mm = (4.0, 1.0, 1.0) if number % 2 else (5.0, 1.3, 1.2)
        yield place(image.array[:, 1::4], label.array[1::4], spacing_mm)


def make_across() -> Iterator[Scan]:
    """Makes the scans of `make_thick` with the coarse axis last."""
    for image, label in make_thick():
        z, y, x = label.geometry.spacing_mm
        yield place(image.array.transpose(0, 2, 3, 1), label.array.transpose(1, 2, 0), (y, x, z))


def make_ms() -> Iterator[Scan]:
    """Makes brains of four modalities from every third voxel, with three offsets and spacings.

    Labels are the bright tissue in T1, and lesions.
    """
    for spacing, start in ((3.0, 0), (3.3, 1), (2.9, 2)):
        for patient in ("patient07", "patient19", "patient26"):
            folder = REALDATA / "open_ms" / patient
            grid = (slice(None), *[slice(start, None, 3)] * 3)
            image = read_image(tuple(folder / f"{name}.nii.gz" for name in MS_CHANNELS)).array[grid]
            smooth = ndimage.gaussian_filter(image[1], 1.0)
            label = (smooth > np.percentile(smooth[smooth > 0], 70)).astype(np.uint8)
            label[read_label_map(folder / "mask.nii.gz").array[grid[1:]] > 0] = 2
            label[~ndimage.binary_fill_holes(image.any(axis=0))] = 0  # see `test_labels_outside_the_brain`
            yield place(image, label, (spacing, spacing, spacing))


def make_pictures() -> Iterator[Scan]:
    """Makes slices of the heart in three colours, of three sizes; labels are the ventricle and other bright tissue."""
    folder = REALDATA / "sunnybrook_2d" / "train"
    paths = sorted((folder / "images").glob("*.png"))[:: 160 // (TRAINING_CASES + TEST_CASES)]
    for number, path in enumerate(paths[: TRAINING_CASES + TEST_CASES]):
        colours, mask = io.imread(path), io.imread(folder / "masks" / path.name)[..., 0]
        smooth = ndimage.gaussian_filter(colours[..., 0].astype(np.float32), 3.0)
        label = (2 * (smooth > np.percentile(smooth, 85))).astype(np.uint8)
        label[mask > 0] = 1
        cut = slice(8 * (number % 3), None)
        yield place(colours[cut].transpose(2, 0, 1)[:, None].astype(np.float32), label[cut][None], (1.0, 1.0, 1.0))


def make_regions() -> Iterator[Scan]:
    """Makes hippocampi with a block of each label map that is not annotated."""
    for image, label in read_hippocampi():
        array = label.array.copy()
        array[:4, :, -8:] = 3
        yield image, replace(label, array=array)


SETS = {
    "hippocampus": ParitySet(
        number=1,
        info=DatasetInfo(channel_names={"0": "MRI"}, labels=LABELS, file_ending=".nii.gz"),
        configurations=("2d", "3d_fullres"),
        scans=read_hippocampi,
    ),
    "thick": ParitySet(
        number=2,
        info=DatasetInfo(channel_names={"0": "CT"}, labels=LABELS, file_ending=".nii.gz"),
        configurations=("2d", "3d_fullres"),
        scans=make_thick,
    ),
    "across": ParitySet(
        number=3,
        info=DatasetInfo(channel_names={"0": "MRI"}, labels=LABELS, file_ending=".nii.gz"),
        configurations=("3d_fullres",),
        scans=make_across,
    ),
    "ms": ParitySet(
        number=4,
        info=DatasetInfo(
            channel_names={str(number): name for number, name in enumerate(MS_CHANNELS)},
            labels={"background": 0, "bright": 1, "lesion": 2},
            file_ending=".nii.gz",
        ),
        configurations=("3d_fullres",),
        scans=make_ms,
    ),
    "pictures": ParitySet(
        number=5,
        info=DatasetInfo(
            channel_names={"0": "R", "1": "G", "2": "B"},
            labels={"background": 0, "ventricle": 1, "bright": 2},
            file_ending=".png",
        ),
        configurations=("2d",),
        scans=make_pictures,
    ),
    "regions": ParitySet(
        number=6,
        info=DatasetInfo(
            channel_names={"0": "MRI"},
            labels={"background": 0, "whole": (1, 2), "posterior": (2,), "ignore": 3},
            regions_class_order=(1, 2),
            file_ending=".nii.gz",
        ),
        configurations=("3d_fullres",),
        scans=make_regions,
    ),
}
