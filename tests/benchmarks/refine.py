"""What corrected masks are worth to a model that goes on, on cases on which nothing was chosen.

    python tests/benchmarks/refine.py PATH/TO/Task04_Hippocampus WORKSPACE --labelled 20 --corrected 20 --judged 40

Of the cases of a Decathlon folder, some are labelled and some are scans whose masks are predicted, then corrected: the
true masks take their place. All others that are judged are in no fold. The same fold also goes on without the new
cases, for as many steps, and is trained anew with them. A run that was stopped goes on in the same WORKSPACE.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measured_on import print_machine

from autoseg.datasets.info import DatasetInfo
from autoseg.pipeline import evaluate, plan_and_preprocess, predict, refine, train
from autoseg.planning.plan import Plan
from autoseg.workspace import DatasetFolders, Workspace

CONFIGURATION, FOLD, NUMBER = "3d_fullres", 0, 4
NAME = "Dataset004_Hippocampus"


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where cases come from, and how long a fold is trained.

    Attributes:
        source: The Decathlon folder.
        root: Folder of the workspaces, one for each way.
        labelled, corrected, judged: Names of cases.
        epochs: Epochs of the first training.
        steps: Steps of an epoch.
    """

    source: Path
    root: Path
    labelled: Sequence[str]
    corrected: Sequence[str]
    judged: Sequence[str]
    epochs: int
    steps: int

    def folders(self, way: str) -> DatasetFolders:
        """Returns the folders of the workspace of a way."""
        return Workspace(root=self.root / way).folders(NAME)

    def copy(self, names: Sequence[str], images: Path, labels: Path | None, suffix: str = "_0000") -> None:
        """Copies scans, and masks if a folder for them is given."""
        for name in names:
            pairs = [(self.source / "imagesTr" / f"{name}.nii.gz", images / f"{name}{suffix}.nii.gz")]
            if labels is not None:
                pairs.append((self.source / "labelsTr" / f"{name}.nii.gz", labels / f"{name}.nii.gz"))
            for path, target in pairs:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)

    def prepare(self, way: str, names: Sequence[str]) -> None:
        """Writes a dataset, plans and preprocesses it, and sets the length of training."""
        raw = self.folders(way).raw
        if self.folders(way).plan.is_file():
            return
        self.copy(names, raw / "imagesTr", raw / "labelsTr")
        labels = {"background": 0, "anterior": 1, "posterior": 2}
        DatasetInfo(channel_names={"0": "MR"}, labels=labels, file_ending=".nii.gz").save(raw / "dataset.json")
        plan_and_preprocess(NUMBER, preset="small", configurations=[CONFIGURATION], workspace=self.root / way)
        self.set_length(way, self.epochs)

    def set_length(self, way: str, epochs: int) -> None:
        """Sets the epochs of a plan and the steps of each."""
        path = self.folders(way).plan
        plan = Plan.load(path)
        settings = {**plan.training.model_dump(), "epochs": epochs, "steps_per_epoch": self.steps}
        training = plan.training.model_validate({**settings, "validation_steps": 2})
        plan.model_copy(update={"training": training}).save(path)

    def branch(self, way: str, source: str = "before") -> None:
        """Copies a workspace, unless an earlier run did."""
        if not (self.root / way).exists():
            shutil.copytree(self.root / source, self.root / way)

    def judge(self, way: str) -> float:
        """Returns the mean foreground Dice of the judged cases."""
        self.copy(self.judged, self.root / "judged" / "scans", self.root / "judged" / "truth")
        masks = self.root / way / "judged"
        model = self.folders(way).model(CONFIGURATION).path
        predict(self.root / "judged" / "scans", masks, model=model, folds=[FOLD])
        names = {"anterior": 1, "posterior": 2}
        return evaluate(self.root / "judged" / "truth", masks, labels=names).foreground_mean.dice


def train_before(bench: Bench) -> str:
    """Trains the fold on the labelled cases."""
    bench.prepare("before", bench.labelled)
    train(NUMBER, CONFIGURATION, FOLD, workspace=bench.root / "before")
    return "before"


def extend_alone(bench: Bench, epochs: int) -> str:
    """Lets the fold go on without new cases."""
    way = f"alone_{epochs}"
    bench.branch(way)
    train(NUMBER, CONFIGURATION, FOLD, extend=str(epochs), workspace=bench.root / way)
    return way


def refine_with(bench: Bench, epochs: int) -> str:
    """Lets the fold go on with the corrected cases."""
    way = f"refined_{epochs}"
    bench.branch(way)
    scans, machine, corrected = (bench.root / name for name in ("scans", "machine", "corrected"))
    bench.copy(bench.corrected, scans, None)
    for name in bench.corrected:
        corrected.mkdir(exist_ok=True)
        shutil.copyfile(bench.source / "labelsTr" / f"{name}.nii.gz", corrected / f"{name}.nii.gz")
    model = bench.folders("before").model(CONFIGURATION).path
    predict(scans, machine, model=model, folds=[FOLD], resume=True)
    revision = refine(
        NUMBER, corrected, scans=scans, machine=machine, extend=str(epochs), workspace=bench.root / way
    ).revision
    dice = [np.nanmean(list(case.dice.values())) for case in revision.cases.values() if case.dice]
    print(f"{revision.describe()}; mean Dice of the masks before the correction {np.mean(dice):.4f}", flush=True)
    return way


def train_anew(bench: Bench, epochs: int) -> str:
    """Trains the fold from the start on labelled and corrected cases, for as many steps in all."""
    way = f"anew_{epochs}"
    bench.prepare(way, [*bench.labelled, *bench.corrected])
    bench.set_length(way, bench.epochs + epochs)
    shutil.copyfile(bench.folders(f"refined_{epochs}").splits, bench.folders(way).splits)
    train(NUMBER, CONFIGURATION, FOLD, workspace=bench.root / way)
    return way


def main() -> None:
    """Measures all ways, and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--labelled", type=int, default=20)
    parser.add_argument("--corrected", type=int, default=20)
    parser.add_argument("--judged", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--extend", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print_machine()
    names = sorted(path.name.removesuffix(".nii.gz") for path in (options.source / "labelsTr").glob("[!.]*.nii.gz"))
    np.random.default_rng(options.seed).shuffle(names)
    ends = np.cumsum([options.labelled, options.corrected, options.judged]).tolist()
    bench = Bench(
        source=options.source,
        root=options.workspace,
        labelled=names[: ends[0]],
        corrected=names[ends[0] : ends[1]],
        judged=names[ends[1] : ends[2]],
        epochs=options.epochs,
        steps=options.steps,
    )
    ways: list[tuple[str, Callable[[], str], int]] = [("trained", lambda: train_before(bench), options.epochs)]
    for epochs in options.extend:
        total = options.epochs + epochs
        ways += [
            ("gone on without them", lambda epochs=epochs: extend_alone(bench, epochs), total),
            ("refined", lambda epochs=epochs: refine_with(bench, epochs), total),
            ("trained anew with them", lambda epochs=epochs: train_anew(bench, epochs), total),
        ]
    kept = options.workspace / "results.json"
    results = json.loads(kept.read_text()) if kept.is_file() else {}
    print("| way | steps in all | mean Dice of the judged cases |\n|---|---|---|", flush=True)
    for title, measure, epochs in ways:
        key = f"{title}, {epochs}"
        if key not in results:
            results[key] = bench.judge(measure())
            kept.write_text(json.dumps(results))
        print(f"| {title} | {epochs * options.steps:,} | {results[key]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
