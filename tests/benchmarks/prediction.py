"""Prediction beside nnU-Net's: the same weights, tiles and scans, in alternating runs.

    python tests/benchmarks/prediction.py MODEL WORKSPACE --scans FOLDER [--nnunet PATH/TO/python]
        [--rows case folder classes many] [--device cuda] [--pairs 3] [--scale 0.2]

MODEL is the folder of a plain 3D network that was trained with `plan --rules nnunet`, FOLDER holds scans of its kind;
PATH/TO/python belongs to an environment with nnU-Net v2, without which only autoseg runs. The rows:

    case      the sliding window alone, over 8 scans put together to one image, with mirroring
    folder    all scans of FOLDER, the whole command: read, predict with mirroring, write
    classes   one made-up scan of 150 x 400 x 400 voxels, 25 classes, the whole command
    many      one made-up CT of 600 x 512 x 512 voxels, 117 classes, the whole command; autoseg alone

Commands are those that a user types, each a process of its own, whose memory is watched together with that of all that
it starts. On a CPU all share two cores. The weights of the last two rows are made by hand (see made_up_model.py).
--scale makes their scans and patches smaller. Prints a table in Markdown for RESULTS.md.
"""

import argparse
import json
import shutil
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from comparison_rows import print_row
from made_up_model import choose_spacing, make_model, make_scan
from measured_on import print_machine
from nnunet_twin import write_twin
from programs import MEGABYTE, Run, limit_cores, watch
from smooth_scans import scale

from autoseg.imaging.geometry import Shape
from autoseg.imaging.image_files import read_image, read_label_map
from autoseg.models.checkpoint import load_checkpoint
from autoseg.preprocessing.case import preprocess_case
from autoseg.runtime.device import resolve_device

MEASURE_PREDICTION = Path(__file__).with_name("measure_prediction.py")
MOSAIC = (2, 2, 2)
DIVISOR = 8
"""Edges of the patches of the made-up models are divisible by it."""
CPU_LIMITS = {"nnUNet_def_n_proc": "2", "nnUNet_n_proc_DA": "2"}


