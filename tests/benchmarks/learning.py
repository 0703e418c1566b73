"""What a network learns from the same work: trainings that differ in one thing, judged on whole held-out cases.

    python tests/benchmarks/learning.py WORKSPACE -d 4 -c 3d_fullres --folds 0 1 --seeds 1 2 --steps 800
    python tests/benchmarks/learning.py WORKSPACE -d 4 -c 3d_fullres --steps 5000 --only fixed growing --share 0.5
    python tests/benchmarks/learning.py WORKSPACE -d 3 -c 2d --only fixed "fixed, neighbouring slices"
    python tests/benchmarks/learning.py WORKSPACE -d 6 --steps 400 --only fixed "fixed, skeleton recall" --centrelines
    python tests/benchmarks/learning.py WORKSPACE -d 7 -c 3d_fullres --plan windows --only fixed

WORKSPACE holds a dataset that was prepared with `plan_and_preprocess`; `--plan` takes a plan with a name, such as one
whose normalization was edited to windows of CT, to be compared with the usual plan. Work is counted in multiply-adds,
so a machine that is slow or busy gives the same table: every training gets as many as the plan with patches of one size
takes for the steps that are asked for, or a share of them. Nothing is timed.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from measured_on import print_machine

from autoseg.model_selection.validation import segment_held_out
from autoseg.models.work import measure_patch_work
from autoseg.networks.architecture import Architecture
from autoseg.pipeline import evaluate
from autoseg.planning.patch_growth import PatchStage, grow_patches
from autoseg.planning.plan import Configuration, Plan
from autoseg.runtime.reporting import SILENT
from autoseg.training import losses
from autoseg.training.fold import hold_fold, train_to_end
from autoseg.training.fold_job import FoldJob
from autoseg.training.jobs import TrainingRequest, make_jobs
from autoseg.workspace import Workspace

STEPS_PER_EPOCH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to train.

    Attributes:
        batch_power: The batch of a smaller patch grows with this power of the ratio of the voxels; None for patches of
            one size. With 1 every step has as many voxels, with 0 as many patches.
        settings: Settings of the training that differ from the plan's.
        width: Factor of the number of features of each stage.
        coarser_weight: Weight of an output of the network divided by that of the next finer one, in the loss.
        neighbouring_slices: Slices on each side that a 2D network sees as further channels.
    """

    batch_power: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    width: float = 1.0
    coarser_weight: float = 0.5
    neighbouring_slices: int = 0


VARIANTS = {
    "fixed": Variant(),
    "growing": Variant(batch_power=0.5),
    "growing, equal voxels": Variant(batch_power=1),
    "growing, equal batch": Variant(batch_power=0),
    "fixed, cosine": Variant(settings={"schedule": "cosine"}),
    "fixed, momentum 0.95": Variant(settings={"momentum": 0.95, "learning_rate": 0.1}),
    "growing, momentum 0.95": Variant(batch_power=0.5, settings={"momentum": 0.95, "learning_rate": 0.15}),
    "growing, half on foreground": Variant(batch_power=0.5, settings={"foreground_fraction": 0.5}),
    "growing, rate 0.4": Variant(batch_power=0.5, settings={"learning_rate": 0.4}),
    "growing, warm-up": Variant(batch_power=0.5, settings={"warmup_share": 0.05}),
    "growing, last weights": Variant(batch_power=0.5, settings={"average_decay": 0.0}),
    "growing, average 0.998": Variant(batch_power=0.5, settings={"average_decay": 0.998}),
    "growing, finest output": Variant(batch_power=0.5, coarser_weight=0.0),
    "growing, equal outputs": Variant(batch_power=0.5, coarser_weight=1.0),
    "growing, half the features": Variant(batch_power=0.5, width=0.5),
    "growing, 1.5 times the features": Variant(batch_power=0.5, width=1.5),
    "fixed, component loss": Variant(settings={"loss": {"component_weight": 1.0}}),
    "fixed, component loss 0.5": Variant(settings={"loss": {"component_weight": 0.5}}),
    "fixed, component sampling": Variant(settings={"foreground_sampling": "components"}),
    "fixed, component loss and sampling": Variant(
        settings={"loss": {"component_weight": 1.0}, "foreground_sampling": "components"}
    ),
    "fixed, skeleton recall": Variant(settings={"loss": {"skeleton_weight": 1.0}}),
    "fixed, structural similarity": Variant(settings={"loss": {"similarity_weight": 1.0}}),
    "fixed, border weights": Variant(settings={"loss": {"border_weight": 10.0}}),
    "fixed, neighbouring slices": Variant(neighbouring_slices=1),
}


