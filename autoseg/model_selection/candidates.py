"""Candidates of a model selection: configurations that are trained and validated in all folds, alone or in pairs.

The plans of a dataset share its cases and its folds. Configurations of one plan can therefore be compared with those of
another one, and with models of nnU-Net that were installed among them (see `nnunet.dataset_install`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoseg.datasets.dataset import Dataset
from autoseg.datasets.splits import Splits
from autoseg.errors import ArtifactError, ModelError, UsageError
from autoseg.evaluation.repeats import number_occurrences
from autoseg.evaluation.summary import CaseResult, Summary, summarize, summary_file
from autoseg.model_selection.validation import is_validated
from autoseg.models.best_model import MemberName, MetricName, name_member, name_together
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import ConfigurationName, Plan
from autoseg.planning.plan_file import (
    configurations_to_preprocess,
    load_plan,
    load_plan_and_splits,
    open_planned_dataset,
)
from autoseg.preprocessing.provenance import PreprocessingSettings
from autoseg.workspace import DatasetFolders, ModelFolder

HeldOutResults = Mapping["HeldOutCase", tuple[Path, CaseResult]]
"""A held-out case to the folder of its segmentation, and its scores."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class HeldOutCase:
    """A case that a fold held out.

    Attributes:
        repeat: Number of the repeat of the cross-validation, from 0.
        name: Name of the case.
        fold: The fold.
    """

    repeat: int
    name: str
    fold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedConfiguration:
    """A configuration of a plan, trained or not.

    Attributes:
        member: Its name in best.json: with the name of its plan if that is not the plan of the selection.
        name: Its name in its plan.
        plan: Its plan.
        folders: Folders of the dataset, as its plan sees them.
    """

    member: MemberName
    name: ConfigurationName
    plan: Plan
    folders: DatasetFolders

    @property
    def model(self) -> ModelFolder:
        """Folder of its trained folds."""
        return self.folders.model(self.name)

    @property
    def cases_owner(self) -> ConfigurationName:
        """The configuration whose preprocessed cases it uses; another one for a cascade."""
        return configurations_to_preprocess(self.plan, [self.name])[0]

    @property
    def cases_folder(self) -> Path:
        """Folder of its preprocessed cases."""
        return self.folders.cases(self.cases_owner)

    @property
    def cascade_labels_folder(self) -> Path | None:
        """Folder of the coarse segmentations, for a cascade."""
        return self.folders.cases(self.name) if self.cases_owner != self.name else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSelection:
    """The configurations of a dataset that are compared.

    Attributes:
        number: Number of the dataset.
        dataset: The dataset, with the cases of its splits.
        splits: The cases that each fold holds out.
        folders: Folders of the dataset, where ensembles and the decision are written.
        configurations: The configurations that may be chosen.
    """

    number: int
    dataset: Dataset
    splits: Splits
    folders: DatasetFolders
    configurations: Sequence[PlannedConfiguration]

    @property
    def held_out(self) -> list[HeldOutCase]:
        """The cases that folds held out, by repeat and name; several times if a cross-validation is repeated."""
        names = [(name, fold) for fold, split in enumerate(self.splits.folds) for name in split.validation]
        repeats = number_occurrences(name for name, _ in names)
        return sorted(
            HeldOutCase(repeat=repeat, name=name, fold=fold)
            for (name, fold), repeat in zip(names, repeats, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One configuration, or two that predict together, with the scores of all held-out cases.

    Attributes:
        configurations: The configurations.
        weights: Name of a configuration to the digest of the weights of each fold; see `weight_digest.digest_weights`.
        results: Scores of the held-out cases, in their order.
        summary: The summary of these scores, before postprocessing.
    """

    configurations: tuple[PlannedConfiguration, ...]
    weights: Mapping[MemberName, Mapping[int, str]]
    results: HeldOutResults
    summary: Summary

    @property
    def names(self) -> tuple[MemberName, ...]:
        """Names of the configurations."""
        return tuple(configuration.member for configuration in self.configurations)

    @property
    def name(self) -> str:
        """Name of the candidate, such as "2d+3d_fullres"."""
        return name_together(self.names)

    def score(self, metric: MetricName) -> float:
        """Returns the mean of a metric over the foreground; minus infinity if it is undefined."""
        mean: float = getattr(self.summary.foreground_mean, metric)
        return -math.inf if math.isnan(mean) else mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """Why a configuration cannot be a candidate.

    Attributes:
        member: Name of the configuration.
        reason: What is wrong.
        fix: What to do about it.
    """

    member: MemberName
    reason: str
    fix: str

    def describe(self) -> str:
        """Returns one line for people.

        >>> Exclusion(member="2d", reason="fold 1 is not trained", fix="train it").describe()
        '2d: fold 1 is not trained; train it'
        """
        return f"{self.member}: {self.reason}; {self.fix}"


def open_model_selection(number: int, folders: DatasetFolders, names: Sequence[str] | None) -> ModelSelection:
    """Finds the configurations that may be chosen.

    They are those of the plan of the folders, if it has a name. Otherwise they are those of the default plan, and those
    of which a fold is trained of each named plan.

    Args:
        number: Number of the dataset.
        folders: Its folders, as the plan of the selection sees them.
        names: Names of the configurations to compare; None for all.

    Raises:
        UsageError: There is no plan, no plan has such a configuration, or dataset.json names other channels or labels
            than the plan.
        ProblemsError: Cases are missing, each with its line.
        ArtifactError: A plan or splits.json is damaged.
    """
    others = [] if folders.plan_name is not None else _list_trained_elsewhere(number, folders)
    own = [] if others and not folders.plan.is_file() else _list_configurations(load_plan(number, folders), folders)
    _, splits = load_plan_and_splits(number, (own or others)[0].folders)
    if own:
        dataset = open_planned_dataset(number, folders, own[0].plan, splits)
    else:
        dataset = Dataset.open(folders.raw).only(splits.names)
    configurations = [*own, *others]
    known = list(dict.fromkeys(configuration.name for configuration in configurations))
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise UsageError(f"{dataset.name} has no configuration {unknown[0]!r}", f"choose from {', '.join(known)}")
    chosen = [configuration for configuration in configurations if not names or configuration.name in names]
    return ModelSelection(number=number, dataset=dataset, splits=splits, folders=folders, configurations=chosen)


def _list_trained_elsewhere(number: int, folders: DatasetFolders) -> list[PlannedConfiguration]:
    """Lists the configurations of named plans of which a fold is trained."""
    named = [folders.with_plan(name) for name in folders.named_plans]
    configurations = [
        configuration for other in named for configuration in _list_configurations(load_plan(number, other), other)
    ]
    return [
        replace(configuration, member=name_member(configuration.folders.plan_name, configuration.name))
        for configuration in configurations
        if configuration.model.trained_folds()
    ]


def _list_configurations(plan: Plan, folders: DatasetFolders) -> list[PlannedConfiguration]:
    return [PlannedConfiguration(member=name, name=name, plan=plan, folders=folders) for name in plan.configurations]


def examine(selection: ModelSelection, configuration: PlannedConfiguration) -> Candidate | Exclusion:
    """Returns a configuration as a candidate, or the reason why its folds cannot be compared. Nothing is written."""
    folds, model = range(len(selection.splits.folds)), configuration.model
    if missing := [fold for fold in folds if not model.checkpoint(fold).is_file()]:
        return _exclude(selection, configuration, "not trained", missing)
    if missing := [fold for fold in folds if not is_validated(model, fold)]:
        return _exclude(selection, configuration, "not trained to the end and judged", missing)
    info = selection.dataset.info
    settings = PreprocessingSettings.of(configuration.plan, configuration.name, info)
    weights, other_cases, other_plan = {}, [], []
    for fold in folds:
        try:
            checkpoint = load_checkpoint(model.checkpoint(fold))
        except ModelError as error:
            return Exclusion(member=configuration.member, reason=error.what, fix=error.fix)
        weights[fold] = digest_weights(checkpoint.weights)
        other_cases += [fold] if checkpoint.cases != selection.splits.folds[fold].digest else []
        trained_settings = PreprocessingSettings.of(checkpoint.plan, configuration.name, checkpoint.info)
        other_plan += [fold] if trained_settings != settings else []
    if other_cases:
        reason = "trained with other cases than splits.json says now"
        return _exclude(selection, configuration, reason, other_cases, option=" --restart")
    if other_plan:
        reason = "trained for other voxels than plan.json says now"
        return _exclude(selection, configuration, reason, other_plan, option=" --restart")
    results = _load_results(selection, model)
    return make_candidate(selection, (configuration,), {configuration.member: weights}, results)


def _exclude(
    selection: ModelSelection,
    configuration: PlannedConfiguration,
    reason: str,
    folds: Sequence[int],
    *,
    option: str = "",
) -> Exclusion:
    """Returns the exclusion of a configuration because of some of its folds, with the command that trains them."""
    several, all_folds = len(folds) > 1, len(folds) == len(selection.splits.folds)
    numbers = " ".join(map(str, folds))
    command = f"autoseg train -d {selection.number} -c {configuration.name} -f {'cv' if all_folds else numbers}"
    return Exclusion(
        member=configuration.member,
        reason=f"fold{'s' * several} {numbers} {'are' if several else 'is'} {reason}",
        fix=f"run '{command}{option}{configuration.folders.plan_option}'",
    )


def _load_results(selection: ModelSelection, model: ModelFolder) -> HeldOutResults:
    """Loads the scores of the held-out cases from the validation of each fold.

    Raises:
        ArtifactError: A summary is damaged, or lacks a case.
    """
    folders = {fold: model.validation(fold) for fold in range(len(selection.splits.folds))}
    results = {
        fold: {case.name: case for case in Summary.load(summary_file(folder)).cases} for fold, folder in folders.items()
    }
    for case in selection.held_out:
        if case.name not in results[case.fold]:
            what = f"{summary_file(folders[case.fold])} has no scores of the case {case.name!r}"
            raise ArtifactError(what, "remove that folder, and run 'autoseg train' again, which makes it anew")
    return {case: (folders[case.fold], results[case.fold][case.name]) for case in selection.held_out}


def make_candidate(
    selection: ModelSelection,
    configurations: tuple[PlannedConfiguration, ...],
    weights: Mapping[MemberName, Mapping[int, str]],
    results: HeldOutResults,
) -> Candidate:
    """Makes a candidate and summarizes its scores."""
    summary = summarize([result for _, result in results.values()], selection.dataset.info.targets.names)
    return Candidate(configurations=configurations, weights=weights, results=results, summary=summary)
