"""Brings foreign data into the workspace as a raw dataset, and says what it could not use.

What a source is, is the matter of `recognition`. Files are copied byte for byte if their format can stay; all others
are converted. Hard links would be quicker, but then an edit of the imported file would change the source too. Or
nothing is copied, and dataset.json says where the files are; see `linking`.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path

from autoseg.datasets.dataset import CHANNEL_SUFFIX, TEST_IMAGES, TRAINING_IMAGES, TRAINING_LABELS, Case, Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.files import convert_image, read_label_map, write_label_map
from autoseg.imaging.formats import PLANE_ENDINGS
from autoseg.importing import pairing
from autoseg.importing.label_values import renumber, stay
from autoseg.importing.linking import describe_in_place, refuse_unless_in_place
from autoseg.importing.recognition import Source, recognise
from autoseg.importing.structures import combine_masks
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.workspace import Workspace, dataset_folder_name


def import_dataset(
    source: Path | tuple[Path, Path],
    *,
    workspace: Workspace,
    number: int,
    name: str | None = None,
    link: bool = False,
    reporter: Reporter = SILENT,
) -> Dataset:
    """Brings a dataset into the workspace, whole or not at all.

    Images without a mask are left out and named to `reporter`, and so are masks without an image. Scans in a folder
    "imagesTs" come along as test scans. Masks whose values are not 0, 1, 2, ... are renumbered.

    Args:
        source: A folder of one of the kinds that `recognition` knows, or the folder of images and the folder of masks.
        workspace: Where to put it.
        number: The new dataset's number, 1 to 999; it must be free.
        name: The new dataset's name; None takes the one that the source states, or that of its folder.
        link: Leave the files where they are; test scans do not come along then.
        reporter: Gets progress and remarks.

    Raises:
        UsageError: The source is of no known kind, the number is taken, the name is impossible, or files that are to
            stay where they are must be converted.
        DatasetError: The source contradicts itself, or no image has a mask, or the masks are no label maps.
        ImageError: A file cannot be read.
        ArtifactError: The workspace cannot be written.
    """
    if taken := workspace.names(number):
        raise UsageError(f"{workspace.raw} already holds {taken[0]}", "choose another number with -d or remove it")
    found = recognise(source, reporter)
    name = name or _default_name(found.info, source)
    folder = workspace.raw / dataset_folder_name(number, name)
    found = replace(found, info=found.info.model_copy(update={"name": name}))
    if link:
        _write_list(found, folder)
    else:
        _write(found, folder, reporter)
    dataset = Dataset.open(folder)
    stay_there = ", which stay where they are, as all files do" if link else ""
    reporter.say(f"{dataset.name}: {len(dataset.cases)} training cases, {len(found.tests)} test scans{stay_there}")
    return dataset


def _write_list(source: Source, folder: Path) -> None:
    refuse_unless_in_place(source)
    info, notes = describe_in_place(source)
    with atomic_folder(folder) as writing:
        info.save(info_file(writing), notes)
        _bring_splits(source, writing)


def _bring_splits(source: Source, folder: Path) -> None:
    if source.splits is not None:
        _bring(source.splits, folder / source.splits.name)


def _write(source: Source, folder: Path, reporter: Reporter) -> None:
    with atomic_folder(folder) as writing:

        def write(case: Case) -> None:
            if case.label is None:
                _write_images(case, writing / TEST_IMAGES, source.info)
            else:
                _write_images(case, writing / TRAINING_IMAGES, source.info)
                target = writing / TRAINING_LABELS / (case.name + source.info.file_ending)
                if source.structures is not None:
                    write_label_map(target, combine_masks(case.label, source.structures))
                else:
                    _write_label(case.label, target, source.numbers)

        for name in (TRAINING_IMAGES, TRAINING_LABELS, *((TEST_IMAGES,) if source.tests else ())):
            (writing / name).mkdir()
        results_or_raise(map_in_threads(write, source.cases + source.tests, title="importing", reporter=reporter))
        source.info.save(info_file(writing), {"numTraining": len(source.cases), **source.notes})
        _bring_splits(source, writing)


def _write_images(case: Case, folder: Path, info: DatasetInfo) -> None:
    ending = info.file_ending
    if len(case.images) == 1 and ending in PLANE_ENDINGS and info.channels > 1:  # one picture holds all colours
        numbered = CHANNEL_SUFFIX.search(pairing.stem_of(case.images[0]))
        targets = [folder / f"{case.name}{'_0000' if numbered else ''}{ending}"]
    else:
        targets = [folder / f"{case.name}_{channel:04d}{ending}" for channel in range(info.channels)]
    if len(targets) != len(case.images):
        convert_image(case.images[0], tuple(targets))
        return
    for path, target in zip(case.images, targets, strict=True):
        _bring(path, target)


def _write_label(path: Path, target: Path, numbers: dict[int, int]) -> None:
    if stay(numbers) and pairing.ending_of(path) == pairing.ending_of(target):
        _bring(path, target)
        return
    volume = read_label_map(path)
    if not stay(numbers):
        volume = replace(volume, array=renumber(volume.array, numbers))
    write_label_map(target, volume)


def _bring(path: Path, target: Path) -> None:
    if pairing.ending_of(path) != pairing.ending_of(target):
        convert_image(path, (target,))
        return
    try:
        shutil.copy2(path, target)
    except OSError as error:
        if error.filename != str(path) or error.filename2 is not None:  # both are named if the copying fails
            raise
        raise ImageError(f"cannot read {path}: {error.strerror}", "check that you may read it") from error


def _default_name(info: DatasetInfo, source: Path | tuple[Path, Path]) -> str:
    folder = source[0].resolve().parent if isinstance(source, tuple) else source.resolve()
    words = re.sub(r"^(Task|Dataset)\d+_", "", info.name or folder.name)
    return re.sub(r"\W+", "_", words).strip("_-")
