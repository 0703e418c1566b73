"""The content of a bundle: weights without the state that only training needs, scores without names of cases."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from autoseg.datasets.splits import Splits
from autoseg.errors import ArtifactError, ModelError, UsageError
from autoseg.evaluation.summary import CaseResult, Summary, summarize, summary_file
from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.models.best_model import MemberName, name_member, split_member
from autoseg.models.bundle_format import SCORES
from autoseg.models.calibration import load_calibration
from autoseg.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from autoseg.models.fold_description import ExportedFold
from autoseg.models.model_facts import HeldOutScores
from autoseg.models.model_source import ResolvedModel, find_model, resolve_members, select_folds
from autoseg.models.onnx_export import export_fold
from autoseg.models.quality_costs import load_quality_costs
from autoseg.models.training_statistics import load_training_statistics
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.plan import ConfigurationName
from autoseg.workspace import DatasetFolders, Fold, ModelFolder, dataset_of, find_workspace

ModelPath = str | os.PathLike[str]

FoldQuantizer = Callable[[ExportedFold, ModelFolder, ModelFolder], ExportedFold]
"""Brings an exported network to int8, given its description, the folder of its checkpoint and the folder of the
network, whose file is replaced; returns the new description."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContent:
    """A model that is to be exported.

    Attributes:
        model: Its configurations and folds.
        scores: Summary of the held-out cases of all configurations together, if there is one.
        cases: Number of labelled cases that it was trained and validated on; None if it is not known.
    """

    model: ResolvedModel
    scores: Path | None = None
    cases: int | None = None


def find_content(
    source: int | ModelPath,
    configuration: ConfigurationName | None,
    folds: Fold | Sequence[Fold] | None,
    *,
    plan_name: str | None,
    workspace: ModelPath | None,
) -> BundleContent:
    """Finds the model that a user wants to export; for arguments and errors see `bundle.export_model`."""
    path = find_model(source, configuration, plan_name=plan_name, workspace=workspace)
    if path.is_file():
        raise UsageError(f"{path} is a file", "give a model folder; a bundle is passed on as it is")
    if isinstance(source, int):
        folders = find_workspace(workspace).dataset(source, plan_name)
    else:
        folders = dataset_of(path) or DatasetFolders(raw=Path(), preprocessed=Path(), results=Path())
    model, scores = resolve_members(path, folds), None
    if model.best_model is not None:
        results = DatasetFolders(raw=Path(), preprocessed=Path(), results=model.folder.path)
        summaries = (summary_file(results.ensemble(model.best_model.name)), model.folder.path / SCORES)
        scores = next((summary for summary in summaries if summary.is_file()), None)
    return BundleContent(model=model, scores=scores, cases=_count_cases(folders))


def _count_cases(folders: DatasetFolders) -> int | None:
    with suppress(ArtifactError):
        return len(Splits.load(folders.splits).names)
    return None


def write_files(
    content: BundleContent, root: ModelFolder, *, exported: bool = False, quantizer: FoldQuantizer | None = None
) -> tuple[MemberName, ...]:
    """Writes the files of a bundle into an empty folder.

    Args:
        content: The model.
        root: The empty folder.
        exported: Whether its networks are exported for runtimes other than torch, instead of packed as checkpoints.
        quantizer: What brings exported networks to int8; None leaves them in float32.

    Returns:
        The configurations that predict.

    Raises:
        ModelError: A fold is missing, damaged, not trained to its end, or not the one that `find_best` chose; or its
            exported network calculates something else.
        UsageError: A network cannot be exported.
    """
    names = []
    for member in content.model.members:
        plan_name = None if member.name is None else split_member(member.name)[0]
        writer = _MemberWriter(
            root=root,
            weight_digests=member.weight_digests,
            plan_name=plan_name,
            exported=exported,
            quantizer=quantizer,
        )
        names.append(writer.add(member.folder, member.folds))
    best_model = content.model.best_model
    if best_model is not None:
        best_model.model_copy(update={"left_out": ()}).save(root.best_model)  # its lines may name cases
    if content.scores is not None:
        _load_scores(content.scores).save(root.path / SCORES)
    return tuple(names)


