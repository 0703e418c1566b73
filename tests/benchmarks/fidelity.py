"""Trains by the same plan here and in nnU-Net: losses and Dice of whole held-out cases, several seeds of each.

    python tests/benchmarks/fidelity.py WORKSPACE -d 4 -c 3d_fullres --nnunet PATH/TO/python --patch 40 56 40 --batch 2
    python tests/benchmarks/fidelity.py WORKSPACE -d 5 -c 2d --nnunet PATH/TO/python --patch 128 128 --batch 4

PATH/TO/python belongs to an environment with nnU-Net v2.8.1. WORKSPACE holds the raw dataset. Both programs take its
fingerprint, plan it by nnU-Net's rules and preprocess it. Then patch, batch and the width of the network are edited in
both plans, which must agree in all that a trainer reads of them. Each seed trains fold 0 in each program: the same
cases, network, numbers of steps, learning rate with its polynomial fall, momentum, weight decay, share of patches on
foreground and deep supervision, in float32; each with its own augmentation and initial weights. Both segment
the same held-out cases with mirror images.

Each training leaves its result in WORKSPACE/fidelity, so that a run that was stopped goes on. Prints tables in Markdown
for RESULTS.md. Nothing is timed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from measured_on import print_machine
from programs import call_theirs, reference_folders

import autoseg
from autoseg.model_selection.validation import segment_held_out
from autoseg.planning.plan import Configuration, Plan
from autoseg.runtime import device
from autoseg.runtime.reporting import SILENT
from autoseg.training.fold import hold_fold, train_to_end
from autoseg.training.fold_job import FoldJob
from autoseg.training.jobs import TrainingRequest, make_jobs
from autoseg.workspace import DatasetFolders, Workspace

MEASURE_FIDELITY = Path(__file__).with_name("measure_fidelity.py")
PLAN_NAME = "fidelity"
USUAL_FEATURES = 32
PROGRAMS = ("autoseg", "nnU-Net")
LOSS_ROWS = 10
UNIMPORTANT = ("workspace", "number", "configuration", "nnunet", "seeds", "threads")
"""Arguments that change no training."""


def main() -> None:
    """Prepares the dataset in both programs, trains what is not trained yet, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--number", type=int, required=True)
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON", required=True)
    parser.add_argument("--patch", type=int, nargs="+", required=True, help="edges of a patch in voxels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--features", type=int, default=USUAL_FEATURES, help="of the first stage")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--steps", type=int, default=10, help="steps of an epoch")
    parser.add_argument("--rate", type=float, default=0.01, help="initial learning rate")
    parser.add_argument("--momentum", type=float, default=0.99)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--held-out", type=int, default=20, help="largest number of held-out cases that are segmented")
    parser.add_argument("--threads", type=int, default=1, help="threads of nnU-Net")
    arguments = parser.parse_args()
    workspace = Workspace(root=arguments.workspace)
    with patch.object(device, "_cpu_has_bfloat16", lambda: False):
        print_machine()
        job, plans = prepare(workspace, arguments)
        found = train_all(job, plans, workspace, arguments)
    print_scores(found, list(job.dataset.info.targets.names))
    print_losses(found)


def prepare(workspace: Workspace, arguments: argparse.Namespace) -> tuple[FoldJob, dict[str, Any]]:
    """Plans and preprocesses in both programs, unless an earlier run did; returns fold 0 here, and nnU-Net's plans."""
    number, configuration = arguments.number, arguments.configuration
    folders = workspace.dataset(number).with_plan(PLAN_NAME)
    theirs = reference_folders(workspace)["nnUNet_preprocessed"] / folders.raw.name
    name_as_nnunet(folders.raw / "imagesTr")
    if not folders.plan.is_file():
        chosen = {"configurations": [configuration], "preset": "plain", "rules": "nnunet", "plan_name": PLAN_NAME}
        autoseg.plan_and_preprocess(number, **chosen, workspace=workspace.root)
    if not (theirs / f"nnUNetPlans_{configuration}").is_dir():
        call_theirs(workspace, arguments.nnunet, "plan_and_preprocess", number, "-c", configuration, "-np", 1)
    [job] = make_jobs(TrainingRequest(number=number, folders=folders, configuration=configuration, folds=(0,)))
    split = job.split.model_copy(update={"validation": job.split.validation[: arguments.held_out]})
    splits = [{"train": list(split.training), "val": list(split.validation)}]
    (theirs / "splits_final.json").write_text(json.dumps(splits))
    plans = json.loads((theirs / "nnUNetPlans.json").read_text())
    edit_their_plan(plans["configurations"][configuration], arguments)
    edited = edit_our_plan(job.configuration, arguments)
    check_equal(edited, plans["configurations"][configuration])
    plan = job.plan.model_copy(update={"configurations": {configuration: edited}})
    return replace(job, plan=plan, split=split), plans


