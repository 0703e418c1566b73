"""A folder of scans on disk, turned into a folder of segmentations by a trained model."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoseg.artifact import atomic_file
from autoseg.dataset import Case
from autoseg.errors import AutosegError, ProblemsError, UsageError, WriteError
from autoseg.imageio import read_image, write_probabilities
from autoseg.inference.case import Segmenter
from autoseg.inference.results import file_stem, save_result
from autoseg.info import BACKGROUND, DatasetInfo
from autoseg.reporting import Reporter, Task
from autoseg.scans import PROBABILITIES_FOLDER, check_channels, result_ending
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


def choose_labels(names: str | Sequence[str], info: DatasetInfo) -> dict[str, int]:
    """The structures whose probabilities are wanted: name to output of the networks.

    Args:
        names: One or several; "all" stands for each but the background, which has to be named. Regions have none.
        info: Of the model.

    Raises:
        UsageError: The model has no such label.
    """
    chosen: dict[str, int] = {}
    known = ({BACKGROUND: 0} if info.targets.exclusive else {}) | info.targets.output_of
    for name in [names] if isinstance(names, str) else names:
        if name == "all":
            chosen |= info.targets.output_of
        elif name in known:
            chosen[name] = known[name]
        else:
            raise UsageError(f"the model has no label {name!r}", f"choose from {', '.join(known)}, or 'all'")
    return chosen


def name_probability_maps(scans: Sequence[Case], labels: Mapping[str, int]) -> dict[str, dict[int, str]]:
    """The file of each map: that of "kidney, left" in liver_01.nii.gz is liver_01_kidney_left.nii.gz.

    Returns:
        Name of a scan, to number of a label, to name of the file.

    Raises:
        UsageError: Two maps would have the same file, on a file system that does not tell Kidney from kidney either.
    """
    names: dict[str, dict[int, str]] = {scan.name: {} for scan in scans}
    owners: dict[str, str] = {}
    for scan in scans:
        for label, number in labels.items():
            name = f"{scan.name}_{file_stem(label)}{result_ending(scan)}"
            owner = f"label {label!r} of scan {scan.name!r}"
            other = owners.setdefault(name.casefold(), owner)
            if other != owner:
                what = f"the probabilities of {other} and of {owner} would both be written to {name}"
                raise UsageError(what, "ask for them one after the other, in different folders")
            names[scan.name][number] = name
    return names


def segment_scans(
    segmenter: Segmenter, scans: Sequence[Case], output: Path, labels: Mapping[str, int], reporter: Reporter
) -> list[Path]:
    """Segments scans one after the other; one that cannot be segmented does not stop the others.

    Args:
        segmenter: The model.
        scans: Cases without labels.
        output: Folder for the results, and for a dataset.json that names their labels.
        labels: Whose probabilities are written too, into a folder of their own; see `choose_labels`.
        reporter: Shows progress.

    Returns:
        The segmentations that were written; where one is, the probabilities of its scan are complete.

    Raises:
        UsageError: Two maps of probabilities would have the same file.
        ProblemsError: Some scans could not be segmented, each with its line.
    """
    maps = name_probability_maps(scans, labels)
    written: list[Path] = []
    failures: list[str] = []
    with reporter.task("segmenting", total=len(scans)) as task:
        for scan in scans:
            try:
                path = _segment_scan(segmenter, scan, output, maps[scan.name], task)
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


def _segment_scan(segmenter: Segmenter, scan: Case, output: Path, maps: Mapping[int, str], task: Task) -> Path:
    """Writes the maps of some labels, number to name of the file, and then the segmentation, whose path it returns."""
    check_channels(scan, segmenter.info)
    prediction = segmenter.predict(read_image(scan.images), on_progress=task.advance)
    for volume, name in zip(prediction.probabilities(list(maps)), maps.values(), strict=True):
        write_probabilities(output / PROBABILITIES_FOLDER / name, volume)
    path, _, _ = save_result(prediction, output / (scan.name + result_ending(scan)))
    return path
