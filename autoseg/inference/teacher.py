"""The teacher of a student: the networks of one fold of a trained model, and what they predict for the student's cases.

A student of fold f learns from the networks of fold f alone. Others were trained on the cases that fold f holds out, so
what they predict would tell the student about these. The digest of the cases in each checkpoint makes sure of it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg._version import __version__
from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.scan_images import read_scan
from autoseg.datasets.splits import Splits
from autoseg.errors import ModelError
from autoseg.imaging.label_encoding import CaseLabels, DatasetLabels
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.imaging.targets import OUTSIDE, Targets
from autoseg.inference.ensemble import make_ensemble
from autoseg.inference.interfaces import ImageSegmenter
from autoseg.inference.loading import PredictionOptions, load_segmenter
from autoseg.inference.segmenter import Segmenter
from autoseg.models.checkpoint import load_checkpoint
from autoseg.models.fold_description import FoldDescription
from autoseg.models.model_source import ResolvedModel, select_folds
from autoseg.preprocessing.case import PreprocessedCase
from autoseg.preprocessing.provenance import PreprocessingSettings, Provenance
from autoseg.preprocessing.resampling import resample_image
from autoseg.preprocessing.soft_predictions import (
    CERTAIN,
    SoftContent,
    SoftPrediction,
    save_soft_prediction,
)
from autoseg.preprocessing.store import StoredCase, is_up_to_date, save_case
from autoseg.runtime.artifact import state_of_files
from autoseg.workspace import Fold, ModelFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """The networks of one fold of each configuration of a model.

    Attributes:
        segmenter: The networks; probabilities are theirs, without postprocessing and without temperatures, which were
            fitted to held-out cases of all folds.
    """

    segmenter: ImageSegmenter

    def describe_case(self, stored: StoredCase, structures: int) -> SoftContent:
        """Returns what a prediction of a prepared case says that it was made of."""
        origin = "" if stored.content.origin is None else stored.content.origin.model_dump_json()
        return SoftContent(
            teacher=self.segmenter.digest,
            case=sha256(f"{origin}\n{stored.record.model_dump_json()}".encode()).hexdigest()[:16],
            shape=stored.shape,
            structures=structures,
        )

    def teach(
        self,
        case: Case,
        stored: StoredCase,
        folder: Path,
        patch_size: tuple[int, ...],
        on_progress: Callable[[float], None],
    ) -> None:
        """Predicts a case and stores its probabilities on the grid of the student.

        Args:
            case: The files of the scan.
            stored: The scan as it was prepared for the student.
            folder: Folder of the predictions.
            patch_size: See `save_soft_prediction`.
            on_progress: Called with the share of the work that each step adds.

        Raises:
            ImageError: The scan cannot be read or does not suit the teacher.
            WriteError: The folder cannot be written.
        """
        targets = self.segmenter.info.targets
        content = self.describe_case(stored, len(targets.structures))
        prediction = self.segmenter.predict(read_scan(case), on_progress)
        record, outputs = stored.record, list(targets.output_of.values())

        def place() -> Iterator[NDArray[np.float32]]:
            for volume in prediction.probabilities(outputs):
                inside = np.ascontiguousarray(record.crop(volume.array))[np.newaxis]
                yield resample_image(inside, record.box_spacing_mm, record.shape, record.spacing_mm, order=1)[0]

        save_soft_prediction(folder, case.name, content, place(), patch_size=patch_size)

    def label(self, stored: StoredCase, folder: Path, labels: Path, patch_size: tuple[int, ...]) -> None:
        """Stores the segmentation of a scan without labels, by its probabilities, unless it is there.

        Args:
            stored: The scan as it was prepared for the student; its label map marks what lies outside.
            folder: Folder of the predictions, of which `teach` made the scan's.
            labels: Folder of the segmentations.
            patch_size: See `save_case`.

        Raises:
            ArtifactError: The prediction is damaged.
            WriteError: The folder cannot be written.
        """
        targets, soft = self.segmenter.info.targets, SoftPrediction.open(folder, stored.name)
        recipe = PreprocessingSettings(
            axis_order=stored.record.axis_order,
            spacing_mm=stored.record.spacing_mm,
            normalization=(),
            channels=0,
            structures=tuple(targets.structures.values()),
        )
        provenance = Provenance(recipe=recipe, program=__version__, files=state_of_files([soft.path]))
        if is_up_to_date(labels, stored.name, provenance):
            return
        decided, outside = decide_labels(soft.load_values(), targets), stored.load_label() == OUTSIDE
        label = CaseLabels(np.where(outside, OUTSIDE, decided).astype(np.int16))
        without_image = np.zeros((0, *stored.shape), dtype=np.float32)
        case = PreprocessedCase(image=without_image, label=label, record=stored.record)
        save_case(labels, stored.name, case, patch_size=patch_size, provenance=provenance)


def decide_labels(probabilities: NDArray[np.uint8], targets: Targets) -> DatasetLabels:
    """Returns the label map (z, y, x) of probabilities of structures, which stands for labels where there are none.

    >>> two = Targets(structures={"liver": (1,), "spleen": (2,)})
    >>> decide_labels(np.array([[[[255, 100, 51]]], [[[0, 105, 102]]]], np.uint8), two).tolist()
    [[[1, 2, 0]]]

    Args:
        probabilities: Shape (structures, z, y, x), 0 to 255; see `soft_predictions`.
        targets: What the structures are; they exclude each other, or have a number for each region.
    """
    labels = np.zeros(probabilities.shape[1:], dtype=np.int16)
    if targets.exclusive:
        highest = CERTAIN - probabilities.sum(axis=0, dtype=np.int32)
        for numbers, probability in zip(targets.structures.values(), probabilities, strict=True):
            higher = probability > highest
            labels[higher] = numbers[0]
            highest[higher] = probability[higher]
        return DatasetLabels(labels)
    for number, probability in zip(targets.region_class_order, probabilities, strict=True):
        labels[2 * probability.astype(np.int16) > CERTAIN] = number
    return DatasetLabels(labels)


def load_teacher(model: ResolvedModel, fold: Fold, options: PredictionOptions) -> Teacher:
    """Loads the networks of a fold; for "all" those of all folds, since nothing is held out then.

    A cascade gets its coarse segmentation from the coarser network of the same fold.

    Args:
        model: The model, from `opened_model`.
        fold: The fold of the student.
        options: Device and precision; its folds do not count.

    Raises:
        ModelError: The fold is not trained, or is damaged.
    """
    folds = None if fold == "all" else fold

    def load(folder: ModelFolder) -> Segmenter:
        asked = replace(options, folds=folds, postprocessing=False)
        segmenter = load_segmenter(folder.path, asked)
        if not isinstance(segmenter, Segmenter):
            raise ModelError(f"{folder.path} holds several configurations", "name one of them")
        previous = segmenter.previous
        if previous is not None:
            previous = load(_coarser(folder, segmenter))
        return replace(segmenter, previous=previous, temperatures=None)

    return Teacher(segmenter=make_ensemble([load(member.folder) for member in model.members], NO_RULES))


def describe_teacher(
    model: ResolvedModel, folds: Sequence[Fold], splits: Splits, info: DatasetInfo
) -> list[FoldDescription]:
    """Makes sure that a model may teach some folds: that it is of this dataset, and has seen no held-out case of them.

    Args:
        model: The model, from `opened_model`.
        folds: The folds of the student.
        splits: The folds of the dataset.
        info: Channels and labels of the dataset.

    Returns:
        For each configuration, and the coarser one of a cascade, a trained fold of it.

    Raises:
        ModelError: It was trained on other channels, labels or cases, a fold is not trained to its end, or its networks
            were exported for other runtimes than torch.
    """
    descriptions = []
    for member in model.members:
        folders = [member.folder]
        for folder in folders:
            found = [_describe_fold(folder, fold, splits, info) for fold in folds]
            descriptions.append(found[0])
            if found[0].configuration.previous is not None:
                folders.append(ModelFolder(path=folder.path.with_name(found[0].configuration.previous)))
    return descriptions


def _describe_fold(folder: ModelFolder, fold: Fold, splits: Splits, info: DatasetInfo) -> FoldDescription:
    chosen = select_folds(folder, () if fold == "all" else (fold,))
    checkpoints = [load_checkpoint(folder.checkpoint(name), mapped=True) for name in chosen]
    for name, checkpoint in zip(chosen, checkpoints, strict=True):
        if not checkpoint.finished:
            raise ModelError(f"fold {name} of {folder.path} is not trained to its end", "train it to its end first")
        if (checkpoint.info.channels, checkpoint.info.targets) != (info.channels, info.targets):
            raise ModelError(f"{folder.path} was trained on other channels or labels", "name a model of this dataset")
        if fold != "all" and checkpoint.cases != splits.fold(fold).digest:
            what = f"fold {fold} of {folder.path} was trained on other cases than splits.json gives it now"
            raise ModelError(what, "a teacher must not have seen held-out cases: train the fold anew, or name another")
    return checkpoints[0]


def _coarser(folder: ModelFolder, segmenter: Segmenter) -> ModelFolder:
    return ModelFolder(path=folder.path.with_name(str(segmenter.configuration.previous)))
