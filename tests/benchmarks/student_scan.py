"""A student that is planned for seconds and memory on this machine, and what it takes for a scan of that size.

    python tests/benchmarks/student_scan.py WORKSPACE --seconds 20 --memory 4GB --shape 300 512 512 --labels 13

Plans a student by the measurements of a made-up dataset of CT: scans of that shape with voxels of 1 mm, labels of balls
from 20 to 150 mm. Its weights are random, but within a kernel they are equal, so that masks are about as smooth as
those of a trained network; with `--jagged` they are not, and a voxel rarely has the label of its neighbour. Predicts a
made-up scan by `autoseg predict`, a process of its own that is watched from its start to its end. Prints a table in
Markdown for RESULTS.md.
"""

import argparse
import sys
from math import pi
from pathlib import Path

import numpy as np
import torch
from measured_on import print_machine
from programs import watch
from scipy.special import ndtr
from smooth_scans import make_field

from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.label_facts import LabelFacts
from autoseg.imaging.geometry import Geometry, Shape, Volume
from autoseg.imaging.image_files import read_label_map, write_image
from autoseg.models.build import make_network
from autoseg.models.checkpoint import Checkpoint, save_checkpoint
from autoseg.models.handling_speed import measure_handling, measure_start
from autoseg.models.speed import measure_potential
from autoseg.models.work import measure_patch_work
from autoseg.planning.distillation_settings import DistillationSettings
from autoseg.planning.machine_speed import count_tiles, typical_shape
from autoseg.planning.plan import Plan
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.student import StudentLimits, plan_student
from autoseg.runtime.device import resolve_device
from autoseg.runtime.units import parse_memory
from autoseg.workspace import ModelFolder

SPACING_MM = (1.0, 1.0, 1.0)
SMALLEST_MM, LARGEST_MM = 20.0, 150.0
WAVELENGTH = 64
DATASET, CONFIGURATION = "Dataset998_MadeUp", "3d_fullres"
CHANNEL = ChannelFacts(
    mean=40, median=42, std=60, minimum=-1000, maximum=3000, percentile_00_5=-150, percentile_99_5=300
)


