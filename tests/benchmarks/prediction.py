"""Prediction beside nnU-Net's: the same weights, tiles and scans, in alternating runs.

    python tests/benchmarks/prediction.py MODEL WORKSPACE --nnunet PATH/TO/python --scans FOLDER
        [--rows case folder classes many] [--device cuda] [--pairs 3]

MODEL is the folder of a plain 3D network that was trained with `plan --rules nnunet`, FOLDER holds scans of its kind;
PATH/TO/python belongs to an environment with nnU-Net v2. The rows:

    case      the sliding window alone, over 8 scans put together to one image, with mirroring
    folder    all scans of FOLDER, the whole command: read, predict with mirroring, write
    classes   one made-up scan of 150 x 400 x 400 voxels, 25 classes, the whole command
    many      one made-up CT of 600 x 512 x 512 voxels, 117 classes, the whole command; ours alone

Commands are those that a user types, each a process of its own, whose memory is watched together with that of all that
it starts. On a CPU all share two cores. The weights of the last two rows are made by hand, so that the brightness of a
voxel, beside that of its tile, decides its class; the classes lie around each other in shells of very different
thickness. --scale makes their scans smaller. Prints a table in Markdown
for RESULTS.md.
"""

import argparse
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import torch
from fingerprint import MEGABYTE, Run, watch
from nnunet_twin import write_twin
from preprocessing import CORES, scale
from scipy.special import ndtr
from smooth_scans import make_field

from autoseg.datasets.info import DatasetInfo
from autoseg.imaging.files import read_image, read_label_map, write_image
from autoseg.imaging.geometry import Geometry, Shape, Volume
from autoseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.default_unet import build_network
from autoseg.planning.plan import Configuration, Normalization, Plan
from autoseg.planning.settings import AugmentationSettings, TrainingSettings
from autoseg.preprocessing.case import preprocess_case
from autoseg.workspace import ModelFolder

ONE_PREDICTION = Path(__file__).with_name("one_prediction.py")
MOSAIC = (2, 2, 2)
WAVELENGTH = 64  # Voxels between the darkest and brightest spots of a made-up scan, or so: a patch sees all classes
BRIGHTEST_HU, AIR_HU = 1000, -200
RANGE = (-1.7, 1.7)  # of evenly distributed values, in their deviations
SPREAD = 1.5  # of the logarithm of how much of the range each class has
STEEPNESS = 40.0
CPU_LIMITS = {"nnUNet_def_n_proc": "2", "nnUNet_n_proc_DA": "2"}


