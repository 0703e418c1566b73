"""One training step beside nnU-Net's: the same network, weights and batch, on two cores of a CPU.

    python tests/benchmarks/training_step.py [--nnunet PATH/TO/python] [--patch 40 56 40] [--batch 9] [--steps 4]

PATH/TO/python belongs to an environment with nnU-Net v2; without it only autoseg runs. Each run is a process of its
own; they alternate, and the first step of each, which prepares the others, does not count. The network is the plain one
that nnU-Net plans for hippocampus. Prints a table in Markdown for RESULTS.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from comparison_rows import print_row
from measured_on import print_machine
from programs import limit_cores

MEASURE_STEP = Path(__file__).with_name("measure_training_step.py")
NETWORK = {
    "features": [32, 64, 128, 256],
    "kernels": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "classes": 3,
}


def main() -> None:
    """Runs both programs in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), metavar=("Z", "Y", "X"))
    parser.add_argument("--batch", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="steps of each run, the first of which does not count")
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    limit_cores()
    print_machine()
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "network.json").write_text(json.dumps(NETWORK))
        images = random.normal(size=(arguments.batch, 1, *arguments.patch)).astype(np.float32)
        labels = random.integers(0, NETWORK["classes"], (arguments.batch, *arguments.patch))
        np.savez(folder / "batch.npz", images=images, labels=labels)
        ours, theirs = [], []
        for _ in range(arguments.pairs):
            if arguments.nnunet is not None:
                theirs.append(run(arguments.nnunet, "nnunet", folder, arguments.steps))
            ours.append(run(Path(sys.executable), "autoseg", folder, arguments.steps))
    print("| step | autoseg, s | nnU-Net, s | times | first loss | nnU-Net's |\n|---|---|---|---|---|---|")
    seconds = [[min(result["seconds"][1:]) for result in results] for results in (ours, theirs)]
    losses = [
        f"{median(result['losses'][0] for result in results):.5f}" if results else "-" for results in (ours, theirs)
    ]
    size = " x ".join(map(str, arguments.patch))
    print_row(f"patch {size}, batch {arguments.batch}", *seconds, *losses)


def run(python: Path, program: str, folder: Path, steps: int) -> dict:
    """Runs measure_training_step.py once; returns its seconds and losses."""
    command = [str(python), str(MEASURE_STEP), program, str(folder), str(steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
