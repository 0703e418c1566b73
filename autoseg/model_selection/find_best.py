"""The best of the trained configurations and pairs of them, by the Dice of held-out cases; and its postprocessing.

Several plans of a dataset share its cases and its folds. So what was trained by one of them competes with what was
trained by another, and with models that nnU-Net trained and that were taken over (see `taking_over`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Splits
from autoseg.errors import ModelError, ProblemsError, UsageError
from autoseg.evaluation.summary import CaseResult, Summary, summarize
from autoseg.model_selection.ensembles import Entrant, validate_ensembles
from autoseg.model_selection.validation import find_rules_for, is_validated
from autoseg.models.best_model import BestModel, BestModelFold, Candidate, MemberName, name_member, name_together
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import load_decisions, load_plan, open_planned, with_own_cases
from autoseg.preprocessing.cascade import write_cascade_labels
from autoseg.preprocessing.dataset import check_prepared
from autoseg.preprocessing.provenance import PreprocessingSettings
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import DatasetFolders, ModelFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """A configuration that may take part.

    Attributes:
        member: What it is called here: of another plan than that of the contest with the name of that.
        name: Of the configuration.
        plan: As it stands.
        folders: Where its cases and models are.
    """

    member: MemberName
    name: ConfigurationName
    plan: Plan
    folders: DatasetFolders

    @property
    def owner(self) -> ConfigurationName:
        """The configuration whose preprocessed cases it sees."""
        return with_own_cases(self.plan, [self.name])[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What is compared.

    Attributes:
        number: Of the dataset.
        dataset: The cases of its splits.
        splits: Which cases each fold holds out.
        folders: Where pairs and the decision go.
        applicants: What may take part.
    """

    number: int
    dataset: Dataset
    splits: Splits
    folders: DatasetFolders
    applicants: Sequence[Applicant]

    @property
    def held_out(self) -> dict[str, int]:
        """Case to the fold that held it out; if splits.json was edited so that several do, the last one."""
        return {name: fold for fold, split in enumerate(self.splits.folds) for name in split.validation}


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One configuration, or a pair, with the results of its held-out cases.

    Attributes:
        configurations: Its names.
        results: Case to the folder of its segmentation, and its scores.
        summary: The scores of all.
    """

    configurations: tuple[MemberName, ...]
    results: Mapping[str, tuple[Path, CaseResult]]
    summary: Summary

    @property
    def score(self) -> float:
        """Mean foreground Dice; what is undefined loses against everything."""
        dice = self.summary.foreground_mean.dice
        return -math.inf if math.isnan(dice) else dice


def open_contest(number: int, folders: DatasetFolders, names: Sequence[str] | None) -> Contest:
    """Finds what may take part.

    Those are the configurations of the plan that was named. If none was, they are those of the usual plan, and of each
    plan beside it those of which a fold is trained.

    Args:
        number: Of the dataset.
        folders: Its folders, as the plan that was named sees them.
        names: Of the configurations; None for all.

    Raises:
        UsageError: There is no plan, none that has such a configuration, or dataset.json names other channels or labels
            than the plan.
        ProblemsError: Cases are missing, each with its line.
        ArtifactError: A plan, or splits.json, is damaged.
    """
    others = [] if folders.plan_name is not None else _list_others(number, folders)
    own = [] if others and not folders.plan.is_file() else _list_applicants(load_plan(number, folders), folders)
    _, splits = load_decisions(number, (own or others)[0].folders)
    if own:
        dataset = open_planned(number, folders, own[0].plan, splits)
    else:
        dataset = Dataset.open(folders.raw).only(splits.names)
    applicants = [*own, *others]
    known = list(dict.fromkeys(one.name for one in applicants))
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise UsageError(f"{dataset.name} has no configuration {unknown[0]!r}", f"choose from {', '.join(known)}")
    chosen = [one for one in applicants if not names or one.name in names]
    return Contest(number=number, dataset=dataset, splits=splits, folders=folders, applicants=chosen)


def _list_others(number: int, folders: DatasetFolders) -> list[Applicant]:
    """What is trained by plans beside the usual one."""
    plans = [folders.with_plan(name) for name in folders.named_plans]
    applicants = [one for beside in plans for one in _list_applicants(load_plan(number, beside), beside)]
    applicants = [one for one in applicants if one.folders.model(one.name).trained_folds()]
    return [replace(one, member=name_member(one.folders.plan_name, one.name)) for one in applicants]


def _list_applicants(plan: Plan, folders: DatasetFolders) -> list[Applicant]:
    return [Applicant(member=name, name=name, plan=plan, folders=folders) for name in plan.configurations]


def choose_best_model(contest: Contest, device: torch.device | None, reporter: Reporter) -> BestModel:
    """Compares configurations and pairs of them on all held-out cases, and finds the postprocessing of the best.

    The largest mean foreground Dice wins, before postprocessing; of equals the first, single configurations before
    pairs. Source: the reference method (nnU-Net v2.8.1, find_best_configuration).

    Args:
        contest: What is compared. Those that are not trained and judged in all folds are left out.
        device: Where pairs are predicted; None to try no pairs.
        reporter: Shows progress, and is told who is left out.

    Raises:
        ProblemsError: None is trained and judged in all folds; each has its line. Or preprocessed cases are damaged.
        UsageError: The cases are not preprocessed as the plan says now.
        ArtifactError: A file of results is damaged, or the disk is full.
    """
    examined = [_examine(contest, one) for one in contest.applicants]
    entrants = [one for one in examined if isinstance(one, Entrant)]
    left_out = [one for one in examined if isinstance(one, str)]
    if not entrants:
        raise ProblemsError(left_out)
    for line in left_out:
        reporter.say(f"left out: {line}")
    contenders = [_enter(contest, (one.name,), one.results) for one in entrants]
    if device is not None and len(entrants) > 1:
        contenders += _try_pairs(contest, entrants, device, reporter)
    best = max(contenders, key=lambda one: one.score)  # the first of equals
    return BestModel(
        dataset=contest.dataset.name,
        configurations=best.configurations,
        folds={
            one.name: tuple(BestModelFold(fold=fold, weights=weights) for fold, weights in one.weights.items())
            for one in entrants
            if one.name in best.configurations
        },
        rules=find_rules_for(contest.dataset, list(best.results.values()), reporter),
        candidates=tuple(_describe(one, best, alone=len(contenders) == 1) for one in contenders),
        left_out=tuple(left_out),
    )


def _examine(contest: Contest, one: Applicant) -> Entrant | str:
    """A configuration, if all its folds can be compared, or a line that says why not, and what would mend it."""
    folds, model = range(len(contest.splits.folds)), one.folders.model(one.name)

    def refuse(what: str, which: Sequence[int], option: str = "") -> str:
        of = f"fold{'s' * (len(which) > 1)} {' '.join(map(str, which))} {'are' if len(which) > 1 else 'is'}"
        wanted = "cv" if len(which) == len(folds) else " ".join(map(str, which))
        train = f"autoseg train -d {contest.number} -c {one.name} -f {wanted}"
        return f"{one.member}: {of} {what}; run '{train}{option}{one.folders.plan_option}'"

    if missing := [fold for fold in folds if not model.checkpoint(fold).is_file()]:
        return refuse("not trained", missing)
    if missing := [fold for fold in folds if not is_validated(model, fold)]:
        return refuse("not trained to the end and judged", missing)
    weights, other_cases, other_plan = {}, [], []
    for fold in folds:
        try:
            checkpoint = load_checkpoint(model.checkpoint(fold))
        except ModelError as error:
            return f"{one.member}: {error}"
        weights[fold] = digest_weights(checkpoint.weights)
        other_cases += [fold] if checkpoint.cases != contest.splits.folds[fold].digest else []
        recipe = PreprocessingSettings.of(checkpoint.plan, one.name, checkpoint.info)
        other_plan += [fold] if recipe != PreprocessingSettings.of(one.plan, one.name, contest.dataset.info) else []
    if other_cases:
        return refuse("trained with other cases than splits.json says now", other_cases, " --restart")
    if other_plan:
        return refuse("trained for other voxels than plan.json says now", other_plan, " --restart")
    return Entrant(
        name=one.member,
        model=model,
        weights=weights,
        results=_gather_results(contest, model),
        cases_folder=one.folders.cases(one.owner),
        cascade_labels_folder=one.folders.cases(one.name) if one.owner != one.name else None,
    )


def _gather_results(contest: Contest, model: ModelFolder) -> dict[str, tuple[Path, CaseResult]]:
    """What validation said of each held-out case."""
    places = {fold: model.validation(fold) for fold in range(len(contest.splits.folds))}
    by_fold = {
        fold: {case.name: case for case in Summary.load(place / "summary.json").cases} for fold, place in places.items()
    }
    return {case: (places[fold], by_fold[fold][case]) for case, fold in sorted(contest.held_out.items())}


def _try_pairs(
    contest: Contest, entrants: Sequence[Entrant], device: torch.device, reporter: Reporter
) -> list[Contender]:
    """Lets pairs segment the held-out cases, and writes their summaries."""
    dataset, folders, number = contest.dataset, contest.folders, contest.number
    names = {one.name for one in entrants}
    applicants = [one for one in contest.applicants if one.member in names]
    for one in {(one.folders.plan_name, one.owner): one for one in applicants}.values():
        check_prepared(dataset, one.plan, one.owner, one.folders, number)
    for one in applicants:
        write_cascade_labels(dataset, one.plan, one.name, one.folders, number, reporter)
    judged = validate_ensembles(dataset, contest.held_out, entrants, folders, device, reporter)
    pairs = [_enter(contest, pair, results) for pair, results in judged.items()]
    for pair in pairs:
        pair.summary.write(folders.ensemble(name_together(pair.configurations)))
    return pairs


def _enter(
    contest: Contest,
    configurations: tuple[MemberName, ...],
    results: Mapping[str, tuple[Path, CaseResult]],
) -> Contender:
    summary = summarize([result for _, result in results.values()], contest.dataset.info.targets.names)
    return Contender(configurations=configurations, results=results, summary=summary)


def _describe(one: Contender, best: Contender, *, alone: bool) -> Candidate:
    """A contender for the table of the decision."""
    if one is best:
        reason = "the only candidate" if alone else "the largest mean Dice"
    elif one.score == best.score:
        reason = "no better, and tried later"
    elif math.isinf(one.score):
        reason = "its Dice is undefined"
    else:
        reason = f"{best.score - one.score:.4f} below"
    return Candidate(
        configurations=one.configurations,
        cases=len(one.results),
        mean_dice=one.summary.foreground_mean.dice,
        dice={label: mean.dice for label, mean in one.summary.mean.items()},
        chosen=one is best,
        reason=reason,
    )
