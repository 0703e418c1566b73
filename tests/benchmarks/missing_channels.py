"""What channels that are missing at random in training are worth, by whole held-out cases that lack each channel.

    python tests/benchmarks/missing_channels.py WORKSPACE -d 3 -c 3d_fullres --seeds 1 2 --steps 400

WORKSPACE holds a dataset of several channels that was prepared with `plan_and_preprocess`. All trainings take the same
number of steps on growing patches, and differ in the share of the patches that lack channels. Nothing is timed.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from learning import VARIANTS, change_job
from measured_on import print_machine

from autoseg.evaluation.summary import Summary, summary_file
from autoseg.model_selection.missing_channels import FILE_NAME, MissingChannelScores
from autoseg.model_selection.validation import validate_fold
from autoseg.runtime.reporting import SILENT
from autoseg.training.fold import hold_fold, train_to_end
from autoseg.training.fold_job import FoldJob
from autoseg.training.jobs import TrainingRequest, make_jobs
from autoseg.workspace import Workspace


def main() -> None:
    """Trains with each share and seed, and prints a row of a table in Markdown for each training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--number", type=int, required=True)
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=400, help="steps with patches of one size, whose work is spent")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.4], help="of the patches that lack channels")
    arguments = parser.parse_args()
    print_machine()
    folders = Workspace(root=arguments.workspace).dataset(arguments.number)
    request = TrainingRequest(
        number=arguments.number, folders=folders, configuration=arguments.configuration, folds=(arguments.fold,)
    )
    [job] = make_jobs(request)
    titles = list(job.dataset.info.channel_names.values())
    print(
        f"| patches that lack channels | seed | all channels | {' | '.join(f'without {title}' for title in titles)} |"
    )
    print("|---" * (3 + len(titles)) + "|", flush=True)
    for seed in arguments.seeds:
        for share in arguments.shares:
            with TemporaryDirectory() as results:
                changed = change_job(job, VARIANTS["growing"], seed, arguments.steps, Path(results))
                dice = train_and_judge(let_miss(changed, share))
            print(f"| {share:.0%} | {seed} | {' | '.join(f'{value:.3f}' for value in dice)} |", flush=True)


def let_miss(job: FoldJob, share: float) -> FoldJob:
    """Returns the fold with another share of the patches that lack channels."""
    name = job.configuration_name
    augmentation = job.configuration.augmentation.model_copy(update={"missing_channels_probability": share})
    configuration = job.configuration.model_copy(update={"augmentation": augmentation})
    return replace(job, plan=job.plan.model_copy(update={"configurations": {name: configuration}}))


def train_and_judge(job: FoldJob) -> list[float]:
    """Trains and validates a fold; returns the mean Dice with all channels, and without each."""
    with hold_fold(job, SILENT) as stop:
        checkpoint = train_to_end(job, stop, SILENT)
    validate_fold(let_miss(job, 1.0), checkpoint, SILENT)  # which measures channels only if some were missing
    folder = job.model.validation(job.fold)
    scores = MissingChannelScores.load(folder / FILE_NAME)
    complete = Summary.load(summary_file(folder)).foreground_mean.dice
    return [complete, *(scores.mean(channel) for channel in scores.dice)]


if __name__ == "__main__":
    main()
