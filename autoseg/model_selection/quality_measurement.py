"""Measures what each quality of prediction costs: the Dice of the cases that each fold held out, from their images."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from autoseg.datasets.dataset import Case, Dataset
from autoseg.datasets.scan_images import read_scan
from autoseg.errors import ModelError
from autoseg.evaluation.repeats import mean_of_defined
from autoseg.evaluation.summary import Summary, summary_file
from autoseg.imaging.postprocessing import NO_RULES, PostprocessingRules
from autoseg.inference.prediction_quality import QUALITIES, PredictionQuality
from autoseg.inference.segmenter import Prepared, Segmenter
from autoseg.inference.torch_segmenter import make_segmenter
from autoseg.model_selection.held_out_cases import measure_dice
from autoseg.model_selection.validation import is_validated
from autoseg.models.checkpoint import Checkpoint, load_checkpoint
from autoseg.models.quality_costs import QualityCosts, QualityScores
from autoseg.models.training_statistics import load_training_statistics
from autoseg.models.weight_digest import digest_weights
from autoseg.planning.machine_speed import count_tiles
from autoseg.runtime.reporting import Reporter
from autoseg.workspace import Fold, ModelFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class _CaseCost:
    """A held-out case, segmented by one quality: Dice of each structure, passes through the networks, seconds."""

    dice: Mapping[str, float]
    passes: float
    seconds: float


def measure_quality_costs(
    dataset: Dataset,
    folder: ModelFolder,
    folds: Sequence[Fold],
    device: torch.device,
    reporter: Reporter,
    qualities: Mapping[str, PredictionQuality] = QUALITIES,
) -> QualityCosts:
    """Segments the held-out cases of some folds by each quality, from their images, before postprocessing.

    A cascade takes the coarse segmentation of the fold of its coarser configuration with the same number, which held
    the same cases out, by the same quality.

    Args:
        dataset: The dataset with the images and labels of the cases.
        folder: The folder of the configuration.
        folds: Its folds; those that were not validated, because they held no case out, are passed over.
        device: Device of the networks.
        reporter: Shows progress.
        qualities: Name of each quality to what it is; "best" is one of them.

    Raises:
        ModelError: No fold was validated; or a fold is damaged, or its coarser one is missing.
        ImageError, DatasetError: A case or its label is missing or cannot be read.
    """
    held_out = {fold: _list_held_out(folder, fold) for fold in folds if is_validated(folder, fold)}
    if not held_out:
        what = f"{folder.path} has no fold with held-out cases, so nobody can tell what a quality costs"
        raise ModelError(what, "train a fold by its number, which holds cases out")
    costs: dict[str, list[_CaseCost]] = {name: [] for name in qualities}
    weights = {}
    count = sum(map(len, held_out.values()))
    with reporter.task("measuring each quality", count * len(qualities)) as task:
        for fold, names in held_out.items():
            checkpoint = load_checkpoint(folder.checkpoint(fold))
            weights[str(fold)] = digest_weights(checkpoint.weights)
            segmenters = {
                name: _load_segmenter(folder, checkpoint, quality, device) for name, quality in qualities.items()
            }
            for case in dataset.only(names).cases:
                for name, segmenter in segmenters.items():
                    costs[name].append(_measure(case, segmenter, dataset.info.unannotated_in(case.name)))
                    task.advance()
    return QualityCosts(cases=count, weights=weights, qualities={name: _pool(each) for name, each in costs.items()})


def _list_held_out(folder: ModelFolder, fold: Fold) -> list[str]:
    """Returns the names of the cases that a fold was validated on."""
    return [case.name for case in Summary.load(summary_file(folder.validation(fold))).cases]


def _load_segmenter(
    folder: ModelFolder, checkpoint: Checkpoint, quality: PredictionQuality, device: torch.device
) -> Segmenter:
    """Returns one fold as a segmenter, for a cascade with the fold of its coarser configuration of the same number."""
    previous, name = None, checkpoint.configuration.previous
    if name is not None:
        coarser = ModelFolder(path=folder.path.with_name(name))
        rules = PostprocessingRules.load(coarser.postprocessing) if coarser.postprocessing.is_file() else NO_RULES
        coarse = load_checkpoint(coarser.checkpoint(checkpoint.fold))
        previous = replace(
            make_segmenter([coarse], rules, device, quality=quality), statistics=load_training_statistics(coarser)
        )
    segmenter = make_segmenter([checkpoint], NO_RULES, device, quality=quality, previous=previous)
    return replace(segmenter, statistics=load_training_statistics(folder))


def _measure(case: Case, segmenter: Segmenter, unannotated: Sequence[str]) -> _CaseCost:
    """Segments a case and measures the Dice of what was annotated in it."""
    image = read_scan(case)
    started = time.perf_counter()
    prepared = segmenter.prepare(image)
    prediction = prepared.predict()
    dice = measure_dice(case, prediction)
    seconds = time.perf_counter() - started
    stages = [prepared] if prepared.previous is None else [prepared, prepared.previous]
    return _CaseCost(
        dice={name: value for name, value in dice.items() if name not in unannotated},
        passes=sum(map(_count_passes, stages)),
        seconds=seconds,
    )


def _count_passes(prepared: Prepared) -> int:
    """Returns how often patches of an image go through the networks of a configuration."""
    part, shape = prepared.segmenter, prepared.case.record.shape
    return count_tiles(part.configuration, shape, part.quality.overlap_step) * part.votes


def _pool(costs: Sequence[_CaseCost]) -> QualityScores:
    """Returns the means over cases; as for a summary, the mean over the labels is that of their means."""
    names = dict.fromkeys(name for cost in costs for name in cost.dice)
    dice = {name: mean_of_defined(cost.dice[name] for cost in costs if name in cost.dice) for name in names}
    return QualityScores(
        foreground_mean_dice=mean_of_defined(dice.values()),
        dice=dice,
        passes=sum(cost.passes for cost in costs) / len(costs),
        seconds=sum(cost.seconds for cost in costs) / len(costs),
    )
