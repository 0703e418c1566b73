"""A small made-up dataset in the layout of task 4 of the Medical Segmentation Decathlon, for benchmarks."""

from pathlib import Path

from phantoms import write_json
from tiny_workspaces import boxes, scan

from autoseg.imaging.geometry import Geometry, Shape, Volume
from autoseg.imaging.image_files import write_image, write_label_map

TASK = "Task04_Hippocampus"
SHAPE: Shape = (16, 20, 14)
CASES = 6


def write_hippocampi(root: Path, *, cases: int = CASES, shape: Shape = SHAPE) -> Path:
    """Writes cases of one channel and two labels, of voxels of 1 mm; returns the folder of the task."""
    task = root / TASK
    geometry = Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0))
    names = [f"hippocampus_{number:03d}.nii.gz" for number in range(1, cases + 1)]
    for number, name in enumerate(names):
        label = boxes(shape, shift=number % 3)
        image = scan(label, 1.0, seed=number)[None]
        write_image(task / "imagesTr" / name, Volume(array=image, geometry=geometry))
        write_label_map(task / "labelsTr" / name, Volume(array=label, geometry=geometry))
    write_json(
        task / "dataset.json",
        {
            "name": "Hippocampus",
            "modality": {"0": "MRI"},
            "labels": {"0": "background", "1": "Anterior", "2": "Posterior"},
            "numTraining": cases,
            "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in names],
            "test": [],
        },
    )
    return task
