"""A folder of scans on disk, turned into a folder of segmentations by a trained model."""

import os
from collections.abc import Sequence
from pathlib import Path

from autoseg.artifact import atomic_file
from autoseg.dataset import Case
from autoseg.errors import AutosegError, ProblemsError, UsageError, WriteError
from autoseg.imageio import read_image, write_label_map
from autoseg.inference.case import Segmenter
from autoseg.reporting import Reporter
from autoseg.scans import check_channels, result_ending
from autoseg.workspace import ModelFolder, find_workspace

LABELS_FILE = "dataset.json"
"""Written beside the segmentations, so that whoever opens them knows what their numbers mean."""


def find_model(
    model: str | os.PathLike[str] | None,
    number: int | None,
    configuration: str | None,
    workspace: str | os.PathLike[str] | None,
    plan: str | None = None,
) -> ModelFolder:
    """Finds the model that a user means: by its folder, or by its dataset and perhaps its configuration.

    Raises:
        UsageError: It was named in both ways or in none, or a configuration beside the folder of one.
        DatasetError: There is no such dataset.
    """
    if model is not None and number is None:
        if configuration is not None or plan is not None:
            what = "a model folder holds one configuration of one plan"
            raise UsageError(what, "leave out -c and --plan, or give -d instead of -m")
        return ModelFolder(path=Path(model))
    if number is None or model is not None:
        raise UsageError("a model is named by its folder or by its dataset", "give either -m FOLDER or -d NUMBER")
    folders = find_workspace(workspace).dataset(number, plan)
    trained = [path.name for path in sorted(folders.models.glob("*")) if folders.model(path.name).trained_folds()]
    if configuration is None and len(trained) == 1:
        return folders.model(trained[0])
    return folders.model(configuration or "3d_fullres")


def make_output_folder(output: Path, source: Path) -> Path:
    """Makes the folder, and finds out before the work whether it can be written."""
    if output.resolve() == (source.parent if source.is_file() else source).resolve():
        raise UsageError(f"{output} holds the scans, which the results would replace", "give another folder with -o")
    with atomic_file(output / ".writable") as probe:
        probe.touch()
    (output / ".writable").unlink()
    return output


def segment_scans(segmenter: Segmenter, scans: Sequence[Case], output: Path, reporter: Reporter) -> list[Path]:
    """Segments scans one after the other; one that cannot be segmented does not stop the others.

    Args:
        segmenter: The model.
        scans: Cases without labels.
        output: Folder for the results, and for a dataset.json that names their labels.
        reporter: Shows progress.

    Returns:
        The files that were written.

    Raises:
        ProblemsError: Some scans could not be segmented, each with its line.
    """
    written: list[Path] = []
    failures: list[str] = []
    with reporter.task("segmenting", total=len(scans)) as task:
        for scan in scans:
            try:
                check_channels(scan, segmenter.info)
                segmentation = segmenter.segment(read_image(scan.images), on_progress=task.advance)
                path = output / (scan.name + result_ending(scan))
                write_label_map(path, segmentation)
                if not written:
                    segmenter.info.save(output / LABELS_FILE)
                written.append(path)
            except WriteError as error:  # every other scan would meet it too
                failures.append(str(error))
                break
            except AutosegError as error:
                failures.append(f"case {scan.name!r}: {error}")
    if failures:
        reporter.say(f"{len(written)} of {len(scans)} scans were segmented: {output}")
        raise ProblemsError(failures)
    return written
