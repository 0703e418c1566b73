"""The sliding window of one network in torch, ONNX Runtime and OpenVINO, and beside nnU-Net's, in float32.

    python tests/benchmarks/runtimes.py [--nnunet PATH/TO/python] [--shape 64 80 64] [--patch 64 64 64]
        [--features 16] [--threads 1 2] [--rounds 2]

PATH/TO/python belongs to an environment with nnU-Net v2, without which its column stays empty. The network is a plain
U-Net of four stages whose weights are made by hand (see made_up_model.py); all programs have the same weights, tiles,
image and eight mirror images. Each measurement is a process of its own, they take turns, and the fastest counts.
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 keeps torch and OpenVINO to AVX2; ONNX Runtime has no such switch.
Prints a table in Markdown for RESULTS.md: seconds, and for each runtime how many times nnU-Net takes as long, else
torch, and the share of voxels with the label that torch gives them.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from made_up_model import make_model
from measured_on import print_machine
from nnunet_twin import write_twin
from programs import limit_cores
from smooth_scans import make_field

from autoseg.models.bundle import export_model

MEASURE_PREDICTION = Path(__file__).with_name("measure_prediction.py")
WAVELENGTH = 32
CLASSES = 3
RUNTIMES = ("torch", "onnx", "openvino")


def main() -> None:
    """Makes the model and the image, and prints a row for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 80, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--patch", type=int, nargs=3, default=(64, 64, 64), metavar=("Z", "Y", "X"))
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--threads", type=int, nargs="+", default=(1, 2))
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    limit_cores()
    print_machine()
    with TemporaryDirectory() as folder:
        models = prepare(Path(folder), arguments)
        print("| threads | torch, s | onnx, s | openvino, s | nnU-Net, s | times | equal voxels |")
        print("|---|---:|---:|---:|---:|---|---|")
        for threads in arguments.threads:
            print_threads(Path(folder), models, threads, arguments.rounds)


def prepare(folder: Path, arguments: argparse.Namespace) -> dict[str, tuple[Path, Path]]:
    """Writes the image and the model in the form of each program; returns the python and the model of each."""
    field = make_field(tuple(arguments.shape), np.random.default_rng(5), WAVELENGTH)
    np.save(folder / "image.npy", (field / field.std())[None].astype(np.float32))
    model, patch = folder / "3d_fullres", tuple(arguments.patch)
    spacing_mm = (1.0, 1.0, 1.0)
    make_model(model, classes=CLASSES, spacing_mm=spacing_mm, patch=patch, features=arguments.features)
    bundle = export_model(model, folder / "exported.zip", runtime="onnx")
    shutil.unpack_archive(bundle, folder / "exported")
    exported = folder / "exported" / model.name
    python = Path(sys.executable)
    models = {"torch": (python, model), "onnx": (python, exported), "openvino": (python, exported)}
    if arguments.nnunet is not None:
        write_twin(model / "fold_0" / "checkpoint.pt", folder / "twin", arguments.nnunet)
        models["nnunet"] = (arguments.nnunet, folder / "twin")
    return models


def print_threads(folder: Path, models: dict[str, tuple[Path, Path]], threads: int, rounds: int) -> None:
    """Measures each program in turns, and prints the row."""
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, (python, model) in models.items():
            seconds[name].append(call(python, name, model, folder, threads))
    fastest = {name: min(values) for name, values in seconds.items()}
    reference = fastest.get("nnunet", fastest["torch"])
    times = ", ".join(f"{name} {reference / fastest[name]:.2f}" for name in RUNTIMES)
    labels = {name: np.load(folder / f"{name}.npy") for name in models}
    equal = ", ".join(f"{name} {100 * (labels[name] == labels['torch']).mean():.3f} %" for name in models)
    cells = [f"{fastest[name]:.2f}" if name in fastest else "-" for name in (*RUNTIMES, "nnunet")]
    print(f"| {' | '.join([str(threads), *cells, times, equal])} |", flush=True)


def call(python: Path, name: str, model: Path, folder: Path, threads: int, kind: str = "seconds") -> float:
    """Runs measure_prediction.py once; returns its seconds, or "processor_seconds"."""
    program, runtime = ("autoseg", ["--runtime", name]) if name in RUNTIMES else ("nnunet", [])
    files = (folder / "image.npy", folder / f"{name}.npy")
    command = [python, MEASURE_PREDICTION, program, model, *files, "cpu", "--threads", threads, *runtime]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return float(json.loads(done.stdout.splitlines()[-1])[kind])


if __name__ == "__main__":
    main()