def main() -> None:
    """Trains in each way and prints a row of a table in Markdown for each training."""
    arguments = parse_arguments()
    print_machine()
    folders = Workspace(root=arguments.workspace).dataset(arguments.number).with_plan(arguments.plan)
    metrics = ["Dice of whole held-out cases", "lesion F1", *["centreline Dice"] * arguments.centrelines]
    print(f"| training | fold | seed | steps | work | {' | '.join(metrics)} | labels |")
    print("|---" * (6 + len(metrics)) + "|", flush=True)
    for fold in arguments.folds:
        request = TrainingRequest(
            number=arguments.number, folders=folders, configuration=arguments.configuration, folds=(fold,)
        )
        [job] = make_jobs(request)
        for seed in arguments.seeds:
            for name in arguments.only or list_suitable(job):
                weigh = partial(weigh_outputs, coarser_weight=VARIANTS[name].coarser_weight)
                with TemporaryDirectory() as results, patch.object(losses, "deep_supervision_weights", weigh):
                    changed = change_job(job, VARIANTS[name], seed, arguments.steps * arguments.share, Path(results))
                    print(
                        f"| {name} | {fold} | {seed} | {learn(changed, centrelines=arguments.centrelines)} |",
                        flush=True,
                    )


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--number", type=int, required=True)
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--plan", metavar="NAME", help="a plan beside the usual one")
    parser.add_argument("--folds", type=int, nargs="+", default=[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=800, help="steps with patches of one size")
    parser.add_argument("--share", type=float, default=1.0, help="share of their work that is spent")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS))
    parser.add_argument("--centrelines", action="store_true", help="measure the centreline Dice as well")
    return parser.parse_args()


def list_suitable(job: FoldJob) -> list[str]:
    """Returns the names of the ways to train that a configuration can be trained in."""
    is_flat = job.configuration.architecture.dimensions == 2
    return [name for name, variant in VARIANTS.items() if is_flat or not variant.neighbouring_slices]


def change_job(job: FoldJob, variant: Variant, seed: int, full_steps: float, results: Path) -> FoldJob:
    """Returns the fold with another way to train, at the work of so many steps with patches of one size.

    Args:
        job: The fold, by its plan.
        variant: The way to train.
        seed: Seed of weights and patches.
        full_steps: Number of steps with patches of one size whose work is spent.
        results: Folder of the results.
    """
    fixed = job.configuration.model_copy(update={"patch_growth": ()})
    growth = () if variant.batch_power is None else tuple(grow(fixed, variant.batch_power))
    architecture = widen(fixed.architecture, variant.width)
    changes = {
        "patch_growth": growth,
        "architecture": architecture.model_dump(by_alias=True),
        "neighbouring_slices": variant.neighbouring_slices,
    }
    configuration = Configuration.model_validate({**fixed.model_dump(by_alias=True), **changes})
    steps = full_steps * step_work(fixed) / step_work(configuration)
    per_epoch = min(STEPS_PER_EPOCH, max(1, round(steps)))
    settings = {
        **job.plan.training.model_dump(by_alias=True),
        "seed": 1000 * seed,
        "steps_per_epoch": per_epoch,
        "epochs": max(1, round(steps / per_epoch)),
        "budget_seconds": None,
        "validation_steps": 2,
        "loss": {},  # the usual one, whatever the planner chose for the labels
        **variant.settings,
    }
    content = {**job.plan.model_dump(by_alias=True), "training": settings}
    plan = Plan.model_validate({**content, "configurations": {job.configuration_name: configuration}})
    return replace(job, plan=plan, folders=replace(job.folders, results=results))


def grow(configuration: Configuration, batch_power: float) -> Iterator[PatchStage]:
    """Yields the stages of a plan, with batches by a power of the ratio of the voxels."""
    for stage in grow_patches(configuration.patch_size, configuration.batch_size, configuration.patches):
        ratio = configuration.patch_voxels / prod(stage.patch_size)
        yield stage.model_copy(update={"batch_size": round(configuration.batch_size * ratio**batch_power)})


def widen(architecture: Architecture, width: float) -> Architecture:
    """Returns a network whose stages have other numbers of features, in multiples of 8."""
    stages = tuple(
        stage.model_copy(update={"features": 8 * max(1, round(width * stage.features / 8))})
        for stage in architecture.stages
    )
    return architecture.model_copy(update={"stages": stages})


def weigh_outputs(sizes: Sequence[Sequence[int]], *, coarser_weight: float) -> tuple[float, ...]:
    """Returns the weights of outputs, finest first; like `losses.deep_supervision_weights` if they are halved."""
    weights = [coarser_weight**level for level in range(len(sizes))]
    if len(sizes) > 1:
        weights[-1] = 0.0
    return tuple(weight / sum(weights) for weight in weights)


def step_work(configuration: Configuration) -> float:
    """Returns the multiply-adds of the forward pass of a step, on average over the training."""
    works = [
        stage.batch_size * (measure_patch_work(configuration, stage.patch_size) or 0) for stage in configuration.stages
    ]
    return sum(works) / len(works)


def learn(job: FoldJob, *, centrelines: bool) -> str:
    """Trains and judges a fold; returns the rest of its row."""
    with hold_fold(job, SILENT) as stop:
        checkpoint = train_to_end(job, stop, SILENT)
    summary = segment_held_out(job, checkpoint, SILENT)
    training, labels = (
        job.plan.training,
        ", ".join(f"{name} {scores.dice:.4f}" for name, scores in summary.mean.items()),
    )
    steps = training.epochs * training.steps_per_epoch
    work = 3 * steps * step_work(job.configuration) / 1e12  # the backward pass takes twice as many again
    means = summary.foreground_mean
    cells = [f"{steps}", f"{work:.1f} T", f"{means.dice:.4f}", f"{means.lesion_f1:.4f}"]
    if centrelines:
        masks = job.model.validation(job.fold)
        measured = evaluate(job.folders.raw / "labelsTr", masks, centrelines=True, save=False)
        cells.append(f"{measured.foreground_mean.centreline_dice:.4f}")
    return " | ".join([*cells, labels])


if __name__ == "__main__":
    main()