def main() -> None:
    """Measures the rows one by one, and prints each when it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--nnunet", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--scans", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of every edge of made-up scans")
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    arguments.workspace.mkdir(parents=True, exist_ok=True)
    print(
        "| | autoseg, s | nnU-Net, s | times | autoseg, MB | nnU-Net, MB | agreement |\n|---|---|---|---|---|---|---|"
    )
    for name in arguments.rows:
        ROWS[name](arguments)


def compare_case(arguments: argparse.Namespace) -> None:
    """The sliding window over a mosaic of scans."""
    twin, folder = make_twin(arguments.model, arguments), arguments.workspace
    image, ours, theirs = (folder / f"{name}.npy" for name in ("mosaic", "ours", "theirs"))
    np.save(image, make_mosaic(arguments.model, arguments.scans))
    seconds = [
        (
            call(Path(sys.executable), "autoseg", arguments.model, (image, ours), arguments.device),
            call(arguments.nnunet, "nnunet", twin, (image, theirs), arguments.device),
        )
        for _ in range(arguments.pairs)
    ]
    size = " x ".join(map(str, np.load(image).shape[1:]))
    agreement = describe_agreement([(np.load(ours), np.load(theirs))])
    print_row(f"sliding window over {size} voxels, mirroring", seconds, ("-", "-"), agreement)


def make_mosaic(model: Path, scans: Path) -> np.ndarray:
    """Prepared scans side by side, as one image; each is cut or repeats its border to the size of a typical one."""
    fold = load_checkpoint(model / "fold_0" / "checkpoint.pt")
    cell = fold.configuration.median_shape
    parts = []
    for path in sorted(scans.glob("*.nii.gz"))[: int(np.prod(MOSAIC))]:
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
    """Runs one_prediction.py once."""
    command = [python, ONE_PREDICTION, program, model, *files, device]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True)
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def compare_folder(arguments: argparse.Namespace) -> None:
    """The whole command over a folder of scans."""
    number = len(list(arguments.scans.glob("*.nii.gz")))
    compare_commands(f"{number} scans, whole command", arguments.model, arguments.scans, arguments)


def compare_classes(arguments: argparse.Namespace) -> None:
    """The whole command over one scan of many classes."""
    shape, grid = scale((150, 400, 400), arguments.scale), scale((100, 256, 256), arguments.scale)
    model = arguments.workspace / "made_25"
    make_model(model, classes=25, spacing_mm=spacing(shape, grid), patch=(64, 96, 96), features=16)
    scans = make_scan(arguments.workspace / "scan_25", shape)
    compare_commands(f"{' x '.join(map(str, shape))} voxels, 25 classes, whole command", model, scans, arguments)


def run_many(arguments: argparse.Namespace) -> None:
    """A very large scan of very many classes."""
    shape, grid = scale((600, 512, 512), arguments.scale), scale((400, 273, 273), arguments.scale)
    model = arguments.workspace / "made_117"
    make_model(model, classes=117, spacing_mm=spacing(shape, grid), patch=(96, 96, 96), features=8, mirrored=False)
    scans = make_scan(arguments.workspace / "scan_117", shape)
    run = predict_ours(model, scans, arguments)
    text = f"{' x '.join(map(str, shape))} voxels, 117 classes, whole command, no mirroring"
    found = len(np.unique(read_label_map(next((arguments.workspace / "ours").glob("*.nii.gz"))).array))
    memory = (f"{run.all_processes / MEGABYTE:.0f}", "-")
    print(f"| {text} | {run.seconds:.0f} | - | - | {' | '.join(memory)} | {found} labels found |", flush=True)


def compare_commands(text: str, model: Path, scans: Path, arguments: argparse.Namespace) -> None:
    """Runs both programs over a folder in turns."""
    twin = make_twin(model, arguments)
    runs = [
        (predict_ours(model, scans, arguments), predict_theirs(twin, scans, arguments)) for _ in range(arguments.pairs)
    ]
    pairs = [
        (read_label_map(path).array, read_label_map(arguments.workspace / "theirs" / path.name).array)
        for path in sorted((arguments.workspace / "ours").glob("*.nii.gz"))
    ]
    memory = [f"{max(run.all_processes for run in column) / MEGABYTE:.0f}" for column in zip(*runs, strict=True)]
    seconds = [(ours.seconds, theirs.seconds) for ours, theirs in runs]
    print_row(text, seconds, (memory[0], memory[1]), describe_agreement(pairs))


def predict_ours(model: Path, scans: Path, arguments: argparse.Namespace) -> Run:
    """`autoseg predict`."""
    output = arguments.workspace / "ours"
    clear(output)
    command = [sys.executable, "-m", "autoseg", "predict", "-m", model, "-f", "0", "-i", scans, "-o", output]
    return watched([*command, "--device", arguments.device], arguments)


def predict_theirs(twin: Path, scans: Path, arguments: argparse.Namespace) -> Run:
    """`nnUNetv2_predict_from_modelfolder`; its scans must be named CASE_0000."""
    output, named = arguments.workspace / "theirs", arguments.workspace / "named"
    clear(output)
    clear(named)
    for path in scans.glob("*.nii.gz"):
        stem = path.name.removesuffix(".nii.gz").removesuffix("_0000")
        (named / f"{stem}_0000.nii.gz").symlink_to(path.resolve())
    program = arguments.nnunet.with_name("nnUNetv2_predict_from_modelfolder")
    command = [
        program,
        "-m",
        twin,
        "-f",
        "0",
        "-i",
        named,
        "-o",
        output,
        "-device",
        arguments.device,
        "--disable_progress_bar",
    ]
    return watched(command, arguments)


def watched(command: list[object], arguments: argparse.Namespace) -> Run:
    """Runs a command; its output goes into a file."""
    limits = CPU_LIMITS if arguments.device == "cpu" else {}
    folders = {name: str(arguments.workspace) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    return watch([str(part) for part in command], arguments.workspace / "prediction.log", {**limits, **folders})


def clear(folder: Path) -> None:
    """An empty folder."""
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    folder.mkdir(parents=True)


def make_twin(model: Path, arguments: argparse.Namespace) -> Path:
    """nnU-Net's form of a model."""
    twin = arguments.workspace / f"twin_{model.name}"
    write_twin(model / "fold_0" / "checkpoint.pt", twin, arguments.nnunet)
    return twin


def spacing(shape: Shape, grid: Shape) -> tuple[float, float, float]:
    """Which spacing brings a scan of 1 mm voxels to a grid."""
    z, y, x = (old / new for old, new in zip(shape, grid, strict=True))
    return z, y, x


def make_scan(folder: Path, shape: Shape) -> Path:
    """One scan of a round body in air, whose brightness goes smoothly up and down within it; made once."""
    path = folder / "scan_0000.nii.gz"
    if not path.is_file():
        clear(folder)
        field = make_field(shape, np.random.default_rng(5), WAVELENGTH)
        field *= 1 / field.std()
        z, y, x = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
        body = (y / 0.8) ** 2 + (x / 0.9) ** 2 + 0 * z < 1
        image = np.where(body, BRIGHTEST_HU * ndtr(field), AIR_HU).astype(np.float32)
        write_image(path, Volume(array=image[np.newaxis], geometry=Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0))))
    return folder


