"""A fold of hippocampi in int8: size, seconds and held-out Dice beside float32 in torch, both runtimes and nnU-Net.

    python tests/benchmarks/int8.py PATH/TO/Task04_Hippocampus WORKSPACE [--budget 6m] [--nnunet PATH/TO/python]
        [--threads 1] [--rounds 1] [--processor]

What is missing in WORKSPACE is made: the dataset, its plan, a trained fold 0, and exports of it in float32 and in int8,
with the Dice of the held-out cases; a further call finds them there and only takes the time. PATH/TO/python belongs to
an environment with nnU-Net v2, which then gets the same weights.

A tile is one patch of the plan with all its mirror images; a case is the middle one of the held-out cases by size,
preprocessed. The programs take turns, nnU-Net's in a process of its own, and the fastest round counts. With --processor
it is the time on the processor, which other programs that run meanwhile change less.
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 keeps torch and OpenVINO to AVX2; ONNX Runtime has no such switch.
Prints two tables in Markdown for RESULTS.md.
"""

import argparse
import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from math import inf, prod
from pathlib import Path

import numpy as np
import torch
from measure_prediction import load_ours
from measured_on import print_machine
from nnunet_twin import write_twin
from numpy.typing import NDArray
from programs import NUMBER, import_hippocampus, limit_cores
from runtimes import call

import autoseg
from autoseg.datasets.splits import Splits
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.fold_description import Int8Comparison
from autoseg.models.fold_files import load_exported
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.processor import describe_instructions
from autoseg.workspace import DatasetFolders, ModelFolder, Workspace

ANY_LOSS = 1.0
CONFIGURATION, FOLD = "3d_fullres", 0
PRECISIONS = ("float32", "int8")
RUNTIMES = ("onnx", "openvino")

Program = Callable[[NDArray[np.float32]], object] | Path
"""What segments an image here, or the interpreter of nnU-Net."""