def main() -> None:
    """Plans, predicts, and prints what was planned and measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512), metavar=("Z", "Y", "X"))
    parser.add_argument("--labels", type=int, default=13)
    parser.add_argument("--quality", choices=("fast", "balanced", "best"), default="fast")
    parser.add_argument("--jagged", action="store_true", help="weights that are random within a kernel, too")
    arguments = parser.parse_args()
    print_machine()
    shape: Shape = tuple(arguments.shape)
    labels = {"background": 0, **{f"organ {number}": number for number in range(1, arguments.labels + 1)}}
    info = DatasetInfo(channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz")
    fingerprint, root = measurements_of(shape, arguments.labels), arguments.workspace
    usual = make_plan(
        fingerprint, info, PlanningOptions(dataset=DATASET, memory_budget_bytes=4 * 10**9, preset="small")
    )
    limits = make_limits(usual, shape, arguments.seconds, arguments.memory)
    plan = plan_student(DATASET, fingerprint, info, limits)
    write_model(root / "student", plan, info, jagged=arguments.jagged)
    scans = write_scan(root / "scans", shape)
    command = [sys.executable, "-m", "autoseg", "predict", "-m", root / "student", "-i", scans, "-o", root / "masks"]
    measured = watch(
        [str(word) for word in (*command, "--device", "cpu", "--quality", arguments.quality)], root / "predict.log"
    )
    [student] = plan.configurations.values()
    print("\n".join(f"- {sentence}" for sentence in plan.why[:4]))
    print("\n| | allowed | planned | measured |\n|---|---:|---:|---:|")
    costs = next(sentence for sentence in plan.why if "and about" in sentence)
    planned_memory, planned_seconds = costs.split("and about ")[1].split(" of memory")[0], costs.split("and about ")[2]
    print(
        f"| seconds, from the start of `predict` to its end | {arguments.seconds:g} | "
        f"{planned_seconds.split(' on this')[0]} | {measured.seconds:.1f} |"
    )
    print(f"| memory | {arguments.memory} | {planned_memory} | {measured.largest_process / 1e9:.2f} GB |")
    mask = read_label_map(next((root / "masks").glob("*.nii.gz"))).array
    differ = np.mean([np.mean(plane[:, 1:] != plane[:, :-1]) for plane in mask])
    print(f"\n{len(np.unique(mask))} labels; {differ:.1%} of voxels differ from their neighbour along x")
    print(
        f"\nSpacing {' x '.join(f'{step:.3g}' for step in student.spacing_mm)} mm, "
        f"{student.architecture.stages[0].features} features, tiles of {' x '.join(map(str, student.patch_size))}"
    )


def measurements_of(shape: Shape, labels: int) -> Fingerprint:
    """Returns the fingerprint of a dataset of such scans."""
    diameters = np.geomspace(SMALLEST_MM, LARGEST_MM, labels)
    facts = tuple(
        LabelFacts(label=number, voxels=round(pi / 6 * size**3), center=(0.5, 0.5, 0.5), parts=1, largest_part=1)
        for number, size in enumerate(diameters, start=1)
    )
    cases = tuple(
        CaseFacts(name=f"case_{number}", shape=shape, shape_after_crop=shape, spacing_mm=SPACING_MM, labels=facts)
        for number in range(20)
    )
    return Fingerprint(cases=cases, channels=(CHANNEL,), median_relative_size_after_crop=1.0)


def make_limits(usual: Plan, shape: Shape, seconds: float, memory: str) -> StudentLimits:
    """Returns the limits, with the measured speed of this machine; the work is not limited."""
    teacher = usual.configurations[CONFIGURATION]
    settings = DistillationSettings(
        teacher=(CONFIGURATION,), work_share=1.0, seconds=seconds, memory_bytes=parse_memory(memory)
    )
    work = count_tiles(teacher, typical_shape(usual, CONFIGURATION)) * (measure_patch_work(teacher) or 0)
    return StudentLimits(
        settings=settings,
        teacher_work=work,
        speed=measure_potential(resolve_device("cpu")),
        other_seconds=measure_start() + measure_handling(teacher, shape, SPACING_MM),
    )


def write_model(folder: Path, plan: Plan, info: DatasetInfo, *, jagged: bool) -> None:
    """Writes a model of random weights by the plan of the student."""
    [(name, configuration)] = plan.configurations.items()
    weights = make_network(configuration, seed=0).state_dict()
    if not jagged:
        weights = {key: even(weight) if weight.ndim == 5 else weight for key, weight in weights.items()}
    fold = Checkpoint(
        plan=plan,
        info=info,
        configuration_name=name,
        fold=0,
        cases="0" * 16,
        weights=weights,
        finished=True,
        training={},
    )
    save_checkpoint(fold, ModelFolder(path=folder).checkpoint(0))


def even(weight: torch.Tensor) -> torch.Tensor:
    """Returns kernels (outputs, inputs, z, y, x) that have their mean everywhere."""
    return weight.mean(dim=(2, 3, 4), keepdim=True).expand_as(weight).contiguous()


def write_scan(folder: Path, shape: Shape) -> Path:
    """Writes a scan of a round body in air in whole Hounsfield units, unless it is there; returns its folder."""
    path = folder / f"scan_{'_'.join(map(str, shape))}_0000.nii.gz"
    if path.is_file():
        return folder
    field = make_field(shape, np.random.default_rng(5), WAVELENGTH)
    field *= 1 / field.std()
    noise = np.random.default_rng(6).normal(0, 12, shape).astype(np.float32)
    z, y, x = np.ogrid[tuple(slice(-1, 1, size * 1j) for size in shape)]
    body = (y / 0.8) ** 2 + (x / 0.9) ** 2 + 0 * z < 1
    image = np.where(body, 400 * ndtr(field) - 150, -1000).astype(np.float32) + noise
    volume = Volume(array=image.round()[np.newaxis], geometry=Geometry(shape=shape, spacing_mm=SPACING_MM))
    write_image(path, volume, compact=True)
    return folder


if __name__ == "__main__":
    main()
