"""Plans random datasets by nnU-Net and by our rules "nnunet", and compares every decision.

    python tests/benchmarks/reference_plans.py WORKSPACE [--nnunet PATH/TO/PYTHON] [--datasets 40]

PATH/TO/PYTHON is the interpreter of an environment that holds nnunetv2 2.8.1; without it our rules run alone, and plans
are counted but not compared. For each dataset nnU-Net's default planner and its residual-encoder planners M, L and XL
run, half of the time with another memory than they are made for. A planner that takes longer than a minute, as some do
for huge images, is left out. Prints each difference and a table in Markdown.
"""

import argparse
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
from measured_on import print_machine
from reference_plan_cases import compare

from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.errors import AutosegError
from autoseg.planning.plan import Plan
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.presets import PRESETS

PLANNER_PROGRAM = """
import json, signal, sys
from nnunetv2.experiment_planning.experiment_planners import default_experiment_planner as default
from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners as residual

class SimpleITKIO:
    pass

def without_images(planner):
    return type(planner.__name__, (planner,), {"determine_reader_writer": lambda self: SimpleITKIO})

def give_up(*_):
    raise TimeoutError

planners = {
    "plain": default.ExperimentPlanner,
    "resenc_m": residual.nnUNetPlannerResEncM,
    "resenc_l": residual.nnUNetPlannerResEncL,
    "resenc_xl": residual.nnUNetPlannerResEncXL,
}
signal.signal(signal.SIGALRM, give_up)
for name, planner in planners.items():
    memory = {"gpu_memory_target_in_gb": float(sys.argv[2])} if float(sys.argv[2]) else {}
    signal.alarm(60)
    try:
        without_images(planner)(sys.argv[1], **memory).plan_experiment()
    except TimeoutError:
        pass
    finally:
        signal.alarm(0)
"""
PLAN_FILES = {
    "plain": "nnUNetPlans.json",
    "resenc_m": "nnUNetResEncUNetMPlans.json",
    "resenc_l": "nnUNetResEncUNetLPlans.json",
    "resenc_xl": "nnUNetResEncUNetXLPlans.json",
}
SAME, LATE, ALONE = "the same in every decision", "not planned by nnU-Net within a minute", "planned by autoseg alone"
EXPECTED = (SAME, LATE, ALONE)
"""Outcomes that need no line of their own."""
KINDS = ("equal sides", "thick slices", "any", "planes", "large", "slabs")


