"""Training and prediction of the preset `small` with the instruction sets of older and newer processors.

    python tests/benchmarks/instruction_sets.py [--steps 15] [--shape 40 56 40] [--only AVX2 AVX512_CORE]

A process for each instruction set is kept to it by ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY; the last row, "native",
has no limit. Each process probes its speed (`models.speed`), trains fold 0 of made-up scans of the shape of a
hippocampus with augmentation beside it, and segments a scan with eight mirror images twice, of which the second counts.
It trains with patches of one size for two epochs, of which the second counts, and with patches that grow for an epoch
per size, of which all count. Needs a processor that has the instructions; where it has not, oneDNN takes what there is,
and a row repeats another one. Speeds are multiply-adds per second, in training those of forward and backward pass;
"passes" is what these two take for a batch at that speed, "step" the whole step, "growing" the mean step where patches
grow. Prints a table in Markdown for RESULTS.md.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from measured_on import machine_line, print_machine
from programs import CORES, NUMBER, import_hippocampus, limit_cores

from made_up_hippocampi import write_hippocampi  # isort: skip - measured_on makes tests/support importable

import autoseg
from autoseg.imaging.image_files import read_image
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.speed import measure_speed
from autoseg.planning.machine_speed import STEP_OVERHEAD, count_patch_work
from autoseg.workspace import DatasetFolders, Workspace

CONFIGURATION = "3d_fullres"
NATIVE = "native"
CAPABILITIES = {
    "AVX2": "avx2",
    "AVX2_VNNI": "avx2",
    "AVX512_CORE": "avx512",
    "AVX512_CORE_VNNI": "avx512",
    NATIVE: "",
}
"""Value of ONEDNN_MAX_CPU_ISA, to that of ATEN_CPU_CAPABILITY."""


def main() -> None:
    """Prepares the scans, measures one instruction set after the other and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=15, help="training steps of each epoch")
    parser.add_argument("--shape", type=int, nargs=3, default=(40, 56, 40), metavar=("Z", "Y", "X"))
    parser.add_argument("--only", nargs="+", choices=CAPABILITIES, default=list(CAPABILITIES))
    parser.add_argument("--measure", type=Path, metavar="WORKSPACE", help="measure this process alone")
    arguments = parser.parse_args()
    limit_cores()
    torch.set_num_threads(CORES)
    if arguments.measure is not None:
        print(json.dumps(measure(Workspace(root=arguments.measure))))
        return
    print_machine()
    with TemporaryDirectory() as folder:
        prepare(Workspace(root=Path(folder)), tuple(arguments.shape), arguments.steps)
        print(
            "| instruction set | precision | training, 10^9/s | prediction | passes, s | step, s | growing | scan, s |"
        )
        print("|---|---|---:|---:|---:|---:|---:|---:|")
        for name in arguments.only:
            print(f"| {' | '.join([name, *call(name, folder)])} |", flush=True)


def prepare(workspace: Workspace, shape: tuple[int, int, int], steps: int) -> None:
    """Writes made-up scans and prepares them by two plans of a few short epochs."""
    source = write_hippocampi(workspace.root / "source", cases=6, shape=shape)
    folders = import_hippocampus(source, workspace)
    with patch("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 10_000):
        for patches in ("fixed", "growing"):
            plan = autoseg.plan_and_preprocess(
                NUMBER,
                preset="small",
                patches=patches,
                plan_name=patches,
                configurations=[CONFIGURATION],
                workspace=workspace.root,
            )
            epochs = len(plan.configurations[CONFIGURATION].stages) if patches == "growing" else 2
            changes = {"epochs": epochs, "steps_per_epoch": steps, "validation_steps": 1}
            training = plan.training.model_copy(update=changes)
            plan.model_copy(update={"training": training}).save(folders.with_plan(patches).plan)


def call(name: str, workspace: str) -> list[str]:
    """Measures in a process that is kept to an instruction set; returns the cells of its row."""
    limits = {} if name == NATIVE else {"ONEDNN_MAX_CPU_ISA": name, "ATEN_CPU_CAPABILITY": CAPABILITIES[name]}
    command = [sys.executable, __file__, "--measure", workspace]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **limits})
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    figures = json.loads(done.stdout.splitlines()[-1])
    return [
        figures["precision"],
        f"{figures['training'] / 1e9:.0f}",
        f"{figures['prediction'] / 1e9:.0f}",
        f"{figures['pass_seconds']:.3f}",
        f"{figures['step_seconds']:.3f}",
        f"{figures['growing_seconds']:.3f}",
        f"{figures['scan_seconds']:.2f}",
    ]


def measure(workspace: Workspace) -> dict[str, object]:
    """Returns the figures of this process."""
    speed, fixed = measure_speed(torch.device("cpu")), workspace.dataset(NUMBER).with_plan("fixed")
    steps = step_seconds(workspace, "fixed")
    growing = step_seconds(workspace, "growing")
    configuration = load_checkpoint(fixed.model(CONFIGURATION).checkpoint(0)).configuration
    work = count_patch_work(configuration)
    return {
        "machine": machine_line(),
        "precision": speed.precision,
        "training": speed.training,
        "prediction": speed.prediction,
        "step_seconds": steps[-1],
        "growing_seconds": sum(growing) / len(growing),
        "pass_seconds": speed.step_seconds(work, configuration.batch_size) / STEP_OVERHEAD,
        "scan_seconds": scan_seconds(fixed),
    }


def step_seconds(workspace: Workspace, plan_name: str) -> list[float]:
    """Trains fold 0 by a plan; returns the mean seconds of a step of each epoch."""
    autoseg.train(NUMBER, CONFIGURATION, [0], device="cpu", restart=True, plan_name=plan_name, workspace=workspace.root)
    model = workspace.dataset(NUMBER).with_plan(plan_name).model(CONFIGURATION)
    checkpoint = load_checkpoint(model.checkpoint(0))
    reports, configuration = checkpoint.training["reports"], checkpoint.configuration
    stages = [configuration.stage_at(number / len(reports)) for number in range(len(reports))]
    return [stage.batch_size / report["patches_per_second"] for stage, report in zip(stages, reports, strict=True)]


def scan_seconds(folders: DatasetFolders) -> float:
    """Returns the seconds in which a scan is preprocessed and segmented, the second time."""
    segmenter = load_segmenter(folders.model(CONFIGURATION).path, PredictionOptions(device="cpu"))
    image = read_image((min((folders.raw / "imagesTr").iterdir()),))
    segmenter.segment(image)
    started = time.perf_counter()
    segmenter.segment(image)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
