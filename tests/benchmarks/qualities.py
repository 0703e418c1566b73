"""What the qualities of a prediction cost: Dice of held-out cases, work and seconds of fast, balanced and best.

    python tests/benchmarks/qualities.py WORKSPACE -d 4 -c 3d_fullres --epochs 24

WORKSPACE holds a dataset that was prepared with `plan_and_preprocess`. If no fold of it is trained, fold 0 is, for so
many epochs. Each fold segments the cases that it held out, also by qualities that differ from best in one thing alone.
Prints a table in Markdown for RESULTS.md.
"""

import argparse
from pathlib import Path

import torch
from measured_on import print_machine

import autoseg
from autoseg.datasets.dataset import Dataset
from autoseg.inference.prediction_quality import FAST_OVERLAP_STEP, QUALITIES, PredictionQuality
from autoseg.model_selection.quality_measurement import measure_quality_costs
from autoseg.runtime.reporting import SILENT
from autoseg.workspace import Workspace

PARTS = {
    "one image": PredictionQuality(mirror_images="one"),
    "tiles three quarters apart": PredictionQuality(overlap_step=FAST_OVERLAP_STEP),
    "linear": PredictionQuality(image_order=1),
}


def main() -> None:
    """Measures, and prints a row for each quality."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--number", type=int, required=True)
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--epochs", type=int, default=24)
    arguments = parser.parse_args()
    print_machine(torch.device("cpu"))
    folders = Workspace(root=arguments.workspace).dataset(arguments.number)
    model = folders.model(arguments.configuration)
    if not model.trained_folds():
        autoseg.train(
            arguments.number,
            model.path.name,
            0,
            epochs=arguments.epochs,
            device="cpu",
            workspace=arguments.workspace,
        )
    costs = measure_quality_costs(
        Dataset.open(folders.raw), model, model.trained_folds(), torch.device("cpu"), SILENT, PARTS | QUALITIES
    )
    labels = list(costs.qualities["best"].dice)
    print(f"{costs.cases} held-out cases\n")
    print(f"| quality | {' | '.join(labels)} | mean Dice | passes per case | work | seconds per case |")
    print("|---" * (len(labels) + 5) + "|")
    for quality, scores in costs.qualities.items():
        dice = [f"{value:.4f}" for value in (*scores.dice.values(), scores.foreground_mean_dice)]
        work = [f"{scores.passes:.1f}", f"{costs.share_of_work(quality):.3f}", f"{scores.seconds:.2f}"]
        print(f"| {quality} | {' | '.join([*dice, *work])} |", flush=True)


if __name__ == "__main__":
    main()
