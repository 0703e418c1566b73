"""The cases that a student learns from its teacher: probabilities beside labels, and scans without labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autoseg.dataloading.sampling import InMemoryCase, PatchSource
from autoseg.dataloading.soft_targets import UnlabelledCase
from autoseg.errors import ArtifactError, UsageError
from autoseg.preprocessing.soft_predictions import SoftPrediction
from autoseg.preprocessing.store import MEMORY_FOR_CASES_BYTES, StoredCase, open_stored
from autoseg.runtime.reporting import list_names

if TYPE_CHECKING:
    from autoseg.training.fold_job import FoldJob

MEMORY_FOR_SOFT_BYTES = MEMORY_FOR_CASES_BYTES // 4
"""Training holds the probabilities in memory if all of them fit. Decision: they are a byte each, where images have four
for each channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtCases:
    """What a student learns from its teacher; empty for a training without one.

    Attributes:
        soft: The probabilities for each training case, by name, those of scans without labels included.
        unlabelled: The scans without labels, by name, with the segmentation of the teacher.
        unannotated: For each structure, whether it is not annotated there: the teacher looked for all of them.
    """

    soft: Mapping[str, SoftPrediction] = field(default_factory=dict)
    unlabelled: Mapping[str, PatchSource] = field(default_factory=dict)
    unannotated: tuple[bool, ...] = ()


def open_taught_cases(job: "FoldJob") -> TaughtCases:
    """Opens what the student of a fold learns from its teacher, which `distil` wrote.

    Args:
        job: The fold.

    Raises:
        ArtifactError: A prediction is missing or damaged.
        ProblemsError: Scans without labels are missing or damaged, with a line for each.
    """
    settings = job.plan.training.distillation
    if settings is None:
        return TaughtCases()
    folder = job.folders.soft_predictions(job.fold)
    names = sorted({*job.split.training, *settings.unlabelled})
    soft = {name: SoftPrediction.open(folder, name) for name in names}
    if sum(prediction.nbytes for prediction in soft.values()) <= MEMORY_FOR_SOFT_BYTES:
        soft = {name: prediction.load() for name, prediction in soft.items()}
    images = open_stored(job.folders.unlabelled_cases, settings.unlabelled)
    labels = open_stored(job.folders.soft_labels(job.fold), settings.unlabelled)
    fits = sum(case.nbytes for case in (*images.values(), *labels.values())) <= MEMORY_FOR_SOFT_BYTES
    return TaughtCases(
        soft=soft,
        unlabelled={name: _open_unlabelled(case, labels[name], loaded=fits) for name, case in images.items()},
        unannotated=(False,) * len(job.dataset.info.targets.names),
    )


def _open_unlabelled(case: StoredCase, labels: StoredCase, *, loaded: bool) -> PatchSource:
    if not loaded:
        return UnlabelledCase(case=case, labels=labels)
    return InMemoryCase(
        image=case.load()[0],
        label=labels.load_label(),
        foreground=labels.load_foreground(),
        missing_channels=case.missing_channels,
    )


def check_taught_cases(job: "FoldJob", number: int) -> None:
    """Makes sure that the teacher has predicted all that the student of a fold learns from it.

    Args:
        job: The fold.
        number: Number of the dataset, for the message.

    Raises:
        UsageError: Predictions are missing or lie on another grid, or the plan has transforms that may move voxels.
    """
    settings = job.plan.training.distillation
    if settings is None:
        return
    if job.configuration.augmentation.custom:
        what = f"the transform {job.configuration.augmentation.custom[0].name!r} might move voxels, not the teacher's"
        raise UsageError(what, "leave it out of the plan of a student")
    missing = []
    for name in sorted({*job.split.training, *settings.unlabelled}):
        folder = job.folders.unlabelled_cases if name in settings.unlabelled else job.cases_folder
        try:
            soft, case = (
                SoftPrediction.open(job.folders.soft_predictions(job.fold), name),
                StoredCase.open(folder, name),
            )
        except ArtifactError:
            missing.append(name)
            continue
        if soft.content.shape != case.shape:
            missing.append(name)
    if missing:
        named = list_names(missing, most=3, count_rest=False)
        what = f"the teacher of fold {job.fold} has not predicted {len(missing)} cases as they are now ({named})"
        raise UsageError(what, f"run 'autoseg distil -d {number} --for {job.folders.plan_name} -f {job.fold}' first")
