"""Exported networks in int8: calibrated on training patches, and judged on the cases that each fold held out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from statistics import mean

import numpy as np
from numpy.typing import NDArray

from autoseg.dataloading.loader import Batches, open_cases
from autoseg.dataloading.patch import find_beyond
from autoseg.errors import ModelError, UsageError
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.inference.exported_segmenter import choose_timed_shape, open_networks
from autoseg.inference.segmenter import Segmenter, assemble_segmenter
from autoseg.model_selection.held_out_cases import load_preprocessed, measure_dice
from autoseg.models.fold_description import ExportedFold, Int8Comparison, Int8Runtime
from autoseg.models.onnx_checks import check_onnx
from autoseg.models.quantization import WEIGHT_BITS, check_quantization, quantize_network
from autoseg.models.runtimes import count_threads, list_installed, time_runtime
from autoseg.preprocessing.store import open_stored
from autoseg.runtime.processor import describe_instructions
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.training.fold_job import FoldJob
from autoseg.training.jobs import TrainingRequest, make_jobs, prepare_cascade_labels
from autoseg.workspace import DatasetFolders, ModelFolder, dataset_of

CALIBRATION_PATCHES = 40
"""Number of training patches on which the ranges of feature maps are found.

Decision: forty cover all labels of a few dozen cases, and take less time than the held-out cases.
"""

LARGEST_DICE_LOSS = 0.002
"""Mean Dice over the held-out cases that a label may lose by default.

