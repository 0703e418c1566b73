"""Validation of ensembles: each held-out case segmented by two configurations whose fold held it out, and scored.

No probabilities are kept on disk. Every case is predicted once by each configuration, by the fold that held it out, and
all pairs that lack the case are made from these predictions. The results of a pair are written to its folder case by
case. A run that was stopped continues, and a later run reuses the results that are still valid.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch

from autoseg.datasets.dataset import Case
from autoseg.datasets.scans import result_ending
from autoseg.errors import ArtifactError
from autoseg.evaluation.summary import CaseResult, score_case
from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.label_files import save_result
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.ensemble import EnsemblePrediction
from autoseg.inference.prediction import Prediction
from autoseg.inference.segmenter import Segmenter
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.model_selection.candidates import (
    Candidate,
    HeldOutCase,
    ModelSelection,
    PlannedConfiguration,
    make_candidate,
)
from autoseg.model_selection.held_out_cases import label_file, load_preprocessed, pair_with_label
from autoseg.models.best_model import MemberName, name_together
from autoseg.models.checkpoint import load_checkpoint
from autoseg.runtime.artifact import Artifact
from autoseg.runtime.reporting import Reporter, Task

SCORING_SHARE = 0.1
"""Share of scoring in the time of a case, for the progress bar. Decision: the networks take most of the time."""

PairName = tuple[MemberName, MemberName]


class ScoredCase(Artifact):
    """A held-out case that a pair has segmented; .judged/CASE.json in the folder of the pair.

    Attributes:
        weights: Digests of the two folds that segmented the case; see `weight_digest.digest_weights`.
        result: The scores.
    """

    weights: tuple[str, str]
    result: CaseResult


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Two configurations that predict together.

    Attributes:
        first, second: Their candidates, each of one configuration.
        folder: Folder of the results.
    """

    first: Candidate
    second: Candidate
    folder: Path

    @property
    def names(self) -> PairName:
        return self.first.names[0], self.second.names[0]

    @property
    def configurations(self) -> tuple[PlannedConfiguration, PlannedConfiguration]:
        return self.first.configurations[0], self.second.configurations[0]

    @property
    def weights(self) -> Mapping[MemberName, Mapping[int, str]]:
        return {**self.first.weights, **self.second.weights}

    def digests(self, fold: int) -> tuple[str, str]:
        """Returns the digests of the weights of a fold."""
        first, second = (self.weights[name][fold] for name in self.names)
        return first, second

    def folder_of(self, case: HeldOutCase) -> Path:
        """Returns the folder of a segmentation: each repeat of a cross-validation after the first has its own."""
        return self.folder / f"repeat_{case.repeat + 1}" if case.repeat else self.folder

    def record(self, case: HeldOutCase) -> Path:
        """Returns the file with the scores of a case, beside its segmentation."""
        return self.folder_of(case) / ".judged" / f"{case.name}.json"

    def load_results(self, held_out: Sequence[HeldOutCase]) -> dict[HeldOutCase, tuple[Path, CaseResult]]:
        """Loads the complete results of an earlier run that used the same weights."""
        results = {}
        for case in held_out:
            with suppress(ArtifactError):  # the file is missing, or was written by another version
                scored, folder = ScoredCase.load(self.record(case)), self.folder_of(case)
                if scored.weights == self.digests(case.fold) and (folder / scored.result.prediction_file).exists():
                    results[case] = (folder, scored.result)
        return results


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnfinishedCase:
    """A case, and the pairs that have not segmented it yet."""

    case: Case
    held_out: HeldOutCase
    pairs: tuple[_Pair, ...]

    @property
    def configurations(self) -> dict[MemberName, PlannedConfiguration]:
        """The configurations of these pairs, by name."""
        return {configuration.member: configuration for pair in self.pairs for configuration in pair.configurations}


