"""Choice of the best configuration or pair of configurations by held-out scores, and of its postprocessing."""

import math
from collections.abc import Sequence

import torch

from autoseg.errors import ProblemsError
from autoseg.evaluation.scores import METRICS
from autoseg.model_selection.candidates import Candidate, Exclusion, ModelSelection, examine
from autoseg.model_selection.ensemble_validation import validate_ensembles
from autoseg.model_selection.validation import find_morphology_for, find_rules_for
from autoseg.models.best_model import BestModel, BestModelFold, CandidateScores, MetricName
from autoseg.preprocessing.cascade import write_cascade_labels
from autoseg.preprocessing.prepared_check import check_prepared
from autoseg.runtime.reporting import Reporter


def choose_best_model(
    selection: ModelSelection, device: torch.device | None, reporter: Reporter, *, metric: MetricName = "dice"
) -> BestModel:
    """Compares configurations and pairs of them on all held-out cases, and finds the postprocessing of the best.

    The largest mean over the foreground before postprocessing wins; of ties the first candidate, where single
    configurations come before pairs. Source: the reference method (nnU-Net v2.8.1, find_best_configuration), by Dice.

    Configurations are compared by the results of their validation, and nothing is written for that. Pairs must predict
    first: for them, `prepare_held_out_cases` writes what cascades take as input, and `validate_ensembles` writes
    segmentations and scores.

    Args:
        selection: The configurations to compare. Those that are not trained and validated in all folds are left out.
        device: Device on which pairs predict; None to try no pairs.
        reporter: Shows progress and the configurations that are left out.
        metric: The metric whose mean decides. The rules of postprocessing are chosen by Dice.

    Raises:
        ProblemsError: No configuration is trained and validated in all folds; each has its line. Or preprocessed cases
            are damaged.
        UsageError: The cases are not preprocessed as the plan says now.
        ArtifactError: A file of results is damaged, or the disk is full.
    """
    outcomes = [examine(selection, configuration) for configuration in selection.configurations]
    candidates = [outcome for outcome in outcomes if isinstance(outcome, Candidate)]
    left_out = tuple(outcome.describe() for outcome in outcomes if isinstance(outcome, Exclusion))
    if not candidates:
        raise ProblemsError(left_out)
    for line in left_out:
        reporter.say(f"left out: {line}")
    if device is not None and len(candidates) > 1:
        prepare_held_out_cases(selection, candidates, reporter)
        candidates += validate_ensembles(selection, candidates, device, reporter)
    best = max(candidates, key=lambda candidate: candidate.score(metric))  # the first of ties
    results = list(best.results.values())
    rules = find_rules_for(selection.dataset, results, reporter)
    return BestModel(
        dataset=selection.dataset.name,
        configurations=best.names,
        folds={
            name: tuple(BestModelFold(fold=fold, weights=digest) for fold, digest in weights.items())
            for name, weights in best.weights.items()
        },
        rules=find_morphology_for(selection.dataset, results, rules, reporter),
        candidates=tuple(_describe(candidate, best, metric, alone=len(candidates) == 1) for candidate in candidates),
        left_out=left_out,
        metric=metric,
    )


def prepare_held_out_cases(selection: ModelSelection, candidates: Sequence[Candidate], reporter: Reporter) -> None:
    """Makes sure that the cases of all candidates are preprocessed, and writes the coarse segmentations of cascades.

    Args:
        selection: The dataset and its number.
        candidates: The candidates of one configuration each.
        reporter: Shows progress.

    Raises:
        ProblemsError: Preprocessed cases are damaged, or coarse segmentations cannot be read; each has its line.
        UsageError: The cases are not preprocessed as the plan says now.
    """
    dataset, number = selection.dataset, selection.number
    configurations = [configuration for candidate in candidates for configuration in candidate.configurations]
    owners = {
        (configuration.folders.plan_name, configuration.cases_owner): configuration for configuration in configurations
    }
    for owner in owners.values():
        check_prepared(dataset, owner.plan, owner.cases_owner, owner.folders, number)
    for cascade in configurations:
        write_cascade_labels(dataset, cascade.plan, cascade.name, cascade.folders, number, reporter)


def _describe(candidate: Candidate, best: Candidate, metric: MetricName, *, alone: bool) -> CandidateScores:
    """Returns a candidate as it is listed in best.json."""
    score, best_score, title = candidate.score(metric), best.score(metric), METRICS[metric].title
    if candidate is best:
        reason = "the only candidate" if alone else f"the largest mean {title}"
    elif score == best_score:
        reason = "no better, and tried later"
    elif math.isinf(score):
        reason = f"its {title} is undefined"
    else:
        reason = f"{best_score - score:.4f} below"
    return CandidateScores(
        configurations=candidate.names,
        cases=len({case.name for case in candidate.results}),
        repeats=candidate.summary.repeats,
        mean_dice=candidate.summary.foreground_mean.dice,
        dice={label: mean.dice for label, mean in candidate.summary.mean.items()},
        chosen=candidate is best,
        reason=reason,
        score=None if metric == "dice" else getattr(candidate.summary.foreground_mean, metric),
    )
