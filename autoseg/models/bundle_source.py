"""Which model is to be passed on, and what of it: weights without what training needs, scores without cases."""

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from autoseg.datasets.splits import Splits
from autoseg.errors import ArtifactError, ModelError, UsageError
from autoseg.evaluation.summary import CaseResult, Summary, summarize
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.models.best_model import BestModel, MemberName, name_member, split_member
from autoseg.models.bundle_format import MANIFEST, SCORES, Manifest
from autoseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autoseg.models.model_facts import HeldOutScores
from autoseg.models.training_statistics import load_training_statistics
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import ConfigurationName
from autoseg.workspace import DatasetFolders, Fold, ModelFolder, dataset_of, find_workspace, list_folds

ModelPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSource:
    """What is to be passed on.

    Attributes:
        members: The folders of the configurations that predict.
        folds: Which of each; by default all that are finished.
        choice: How they predict together.
        scores: A summary of all of them together.
        cases: That could be learned from; None if nobody knows.
    """

    members: Sequence[ModelFolder]
    folds: Sequence[Fold] = ()
    choice: BestModel | None = None
    scores: Path | None = None
    cases: int | None = None


def find_source(
    source: int | ModelPath,
    configuration: ConfigurationName | None,
    folds: Fold | Sequence[Fold] | None,
    *,
    plan_name: str | None,
    workspace: ModelPath | None,
) -> BundleSource:
    """Finds what a user means; see `bundle.export_model`."""
    asked = [] if folds is None else list_folds(folds)
    if isinstance(source, int):
        folders = find_workspace(workspace).dataset(source, plan_name)
        folder = _find_trained(folders, source, configuration)
    elif plan_name is not None:
        raise UsageError("a model folder holds one plan", "leave out --plan, or give -d instead")
    else:
        folder = _find_folder(Path(source), configuration)
        folders = dataset_of(folder.path) or DatasetFolders(raw=Path(), preprocessed=Path(), results=Path())
    cases = _count_cases(folders)
    if not folder.choice.is_file():
        return BundleSource(members=(folder,), folds=asked, cases=cases)
    if asked:
        raise UsageError(f"{folder.choice} says which folds predict", "leave out -f, or name a configuration with -c")
    choice = BestModel.load(folder.choice)
    together = DatasetFolders(raw=Path(), preprocessed=Path(), results=folder.path).ensemble(choice.name)
    return BundleSource(
        members=[folder.member(name) for name in choice.configurations],
        choice=choice.model_copy(update={"left_out": ()}),  # lines that may name cases
        scores=next((path for path in (together / "summary.json", folder.path / SCORES) if path.is_file()), None),
        cases=cases,
    )


def _find_trained(folders: DatasetFolders, number: int, configuration: str | None) -> ModelFolder:
    if configuration is not None:
        return folders.model(configuration)
    if folders.choice.is_file():
        return ModelFolder(path=folders.models)
    trained = [path.name for path in sorted(folders.models.glob("*")) if folders.model(path.name).trained_folds()]
    if not trained:
        what = f"{folders.models} holds no trained configuration"
        raise ModelError(what, f"train one with 'autoseg train -d {number}{folders.plan_option}'")
    if len(trained) > 1:
        what = f"{folders.models} holds {' and '.join(trained)}"
        best = f"autoseg find_best -d {number}{folders.plan_option}"
        raise UsageError(what, f"choose one with -c, or let '{best}' choose")
    return folders.model(trained[0])


def _find_folder(path: Path, configuration: str | None) -> ModelFolder:
    if path.is_file():
        raise UsageError(f"{path} is a file", "give a model folder; a bundle is passed on as it is")
    folder = ModelFolder(path=path)
    if (path / MANIFEST).is_file():
        folder = Manifest.load(path / MANIFEST).find_member(folder)
    return folder if configuration is None else folder.member(configuration)


def _count_cases(folders: DatasetFolders) -> int | None:
    with suppress(ArtifactError):
        return len(Splits.load(folders.splits).names)
    return None


