"""A student beside its teacher, and beside the same network without one: Dice of held-out cases, and multiply-adds.

    python tests/benchmarks/distillation.py PATH/TO/Task04_Hippocampus WORKSPACE --teacher-epochs 12 --epochs 12

All three are trained for epochs of 50 steps on fold 0 of the hippocampi of the Medical Segmentation Decathlon, the
teacher by the preset `small`, and scored on the cases that the fold holds out, on which nothing was chosen. A run that
was stopped goes on where it was. Prints a table in Markdown for RESULTS.md, and the differences case by case.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measured_on import print_machine
from programs import NUMBER, import_hippocampus

import autoseg
from autoseg.cli.terminal import Terminal
from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Splits
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.models.checkpoint import load_checkpoint, save_checkpoint
from autoseg.planning.machine_speed import count_patch_work, count_tiles
from autoseg.planning.plan import Plan
from autoseg.workspace import DatasetFolders, ModelFolder, Workspace

CONFIGURATION, STUDENT, ALONE = "3d_fullres", "student", "alone"
RESAMPLES = 10_000


def main() -> None:
    """Trains what is not trained yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--teacher-epochs", type=int, default=12)
    parser.add_argument(
        "--epochs", type=int, default=12, help="epochs of the student, and of the same without a teacher"
    )
    parser.add_argument("--work", type=float, default=1 / 3, help="share of the multiply-adds of the teacher")
    arguments = parser.parse_args()
    print_machine()
    root, reporter = arguments.workspace, Terminal()
    folders = import_hippocampus(arguments.source, Workspace(root=root))
    if not folders.plan.is_file():
        autoseg.plan_and_preprocess(
            NUMBER, preset="small", configurations=[CONFIGURATION], workspace=root, reporter=reporter
        )
    shared = {"device": "cpu", "workspace": root, "reporter": reporter}
    train = {**shared, "folds": [0], "configuration": CONFIGURATION, "number": NUMBER}
    autoseg.train(**train, epochs=arguments.teacher_epochs)
    autoseg.distil(
        NUMBER,
        name=STUDENT,
        configuration=CONFIGURATION,
        folds=[0],
        work=arguments.work,
        mirroring=False,
        epochs=arguments.epochs,
        **shared,
    )
    write_plan_without_teacher(folders)
    autoseg.preprocess(NUMBER, plan_name=ALONE, workspace=root, reporter=reporter)
    autoseg.train(**train, epochs=arguments.epochs, plan_name=ALONE)
    print_table(folders)


def write_plan_without_teacher(folders: DatasetFolders) -> None:
    """Writes the plan of the student once more, without what it learns from its teacher."""
    plan = Plan.load(folders.with_plan(STUDENT).plan)
    training = plan.training.model_copy(update={"distillation": None})
    target = folders.with_plan(ALONE).plan
    if not target.is_file():
        plan.model_copy(update={"training": training}).save(target)


def print_table(folders: DatasetFolders) -> None:
    """Prints work and Dice of the three, and how far the student is from the others case by case."""
    names = {"teacher": None, "student": STUDENT, "the same without a teacher": ALONE}
    dice: dict[str, dict[str, float]] = {}
    print("\n| network | features | multiply-adds for a case | with mirror images | Dice |\n|---|---:|---:|---:|---:|")
    for title, plan_name in names.items():
        own = folders.with_plan(plan_name)
        configuration = Plan.load(own.plan).configurations[CONFIGURATION]
        work = count_tiles(configuration, configuration.median_shape) * (count_patch_work(configuration) or 0)
        votes = 2 ** len(configuration.augmentation.averaged_axes)
        summary = Summary.load(summary_file(own.model(CONFIGURATION).validation(0)))
        dice[title] = {case.name: case.mean_dice for case in summary.cases}
        print(
            f"| {title} | {configuration.architecture.stages[0].features} | {work / 1e9:.2f} billion | "
            f"{votes * work / 1e9:.2f} billion | {summary.foreground_mean.dice:.4f} |"
        )
    scores = score_with_mirror_images(folders)
    print(f"\nThe student with mirror images, for {8 * work / 1e9:.2f} billion multiply-adds: {scores:.4f}")
    for title in ("teacher", "the same without a teacher"):
        differences = [dice["student"][name] - value for name, value in dice[title].items()]
        low, high = interval(differences)
        mean = statistics.fmean(differences)
        print(
            f"\nStudent minus {title}, {len(differences)} held-out cases: {mean:+.4f} "
            f"(95 % of bootstrap samples of cases: {low:+.4f} to {high:+.4f})"
        )


def score_with_mirror_images(folders: DatasetFolders) -> float:
    """Returns the Dice of the student on the held-out cases if it averages over mirror images, as its teacher does."""
    own = folders.with_plan(STUDENT).model(CONFIGURATION)
    fold = load_checkpoint(own.checkpoint(0))
    settings = fold.configuration.augmentation.model_copy(update={"prediction_mirroring": True})
    configuration = fold.configuration.model_copy(update={"augmentation": settings})
    plan = fold.plan.model_copy(update={"configurations": {CONFIGURATION: configuration}})
    with TemporaryDirectory() as name:
        root = Path(name)
        save_checkpoint(replace(fold, plan=plan), ModelFolder(path=root / "model").checkpoint(0))
        held_out = Splits.load(folders.splits).fold(0).validation
        for case in Dataset.open(folders.raw).only(held_out).cases:
            for source, target in ((case.images[0], "scans"), (case.label, "references")):
                (root / target).mkdir(exist_ok=True)
                (root / target / f"{case.name}.nii.gz").symlink_to(Path(source).resolve())
        autoseg.predict(root / "scans", root / "masks", model=root / "model", device="cpu")
        return autoseg.evaluate(root / "references", root / "masks").foreground_mean.dice


def interval(differences: list[float]) -> tuple[float, float]:
    """Returns the middle 95 % of the means of samples of cases, drawn with replacement."""
    random = np.random.default_rng(0)
    means = random.choice(np.array(differences), size=(RESAMPLES, len(differences))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


if __name__ == "__main__":
    main()
