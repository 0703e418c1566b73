"""Brings foreign data into the workspace as a raw dataset, and reports what it could not use.

`recognition` finds out what a source holds. Files whose format is supported are copied byte for byte; all others are
converted. Hard links would be faster, but then an edit of the imported file would change the source too. With ``link``
nothing is copied, and dataset.json lists where the files are; see `linking`.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path

from autoseg.datasets.dataset import CHANNEL_SUFFIX, TEST_IMAGES, TRAINING_IMAGES, TRAINING_LABELS, Case, Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.formats import PLANE_ENDINGS
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import convert_image, read_image, read_label_map, write_label_map
from autoseg.importing import pairing
from autoseg.importing.label_values import is_identity, renumber
from autoseg.importing.linking import check_linkable, describe_linked
from autoseg.importing.recognition import Source, recognise
from autoseg.importing.structures import combine_masks
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.workspace import Workspace, dataset_folder_name

OWN, OF_IMAGE = "own", "image"
"""Where masks lie: where their own headers say, or where their images lie."""


def import_source(  # noqa: PLR0913 - the options of the command
    source: Path | tuple[Path, Path],
    *,
    workspace: Workspace,
    number: int,
    name: str | None = None,
    link: bool = False,
    geometry: str = OWN,
    reporter: Reporter = SILENT,
) -> Dataset:
    """Brings a dataset into the workspace, whole or not at all; see `pipeline.datasets.import_dataset`.

    Args:
        source: A folder of one of the kinds that `recognition` knows, or the folder of images and the folder of masks.
        workspace: Workspace that receives the dataset.
        number: Number of the new dataset, 1 to 999; it must be free.
        name: Name of the new dataset; None takes the name that the source states, else that of its folder.
        link: Whether to leave the files where they are; test scans are left out then.
        geometry: Where masks lie: where their own headers say ("own"), or where their images lie ("image").
        reporter: Shows progress, and is told what is left out.

    Raises:
        UsageError: The kind of the source is not known, the number is taken, the name is impossible, or files that are
            to be linked must be converted.
        DatasetError: The source contradicts itself, no image has a mask, or the masks are no label maps.
        ImageError: A file cannot be read.
        ArtifactError: The workspace cannot be written.
    """
    if taken := workspace.names(number):
        raise UsageError(f"{workspace.raw} already holds {taken[0]}", "choose another number with -d or remove it")
    if geometry not in (OWN, OF_IMAGE):
        raise UsageError(f"masks cannot lie where {geometry!r} says", f"choose --geometry {OWN} or {OF_IMAGE}")
    if link and geometry == OF_IMAGE:
        raise UsageError("masks that stay where they are keep their headers", "leave --link or --geometry image out")
    recognised = recognise(source, reporter)
    name = name or _default_name(recognised.info, source)
    folder = workspace.raw / dataset_folder_name(number, name)
    recognised = replace(recognised, info=recognised.info.model_copy(update={"name": name}))
    if link:
        _write_linked(recognised, folder)
    else:
        _write_copies(recognised, folder, reporter, on_image=geometry == OF_IMAGE)
    dataset = Dataset.open(folder)
    stay_there = ", which stay where they are, as all files do" if link else ""
    reporter.say(f"{dataset.name}: {len(dataset.cases)} training cases, {len(recognised.tests)} test scans{stay_there}")
    return dataset


def _write_linked(source: Source, folder: Path) -> None:
    """Writes a dataset.json that lists the files of the source."""
    check_linkable(source)
    info, notes = describe_linked(source)
    with atomic_folder(folder) as writing:
        info.save(info_file(writing), notes)
        _copy_splits(source, writing)


def _copy_splits(source: Source, folder: Path) -> None:
    if source.splits is not None:
        _copy(source.splits, folder / source.splits.name)


def _write_copies(source: Source, folder: Path, reporter: Reporter, *, on_image: bool) -> None:
    """Copies or converts all files of the source into a new raw dataset; masks lie on their images if asked for."""
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
                if on_image:
                    _lay_on_image(target, case.images[0])

        for name in (TRAINING_IMAGES, TRAINING_LABELS, *((TEST_IMAGES,) if source.tests else ())):
            (writing / name).mkdir()
        results_or_raise(map_in_threads(write, source.cases + source.tests, title="importing", reporter=reporter))
        source.info.save(info_file(writing), {"numTraining": len(source.cases), **source.notes})
        _copy_splits(source, writing)


def _write_images(case: Case, folder: Path, info: DatasetInfo) -> None:
    ending = info.file_ending
    if len(case.images) == 1 and ending in PLANE_ENDINGS and info.channels > 1:  # one file holds all colours
        numbered = CHANNEL_SUFFIX.search(pairing.stem_of(case.images[0]))
        targets = [folder / f"{case.name}{'_0000' if numbered else ''}{ending}"]
    else:
        targets = [folder / f"{case.name}_{channel:04d}{ending}" for channel in range(info.channels)]
    if len(targets) != len(case.images):
        convert_image(case.images[0], tuple(targets))
        return
    for path, target in zip(case.images, targets, strict=True):
        _copy(path, target)


def _write_label(path: Path, target: Path, numbers: dict[int, int]) -> None:
    if is_identity(numbers) and pairing.ending_of(path) == pairing.ending_of(target):
        _copy(path, target)
        return
    volume = read_label_map(path)
    if not is_identity(numbers):
        volume = replace(volume, array=renumber(volume.array, numbers))
    write_label_map(target, volume)


def _lay_on_image(label: Path, image: Path) -> None:
    """Writes a label map again with the place of its image, whose voxels are as many along each axis."""
    volume, grid = read_label_map(label), read_image((image,)).geometry
    if volume.array.shape != grid.shape:
        what = f"the mask of {image} has shape {volume.array.shape}, the image {grid.shape}"
        raise ImageError(what, "resample the mask onto the image")
    write_label_map(label, Volume(array=volume.array, geometry=grid))


def _copy(path: Path, target: Path) -> None:
    """Copies a file, or converts it if the target has another ending."""
    if pairing.ending_of(path) != pairing.ending_of(target):
        convert_image(path, (target,))
        return
    try:
        shutil.copy2(path, target)
    except OSError as error:
        if error.filename != str(path) or error.filename2 is not None:  # both are named if the copy cannot be written
            raise
        raise ImageError(f"cannot read {path}: {error.strerror}", "check that you may read it") from error


def _default_name(info: DatasetInfo, source: Path | tuple[Path, Path]) -> str:
    folder = source[0].resolve().parent if isinstance(source, tuple) else source.resolve()
    words = re.sub(r"^(Task|Dataset)\d+_", "", info.name or folder.name)
    return re.sub(r"\W+", "_", words).strip("_-")
