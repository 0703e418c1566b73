"""From model files on disk to a segmenter: the folds of one configuration, or configurations that predict together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from autoseg.errors import ModelError
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.inference.ensemble import make_ensemble
from autoseg.inference.interfaces import ImageSegmenter
from autoseg.inference.segmenter import Segmenter, make_segmenter
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.model_source import ModelMember, opened_model, select_folds
from autoseg.models.training_statistics import load_training_statistics
from autoseg.models.weight_digest import digest_weights
from autoseg.runtime.device import resolve_device
from autoseg.workspace import Fold, ModelFolder

OnMessage = Callable[[str], None]


def ignore_message(line: str) -> None:
    """Ignores a message, for callers who show none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOptions:
    """How a model predicts.

    Attributes:
        folds: Folds whose predictions are averaged. By default all numbered folds that are trained to their end, or, if
            none is, those whose training has begun; "cv" means both. A model that was trained on "all" cases is taken
            if it is asked for, or if there is no other.
        device: "auto", "cpu", "cuda" or "mps".
        mirroring: Whether to average over mirror images.
        exact: Whether to calculate in float32, even where a lower precision is faster.
    """

    folds: Fold | Sequence[Fold] | None = None
    device: str = "auto"
    mirroring: bool = True
    exact: bool = False


def load_segmenter(
    path: Path, options: PredictionOptions, *, say: OnMessage = ignore_message, warn: OnMessage = ignore_message
) -> ImageSegmenter:
    """Loads some folds of a configuration, or the configurations that best.json names, as one segmenter.

    Args:
        path: The folder of a configuration, the folder of several with a best.json, an installed model, or a bundle.
        options: How the model predicts.
        say: Called with a line about what `find_best` chose and why, if there is a best.json.
        warn: Called with a line if the weights of a fold changed since best.json was written.

    Raises:
        ModelError, ArtifactError, UsageError: See `model.load_model`.
    """
    with opened_model(path, options.folds) as model:
        loader = _Loader(device=resolve_device(options.device), options=options)
        if model.best_model is None:
            [member] = model.members
            return loader.load(member.folder, member.folds, only_finished=not member.folds)
        members = [loader.load_chosen(member, warn) for member in model.members]
        segmenter = make_ensemble(members, model.best_model.rules)
        say(f"as {model.folder.best_model.name} chose: {model.best_model.describe()}")
        return segmenter


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """Loads configurations, each once.

    Attributes:
        device: Device of the networks.
        options: How the model predicts.
        loaded: Folder of a configuration to its segmenter.
        weight_digests: Folder of a configuration to the `digest_weights` of each fold that predicts.
    """

    device: torch.device
    options: PredictionOptions
    loaded: dict[Path, Segmenter] = field(default_factory=dict)
    weight_digests: dict[Path, dict[Fold, str]] = field(default_factory=dict)

    def load_chosen(self, member: ModelMember, warn: OnMessage) -> Segmenter:
        """Loads a configuration that best.json names, and warns if its weights changed since that was written."""
        segmenter = self.load(member.folder, member.folds, only_finished=True)
        present = self.weight_digests[member.folder.path]
        changed = [str(fold) for fold, digest in member.weight_digests.items() if present.get(fold) != digest]
        if changed:
            which = f"fold{'s' * (len(changed) > 1)} {' '.join(changed)} of {member.name} changed"
            warn(f"{which} since best.json was written; 'autoseg find_best' chooses anew")
        return segmenter

    def load(self, folder: ModelFolder, folds: Sequence[Fold], *, only_finished: bool) -> Segmenter:
        """Loads folds of one configuration, and for a cascade its coarser configuration too.

        Args:
            folder: The folder of the configuration.
            folds: Folds that were asked for; see `select_folds`.
            only_finished: Whether to leave out folds whose training goes on, unless there is no other.
        """
        rules = PostprocessingRules.load(folder.postprocessing) if folder.postprocessing.is_file() else NO_RULES
        every = {fold: load_checkpoint(folder.checkpoint(fold)) for fold in select_folds(folder, folds)}
        finished = {fold: checkpoint for fold, checkpoint in every.items() if checkpoint.finished}
        selected = finished if only_finished and finished else every
        checkpoints = list(selected.values())
        segmenter = make_segmenter(
            checkpoints,
            rules,
            self.device,
            mirroring=self.options.mirroring,
            exact=self.options.exact,
            previous=self._load_previous(folder, checkpoints[0].configuration.previous),
        )
        segmenter = replace(segmenter, statistics=load_training_statistics(folder))
        self.loaded[folder.path] = segmenter
        self.weight_digests[folder.path] = {
            fold: digest_weights(checkpoint.weights) for fold, checkpoint in selected.items()
        }
        return segmenter

    def _load_previous(self, folder: ModelFolder, name: str | None) -> Segmenter | None:
        """Loads the coarser configuration of a cascade from the folder beside it."""
        if name is None:
            return None
        coarser = ModelFolder(path=folder.path.with_name(name))
        if not coarser.trained_folds():
            what = f"{folder.path} is a cascade, which needs the model of {name} beside it"
            raise ModelError(what, f"copy or train {coarser.path}")
        return self.loaded.get(coarser.path) or self.load(coarser, (), only_finished=True)
