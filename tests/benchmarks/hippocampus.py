"""The README's commands on real data, timed one by one: import, check, plan, train fold 0, predict, evaluate.

    python tests/benchmarks/hippocampus.py PATH/TO/Task04_Hippocampus WORKSPACE [--budget 5m] [--preset small]
    python tests/benchmarks/hippocampus.py PATH/TO/Task04_Hippocampus WORKSPACE --preset 8gb --epochs 100 --folds cv

Each command runs as a process of its own, as a user would type it. Prints a table in Markdown for RESULTS.md, and the
Dice of all held-out cases of the folds. If only fold 0 is trained, its held-out cases are also predicted and evaluated.
The data are those of the Medical Segmentation Decathlon, task 4.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from measured_on import print_machine


def main() -> None:
    """Runs the commands and prints their seconds and the Dice."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--epochs", type=int, help="number of epochs, instead of a budget")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--folds", nargs="+", default=["0"])
    arguments = parser.parse_args()
    print_machine()
    workspace = ["-w", str(arguments.workspace)]
    raw = arguments.workspace / "raw" / "Dataset004_Hippocampus"
    model = arguments.workspace / "results" / "Dataset004_Hippocampus" / "3d_fullres"
    length = ["--epochs", arguments.epochs] if arguments.epochs else ["--budget", arguments.budget]
    seconds = {
        "import": run("import", arguments.source, "-d", "4", *workspace),
        "check": run("check", "-d", "4", *workspace),
        "plan_and_preprocess": run("plan_and_preprocess", "-d", "4", "--preset", arguments.preset, *workspace),
        "train": run("train", "-d", "4", "-c", "3d_fullres", "-f", *arguments.folds, *length, *workspace),
    }
    scored = {"all held-out cases": model}
    if arguments.folds == ["0"]:
        scored["predict and evaluate"] = predict_held_out(raw, arguments.workspace, seconds)

    print("\n| command | seconds |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.1f} |")
    for name, path in scored.items():
        summary = json.loads((path / "summary.json").read_text())
        means = ", ".join(f"{label} {scores['dice']:.4f}" for label, scores in summary["mean"].items())
        print(f"\n{name}: mean foreground Dice {summary['foreground_mean']['dice']:.4f} ({means})")


def predict_held_out(raw: Path, workspace: Path, seconds: dict[str, float]) -> Path:
    """Predicts the held-out cases of fold 0 and evaluates them; returns the folder of their masks."""
    scans, references, masks = (workspace / name for name in ("scans", "references", "masks"))
    held_out = json.loads((workspace / "preprocessed" / raw.name / "splits.json").read_text())["folds"][0]
    copy_cases(raw, held_out["validation"], scans, references)
    seconds["predict"] = run("predict", "-d", "4", "-i", scans, "-o", masks, "-w", workspace)
    seconds["evaluate"] = run("evaluate", references, masks)
    return masks


def run(*arguments: object) -> float:
    """Runs a command of autoseg; returns its duration in seconds."""
    command = [sys.executable, "-m", "autoseg", *map(str, arguments)]
    print("$ autoseg", *arguments, flush=True)
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def copy_cases(raw: Path, names: list[str], scans: Path, references: Path) -> None:
    """Copies the held-out cases into the folders that predict and evaluate are given."""
    for folder in (scans, references):
        folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(raw / "imagesTr" / f"{name}_0000.nii.gz", scans)
        shutil.copy(raw / "labelsTr" / f"{name}.nii.gz", references)


if __name__ == "__main__":
    main()