def validate_ensembles(
    selection: ModelSelection, candidates: Sequence[Candidate], device: torch.device, reporter: Reporter
) -> list[Candidate]:
    """Segments the held-out cases by all pairs of configurations, and writes their scores and summaries.

    Args:
        selection: The dataset, its held-out cases and its folders.
        candidates: The candidates of one configuration each, whose held-out cases are preprocessed.
        device: Device of the networks.
        reporter: Shows progress, and how much an earlier run has done.

    Returns:
        A candidate for each pair.

    Raises:
        ArtifactError: A preprocessed case is damaged, or the disk is full.
        ModelError: A checkpoint is damaged.
    """
    held_out = selection.held_out
    pairs = [
        _Pair(
            first=first, second=second, folder=selection.folders.ensemble(name_together((*first.names, *second.names)))
        )
        for first, second in combinations(candidates, 2)
    ]
    cases = {case.name: case for case in selection.dataset.only(case.name for case in held_out).cases}
    results = {pair.names: pair.load_results(held_out) for pair in pairs}
    reused = sum(len(of_pair) for of_pair in results.values())
    if reused:
        reporter.say(f"{reused} of {len(pairs) * len(held_out)} segmentations by pairs were made by an earlier run")
    unfinished = [
        _UnfinishedCase(
            case=cases[case.name],
            held_out=case,
            pairs=tuple(pair for pair in pairs if case not in results[pair.names]),
        )
        for case in sorted(held_out, key=lambda case: (case.fold, case.name))
    ]
    _segment_unfinished(selection, [case for case in unfinished if case.pairs], results, device, reporter)
    made = []
    for pair in pairs:
        ordered = {case: results[pair.names][case] for case in held_out}
        made.append(make_candidate(selection, pair.configurations, pair.weights, ordered))
    for candidate in made:
        candidate.summary.write(selection.folders.ensemble(candidate.name))
    return made


def _segment_unfinished(
    selection: ModelSelection,
    unfinished: Sequence[_UnfinishedCase],
    results: Mapping[PairName, dict[HeldOutCase, tuple[Path, CaseResult]]],
    device: torch.device,
    reporter: Reporter,
) -> None:
    """Segments cases fold by fold, and adds their scores to the results of the pairs."""
    if not unfinished:
        return
    with reporter.task("pairs on held-out cases", total=sum(len(case.configurations) for case in unfinished)) as task:
        for fold in sorted({case.held_out.fold for case in unfinished}):
            of_fold = [case for case in unfinished if case.held_out.fold == fold]
            configurations = {name: value for case in of_fold for name, value in case.configurations.items()}
            segmenters = {name: _load_fold(value, fold, device) for name, value in configurations.items()}
            for case in of_fold:
                for pair, result in _segment_case(selection, case, segmenters, task).items():
                    results[pair][case.held_out] = result


def _load_fold(configuration: PlannedConfiguration, fold: int, device: torch.device) -> Segmenter:
    """Loads the network of the fold that held cases out."""
    return make_segmenter([load_checkpoint(configuration.model.checkpoint(fold))], NO_RULES, device)


def _segment_case(
    selection: ModelSelection, unfinished: _UnfinishedCase, segmenters: Mapping[MemberName, Segmenter], task: Task
) -> dict[PairName, tuple[Path, CaseResult]]:
    """Predicts a case once by each configuration, and writes the mean prediction of each pair and its scores."""
    case, info = unfinished.case, selection.dataset.info
    configurations = unfinished.configurations

    def predict(configuration: PlannedConfiguration) -> Prediction:
        preprocessed = load_preprocessed(
            case.name, info.targets, configuration.cases_folder, configuration.cascade_labels_folder
        )
        segmenter = segmenters[configuration.member]
        return segmenter.predict_preprocessed(preprocessed, lambda share: task.advance((1 - SCORING_SHARE) * share))

    predictions = {name: predict(configuration) for name, configuration in configurations.items()}
    reference = read_label_map(label_file(case))
    results = {}
    for pair in unfinished.pairs:
        prediction = EnsemblePrediction(members=tuple(predictions[name] for name in pair.names), rules=NO_RULES)
        folder = pair.folder_of(unfinished.held_out)
        segmentation = save_result(prediction, folder / (case.name + result_ending(case)))
        result = score_case(pair_with_label(case, segmentation, info, reference=reference))
        digests = pair.digests(unfinished.held_out.fold)
        ScoredCase(weights=digests, result=result).save(pair.record(unfinished.held_out))
        results[pair.names] = (folder, result)
        task.advance(SCORING_SHARE * len(configurations) / len(unfinished.pairs))
    return results
