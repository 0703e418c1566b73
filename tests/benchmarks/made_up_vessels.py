"""A dataset of made-up vessels: thin, bent tubes that branch, in noise, beside blobs that are as bright.

    python tests/benchmarks/made_up_vessels.py WORKSPACE -d 6 --cases 12

Writes raw/Dataset006_Vessels, plans it with the preset `small`, and prepares it for `learning.py`. No data of real
vessels come with this project; what is learned here says how a loss treats thin structures, not how well vessels of
patients are found.
"""

import argparse
from pathlib import Path
from statistics import fmean

import numpy as np
from measured_on import print_machine
from numpy.typing import NDArray
from scipy import ndimage

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Geometry, Shape, Volume
from autoseg.imaging.image_files import write_image, write_label_map
from autoseg.pipeline import plan_and_preprocess
from autoseg.workspace import Workspace

SHAPE: Shape = (64, 80, 80)
NAME = "Vessels"
TREES, SEGMENTS, STEPS = 3, 7, 110
"""Trees of a case, vessels of a tree, and steps of half a voxel of a vessel."""
BEND = 0.1
"""Standard deviation of the change of the direction from one step to the next."""
CONTRAST, NOISE = 1.5, 0.5
"""Brightness of the middle of a wide vessel, and standard deviation of the noise. Decision: a thin vessel is seen, but
not everywhere."""


def main() -> None:
    """Writes and prepares the dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--number", type=int, default=6)
    parser.add_argument("--cases", type=int, default=12)
    arguments = parser.parse_args()
    print_machine()
    share = write_vessels(arguments.workspace, arguments.number, arguments.cases)
    print(f"| cases | voxels of vessels |\n|---|---|\n| {arguments.cases} | {share:.2%} |")
    plan_and_preprocess(arguments.number, preset="small", configurations=["3d_fullres"], workspace=arguments.workspace)


def write_vessels(workspace: Path, number: int, cases: int) -> float:
    """Writes the raw dataset; returns the share of the voxels that belong to vessels."""
    raw = Workspace(root=workspace).folders(f"Dataset{number:03d}_{NAME}").raw
    info = DatasetInfo(channel_names={"0": "CTA"}, labels={"background": 0, "vessel": 1}, file_ending=".nii.gz")
    info.save(raw / "dataset.json")
    geometry = Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0))
    shares = []
    for case in range(cases):
        random = np.random.default_rng(case)
        vessels = draw_vessels(random)
        image = CONTRAST * ndimage.gaussian_filter((vessels | draw_blobs(random)).astype(np.float32), 0.6)
        image += random.normal(0, NOISE, SHAPE).astype(np.float32)
        name = f"vessels_{case:02d}"
        volume = Volume(array=(100 * image).round()[np.newaxis].astype(np.float32), geometry=geometry)
        write_image(raw / "imagesTr" / f"{name}_0000.nii.gz", volume, compact=True)
        write_label_map(raw / "labelsTr" / f"{name}.nii.gz", Volume(array=vessels.astype(np.uint8), geometry=geometry))
        shares.append(float(vessels.mean()))
    return fmean(shares)


def draw_vessels(random: np.random.Generator) -> NDArray[np.bool_]:
    """Returns a mask (z, y, x) of trees; each vessel begins on an earlier one and is thinner."""
    thickness = np.zeros(SHAPE)
    for _ in range(TREES):
        starts = [(random.uniform(0.2, 0.8, 3) * SHAPE, random.normal(size=3), 1.8)]
        for _ in range(SEGMENTS):
            place, direction, radius = starts[random.integers(len(starts))]
            for step in range(STEPS):
                direction = direction + random.normal(0, BEND, 3)
                direction /= np.linalg.norm(direction)
                place = place + 0.5 * direction
                voxel = tuple(place.round().astype(int))
                if not all(0 <= index < size for index, size in zip(voxel, SHAPE, strict=True)):
                    break
                thickness[voxel] = max(thickness[voxel], radius)
                if step % 10 == 9:
                    starts.append((place, random.normal(size=3), max(0.8, 0.75 * radius)))
    mask = np.zeros(SHAPE, dtype=bool)
    for radius in np.unique(thickness[thickness > 0]):
        mask |= ndimage.distance_transform_edt(thickness != radius) <= radius
    return mask


def draw_blobs(random: np.random.Generator) -> NDArray[np.bool_]:
    """Returns a mask (z, y, x) of balls that are no vessels."""
    centres = np.ones(SHAPE, dtype=bool)
    for place in random.uniform(0, 1, (6, 3)):
        centres[tuple((place * (np.array(SHAPE) - 1)).astype(int))] = False
    balls: NDArray[np.bool_] = ndimage.distance_transform_edt(centres) <= 4
    return balls


if __name__ == "__main__":
    main()
