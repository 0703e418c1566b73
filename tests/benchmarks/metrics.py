"""All metrics of real segmentations beside MONAI's and MedPy's: seconds of whole processes, and differences.

    python tests/benchmarks/metrics.py REFERENCES PREDICTIONS [--peer PATH/TO/python] [--cases 52] [--spacing Z Y X]
        [--rounds 3] [--packages monai medpy]

Both folders hold label maps with the same names, NIfTI files. PATH/TO/python belongs to an environment with SimpleITK
and the packages, MONAI and MedPy; without it only autoseg runs. Such an environment is made by

    python -m venv PEER && PEER/bin/pip install -c tests/constraints.txt torch numpy scipy SimpleITK
    PEER/bin/pip install --no-deps monai medpy

--spacing writes other voxel sizes into copies of the files, to compare the effect of anisotropic voxels. Runs
alternate; the shortest is taken. Prints tables in Markdown for RESULTS.md. All structures must be in both label maps,
because each program has its own rule for empty masks.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import SimpleITK as sitk
from measured_on import print_machine

from autoseg.evaluation.summary import Summary

TOLERANCE_MM = 1.0
PEERS = {"monai": "MONAI", "medpy": "MedPy"}
MEASURE_METRICS = Path(__file__).with_name("measure_metrics.py")

Scores = dict[str, dict[str, dict[str, float]]]
"""The value of a metric by case, number of the label and metric."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("references", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--peer", type=Path, metavar="PYTHON")
    parser.add_argument("--packages", nargs="+", choices=tuple(PEERS), default=list(PEERS))
    parser.add_argument("--cases", type=int, default=52)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--spacing", type=float, nargs=3, metavar=("Z", "Y", "X"))
    arguments = parser.parse_args()
    peers = arguments.packages if arguments.peer is not None else []
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / name for name in ("references", "predictions")]
        paths = sorted(arguments.predictions.glob("*.nii.gz"))[: arguments.cases]
        for source, target in zip((arguments.references, arguments.predictions), folders, strict=True):
            target.mkdir()
            for path in paths:
                copy(source / path.name, target / path.name, arguments.spacing)
        seconds: dict[str, list[float]] = {name: [] for name in ("autoseg", *peers)}
        for _ in range(arguments.rounds):
            seconds["autoseg"].append(run(sys.executable, "-m", "autoseg", "evaluate", *folders))
            for peer in peers:
                output = Path(folder) / f"{peer}.json"
                seconds[peer].append(run(arguments.peer, MEASURE_METRICS, peer, *folders, output, TOLERANCE_MM))
        ours = read_ours(folders[1] / "summary.json")
        theirs = {peer: json.loads((Path(folder) / f"{peer}.json").read_text()) for peer in peers}
    print_seconds(seconds, len(paths))
    print_differences(ours, theirs)


def copy(source: Path, target: Path, spacing: list[float] | None) -> None:
    """Copies a file, or writes it with another voxel size."""
    if spacing is None:
        shutil.copy(source, target)
        return
    image = sitk.ReadImage(str(source))
    image.SetSpacing(spacing[::-1])
    image.SetOrigin((0.0, 0.0, 0.0))
    sitk.WriteImage(image, str(target))


def run(*command: object) -> float:
    """Runs a program; returns the seconds from its start to its end."""
    started = time.perf_counter()
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def read_ours(path: Path) -> Scores:
    """Returns the scores of autoseg, which calls labels "label_1", "label_2", ... where there is no dataset.json."""
    return {
        case.name: {label.removeprefix("label_"): scores.model_dump() for label, scores in case.scores.items()}
        for case in Summary.load(path).cases
    }


def print_seconds(seconds: dict[str, list[float]], cases: int) -> None:
    """Prints the shortest run of each program, and all of them."""
    print(f"\n| all metrics of {cases} cases, whole process | shortest, s | all runs, s |\n|---|---|---|")
    for name, times in seconds.items():
        print(f"| {name} | {min(times):.2f} | {', '.join(f'{seconds_of_run:.2f}' for seconds_of_run in times)} |")


def print_differences(ours: Scores, theirs: dict[str, Scores]) -> None:
    """Prints means over all cases and labels, and the largest difference of a single score."""
    pairs = [(case, label) for case in ours for label in ours[case]]
    columns = [cell for peer in theirs for cell in (PEERS[peer], "largest difference")]
    print(f"\n| {' | '.join([f'metric, {len(pairs)} masks', 'autoseg', *columns])} |")
    print("|---" * (2 + len(columns)) + "|")
    for metric in ("dice", "iou", "nsd", "hd95_mm", "assd_mm"):
        own = [ours[case][label][metric] for case, label in pairs]
        cells = [f"{sum(own) / len(own):.5f}"]
        for scores in theirs.values():
            other = [scores[case][label].get(metric) for case, label in pairs]
            if None in other:
                cells += ["", ""]
                continue
            largest = max(abs(our - their) for our, their in zip(own, other, strict=True))
            cells += [f"{sum(other) / len(other):.5f}", f"{largest:.1e}"]
        print(f"| {metric} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
