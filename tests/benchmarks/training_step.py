"""One training step beside nnU-Net's: the same network, weights and batch, on two cores of a CPU.

    python tests/benchmarks/training_step.py --nnunet PATH/TO/python [--patch 40 56 40] [--batch 9] [--steps 4]

PATH/TO/python belongs to an environment with nnU-Net v2. Each run is a process of its own; they alternate, and the
first step of each, which prepares the others, does not count. The network is the plain one that nnU-Net plans for
hippocampus. Prints a table in Markdown for RESULTS.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

CORES = 2
ONE_STEP = Path(__file__).with_name("one_step.py")
NETWORK = {
    "features": [32, 64, 128, 256],
    "kernels": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "classes": 3,
}


def main() -> None:
    """Runs both programs in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nnunet", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), metavar=("Z", "Y", "X"))
    parser.add_argument("--batch", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="of each run, the first of which does not count")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network.json").write_text(json.dumps(NETWORK))
        images = random.normal(size=(arguments.batch, 1, *arguments.patch)).astype(np.float32)
        labels = random.integers(0, NETWORK["classes"], (arguments.batch, *arguments.patch))
        np.savez(folder / "batch.npz", images=images, labels=labels)
        runs = []
        for _ in range(arguments.pairs):
            theirs = run(arguments.nnunet, "nnunet", folder, arguments.steps)
            ours = run(Path(sys.executable), "autoseg", folder, arguments.steps)
            runs.append((ours, theirs))
    print("| step | autoseg, s | nnU-Net, s | times | first loss | nnU-Net's |\n|---|---|---|---|---|---|")
    seconds = [[min(one["seconds"][1:]) for one in pair] for pair in runs]
    ratios = ", ".join(f"{theirs / ours:.1f}" for ours, theirs in seconds)
    ours, theirs = (min(column) for column in zip(*seconds, strict=True))
    losses = [median(one["losses"][0] for one in column) for column in zip(*runs, strict=True)]
    size = " x ".join(map(str, arguments.patch))
    print(
        f"| patch {size}, batch {arguments.batch} | {ours:.2f} | {theirs:.2f} | **{theirs / ours:.1f}** ({ratios}) "
        f"| {losses[0]:.5f} | {losses[1]:.5f} |"
    )


def run(python: Path, program: str, folder: Path, steps: int) -> dict:
    """Runs one_step.py once."""
    command = [str(python), str(ONE_STEP), program, str(folder), str(steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