def main() -> None:
    """Plans all datasets with both programs, or with autoseg alone, and prints the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--nnunet", type=Path, metavar="PYTHON")
    parser.add_argument("--datasets", type=int, default=40)
    arguments = parser.parse_args()
    print_machine()
    outcomes: Counter[str] = Counter()
    for seed in range(arguments.datasets):
        random = np.random.default_rng(seed)
        name, gigabytes = f"Dataset{seed % 999 + 1:03d}_Random", float(random.choice([0, 0, 0, 4, 6, 11]))
        write_dataset(arguments.workspace, name, random)
        if arguments.nnunet is not None:
            plan_with_reference(arguments.workspace, name, gigabytes, arguments.nnunet)
        for preset in PLAN_FILES:
            if arguments.nnunet is None:
                outcome = plan_alone(arguments.workspace, name, preset, gigabytes)
            else:
                outcome = compare_plans(arguments.workspace, name, preset, gigabytes)
            outcomes[outcome] += 1
            if outcome not in EXPECTED:
                print(f"seed {seed}, {preset}: {outcome}", flush=True)
    print("| outcome | plans |\n|---|---|")
    for outcome, count in outcomes.most_common():
        print(f"| {outcome} | {count} |")


def write_dataset(workspace: Path, name: str, random: np.random.Generator) -> None:
    """Writes dataset.json, a fingerprint, and empty files in the place of the images, which planning does not read."""
    count, channels = int(random.choice([2, 5, 13, 40, 131])), int(random.integers(1, 5))
    shape, spacing = random_grid(random)
    spread = random.choice([0, 0.02, 0.3])
    flat = shape == 1
    shapes = np.round(shape * np.exp(random.normal(0, spread, (count, 3))))
    spacings = spacing * np.exp(random.normal(0, spread, (count, 3)))
    facts = {"mean": 1, "median": 1, "std": 1, "min": 0, "max": 2, "percentile_99_5": 2, "percentile_00_5": 0}
    fingerprint = {
        "spacings": np.where(flat, spacing, spacings).tolist(),
        "shapes_after_crop": np.where(flat, 1, np.maximum(shapes, 1)).astype(int).tolist(),
        "median_relative_size_after_cropping": float(random.choice([1, 0.8, 0.75, 0.5])),
        "foreground_intensity_properties_per_channel": {str(number): facts for number in range(channels)},
    }
    classes = int(random.choice([2, 3, 5, 15, 40]))
    info = {
        "channel_names": {
            str(number): str(random.choice(["CT", "T2", "noNorm", "rescale_to_0_1"])) for number in range(channels)
        },
        "labels": {"background": 0, **{f"organ_{number}": number for number in range(1, classes)}},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    raw, preprocessed = workspace / "raw" / name, workspace / "preprocessed" / name
    files = [f"labelsTr/case_{case:04d}.nii.gz" for case in range(count)]
    files += [f"imagesTr/case_{case:04d}_{number:04d}.nii.gz" for case in range(count) for number in range(channels)]
    for folder in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (raw / file).touch()
    (raw / "dataset.json").write_text(json.dumps(info))
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))


def random_grid(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns the typical shape and spacing of a dataset of a random kind."""
    kind, fine = random.choice(KINDS), random.uniform(0.3, 1.5)
    grids = {
        "equal sides": (random.integers(20, 300, 3), np.full(3, fine)),
        "thick slices": (
            [random.integers(5, 60), *random.integers(100, 600, 2)],
            [fine * random.uniform(1, 10), fine, fine],
        ),
        "any": (np.exp(random.uniform(2.1, 6.9, 3)).astype(int), np.exp(random.uniform(-3, 2.5, 3))),
        "planes": ([1, *random.integers(30, 1500, 2)], [999, 1, 1]),
        "large": (random.integers(300, 800, 3), random.uniform(0.4, 1.2, 3)),
        "slabs": (
            random.permutation([random.integers(8, 40), *random.integers(100, 400, 2)]),
            random.permutation([random.uniform(2, 8), 1, random.uniform(0.8, 1.3)]),
        ),
    }
    shape, spacing = grids[str(kind)]
    return np.asarray(shape, dtype=float), np.asarray(spacing, dtype=float)


def plan_with_reference(workspace: Path, name: str, gigabytes: float, python: Path) -> None:
    """Runs nnU-Net's planners, which write their plans into the folder of the preprocessed dataset."""
    folders = {f"nnUNet_{part}": str(workspace / part) for part in ("raw", "preprocessed", "results")}
    command = [str(python), "-W", "ignore", "-c", PLANNER_PROGRAM, name, str(gigabytes)]
    subprocess.run(command, env={**os.environ, **folders}, check=True, capture_output=True)


def plan_alone(workspace: Path, name: str, preset: str, gigabytes: float) -> str:
    """Plans a dataset by our rules "nnunet" and describes the outcome."""
    try:
        plan_here(workspace, name, preset, gigabytes)
    except AutosegError as error:
        return f"refused: {str(error).splitlines()[0]}"
    return ALONE


def compare_plans(workspace: Path, name: str, preset: str, gigabytes: float) -> str:
    """Plans a dataset by our rules "nnunet" and describes what differs from nnU-Net's plan."""
    path = workspace / "preprocessed" / name / PLAN_FILES[preset]
    if not path.is_file():
        return LATE
    golden = json.loads(path.read_text())
    networks = [configuration.get("architecture") for configuration in golden["configurations"].values()]
    if any(network and len(network["arch_kwargs"]["strides"]) == 1 for network in networks):
        return "nnU-Net plans a network of one resolution, which cannot be trained"
    try:
        compare(plan_here(workspace, name, preset, gigabytes), golden)
    except (AssertionError, AutosegError) as error:
        return f"differs: {str(error).splitlines()[0]}"
    return SAME


def plan_here(workspace: Path, name: str, preset: str, gigabytes: float) -> Plan:
    """Plans a dataset by our rules "nnunet", for the memory of the preset if `gigabytes` is 0."""
    budget = int(gigabytes * 1e9) or PRESETS[preset].memory_bytes
    options = PlanningOptions(dataset=name, memory_budget_bytes=budget, preset=preset, rules="nnunet")
    fingerprint = read_fingerprint(workspace / "preprocessed" / name / "dataset_fingerprint.json")
    return make_plan(fingerprint, DatasetInfo.load(workspace / "raw" / name / "dataset.json"), options)


if __name__ == "__main__":
    main()
