"""Pairs of configurations on held-out cases: each case segmented by two that never saw it, and judged.

No probabilities are kept on disk for that. Every case is shown once to each configuration, by the fold that held it
out, and all pairs that lack it are made of the answers. What is done of a pair lies in its folder, case by case, so a
run that was stopped goes on, and a later one takes over what still holds.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.scans import result_ending
from autoseg.errors import ArtifactError
from autoseg.evaluation.summary import CaseResult, score_case
from autoseg.imaging.files import read_label_map
from autoseg.imaging.label_files import save_result
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.ensemble import EnsemblePrediction
from autoseg.inference.prediction import Prediction
from autoseg.inference.segmenter import Segmenter, make_segmenter
from autoseg.model_selection.held_out_cases import label_file, load_preprocessed, pair_with_label
from autoseg.models.best_model import MemberName, name_together
from autoseg.models.checkpoint import load_checkpoint
from autoseg.runtime.artifact import Artifact
from autoseg.runtime.reporting import Reporter, Task
from autoseg.workspace import DatasetFolders, ModelFolder

Pair = tuple[MemberName, MemberName]

SHARE_OF_JUDGING = 0.1
"""Of the time of a case, on the progress bar. Decision: the networks take most of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A configuration that is trained and judged in all folds.

    Attributes:
        name: Of the configuration, with that of its plan if it is another one's.
        model: Where its folds are.
        weights: Fold to `weight_digest.digest_weights`.
        results: Held-out case to the folder of its segmentation, and its scores.
        cases_folder: Where its preprocessed cases are.
        cascade_labels_folder: Of a cascade: where the former segmentations are.
    """

    name: MemberName
    model: ModelFolder
    weights: Mapping[int, str]
    results: Mapping[str, tuple[Path, CaseResult]]
    cases_folder: Path
    cascade_labels_folder: Path | None


class JudgedCase(Artifact):
    """A held-out case that a pair has segmented.

    Attributes:
        weights: Of the fold of each of the two; see `weight_digest.digest_weights`.
        result: Its scores.
    """

    weights: tuple[str, str]
    result: CaseResult


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missing:
    """A case, and the pairs that have not segmented it."""

    case: Case
    fold: int
    pairs: tuple[Pair, ...]

    @property
    def names(self) -> list[MemberName]:
        """The configurations of these pairs."""
        return list(dict.fromkeys(name for pair in self.pairs for name in pair))


def validate_ensembles(
    dataset: Dataset,
    held_out: Mapping[str, int],
    entrants: Sequence[Entrant],
    folders: DatasetFolders,
    device: torch.device,
    reporter: Reporter,
) -> dict[Pair, dict[str, tuple[Path, CaseResult]]]:
    """Lets all pairs of configurations segment the held-out cases.

    Args:
        dataset: The raw dataset, whose labels judge the result.
        held_out: Case to the fold that held it out.
        entrants: The configurations.
        folders: Where results go.
        device: Where the networks are.
        reporter: Shows progress, and is told how much was done before.

    Returns:
        For each pair, in order: case to the folder of its segmentation, and its scores.

    Raises:
        ArtifactError: A preprocessed case is damaged, or the disk is full.
        ModelError: A checkpoint is damaged.
    """
    by_name = {entrant.name: entrant for entrant in entrants}
    pairs = list(combinations(by_name, 2))
    cases = {case.name: case for case in dataset.only(held_out).cases}
    done = {pair: _find_done(folders.ensemble(name_together(pair)), pair, by_name, held_out) for pair in pairs}
    missing = [
        _Missing(case=cases[name], fold=fold, pairs=tuple(pair for pair in pairs if name not in done[pair]))
        for name, fold in sorted(held_out.items(), key=lambda item: (item[1], item[0]))
    ]
    missing = [one for one in missing if one.pairs]
    taken_over = sum(len(results) for results in done.values())
    if taken_over:
        reporter.say(f"{taken_over} of {len(pairs) * len(cases)} segmentations by pairs were made by an earlier run")
    if missing:
        judge = _Judge(dataset=dataset, entrants=by_name, folders=folders)
        with reporter.task("pairs on held-out cases", total=sum(len(one.names) for one in missing)) as task:
            for fold in sorted({one.fold for one in missing}):
                of_fold = [one for one in missing if one.fold == fold]
                segmenters = _load_fold({name for one in of_fold for name in one.names}, fold, by_name, device)
                for one in of_fold:
                    for pair, result in judge.judge(one, segmenters, task).items():
                        done[pair][one.case.name] = result
    return {pair: {name: done[pair][name] for name in sorted(held_out)} for pair in pairs}


def _find_done(
    folder: Path, pair: Pair, entrants: Mapping[MemberName, Entrant], held_out: Mapping[str, int]
) -> dict[str, tuple[Path, CaseResult]]:
    """What an earlier run made of cases by the same folds, and is there to the end."""
    done = {}
    for name, fold in held_out.items():
        with suppress(ArtifactError):  # it is missing, or was begun by another version
            judged = JudgedCase.load(_record(folder, name))
            weights = tuple(entrants[one].weights[fold] for one in pair)
            if judged.weights == weights and (folder / judged.result.prediction_file).exists():
                done[name] = (folder, judged.result)
    return done


def _load_fold(
    names: set[MemberName], fold: int, entrants: Mapping[MemberName, Entrant], device: torch.device
) -> dict[MemberName, Segmenter]:
    """The networks that held out the cases of a fold."""
    return {
        name: make_segmenter([load_checkpoint(entrants[name].model.checkpoint(fold))], NO_RULES, device)
        for name in names
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judge:
    """Who segments cases by pairs, and compares them with their labels."""

    dataset: Dataset
    entrants: Mapping[MemberName, Entrant]
    folders: DatasetFolders

    def judge(
        self, missing: _Missing, segmenters: Mapping[MemberName, Segmenter], task: Task
    ) -> dict[Pair, tuple[Path, CaseResult]]:
        """Asks each configuration once about a case, and makes all pairs of the answers."""
        case, info = missing.case, self.dataset.info
        said = {name: self._predict(case.name, name, segmenters[name], task) for name in missing.names}
        reference = read_label_map(label_file(case))
        judged = {}
        for pair in missing.pairs:
            folder = self.folders.ensemble(name_together(pair))
            prediction = EnsemblePrediction(members=tuple(said[name] for name in pair), rules=NO_RULES)
            segmentation = save_result(prediction, folder / (case.name + result_ending(case)))
            result = score_case(pair_with_label(case, segmentation, info, reference=reference))
            first, second = (self.entrants[name].weights[missing.fold] for name in pair)
            JudgedCase(weights=(first, second), result=result).save(_record(folder, case.name))
            judged[pair] = (folder, result)
            task.advance(SHARE_OF_JUDGING * len(missing.names) / len(missing.pairs))
        return judged

    def _predict(self, case: str, name: MemberName, segmenter: Segmenter, task: Task) -> Prediction:
        one = self.entrants[name]
        prepared = load_preprocessed(case, self.dataset.info.targets, one.cases_folder, one.cascade_labels_folder)
        return segmenter.predict_preprocessed(prepared, lambda share: task.advance((1 - SHARE_OF_JUDGING) * share))


def _record(folder: Path, case: str) -> Path:
    """Where the scores of a case are kept beside its segmentation."""
    return folder / ".judged" / f"{case}.json"