def main() -> None:
    """Makes what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--budget", default="6m")
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processor", action="store_true")
    arguments = parser.parse_args()
    limit_cores()
    print_machine()
    print(f"instructions for integers: {describe_instructions(integers=True)}; threads: {arguments.threads}\n")
    folders = prepare(arguments.source, Workspace(root=arguments.workspace), arguments.budget)
    model, place = folders.model(CONFIGURATION), arguments.workspace / "int8"
    exports = {precision: export(arguments.workspace, place / precision, precision) for precision in PRECISIONS}
    write_images(folders, place)
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    torch.set_num_threads(arguments.threads)
    programs = list_programs(model, exports)
    if arguments.nnunet is not None:
        if not (place / "twin").is_dir():
            write_twin(model.checkpoint(FOLD), place / "twin", arguments.nnunet)
        programs["nnU-Net, float32"] = arguments.nnunet
    kind = "processor_seconds" if arguments.processor else "seconds"
    measure = partial(measure_once, place=place, threads=arguments.threads, kind=kind)
    print_seconds(programs, measure, arguments.rounds)
    print_dice(load_exported(exports["int8"], FOLD).int8, Summary.load(summary_file(model.validation(FOLD))))


def prepare(source: Path, workspace: Workspace, budget: str) -> DatasetFolders:
    """Imports, plans and trains, unless an earlier run did."""
    folders = import_hippocampus(source, workspace)
    if not folders.plan.is_file():
        autoseg.plan_and_preprocess(NUMBER, configurations=[CONFIGURATION], preset="small", workspace=workspace.root)
    if not summary_file(folders.model(CONFIGURATION).validation(FOLD)).is_file():
        autoseg.train(NUMBER, CONFIGURATION, FOLD, budget=budget, workspace=workspace.root)
    return folders


def export(workspace: Path, folder: Path, precision: str) -> ModelFolder:
    """Exports the fold unless an earlier run did, and returns the unpacked folder of its configuration."""
    if not folder.is_dir():
        bundle = autoseg.export_model(
            NUMBER,
            folder.with_suffix(".zip"),
            configuration=CONFIGURATION,
            folds=FOLD,
            runtime="onnx",
            precision=precision,
            largest_dice_loss=ANY_LOSS if precision == "int8" else None,
            workspace=workspace,
        )
        shutil.unpack_archive(bundle, folder)
    return ModelFolder(path=folder / CONFIGURATION)


def write_images(folders: DatasetFolders, place: Path) -> None:
    """Writes the two images that are segmented, each into a folder where `runtimes.call` finds it."""
    names = Splits.load(folders.splits).folds[FOLD].validation
    cases = [StoredCase.open(folders.cases(CONFIGURATION), name) for name in names]
    image = sorted(cases, key=lambda case: prod(case.shape))[len(cases) // 2].load()[0]
    patch = load_checkpoint(folders.model(CONFIGURATION).checkpoint(FOLD)).configuration.patch_size
    tile = np.random.default_rng(0).standard_normal((len(image), *patch), dtype=np.float32)
    for name, array in {"tile": tile, "case": image}.items():
        (place / name).mkdir(parents=True, exist_ok=True)
        np.save(place / name / "image.npy", array)


def list_programs(model: ModelFolder, exports: dict[str, ModelFolder]) -> dict[str, Program]:
    """Returns what calculates the network here: torch, and each runtime in each precision."""
    sources = {"torch, float32": ("torch", model.path)}
    for precision, folder in exports.items():
        sources |= {f"{name}, {precision}": (name, folder.path) for name in RUNTIMES}
    cpu = torch.device("cpu")
    return {title: load_ours(path, cpu, name) for title, (name, path) in sources.items()}


def measure_once(program: Program, image: str, *, place: Path, threads: int, kind: str) -> float:
    """Returns the seconds of the faster of two segmentations of an image."""
    if isinstance(program, Path):
        return call(program, "nnunet", place / "twin", place / image, threads, kind)
    clock = time.process_time if kind == "processor_seconds" else time.perf_counter
    array, fastest = np.load(place / image / "image.npy"), inf
    for _ in range(2):
        started = clock()
        with torch.inference_mode():
            program(array)
        fastest = min(fastest, clock() - started)
    return fastest


def print_seconds(programs: dict[str, Program], measure: Callable[[Program, str], float], rounds: int) -> None:
    """Measures each program in turns, and prints a row for each."""
    seconds: dict[str, dict[str, float]] = {name: {"tile": inf, "case": inf} for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            for image, fastest in seconds[name].items():
                seconds[name][image] = min(fastest, measure(program, image))
    references = [name for name in ("nnU-Net, float32", "torch, float32", "openvino, float32") if name in programs]
    print(f"| calculated by | tile, s | case, s | {' | '.join(f'times {name}' for name in references)} |")
    print(f"|---|---:|---:|{'---:|' * len(references)}")
    for name in programs:
        times = [f"{seconds[reference]['tile'] / seconds[name]['tile']:.2f}" for reference in references]
        values = [f"{seconds[name]['tile']:.3f}", f"{seconds[name]['case']:.3f}", *times]
        print(f"| {name} | {' | '.join(values)} |", flush=True)


def print_dice(comparison: Int8Comparison, validation: Summary) -> None:
    """Prints the size, and the Dice of each label over the held-out cases, before and after int8."""
    print(
        f"\nnetwork: {comparison.bytes_after / 1e6:.2f} MB in int8, {comparison.bytes_before / 1e6:.2f} MB in float32"
    )
    print(f"\n| Dice of {comparison.cases} held-out cases | {' | '.join(comparison.dice)} |")
    print(f"|---|{'---:|' * len(comparison.dice)}")
    rows = {"torch, as validated": {name: scores.dice for name, scores in validation.mean.items()}}
    rows |= {"exported, float32": comparison.dice}
    rows |= {f"{found.runtime}, int8": found.dice for found in comparison.runtimes}
    for name, dice in rows.items():
        print(f"| {name} | {' | '.join(f'{dice[label]:.4f}' for label in comparison.dice)} |")


if __name__ == "__main__":
    main()
