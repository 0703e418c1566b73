"""A raw dataset that is extended by scans which a model has labelled; see `datasets.machine_labels`.

Images and labels of people stay where they are, and dataset.json lists them, as that of a linked dataset does. The
segmentations are copied into the dataset, and so are images that must be converted.
"""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from autoseg.datasets.dataset import TRAINING_IMAGES, TRAINING_LABELS, Case, Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.machine_labels import RECORD
from autoseg.errors import UsageError
from autoseg.imaging.formats import split_ending
from autoseg.importing.case_files import image_targets, write_images
from autoseg.importing.linking import absolute_path, find_image_reason
from autoseg.runtime.artifact import Artifact, atomic_folder
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise


def write_extended(
    dataset: Dataset,
    scans: Mapping[str, tuple[Case, Path]],
    folder: Path,
    record: Artifact,
    reporter: Reporter,
) -> Dataset:
    """Writes a dataset of labelled cases and of scans that a model has segmented, whole or not at all.

    Args:
        dataset: The cases that people have labelled.
        scans: Name of each further case, to its scan and to the label map of the model.
        folder: Folder of the new dataset, which must not exist.
        record: Where the label maps come from.
        reporter: Shows progress.

    Raises:
        UsageError: The folder exists, or a path holds the name of an environment variable.
        ProblemsError: Images cannot be read, with a line for each.
        WriteError: The folder cannot be written.
    """
    info = dataset.info.model_copy(
        update={"machine_labelled": tuple(scans), "name": dataset.info.name or dataset.name.partition("_")[2]}
    )
    labelled = {name: replace(scan, label=label) for name, (scan, label) in scans.items()}
    with atomic_folder(folder, replace=False) as writing:
        for name in (TRAINING_IMAGES, TRAINING_LABELS):
            (writing / name).mkdir()

        def write(case: Case) -> None:
            if _is_converted(case, info):
                write_images(case, writing, info)
            if case.label is not None:
                shutil.copyfile(case.label, writing / _label_target(case))

        cases = list(labelled.values())
        results_or_raise(map_in_threads(write, cases, title="copying segmentations", reporter=reporter))
        if not any((writing / TRAINING_IMAGES).iterdir()):
            (writing / TRAINING_IMAGES).rmdir()
        listed = {case.name: _list_files(case) for case in dataset.cases}
        listed |= {case.name: _list_scan(case, info) for case in cases}
        info.save(info_file(writing), {"numTraining": len(listed), "dataset": listed})
        record.save(writing / RECORD)
    return Dataset.open(folder)


def _is_converted(case: Case, info: DatasetInfo) -> bool:
    return bool(case.series) or find_image_reason(case, info) is not None


def _label_target(case: Case) -> Path:
    """Returns where the label map of a case is written, from the folder of the dataset on."""
    if case.label is None:
        raise UsageError(f"case {case.name!r} has no label", "segment it first")
    return Path(TRAINING_LABELS) / (case.name + split_ending(case.label)[1])


def _list_scan(case: Case, info: DatasetInfo) -> dict[str, object]:
    """Returns the files of a scan that a model has labelled, as dataset.json lists them."""
    images = image_targets(case, info) if _is_converted(case, info) else ()
    return {
        "images": [path.as_posix() for path in images] or [*map(absolute_path, case.images)],
        "label": _label_target(case).as_posix(),
    }


def _list_files(case: Case) -> dict[str, object]:
    """Returns the files of a case that people have labelled, as dataset.json lists them."""
    label = case.label or Path()
    return {"images": [*map(absolute_path, case.images)], "label": absolute_path(label)}