@dataclass(frozen=True, slots=True, kw_only=True)
class _MemberWriter:
    """Writes configurations into the folder of a bundle.

    Attributes:
        root: The folder of the bundle.
        weight_digests: Fold to the digest of its weights when `find_best` chose it; empty if it did not.
        plan_name: Plan of the configuration, if it is another than that of best.json.
        exported: Whether networks are exported for runtimes other than torch.
        quantizer: What brings these to int8, if anything.
    """

    root: ModelFolder
    weight_digests: Mapping[Fold, str] = field(default_factory=dict)
    plan_name: str | None = None
    exported: bool = False
    quantizer: FoldQuantizer | None = None

    def add(self, folder: ModelFolder, asked: Sequence[Fold]) -> MemberName:
        """Adds folds of a configuration, and, for a cascade, all folds of its coarser configuration.

        Returns:
            The name of the configuration in the bundle.
        """
        checkpoint = self._add_folds(folder, asked)
        name, previous = self._name(checkpoint), checkpoint.configuration.previous
        if folder.postprocessing.is_file():
            PostprocessingRules.load(folder.postprocessing).save(self.root.member(name).postprocessing)
        if (statistics := load_training_statistics(folder)) is not None:
            statistics.save(self.root.member(name).training_statistics)
        if (calibration := load_calibration(folder)) is not None:
            calibration.save(self.root.member(name).calibration)
        costs = load_quality_costs(folder)
        if costs is not None and costs.is_of(self._digest_folds(folder, asked)):
            costs.save(self.root.member(name).quality_costs)
        scores = _pool_scores(folder, asked)
        if scores is not None:
            scores.save(self.root.member(name).path / SCORES)
        if previous is not None:
            coarser = ModelFolder(path=folder.path.with_name(previous))
            replace(self, weight_digests={}).add(coarser, ())
        return name

    def _name(self, checkpoint: Checkpoint) -> MemberName:
        return name_member(self.plan_name, checkpoint.configuration_name)

    def _add_folds(self, folder: ModelFolder, asked: Sequence[Fold]) -> Checkpoint:
        """Writes the checkpoints of all folds that are trained to their end, and returns the last of them."""
        added = None
        for fold in _list_folds(folder, asked):
            checkpoint = load_checkpoint(folder.checkpoint(fold))
            if not checkpoint.finished and fold in asked:
                what = f"fold {fold} of {folder.path} is not trained to its end"
                raise ModelError(what, "train it to its end, or leave it out")
            if checkpoint.finished:
                self._check(checkpoint, fold, folder)
                target = self.root.member(self._name(checkpoint))
                self._write_fold(checkpoint.to_pass_on(), folder, target)
                added = checkpoint
        if added is None:
            raise ModelError(f"{folder.path} holds no fold that is trained to its end", "train one to its end")
        return added

    def _digest_folds(self, folder: ModelFolder, asked: Sequence[Fold]) -> dict[str, str]:
        """Returns the digest of the weights of each exported fold."""
        folds = _list_folds(folder, asked)
        return {str(fold): digest_weights(load_checkpoint(folder.checkpoint(fold)).weights) for fold in folds}

    def _write_fold(self, checkpoint: Checkpoint, folder: ModelFolder, target: ModelFolder) -> None:
        if not self.exported:
            save_checkpoint(checkpoint, target.checkpoint(checkpoint.fold))
            return
        described = export_fold(checkpoint, target.exported_network(checkpoint.fold))
        if self.quantizer is not None:
            described = self.quantizer(described, folder, target)
        described.save(target.exported_fold(checkpoint.fold))

    def _check(self, checkpoint: Checkpoint, fold: Fold, folder: ModelFolder) -> None:
        if checkpoint.fold != fold:
            raise ModelError(f"{folder.fold(fold)} holds fold {checkpoint.fold}", "put it where it belongs")
        if self.weight_digests and digest_weights(checkpoint.weights) != self.weight_digests[fold]:
            what = f"fold {fold} of {folder.path} changed since best.json was written"
            raise ModelError(what, "run 'autoseg find_best' again")


def _list_folds(folder: ModelFolder, asked: Sequence[Fold]) -> list[Fold]:
    """Returns the folds to export in their order on disk; all that are trained, also "all", if none was asked for."""
    selected = select_folds(folder, asked or folder.trained_folds())
    return [fold for fold in folder.trained_folds() if fold in selected]


def _pool_scores(folder: ModelFolder, asked: Sequence[Fold]) -> HeldOutScores | None:
    """Pools the scores of the cases that the exported folds held out; an installed model has pooled ones already."""
    paths = [summary_file(folder.validation(fold)) for fold in _list_folds(folder, asked)]
    summaries = [Summary.load(path) for path in paths if path.is_file()]
    if not summaries:
        return _load_scores(folder.path / SCORES) if (folder.path / SCORES).is_file() else None
    results: list[CaseResult] = [case for summary in summaries for case in summary.cases]
    return HeldOutScores.of(summarize(results, summaries[0].mean))


def _load_scores(path: Path) -> HeldOutScores:
    return HeldOutScores.load(path) if path.name == SCORES else HeldOutScores.of(Summary.load(path))