def main() -> None:
    """Measures the rows one by one, and prints each when it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--scans", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="factor for every edge of made-up scans and their patches"
    )
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        limit_cores()
    print_machine(resolve_device(arguments.device))
    arguments.workspace.mkdir(parents=True, exist_ok=True)
    print(
        "| | autoseg, s | nnU-Net, s | times | autoseg, MB | nnU-Net, MB | agreement |\n|---|---|---|---|---|---|---|"
    )
    for name in arguments.rows:
        ROWS[name](arguments)


def compare_case(arguments: argparse.Namespace) -> None:
    """Times the sliding window over a mosaic of scans."""
    twin, folder = make_twin(arguments.model, arguments), arguments.workspace
    image, ours, theirs = (folder / f"{name}.npy" for name in ("mosaic", "ours", "theirs"))
    np.save(image, make_mosaic(arguments.model, arguments.scans))
    our_seconds, their_seconds = [], []
    for _ in range(arguments.pairs):
        our_seconds.append(call(Path(sys.executable), "autoseg", arguments.model, (image, ours), arguments.device))
        if twin is not None:
            their_seconds.append(call(arguments.nnunet, "nnunet", twin, (image, theirs), arguments.device))
    size = " x ".join(map(str, np.load(image).shape[1:]))
    agreement = describe_agreement([(np.load(ours), np.load(theirs))] if their_seconds else [])
    print_row(f"sliding window over {size} voxels, mirroring", our_seconds, their_seconds, "-", "-", agreement)


def make_mosaic(model: Path, scans: Path) -> np.ndarray:
    """Puts preprocessed scans side by side, as one image; each is cut, or padded by its border, to the median shape.

    Returns:
        The image, (c, z, y, x); scans are repeated if there are fewer than the mosaic has cells.
    """
    fold = load_checkpoint(model / "fold_0" / "checkpoint.pt")
    cell = fold.configuration.median_shape
    parts = []
    for path in islice(cycle(sorted(scans.glob("*.nii.gz"))), int(np.prod(MOSAIC))):
        options = {"axis_order": fold.plan.axis_order, "configuration": fold.configuration}
        image = preprocess_case(read_image((path,)), None, **options).image
        image = np.pad(
            image, [(0, 0), *((0, max(0, c - s)) for c, s in zip(cell, image.shape[1:], strict=True))], "edge"
        )
        parts.append(image[:, : cell[0], : cell[1], : cell[2]])
    grid = np.stack(parts).reshape(*MOSAIC, *parts[0].shape)  # (a, b, c, channels, z, y, x)
    grid = grid.transpose(3, 0, 4, 1, 5, 2, 6)
    return np.ascontiguousarray(grid.reshape(grid.shape[0], *(n * c for n, c in zip(MOSAIC, cell, strict=True))))


def call(python: Path, program: str, model: Path, files: tuple[Path, Path], device: str) -> float:
    """Runs measure_prediction.py once; returns its seconds."""
    command = [python, MEASURE_PREDICTION, program, model, *files, device]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def compare_folder(arguments: argparse.Namespace) -> None:
    """Times the whole command over a folder of scans."""
    number = len(list(arguments.scans.glob("*.nii.gz")))
    compare_commands(f"{number} scans, whole command", arguments.model, arguments.scans, arguments)


def compare_classes(arguments: argparse.Namespace) -> None:
    """Times the whole command over one scan of many classes."""
    shape, grid = scale((150, 400, 400), arguments.scale), scale((100, 256, 256), arguments.scale)
    patch = scale_patch((64, 96, 96), arguments.scale)
    model = arguments.workspace / "made_25"
    make_model(model, classes=25, spacing_mm=choose_spacing(shape, grid), patch=patch, features=16)
    scans = make_scan(arguments.workspace / "scan_25", shape)
    compare_commands(f"{' x '.join(map(str, shape))} voxels, 25 classes, whole command", model, scans, arguments)


def run_many(arguments: argparse.Namespace) -> None:
    """Times the whole command over a very large scan of very many classes, by autoseg alone."""
    shape, grid = scale((600, 512, 512), arguments.scale), scale((400, 273, 273), arguments.scale)
    patch = scale_patch((96, 96, 96), arguments.scale)
    model = arguments.workspace / "made_117"
    make_model(model, classes=117, spacing_mm=choose_spacing(shape, grid), patch=patch, features=8, mirrored=False)
    scans = make_scan(arguments.workspace / "scan_117", shape)
    run = predict_ours(model, scans, arguments)
    text = f"{' x '.join(map(str, shape))} voxels, 117 classes, whole command, no mirroring"
    labels = len(np.unique(read_label_map(next((arguments.workspace / "ours").glob("*.nii.gz"))).array))
    memory = (f"{run.all_processes / MEGABYTE:.0f}", "-")
    print(f"| {text} | {run.seconds:.0f} | - | - | {' | '.join(memory)} | {labels} labels found |", flush=True)


def compare_commands(text: str, model: Path, scans: Path, arguments: argparse.Namespace) -> None:
    """Runs both programs over a folder in turns, or autoseg alone."""
    twin, ours, theirs = make_twin(model, arguments), [], []
    for _ in range(arguments.pairs):
        ours.append(predict_ours(model, scans, arguments))
        if twin is not None:
            theirs.append(predict_theirs(twin, scans, arguments))
    pairs = [
        (read_label_map(path).array, read_label_map(arguments.workspace / "theirs" / path.name).array)
        for path in sorted((arguments.workspace / "ours").glob("*.nii.gz") if theirs else ())
    ]
    seconds = [[run.seconds for run in runs] for runs in (ours, theirs)]
    memory = [f"{max(run.all_processes for run in runs) / MEGABYTE:.0f}" if runs else "-" for runs in (ours, theirs)]
    print_row(text, *seconds, *memory, describe_agreement(pairs))


def predict_ours(model: Path, scans: Path, arguments: argparse.Namespace) -> Run:
    """Runs `autoseg predict`."""
    output = arguments.workspace / "ours"
    clear(output)
    command = [sys.executable, "-m", "autoseg", "predict", "-m", model, "-f", "0", "-i", scans, "-o", output]
    return watched([*command, "--device", arguments.device], arguments)


def predict_theirs(twin: Path, scans: Path, arguments: argparse.Namespace) -> Run:
    """Runs `nnUNetv2_predict_from_modelfolder`; its scans must be named CASE_0000."""
    output, named = arguments.workspace / "theirs", arguments.workspace / "named"
    clear(output)
    clear(named)
    for path in scans.glob("*.nii.gz"):
        stem = path.name.removesuffix(".nii.gz").removesuffix("_0000")
        (named / f"{stem}_0000.nii.gz").symlink_to(path.resolve())
    program = arguments.nnunet.with_name("nnUNetv2_predict_from_modelfolder")
    folders = ("-m", twin, "-f", "0", "-i", named, "-o", output)
    return watched([program, *folders, "-device", arguments.device, "--disable_progress_bar"], arguments)


def watched(command: list[object], arguments: argparse.Namespace) -> Run:
    """Runs a command; its output goes into a file."""
    limits = CPU_LIMITS if arguments.device == "cpu" else {}
    folders = {name: str(arguments.workspace) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    return watch([str(part) for part in command], arguments.workspace / "prediction.log", {**limits, **folders})


def clear(folder: Path) -> None:
    """Makes an empty folder in the place of what was there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def make_twin(model: Path, arguments: argparse.Namespace) -> Path | None:
    """Writes nnU-Net's form of a model and returns its folder; None if nnU-Net is not to be run."""
    if arguments.nnunet is None:
        return None
    twin = arguments.workspace / f"twin_{model.name}"
    write_twin(model / "fold_0" / "checkpoint.pt", twin, arguments.nnunet)
    return twin


def scale_patch(patch: Shape, factor: float) -> Shape:
    """Returns a patch with other edges, divisible as the made-up networks need it."""
    z, y, x = (max(2, round(edge * factor / DIVISOR)) * DIVISOR for edge in patch)
    return z, y, x


def describe_agreement(pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Describes the agreement of label maps of both programs.

    Args:
        pairs: Label maps of each scan, ours and nnU-Net's; empty if nnU-Net was not run.

    Returns:
        Mean Dice over the foreground labels, each over all scans together, and the Dice of the worst label.
    """
    if not pairs:
        return "-"
    labels = sorted(set(np.unique(np.concatenate([np.unique(theirs) for _, theirs in pairs]))) - {0})
    dice = []
    for label in labels:
        both = sum(int(((ours == label) & (theirs == label)).sum()) for ours, theirs in pairs)
        sizes = sum(int((ours == label).sum() + (theirs == label).sum()) for ours, theirs in pairs)
        dice.append(2 * both / sizes)
    return f"Dice {np.mean(dice):.5f}, worst label {min(dice):.5f}" if dice else "nothing found"


ROWS = {"case": compare_case, "folder": compare_folder, "classes": compare_classes, "many": run_many}

if __name__ == "__main__":
    main()
