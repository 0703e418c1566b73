"""What regions of components and skeletons take while a patch is loaded, in processor time.

    python tests/benchmarks/shapes.py WORKSPACE -d 3 -c 3d_fullres --size 96 128 96

WORKSPACE holds a dataset that was prepared with `plan_and_preprocess`. Patches are centred on foreground of every case.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measured_on import print_machine

from autoseg.dataloading.sampling import choose_start, read_patch
from autoseg.dataloading.shapes import ShapeMaker
from autoseg.preprocessing.store import open_stored
from autoseg.training.jobs import TrainingRequest, make_jobs
from autoseg.workspace import Workspace

PATCHES = 6


def main() -> None:
    """Prints a row of a table in Markdown for each kind of shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--number", type=int, required=True)
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--size", type=int, nargs=3, help="size of a patch [default: that of the plan]")
    arguments = parser.parse_args()
    print_machine()
    folders = Workspace(root=arguments.workspace).dataset(arguments.number)
    request = TrainingRequest(
        number=arguments.number, folders=folders, configuration=arguments.configuration, folds=(0,)
    )
    [job] = make_jobs(request)
    size = tuple(arguments.size or (1, *job.configuration.patch_size)[-3:])
    cases = open_stored(job.cases_folder, (*job.split.training, *job.split.validation)).values()
    random = np.random.default_rng(0)
    patches = [
        read_patch(case, choose_start(case, size, forced=True, random=random), size)[1].clamp_min(0)[None]
        for case in cases
        for _ in range(PATCHES)
    ]
    regions, skeletons = (
        ShapeMaker(targets=job.dataset.info.targets, regions=is_regions, skeletons=not is_regions)
        for is_regions in (True, False)
    )
    counts = [int(regions.make(patch).regions.amax()) for patch in patches]
    print(f"\n{len(patches)} patches of {' x '.join(map(str, size))} voxels, {np.mean(counts):.0f} components each\n")
    print("| shapes | ms of a patch, mean | most |")
    print("|---|---|---|")
    for name, make in (("regions", regions.make), ("skeletons", skeletons.make)):
        seconds = [measure(make, patch) for patch in patches]
        print(f"| {name} | {1000 * np.mean(seconds):.0f} | {1000 * max(seconds):.0f} |")


def measure(make: Callable[[torch.Tensor], object], patch: torch.Tensor) -> float:
    """Returns the seconds of a processor that the shapes of a patch take."""
    start = time.process_time()
    make(patch)
    return time.process_time() - start


if __name__ == "__main__":
    main()