def make_model(
    folder: Path,
    *,
    classes: int,
    spacing_mm: tuple[float, float, float],
    patch: tuple[int, int, int],
    features: int,
    mirrored: bool = True,
) -> None:
    """A model whose network passes the brightness on, beside all its other features, and cuts it into classes."""
    ones, twos, threes = (1,) * 3, (2,) * 3, (3,) * 3
    stages = tuple(
        Stage(features=features * 2**level, kernel=threes, stride=twos if level else ones, convolutions=2)
        for level in range(4)
    )
    architecture = Architecture(residual="none", in_channels=1, out_channels=classes, stages=stages)
    network = build_network(architecture, torch.Generator().manual_seed(0))
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    pass_brightness(weights, features, classes)
    configuration = Configuration(
        spacing_mm=spacing_mm,
        patch_size=patch,
        batch_size=2,
        median_shape=patch,
        normalization=(Normalization(scheme="ct", lower=-1000, upper=1000, mean=0, std=500),),
        batch_dice=False,
        architecture=architecture,
        estimated_bytes=10**9,
        augmentation=AugmentationSettings(mirror_axes=(0, 1, 2) if mirrored else ()),
    )
    plan = Plan(
        dataset="Dataset999_Made",
        preset="8gb",
        memory_budget_bytes=8 * 10**9,
        axis_order=(0, 1, 2),
        configurations={"3d_fullres": configuration},
        training=TrainingSettings(),
    )
    labels = {"background": 0, **{f"organ {number}": number for number in range(1, classes)}}
    fold = Checkpoint(
        plan=plan,
        info=DatasetInfo(channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz"),
        configuration_name="3d_fullres",
        fold=0,
        cases="0" * 16,
        weights=weights,
        finished=True,
        training={},
    )
    save_checkpoint(fold, ModelFolder(path=folder).checkpoint(0))


def pass_brightness(weights: dict[str, torch.Tensor], features: int, classes: int) -> None:
    """Two channels of each convolution at full resolution hold the brightness and its negative, after the leaky ReLU.

    Their difference is the brightness times a constant, which the next convolution makes of them. The norm of each tile
    makes it that of the tile; a class is a part of its range.
    """
    first = [f"encoder.0.blocks.{number}" for number in range(2)] + [
        f"decoder.0.blocks.{number}" for number in range(2)
    ]
    for place, name in zip(count(), first):
        kernel = weights[f"{name}.conv.weight"]
        kernel[:2] = 0
        skip = features if name == "decoder.0.blocks.0" else 0  # what came across follows what came from below
        for channel, sign in enumerate((1.0, -1.0)):
            kernel[channel, skip, 1, 1, 1] = sign
            if place:
                kernel[channel, skip + 1, 1, 1, 1] = -sign
        weights[f"{name}.conv.bias"][:2] = 0
        weights[f"{name}.norm.weight"][:2], weights[f"{name}.norm.bias"][:2] = 1, 0
    slopes, offsets = cut_brightness(classes)
    head = weights["heads.0.weight"]
    head.zero_()
    head[:, 0, 0, 0, 0], head[:, 1, 0, 0, 0] = slopes, -slopes
    weights["heads.0.bias"].copy_(offsets)


def cut_brightness(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slopes and offsets of as many lines, of which each is the highest over its own part of the brightness.

    The parts are of very different width, as organs are.
    """
    widths = np.exp(np.random.default_rng(7).normal(0, SPREAD, classes))
    ends = np.cumsum(widths) / widths.sum() * (RANGE[1] - RANGE[0]) + RANGE[0]
    slopes = STEEPNESS * np.linspace(*RANGE, classes)
    steps = -np.diff(slopes) * ends[:-1]  # where one line ends, the next one crosses it
    offsets = np.concatenate([[0.0], np.cumsum(steps)])
    return torch.tensor(slopes, dtype=torch.float32), torch.tensor(offsets, dtype=torch.float32)


def describe_agreement(pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Mean Dice of our foreground labels with theirs, over all scans together, and the worst label."""
    labels = sorted(set(np.unique(np.concatenate([np.unique(theirs) for _, theirs in pairs]))) - {0})
    dice = []
    for label in labels:
        both = sum(int(((ours == label) & (theirs == label)).sum()) for ours, theirs in pairs)
        sizes = sum(int((ours == label).sum() + (theirs == label).sum()) for ours, theirs in pairs)
        dice.append(2 * both / sizes)
    return f"Dice {np.mean(dice):.5f}, worst label {min(dice):.5f}" if dice else "nothing found"


def print_row(text: str, seconds: list[tuple[float, float]], memory: tuple[str, str], agreement: str) -> None:
    """A line of the table: shortest runs, their ratio and that of each pair."""
    ours, theirs = (min(column) for column in zip(*seconds, strict=True))
    pairs = ", ".join(f"{their / our:.1f}" for our, their in seconds)
    cells = (text, f"{ours:.2f}", f"{theirs:.2f}", f"**{theirs / ours:.1f}** ({pairs})", *memory, agreement)
    print(f"| {' | '.join(cells)} |", flush=True)


ROWS = {"case": compare_case, "folder": compare_folder, "classes": compare_classes, "many": run_many}

if __name__ == "__main__":
    main()