Decision: a fifth of what two trainings of the same fold differ by.
"""

CALIBRATION_SEED = 2
"""Number of the supply of patches for calibration; training and validation patches have 0 and 1."""

WITHOUT = "or leave out --precision"

Dice = Mapping[str, float]


def check_int8(source: Path, largest_loss: float) -> None:
    """Makes sure that a model can be brought to int8, before anything of it is read.

    Args:
        source: The folder of a configuration, or of several.
        largest_loss: Mean Dice that a label may lose.

    Raises:
        UsageError: ONNX Runtime is missing, the dataset of the model is not beside it, or no such loss is possible.
    """
    if not 0 <= largest_loss <= 1:
        raise UsageError(f"a label cannot lose a Dice of {largest_loss:g}", "give a number from 0 to 1")
    check_quantization()
    _find_dataset(source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8Quantizer:
    """Brings the exported network of a fold to int8; a `bundle_writing.FoldQuantizer`.

    Attributes:
        largest_loss: Mean Dice over the held-out cases of the fold that a label may lose, in any runtime.
        reporter: Shows progress, and is told what int8 changes.
    """

    largest_loss: float = LARGEST_DICE_LOSS
    reporter: Reporter = SILENT

    def __call__(self, fold: ExportedFold, source: ModelFolder, target: ModelFolder) -> ExportedFold:
        """Replaces the network of a fold.

        Args:
            fold: Description of the fold.
            source: The folder of its checkpoint, in the results of its dataset.
            target: The folder of its exported network, which is replaced.

        Returns:
            The description of the fold with what int8 changes.

        Raises:
            UsageError: The dataset is not beside the model, the fold holds no case out, or its network has no
                convolution.
            ModelError: A label loses more than it may, or the fold was trained by another plan or on other cases.
        """
        job = self._find_job(fold, source)
        path = target.exported_network(fold.fold)
        quantized = path.with_name("int8.onnx")
        self.reporter.say(f"{_name(fold)}: int8 is calibrated on {CALIBRATION_PATCHES} training patches")
        counted = quantize_network(path, quantized, draw_patches(job, CALIBRATION_PATCHES))
        before, after = check_onnx(path), check_onnx(quantized)
        shape = choose_timed_shape(fold)
        seconds = {name: [time_runtime(name, data, shape) for data in (before, after)] for name in list_installed()}
        fastest = min(seconds, key=lambda name: seconds[name][0])
        trials = [(fastest, before), *((name, after) for name in seconds)]
        dice, *others = compare_dice(job, [_open(fold, name, data) for name, data in trials], self.reporter)
        comparison = Int8Comparison(
            int8_convolutions=counted.int8,
            float32_convolutions=counted.float32,
            weight_bits=WEIGHT_BITS,
            calibration_patches=CALIBRATION_PATCHES,
            bytes_before=len(before),
            bytes_after=len(after),
            cases=len(job.split.validation),
            dice=dice,
            runtimes=tuple(
                Int8Runtime(runtime=name, dice=scores, seconds_before=seconds[name][0], seconds_after=seconds[name][1])  # type: ignore[arg-type]
                for name, scores in zip(seconds, others, strict=True)
            ),
            machine=f"{describe_instructions(integers=True)}, threads: {count_threads()}",
        )
        self._judge(fold, comparison)
        quantized.replace(path)
        return fold.model_copy(update={"int8": comparison})

    def _find_job(self, fold: ExportedFold, source: ModelFolder) -> FoldJob:
        """Returns the fold as it was trained."""
        folders = _find_folders(source)
        request = TrainingRequest(
            number=folders.number, folders=folders, configuration=fold.configuration, folds=(fold.fold,), device="cpu"
        )
        [job] = make_jobs(request)
        if not job.split.validation:
            what = f"{_name(fold)} holds no case out, by which int8 is judged"
            raise UsageError(what, f"name folds that do with -f, {WITHOUT}")
        prepare_cascade_labels(job, folders.number, self.reporter)
        return job

    def _judge(self, fold: ExportedFold, comparison: Int8Comparison) -> None:
        """Tells what int8 changes, and refuses it if a label loses too much."""
        for found in comparison.runtimes:
            for label, before in comparison.dice.items():
                after = found.dice[label]
                if before - after > self.largest_loss:
                    what = (
                        f"in int8 {_name(fold)} finds {label} with Dice {after:.4f} instead of {before:.4f} in "
                        f"{comparison.cases} held-out cases, by {found.runtime}"
                    )
                    fix = f"allow more than {self.largest_loss:g} with --largest-dice-loss, {WITHOUT}"
                    raise ModelError(what, fix)
            changes = ", ".join(
                f"{name} {before:.4f} to {found.dice[name]:.4f}" for name, before in comparison.dice.items()
            )
            times = found.seconds_before / found.seconds_after
            self.reporter.say(f"{_name(fold)}: int8 by {found.runtime}: {times:.1f} times as fast; Dice {changes}")


def draw_patches(job: FoldJob, number: int) -> Iterator[NDArray[np.float32]]:
    """Yields patches (1, c, *patch) of the training cases of a fold, drawn as in training, but not augmented.

    Args:
        job: The fold.
        number: How many.
    """
    stored = open_stored(job.cases_folder, job.split.training)
    codes = [] if job.cascade_labels_folder is None else list(open_stored(job.cascade_labels_folder, stored).values())
    batches = Batches(
        cases=open_cases(list(stored.values()), codes),
        configuration=job.configuration,
        foreground_fraction=job.plan.training.foreground_fraction,
        seed=(job.seed, CALIBRATION_SEED),
        augmented=False,
        previous=None if job.cascade_labels_folder is None else job.dataset.info.targets,
        beyond=find_beyond(job.configuration, job.dataset.info.targets),
    )
    patches = (patch[None].numpy() for step in count() for patch in batches.make(step).images)
    yield from islice(patches, number)


def compare_dice(job: FoldJob, segmenters: Sequence[Segmenter], reporter: Reporter) -> list[dict[str, float]]:
    """Segments the held-out cases of a fold as a whole by several segmenters.

    Args:
        job: The fold.
        segmenters: The segmenters.
        reporter: Shows progress.

    Returns:
        For each segmenter, name of each label to its mean Dice, before postprocessing; NaN if no case has the label.
        A case counts if any segmenter found the label there, or it is there; where it neither is nor is found by the
        others, their Dice is 1.
    """
    info, cases = job.dataset.info, job.dataset.only(job.split.validation).cases
    scores: list[list[Dice]] = []
    with reporter.task("judging int8", len(cases) * len(segmenters)) as task:
        for case in cases:
            preprocessed = load_preprocessed(case.name, info.targets, job.cases_folder, job.cascade_labels_folder)
            predictions = (
                segmenter.predict_preprocessed(preprocessed, on_progress=task.advance) for segmenter in segmenters
            )
            unannotated = dict.fromkeys(info.unannotated_in(case.name), math.nan)
            scores.append([measure_dice(case, prediction) | unannotated for prediction in predictions])
    return [
        {name: _mean_dice([[dice[name] for dice in case] for case in scores], number) for name in info.targets.names}
        for number in range(len(segmenters))
    ]


def _mean_dice(cases: Sequence[Sequence[float]], number: int) -> float:
    """Returns the mean Dice of one of several segmenters; see `compare_dice`.

    Example:
        >>> _mean_dice([[0.5, 0.6], [math.nan, 0.0], [math.nan, math.nan]], 0)
        0.75
    """
    counted = [case for case in cases if not all(map(math.isnan, case))]
    return mean(1.0 if math.isnan(case[number]) else case[number] for case in counted) if counted else math.nan


def _open(fold: ExportedFold, runtime: str, data: bytes) -> Segmenter:
    """Returns a segmenter of one exported network, with mirror images and without postprocessing."""
    return assemble_segmenter(open_networks([fold], [data], runtime), NO_RULES)


def _find_folders(model: ModelFolder) -> DatasetFolders:
    """Returns the folders of the dataset of a configuration, as the plan that it was trained by sees them."""
    folders = _find_dataset(model.path)
    parent = model.path.resolve().parent
    return folders if parent == folders.results.resolve() else folders.with_plan(parent.name)


def _find_dataset(model: Path) -> DatasetFolders:
    folders = dataset_of(model)
    if folders is None or not folders.raw.is_dir():
        what = f"int8 is calibrated and judged on cases of the dataset, which is not beside {model}"
        raise UsageError(what, f"name the model by -d, {WITHOUT}")
    return folders


def _name(fold: ExportedFold) -> str:
    return f"fold {fold.fold} of {fold.configuration}"
