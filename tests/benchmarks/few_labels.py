"""What labels of a model and suggestions are worth with few labels, on cases on which nothing was chosen.

    python tests/benchmarks/few_labels.py PATH/TO/Task04_Hippocampus WORKSPACE pseudo --labelled 20 --unlabelled 100
    python tests/benchmarks/few_labels.py PATH/TO/Task04_Hippocampus WORKSPACE suggest --labelled 10 --rounds 2

Of the cases of a Decathlon folder, some are labelled, some are treated as scans without labels, and others are judged:
they are in no fold and in no folder that a model labels. Work is counted in steps, so a busy machine gives the same
tables. A run that was stopped goes on in the same WORKSPACE with the same options.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measured_on import print_machine
from scipy.stats import spearmanr

from autoseg.evaluation.summary import Summary
from autoseg.pipeline import evaluate, plan_and_preprocess, predict, pseudo_label, suggest, train
from autoseg.planning.plan import Plan
from autoseg.workspace import DatasetFolders, Workspace

CONFIGURATION = "3d_fullres"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where cases come from, and how folds are trained.

    Attributes:
        source: The Decathlon folder.
        root: The workspace.
        order: Names of all cases, shuffled.
        folds: Number of folds.
        steps: Steps of a training.
        seed: Seed of trainings, beside that of the order.
    """

    source: Path
    root: Path
    order: Sequence[str]
    folds: int
    steps: int
    seed: int

    def make_dataset(self, number: int, name: str, cases: Sequence[str], steps: int) -> DatasetFolders:
        """Writes, plans and prepares a dataset of some cases, unless it is there."""
        folders = Workspace(root=self.root).folders(f"Dataset{number:03d}_{name}")
        if folders.plan.is_file():
            return folders
        content = json.loads((self.source / "dataset.json").read_text())
        listed = {case: {"images": [str(self.image(case))], "label": str(self.label(case))} for case in sorted(cases)}
        info = {
            "channel_names": {"0": "MRI"},
            "labels": {label: int(value) for value, label in content["labels"].items()},
            "file_ending": ".nii.gz",
            "dataset": listed,
        }
        folders.raw.mkdir(parents=True)
        (folders.raw / "dataset.json").write_text(json.dumps(info))
        splits = self.root / f"folds_{name}.json"
        held_out = [sorted(cases)[fold :: self.folds] for fold in range(self.folds)]
        pairs = [{"training": sorted(set(cases) - set(names)), "validation": names} for names in held_out]
        splits.write_text(json.dumps({"folds": pairs}))
        plan_and_preprocess(number, preset="small", configurations=[CONFIGURATION], splits=splits, workspace=self.root)
        self.set_steps(folders, steps)
        return folders

    def set_steps(self, folders: DatasetFolders, steps: int) -> None:
        """Edits the length of the training in plan.json, as a user would."""
        plan = Plan.load(folders.plan)
        settings = {"epochs": max(1, steps // 25), "steps_per_epoch": min(25, steps), "validation_steps": 1}
        training = plan.training.model_copy(update={**settings, "seed": 1000 * self.seed})
        plan.model_copy(update={"training": training}).save(folders.plan)

    def train(self, number: int) -> float:
        """Trains all folds; returns the mean Dice of their held-out cases."""
        summary = train(number, CONFIGURATION, "cv", device="cpu", workspace=self.root)
        return float("nan") if summary is None else summary.foreground_mean.dice

    def judge(self, number: int, cases: Sequence[str]) -> Summary:
        """Segments judged cases by all folds, and scores them."""
        output = self.root / f"judged_{number}"
        predict(
            self.collect("judged", cases), output, number=number, configuration=CONFIGURATION, device="cpu",
            resume=output.is_dir(), workspace=self.root,
        )  # fmt: skip
        return evaluate(self.collect("references", cases), output, save=False)

    def collect(self, name: str, cases: Sequence[str]) -> Path:
        """Copies scans, or their labels for "references", into a folder."""
        folder = self.root / name
        if not folder.is_dir():
            folder.mkdir(parents=True)
            for case in cases:
                shutil.copy(self.label(case) if name == "references" else self.image(case), folder)
        return folder

    def image(self, case: str) -> Path:
        """Returns the scan of a case."""
        return (self.source / "imagesTr" / f"{case}.nii.gz").resolve()

    def label(self, case: str) -> Path:
        """Returns the label map of a case."""
        return (self.source / "labelsTr" / f"{case}.nii.gz").resolve()


def main() -> None:
    """Runs one of the experiments and prints a table in Markdown."""
    arguments = parse_arguments()
    print_machine()
    names = sorted(path.name.removesuffix(".nii.gz") for path in (arguments.source / "labelsTr").glob("[!.]*.nii.gz"))
    order = [names[index] for index in np.random.default_rng(arguments.seed).permutation(len(names))]
    bench = Bench(
        source=arguments.source,
        root=arguments.workspace,
        order=order,
        folds=arguments.folds,
        steps=arguments.steps,
        seed=arguments.seed,
    )
    {"pseudo": compare_pseudo_labels, "suggest": compare_suggestions}[arguments.experiment](bench, arguments)


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("experiment", choices=["pseudo", "suggest"])
    parser.add_argument("--labelled", type=int, default=20)
    parser.add_argument("--unlabelled", type=int, default=100)
    parser.add_argument("--judged", type=int, default=52)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--count", type=int, default=10, help="scans that are labelled in each round")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of cases, and of trainings")
    parser.add_argument("--from-scratch", action="store_true", help="train on labels of a model from random weights")
    return parser.parse_args()


def share_out(bench: Bench, arguments: argparse.Namespace) -> tuple[list[str], list[str], list[str]]:
    """Returns the names of the judged, the labelled, and the unlabelled cases."""
    judged, rest = bench.order[: arguments.judged], bench.order[arguments.judged :]
    return list(judged), list(rest[: arguments.labelled]), list(rest[arguments.labelled :][: arguments.unlabelled])


def compare_pseudo_labels(bench: Bench, arguments: argparse.Namespace) -> None:
    """Compares folds that learn from few labels, from these and those of a model, and from all labels of people."""
    judged, labelled, unlabelled = share_out(bench, arguments)
    scans, steps = bench.collect("unlabelled", unlabelled), bench.steps
    print("| trained on | steps | Dice of held-out cases | Dice of judged cases |\n|---|---|---|---|")

    def show(title: str, number: int, steps: int, held_out: float) -> None:
        dice = bench.judge(number, judged).foreground_mean.dice
        print(f"| {title} | {steps} | {held_out:.4f} | {dice:.4f} |", flush=True)

    bench.make_dataset(1, "Few", labelled, steps)
    show(f"{len(labelled)} labelled", 1, steps, bench.train(1))
    outcomes = pseudo_label(
        1, scans, new_number=11, rounds=arguments.rounds, from_scratch=arguments.from_scratch, device="cpu",
        workspace=bench.root,
    )  # fmt: skip
    for number, outcome in enumerate(outcomes, start=1):
        kept, after = len(outcome.record.kept), outcome.after
        title = f"{len(labelled)} labelled, {kept} of {len(unlabelled)} by the model, round {number}"
        spent = steps if arguments.from_scratch else steps * (number + 1)
        show(title, 10 + number, spent, float("nan") if after is None else after.foreground_mean.dice)
        threshold = outcome.record.threshold
        print(f"|  | | {threshold.describe()} | |", flush=True)
    bench.make_dataset(2, "FewLonger", labelled, steps * 2)
    show(f"{len(labelled)} labelled", 2, steps * 2, bench.train(2))
    bench.make_dataset(3, "All", [*labelled, *unlabelled], steps * 2)
    show(f"{len(labelled) + len(unlabelled)} labelled", 3, steps * 2, bench.train(3))
    show_labels(bench, outcomes[0].dataset.folder.name)


def show_labels(bench: Bench, name: str) -> None:
    """Prints how good the labels of the model are, those that were kept and the others."""
    record = json.loads((bench.root / "raw" / name / "pseudo_labels.json").read_text())
    folder = bench.root / "results" / record["dataset"] / record["configuration"] / "unlabelled"
    references = bench.root / "references_unlabelled"
    references.mkdir(exist_ok=True)
    for scan in record["scans"]:
        shutil.copy(bench.label(scan["case"]), references)
    dice = {case.name: case.mean_dice for case in evaluate(references, folder, save=False).cases}
    kept = [dice[scan["case"]] for scan in record["scans"] if not scan["reason"]]
    left = [dice[scan["case"]] for scan in record["scans"] if scan["reason"]]
    print(f"\nlabels of the first round: {len(kept)} kept, true Dice {np.mean(kept):.4f}", end="")
    print(f"; {len(left)} left out, {np.mean(left):.4f}" if left else "; none left out")
    for key in ("agreement", "fold_agreement"):
        values = [scan[key] for scan in record["scans"]]
        correlation = spearmanr(values, [dice[scan["case"]] for scan in record["scans"]]).statistic
        print(f"Spearman of {key} with the true Dice of all of them: {correlation:.3f}")


def compare_suggestions(bench: Bench, arguments: argparse.Namespace) -> None:
    """Compares scans that were suggested for labelling with scans that were drawn at random, round by round."""
    judged, labelled, unlabelled = share_out(bench, arguments)
    print("| chosen | labelled | Dice of judged cases |\n|---|---|---|")
    bench.make_dataset(1, "Start", labelled, bench.steps)
    bench.train(1)
    print(f"| to begin with | {len(labelled)} | {bench.judge(1, judged).foreground_mean.dice:.4f} |", flush=True)
    for way, start in (("suggested", 20), ("at random", 40)):
        chosen, number = list(labelled), 1
        for round_number in range(1, arguments.rounds + 1):
            left = [case for case in unlabelled if case not in chosen]
            if way == "suggested":
                table = suggest(
                    number, bench.collect(f"left_{round_number}", left), count=arguments.count, device="cpu",
                    workspace=bench.root,
                ).table()  # fmt: skip
                chosen += table["case"].tolist()
            else:
                chosen += left[: arguments.count]
            number = start + round_number
            bench.make_dataset(number, f"{way.title().replace(' ', '')}{round_number}", chosen, bench.steps)
            bench.train(number)
            dice = bench.judge(number, judged).foreground_mean.dice
            print(f"| {way} | {len(chosen)} | {dice:.4f} |", flush=True)


if __name__ == "__main__":
    main()
