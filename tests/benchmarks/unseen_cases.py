"""How far a model knows what it does not know: on cases that no fold has seen, probabilities and failure scores.

    python tests/benchmarks/unseen_cases.py WORKSPACE -d 4 --cases 110 --judged 100 --steps 150 --keep FOLDER

WORKSPACE holds a dataset that was prepared with `plan_and_preprocess`. Folds are trained on a part of the cases. On
their held-out cases temperatures are fitted, as in a training. On other cases, the mean of all folds is judged: the
calibration error of its probabilities without and with these temperatures, and how well each failure score ranks the
cases by their true Dice. Work is counted in steps, so a busy machine gives the same tables. With --keep, a run that was
stopped goes on with the folds that are trained.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from learning import VARIANTS, change_job
from measured_on import print_machine
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import pearsonr, spearmanr

from autoseg.datasets.splits import Split
from autoseg.evaluation.reliability import LabelledVoxels, calibrated_probabilities, measure_reliabilities
from autoseg.evaluation.repeats import mean_of_defined
from autoseg.imaging.label_encoding import CaseLabels
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.predictor import MirroringPredictor, Predictor, average
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.sliding_window import predict_volume
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.model_selection.calibration_fit import fit_calibration
from autoseg.model_selection.calibration_voxels import draw_voxels
from autoseg.model_selection.held_out_cases import load_preprocessed
from autoseg.model_selection.validation import segment_held_out
from autoseg.models.calibration import Calibration
from autoseg.models.checkpoint import Checkpoint
from autoseg.preprocessing.store import StoredCase
from autoseg.runtime.reporting import SILENT
from autoseg.training.fold import hold_fold, train_to_end
from autoseg.training.fold_job import FoldJob
from autoseg.training.jobs import TrainingRequest, make_jobs
from autoseg.workspace import Workspace

Winners = NDArray[np.integer]
"""Class of each voxel, (z, y, x)."""


class VotesByFold(Predictor):
    """The votes of an ensemble, of which the mean of each fold over its mirror images is kept.

    Args:
        mirroring: Predictor of mirror images around an ensemble.
        folds: Number of folds.
    """

    def __init__(self, mirroring: MirroringPredictor, folds: int) -> None:
        self._inner, self._folds = replace(mirroring, at_once=1), folds
        self.means: list[torch.Tensor] = []

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Returns the mean of all votes."""
        return average(self.list_votes(patches))

    def list_votes(self, patches: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yields the votes: of each mirror image that of each fold."""
        kept = []
        for logits in self._inner.list_votes(patches):
            kept.append(logits.float())
            yield logits
        self.means = [average(kept[fold :: self._folds]) for fold in range(self._folds)]


class FoldsApart(EnsembleAgreement):
    """Predicts the logits of each fold, one after the other as further channels, and records how far votes agree."""

    def __init__(self, segmenter: Segmenter, folds: int) -> None:
        predictor = segmenter.predictor
        if not isinstance(predictor, MirroringPredictor):
            raise TypeError("the plan mirrors along no axis, so there are no votes of mirror images")
        self._votes_by_fold = VotesByFold(predictor, folds)
        super().__init__(self._votes_by_fold, segmenter.info.targets)

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Returns the logits of all folds, (n, folds x outputs, *patch)."""
        super().__call__(patches)
        return torch.cat(self._votes_by_fold.means, dim=1)


def main() -> None:
    """Trains the folds and prints two tables in Markdown."""
    arguments = parse_arguments()
    print_machine()
    folders = Workspace(root=arguments.workspace).dataset(arguments.number)
    request = TrainingRequest(
        number=arguments.number, folders=folders, configuration=arguments.configuration, folds=(0,)
    )
    [job] = make_jobs(request)
    names = sorted(case.name for case in job.dataset.cases)
    order = [names[index] for index in np.random.default_rng(0).permutation(len(names))]
    part, unseen = order[: arguments.cases], sorted(order[arguments.cases :][: arguments.judged])
    with TemporaryDirectory() as temporary:
        results = arguments.keep or Path(temporary)
        checkpoints, calibration = train_folds(job, part, arguments.folds, arguments.steps, results)
    judge(job, checkpoints, calibration, unseen)


def parse_arguments() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--number", type=int, required=True)
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=110, help="cases of the folds")
    parser.add_argument("--judged", type=int, default=100, help="cases that no fold has seen")
    parser.add_argument("--keep", type=Path, help="folder of the trained folds")
    parser.add_argument("--steps", type=int, default=150)
    return parser.parse_args()


