"""From folders on disk to something that segments: folds of a configuration, or those that were chosen together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from autoseg.errors import ModelError, UsageError
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.inference.ensemble import AnySegmenter, make_ensemble
from autoseg.inference.segmenter import Segmenter, make_segmenter
from autoseg.models.best_model import BestModel
from autoseg.models.bundle import opened_model
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.training_statistics import load_training_statistics
from autoseg.models.weight_digest import digest_weights
from autoseg.runtime.device import resolve_device
from autoseg.workspace import Fold, ModelFolder, list_folds

Say = Callable[[str], None]


def say_nothing(line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a model is to predict.

    Attributes:
        folds: Which to average. By default all numbers that are trained to their end, or, if none is, those that are
            begun; for "cv" both. A model of "all" cases is taken if it is asked for, or the only one.
        device: "auto", "cpu", "cuda" or "mps".
        mirroring: Whether to average over mirror images.
        exact: Whether to calculate in float32, whatever is faster.
    """

    folds: Fold | Sequence[Fold] | None = None
    device: str = "auto"
    mirroring: bool = True
    exact: bool = False


def load_segmenter(
    folder: ModelFolder, wanted: Wanted, *, say: Say = say_nothing, warn: Say = say_nothing
) -> AnySegmenter:
    """Loads the ensemble of some folds of a model folder, or what was chosen among several; by best.json.

    Args:
        folder: Of a configuration, or of several and a best.json; or the place of a bundle.
        wanted: How it is to predict.
        say: Is told what was chosen, and why, if best.json says it.
        warn: Is told if a fold is no longer what was chosen.

    Raises:
        ModelError, ArtifactError, UsageError: See `model.load_model`.
    """
    with opened_model(folder.path) as opened:
        loader = _Loader(device=resolve_device(wanted.device), wanted=wanted)
        if not opened.choice.is_file():
            asked = [] if wanted.folds is None else list_folds(wanted.folds)
            return loader.load(opened, asked, only_finished=not asked)
        if wanted.folds is not None:
            what = f"{folder.choice} says which folds predict"
            raise UsageError(what, "leave out -f, or choose a configuration as well, with -c or by its folder")
        choice = BestModel.load(opened.choice)
        segmenter = _load_chosen(opened, choice, loader, warn)
        say(f"as {opened.choice.name} chose: {choice.describe()}")
        return segmenter


def _load_chosen(folder: ModelFolder, choice: BestModel, loader: "_Loader", warn: Say) -> AnySegmenter:
    """Loads the configurations that were chosen."""
    missing = [name for name in choice.configurations if not folder.member(name).trained_folds()]
    if missing:
        what = f"{folder.choice} chose {choice.name}, but {folder.member(missing[0]).path} holds no trained fold"
        raise ModelError(what, "restore it, run 'autoseg find_best' again, or choose another with -c")
    members = []
    for name in choice.configurations:
        chosen = {one.fold: one.weights for one in choice.folds[name]}
        members.append(loader.load(folder.member(name), list(chosen), only_finished=True))
        present = loader.digests[folder.member(name).path]
        changed = [str(fold) for fold, weights in chosen.items() if present.get(fold) != weights]
        if changed:
            which = f"fold{'s' * (len(changed) > 1)} {' '.join(changed)} of {name} changed"
            warn(f"{which} since {folder.choice.name} was written; 'autoseg find_best' chooses anew")
    return make_ensemble(members, choice.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """Loads configurations, each once.

    Attributes:
        device: Where to put the networks.
        wanted: How they are to predict.
        known: What is loaded already, by folder.
        digests: Fold to `digest_weights`, by folder; of the folds that predict.
    """

    device: torch.device
    wanted: Wanted
    known: dict[Path, Segmenter] = field(default_factory=dict)
    digests: dict[Path, dict[Fold, str]] = field(default_factory=dict)

    def load(self, folder: ModelFolder, folds: Sequence[Fold], *, only_finished: bool) -> Segmenter:
        """Loads folds of one configuration, and of that which it follows.

        Args:
            folder: Of the configuration.
            folds: Which; see `_choose_folds`.
            only_finished: A fold whose training goes on has no say, unless there is no other.
        """
        rules = PostprocessingRules.load(folder.postprocessing) if folder.postprocessing.is_file() else NO_RULES
        every = {fold: load_checkpoint(folder.checkpoint(fold)) for fold in _choose_folds(folder, folds)}
        finished = {fold: checkpoint for fold, checkpoint in every.items() if checkpoint.finished}
        loaded = finished if only_finished and finished else every
        checkpoints = list(loaded.values())
        former = checkpoints[0].configuration.previous
        previous = None
        if former is not None:
            beside = ModelFolder(path=folder.path.with_name(former))
            if not beside.trained_folds():
                what = f"{folder.path} is a cascade, which needs the model of {former} beside it"
                raise ModelError(what, f"copy or train {beside.path}")
            previous = self.known.get(beside.path) or self.load(beside, (), only_finished=True)
        options = {"mirroring": self.wanted.mirroring, "exact": self.wanted.exact}
        segmenter = make_segmenter(checkpoints, rules, self.device, **options, previous=previous)
        segmenter = replace(segmenter, statistics=load_training_statistics(folder))
        self.known[folder.path] = segmenter
        self.digests[folder.path] = {fold: digest_weights(one.weights) for fold, one in loaded.items()}
        return segmenter


def _choose_folds(folder: ModelFolder, asked: Sequence[Fold]) -> list[Fold]:
    """The folds that are meant, all of which are trained; see `Wanted`."""
    trained = folder.trained_folds()
    if not trained:
        raise ModelError(f"{folder.path} holds no trained fold", "train one with 'autoseg train', or check the path")
    numbers = [fold for fold in trained if fold != "all"] or trained
    chosen = numbers if not asked or "cv" in asked else list(dict.fromkeys(asked))
    missing = [fold for fold in chosen if fold not in trained]
    if missing:
        present = ", ".join(map(str, trained))
        raise ModelError(f"fold {missing[0]} of {folder.path} is not trained (there: {present})", "choose with -f")
    return chosen