def stage(source: BundleSource, root: ModelFolder) -> tuple[MemberName, ...]:
    """Writes what is passed on into an empty folder.

    Returns:
        The configurations that predict.

    Raises:
        ModelError: A fold is missing, damaged, not trained to its end, or not what was chosen.
    """
    names = []
    for place, folder in enumerate(source.members):
        chosen: Mapping[Fold, str] = {}
        plan_name = None
        if source.choice is not None:
            member = source.choice.configurations[place]
            chosen = {one.fold: one.weights for one in source.choice.folds[member]}
            plan_name, _ = split_member(member)
        stage_one = _Stage(root=root, chosen=chosen, plan_name=plan_name)
        names.append(stage_one.add(folder, source.folds or list(chosen)))
    if source.choice is not None:
        source.choice.save(root.choice)
    if source.scores is not None:
        _load_scores(source.scores).save(root.path / SCORES)
    return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """Writes configurations into the folder of a bundle.

    Attributes:
        root: That folder.
        chosen: Fold to digest of its weights, if they were chosen.
        plan_name: Of the plan, if it is another than that of the choice.
    """

    root: ModelFolder
    chosen: Mapping[Fold, str] = field(default_factory=dict)
    plan_name: str | None = None

    def add(self, folder: ModelFolder, asked: Sequence[Fold]) -> MemberName:
        """Adds folds of a configuration, and the whole of that which it follows."""
        checkpoint = self._add_folds(folder, asked)
        name, former = self._name(checkpoint), checkpoint.configuration.previous
        if folder.postprocessing.is_file():
            PostprocessingRules.load(folder.postprocessing).save(self.root.member(name).postprocessing)
        if (statistics := load_training_statistics(folder)) is not None:
            statistics.save(self.root.member(name).training_statistics)
        scores = _pool_scores(folder, asked)
        if scores is not None:
            scores.save(self.root.member(name).path / SCORES)
        if former is not None:
            _Stage(root=self.root, plan_name=self.plan_name).add(ModelFolder(path=folder.path.with_name(former)), ())
        return name

    def _name(self, checkpoint: Checkpoint) -> MemberName:
        return name_member(self.plan_name, checkpoint.configuration_name)

    def _add_folds(self, folder: ModelFolder, asked: Sequence[Fold]) -> Checkpoint:
        """Returns the last of them."""
        added = None
        for fold in _list_folds(folder, asked):
            checkpoint = load_checkpoint(folder.checkpoint(fold))
            if not checkpoint.finished and fold in asked:
                what = f"fold {fold} of {folder.path} is not trained to its end"
                raise ModelError(what, "train it to its end, or leave it out")
            if checkpoint.finished:
                self._check(checkpoint, fold, folder)
                target = self.root.member(self._name(checkpoint))
                save_checkpoint(checkpoint.to_pass_on(), target.checkpoint(fold))
                added = checkpoint
        if added is None:
            raise ModelError(f"{folder.path} holds no fold that is trained to its end", "train one to its end")
        return added

    def _check(self, checkpoint: Checkpoint, fold: Fold, folder: ModelFolder) -> None:
        if checkpoint.fold != fold:
            raise ModelError(f"{folder.fold(fold)} holds fold {checkpoint.fold}", "put it where it belongs")
        if self.chosen and digest_weights(checkpoint.weights) != self.chosen[fold]:
            what = f"fold {fold} of {folder.path} changed since best.json was written"
            raise ModelError(what, "run 'autoseg find_best' again")


def _list_folds(folder: ModelFolder, asked: Sequence[Fold]) -> list[Fold]:
    trained = folder.trained_folds()
    if not trained:
        what = f"{folder.path} holds no trained fold"
        raise ModelError(what, "train one with 'autoseg train', or check the path")
    wanted = [fold for fold in trained if not asked or fold in asked or (fold != "all" and "cv" in asked)]
    missing = [fold for fold in asked if fold not in trained and fold != "cv"]
    if missing:
        present = ", ".join(map(str, trained))
        raise ModelError(f"fold {missing[0]} of {folder.path} is not trained (there: {present})", "choose with -f")
    return wanted


def _pool_scores(folder: ModelFolder, asked: Sequence[Fold]) -> HeldOutScores | None:
    """Of the cases that the folds which are passed on held out; those of an installed model are pooled already."""
    validated = [folder.validation(fold) / "summary.json" for fold in _list_folds(folder, asked)]
    summaries = [Summary.load(path) for path in validated if path.is_file()]
    if not summaries:
        return _load_scores(folder.path / SCORES) if (folder.path / SCORES).is_file() else None
    results: list[CaseResult] = [case for summary in summaries for case in summary.cases]
    return HeldOutScores.of(summarize(results, summaries[0].mean))


def _load_scores(path: Path) -> HeldOutScores:
    return HeldOutScores.load(path) if path.name == SCORES else HeldOutScores.of(Summary.load(path))