def name_as_nnunet(images: Path) -> None:
    """Gives pictures in colours, which are one file each, the number of a channel in their names, as nnU-Net asks."""
    for path in images.glob("*.png"):
        if not path.stem.endswith("_0000"):
            path.rename(path.with_name(f"{path.stem}_0000.png"))


def edit_their_plan(configuration: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Changes patch, batch and features of a configuration of nnU-Net, in place."""
    configuration |= {"patch_size": list(arguments.patch), "batch_size": arguments.batch}
    network = configuration["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [narrow(features, arguments) for features in network["features_per_stage"]]


def edit_our_plan(configuration: Configuration, arguments: argparse.Namespace) -> Configuration:
    """Returns a configuration of autoseg with the same changes."""
    stages = tuple(
        stage.model_copy(update={"features": narrow(stage.features, arguments)})
        for stage in configuration.architecture.stages
    )
    architecture = configuration.architecture.model_copy(update={"stages": stages})
    changes = {"patch_size": tuple(arguments.patch), "batch_size": arguments.batch, "patch_growth": ()}
    content = configuration.model_dump(by_alias=True) | changes
    return Configuration.model_validate(content | {"architecture": architecture.model_dump(by_alias=True)})


def narrow(features: int, arguments: argparse.Namespace) -> int:
    """Returns the features of a stage of a network whose first stage has as many as was asked for."""
    return max(1, features * arguments.features // USUAL_FEATURES)


def check_equal(ours: Configuration, theirs: dict[str, Any]) -> None:
    """Makes sure that both trainers read the same.

    Raises:
        SystemExit: They do not.
    """
    stages, network = ours.architecture.stages, theirs["architecture"]["arch_kwargs"]
    pairs = {
        "features": ([stage.features for stage in stages], network["features_per_stage"]),
        "kernels": ([list(stage.kernel) for stage in stages], network["kernel_sizes"]),
        "strides": ([list(stage.stride) for stage in stages], network["strides"]),
        "convolutions": ([stage.convolutions for stage in stages], network["n_conv_per_stage"]),
        "patch": (list(ours.patch_size), theirs["patch_size"]),
        "batch": (ours.batch_size, theirs["batch_size"]),
        "batch Dice": (ours.batch_dice, theirs["batch_dice"]),
        "spacing": ([round(edge, 4) for edge in ours.spacing_mm], [round(edge, 4) for edge in theirs["spacing"]]),
    }
    for name, (our_value, their_value) in pairs.items():
        if our_value != their_value:
            sys.exit(f"{name} of the plans differ: {our_value} here, {their_value} in nnU-Net")


def train_all(
    job: FoldJob, plans: dict[str, Any], workspace: Workspace, arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Trains each seed in each program, unless its result lies there; returns the results of each program."""
    kept = workspace.root / "fidelity" / f"{arguments.number}_{arguments.configuration}"
    kept.mkdir(parents=True, exist_ok=True)
    settings = json.dumps({name: str(value) for name, value in vars(arguments).items() if name not in UNIMPORTANT})
    if (kept / "settings.json").is_file() and (kept / "settings.json").read_text() != settings:
        shutil.rmtree(kept)
        kept.mkdir()
    (kept / "settings.json").write_text(settings)
    found: dict[str, list[dict[str, Any]]] = {program: [] for program in PROGRAMS}
    for seed in arguments.seeds:
        for program in PROGRAMS:
            path = kept / f"{program}_{seed}.json"
            if not path.is_file():
                call = (
                    train_here(job, seed, arguments)
                    if program == "autoseg"
                    else train_there(job.folders, plans, seed, workspace, arguments)
                )
                path.write_text(json.dumps({"seed": seed, **call}))
            found[program].append(json.loads(path.read_text()))
            print(f"{program}, seed {seed}: mean Dice {found[program][-1]['dice']:.4f}", file=sys.stderr, flush=True)
    return found


def train_here(job: FoldJob, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains and judges the fold by autoseg."""
    settings = {
        **job.plan.training.model_dump(by_alias=True),
        "seed": 1000 * seed,
        "epochs": arguments.epochs,
        "steps_per_epoch": arguments.steps,
        "validation_steps": 1,
        "learning_rate": arguments.rate,
        "momentum": arguments.momentum,
    }
    plan = Plan.model_validate({**job.plan.model_dump(by_alias=True), "training": settings})
    with TemporaryDirectory() as results:
        changed = replace(job, plan=plan, folders=replace(job.folders, results=Path(results)))
        with hold_fold(changed, SILENT) as stop:
            checkpoint = train_to_end(changed, stop, SILENT)
        summary = segment_held_out(changed, checkpoint, SILENT)
    return {
        "losses": [report["training_loss"] for report in checkpoint.training["reports"]],
        "labels": {name: scores.dice for name, scores in summary.mean.items()},
        "dice": summary.foreground_mean.dice,
    }


def train_there(
    folders: DatasetFolders, plans: dict[str, Any], seed: int, workspace: Workspace, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Trains and judges the fold by nnU-Net, in a process of its own."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        question = {
            "plans": plans,
            "dataset": json.loads((folders.raw / "dataset.json").read_text()),
            "configuration": arguments.configuration,
            "seed": seed,
            "epochs": arguments.epochs,
            "steps": arguments.steps,
            "rate": arguments.rate,
            "momentum": arguments.momentum,
            "threads": arguments.threads,
        }
        (folder / "question.json").write_text(json.dumps(question))
        places = {**reference_folders(workspace), "nnUNet_results": folder / "results"}
        limits = {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "0", "OMP_NUM_THREADS": str(arguments.threads)}
        done = subprocess.run(
            [str(arguments.nnunet), "-W", "ignore", str(MEASURE_FIDELITY), name],
            env={**os.environ, **{key: str(path) for key, path in places.items()}, **limits, "PYTHONPATH": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"nnU-Net could not train: {done.stderr[-3000:]}")
        return json.loads((folder / "answer.json").read_text())


def print_scores(found: dict[str, list[dict[str, Any]]], names: list[str]) -> None:
    """Prints the Dice of each training, and the means of the programs with the spread of their seeds."""
    print(f"| trained by | seed | mean Dice | {' | '.join(names)} | loss of the last epoch |")
    print("|---" * (4 + len(names)) + "|")
    for program, results in found.items():
        for result in results:
            labels = " | ".join(f"{value:.4f}" for value in result["labels"].values())
            print(f"| {program} | {result['seed']} | {result['dice']:.4f} | {labels} | {result['losses'][-1]:.4f} |")
    dice = {program: [result["dice"] for result in results] for program, results in found.items()}
    means = ", ".join(f"{program} {mean(values):.4f}" for program, values in dice.items())
    ours, theirs = dice.values()
    print(f"\nMean Dice: {means}; difference {mean(ours) - mean(theirs):+.4f}", end="")
    if len(ours) > 1:
        spreads = ", ".join(f"{program} {stdev(values):.4f}" for program, values in dice.items())
        print(f"; standard deviation over seeds: {spreads}", end="")
    print(".\n")


def print_losses(found: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the training loss of some epochs: the mean over the seeds, and the smallest and largest."""
    print(f"| training loss of epoch | {' | '.join(found)} |\n|---|---|---|")
    epochs = len(found[PROGRAMS[0]][0]["losses"])
    chosen = sorted({round(number * (epochs - 1) / (LOSS_ROWS - 1)) for number in range(LOSS_ROWS)})
    for epoch in chosen:
        cells = []
        for results in found.values():
            values = [result["losses"][epoch] for result in results]
            cells.append(f"{mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        print(f"| {epoch + 1} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
