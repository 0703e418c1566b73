"""A dataset of one CT that is cut into blocks of slices, planned by the usual clipping and by windows.

    python tests/benchmarks/ct_windows.py CT.nii.gz LABELS.nii.gz WORKSPACE -d 7 --labels 1 5 6 20 52 63 79 86 87

The blocks are cases; each fold holds one out. Then train both plans, which see the same patches:
`learning.py WORKSPACE -d 7 -c 2d --folds 0 1 2 --only fixed`, and the same with `--plan window` and `--plan windows`.
Blocks of one patient are alike, so what is learned here says how windows compare, not how well organs are found.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from measured_on import print_machine

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.geometry import Box, Volume
from autoseg.imaging.image_files import read_image, read_label_map, write_image, write_label_map
from autoseg.pipeline import plan_and_preprocess, preprocess
from autoseg.planning.plan import Plan
from autoseg.workspace import Workspace

NAME, CONFIGURATION = "CTBlocks", "2d"
WINDOWS: dict[str, list[tuple[float, float]]] = {
    "window": [(-160, 240)],
    "windows": [(-160, 240), (-1000, 400), (-500, 1300)],
}
"""Windows in Hounsfield units of each further plan: soft tissue alone, and with lung and bone as further channels."""


def main() -> None:
    """Writes the dataset, plans and prepares it in each way, and prints how many voxels the structures have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("label_map", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--number", type=int, default=7)
    parser.add_argument("--labels", type=int, nargs="+", required=True, help="numbers of the structures that are kept")
    parser.add_argument("--blocks", type=int, default=3)
    arguments = parser.parse_args()
    print_machine()
    folders = Workspace(root=arguments.workspace).folders(f"Dataset{arguments.number:03d}_{NAME}")
    labels = {"background": 0, **{f"label_{number}": place for place, number in enumerate(arguments.labels, start=1)}}
    DatasetInfo(channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz").save(folders.raw / "dataset.json")
    names = [f"block_{number}" for number in range(arguments.blocks)]
    image, label_map = read_image((arguments.image,)), read_label_map(arguments.label_map)
    kept = np.zeros(label_map.array.shape, dtype=np.uint8)
    for place, number in enumerate(arguments.labels, start=1):
        kept[label_map.array == number] = place
    print("| case | voxels of structures |\n|---|---|")
    for name, slices in zip(names, np.array_split(np.arange(kept.shape[0]), arguments.blocks), strict=True):
        box = Box(start=(int(slices[0]), 0, 0), stop=(int(slices[-1]) + 1, *kept.shape[1:]))
        block = Volume(array=kept, geometry=image.geometry).crop(box)
        write_image(folders.raw / "imagesTr" / f"{name}_0000.nii.gz", image.crop(box), compact=True)
        write_label_map(folders.raw / "labelsTr" / f"{name}.nii.gz", block)
        print(f"| {name} | {np.count_nonzero(block.array)} |")
    splits = arguments.workspace / f"folds_{NAME}.json"
    folds = [{"training": [other for other in names if other != name], "validation": [name]} for name in names]
    splits.write_text(json.dumps({"folds": folds}))
    chosen = {"preset": "small", "configurations": [CONFIGURATION], "splits": splits}
    plan_and_preprocess(arguments.number, **chosen, workspace=arguments.workspace)
    for name, windows in WINDOWS.items():
        write_plan(folders.plan, folders.with_plan(name).plan, windows)
        preprocess(arguments.number, plan_name=name, workspace=arguments.workspace)


def write_plan(usual: Path, target: Path, windows: list[tuple[float, float]]) -> None:
    """Writes the usual plan once more, with windows instead of its clipping, as a user would edit it."""
    content = json.loads(usual.read_text())
    configuration = content["configurations"][CONFIGURATION]
    configuration["normalization"] = [{"scheme": "window", "window_hu": windows}]
    configuration["architecture"]["in_channels"] = len(windows)
    Plan.model_validate(content).save(target)


if __name__ == "__main__":
    main()