def train_folds(
    job: FoldJob, part: Sequence[str], folds: int, steps: int, results: Path
) -> tuple[list[Checkpoint], Calibration]:
    """Trains folds on a part of the cases, validates them, and fits temperatures to their held-out cases."""
    checkpoints, places = [], []
    for fold in range(folds):
        held_out = tuple(sorted(part[fold::folds]))
        split = Split(training=tuple(sorted(set(part) - set(held_out))), validation=held_out)
        changed = change_job(replace(job, split=split, fold=fold), VARIANTS["growing"], 1, steps, results)
        with hold_fold(changed, SILENT) as stop:
            checkpoints.append(train_to_end(changed, stop, SILENT))
        summary = segment_held_out(changed, checkpoints[-1], SILENT)
        places += [(changed.model.validation(fold), case.name) for case in summary.cases]
        print(f"fold {fold}: mean Dice of held-out cases {summary.foreground_mean.dice:.4f}", flush=True)
    calibration = fit_calibration(places, job.dataset.info.targets)
    if calibration is None:
        raise RuntimeError("no held-out case has voxels")
    return checkpoints, calibration


def judge(job: FoldJob, checkpoints: list[Checkpoint], calibration: Calibration, unseen: Sequence[str]) -> None:
    """Prints the errors of probabilities, and the correlation of each failure score with the true Dice."""
    together = make_segmenter(checkpoints, NO_RULES, job.device)
    voxels, rows = [], []
    for name in unseen:
        drawn, row = judge_case(job, together, len(checkpoints), name)
        voxels += [] if drawn is None else [drawn]
        rows.append(row)
    print(f"\n{calibration.describe()}\n")
    print("| cases | calibration error, before | after |\n|---|---|---|")
    held_out = f"{calibration.cases} held-out cases, single folds, cross-fitted"
    print(f"| {held_out} | {calibration.error_before:.4f} | {calibration.error_after:.4f} |")
    joined = LabelledVoxels.join(voxels)
    errors = [
        mean_of_defined(
            one.error
            for one in measure_reliabilities(
                joined, calibrated_probabilities(joined.logits, temperatures, exclusive=joined.exclusive)
            )
        )
        for temperatures in ((1.0,) * joined.outputs, tuple(calibration.temperatures.values()))
    ]
    print(f"| {len(unseen)} unseen cases, all folds together | {errors[0]:.4f} | {errors[1]:.4f} |")
    dice = [row.pop("true Dice") for row in rows]
    print(f"\nmean Dice of unseen cases {np.mean(dice):.4f}\n\n| failure score | Spearman | Pearson |\n|---|---|---|")
    for score in rows[0]:
        values = [row[score] for row in rows]
        print(f"| {score} | {spearmanr(values, dice)[0]:.3f} | {pearsonr(values, dice)[0]:.3f} |", flush=True)


def judge_case(
    job: FoldJob, together: Segmenter, folds: int, name: str
) -> tuple[LabelledVoxels | None, dict[str, float]]:
    """Predicts a case; returns voxels of the mean of all folds, and the true Dice and all scores."""
    targets = job.dataset.info.targets
    case = load_preprocessed(name, targets, job.cases_folder, job.cascade_labels_folder)
    label = CaseLabels(StoredCase.open(job.cases_folder, name).load_label())
    predictor = FoldsApart(together, folds)
    logits = predict_volume(
        case.image,
        predictor,
        patch_size=together.configuration.patch_size,
        batch_size=together.tiles_at_once,
        device=together.device,
        patches=together.configuration.patches,
    )
    by_fold = logits.view(folds, targets.outputs, *logits.shape[1:])
    mean_logits = by_fold.mean(dim=0)
    mean, votes = np.asarray(mean_logits.argmax(0)), [np.asarray(fold.argmax(0)) for fold in by_fold]
    classes = range(1, targets.outputs)
    pairs = list(combinations(votes, 2))
    foreground = mean > 0
    border = ndimage.binary_dilation(foreground) & ~ndimage.binary_erosion(foreground)
    differ = np.mean([vote != mean for vote in votes], axis=0)
    row = {
        "true Dice": mean_dice([(mean, np.asarray(label))], classes),
        "folds and mirror images against the mask (as predict does)": predictor.result().score,
        "folds against the mask": mean_dice([(vote, mean) for vote in votes], classes),
        "folds against folds": mean_dice(pairs, classes),
        "folds against folds, the lowest label": min(mean_dice(pairs, [number]) for number in classes),
        "agreement of folds at the border": 1 - float(differ[border].mean()) if border.any() else 1.0,
    }
    return draw_voxels(mean_logits, label, targets, job.dataset.info.unannotated_in(name), name), row


def mean_dice(pairs: Sequence[tuple[Winners, Winners]], classes: Sequence[int] | range) -> float:
    """Returns the mean Dice of classes over pairs of label maps; 1 where neither has the class."""
    scores = []
    for one, other in pairs:
        for number in classes:
            first, second = one == number, other == number
            size = first.sum() + second.sum()
            scores.append(2 * (first & second).sum() / size if size else 1.0)
    return float(np.mean(scores))


if __name__ == "__main__":
    main()
