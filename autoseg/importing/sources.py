"""Brings foreign data into the workspace as a raw dataset, and reports what it could not use.

`recognition` finds out what a source holds. Files whose format is supported are copied byte for byte; all others are
converted. Hard links would be faster, but then an edit of the imported file would change the source too. With ``link``
dataset.json lists where the files are, and only those are written that must be converted; see `linking`.
"""

import re
from dataclasses import replace
from pathlib import Path

from autoseg.datasets.dataset import TEST_IMAGES, TRAINING_IMAGES, TRAINING_LABELS, Case, Dataset
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.datasets.names import FORMULA_FIX, is_formula
from autoseg.datasets.oddities import CaseExtent, describe_odd_grids
from autoseg.dicom.selection import ONLY_SERIES, SeriesChoice
from autoseg.errors import ProblemsError, UsageError
from autoseg.imaging.formats import readable_name
from autoseg.imaging.image_headers import read_grid
from autoseg.importing.case_files import copy_file, write_images, write_label
from autoseg.importing.dicom_files import save_tags
from autoseg.importing.dicom_recognition import is_dicom_dataset, recognise_dicom
from autoseg.importing.linking import Conversions, describe_linked, find_conversions
from autoseg.importing.recognised_source import Source
from autoseg.importing.recognition import recognise
from autoseg.runtime.artifact import atomic_folder
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise
from autoseg.runtime.writable import check_place
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
    choice: SeriesChoice = ONLY_SERIES,
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
        choice: Which series are meant, if the source is in DICOM.
        reporter: Shows progress, and is told what is left out.

    Raises:
        UsageError: The kind of the source is not known, the number is taken, the name is impossible, or files that are
            to be linked are in DICOM.
        DatasetError: The source contradicts itself, no image has a mask, or the masks are no label maps.
        ImageError: A file cannot be read.
        ProblemsError: Names of cases or labels are formulas.
        ArtifactError: The workspace cannot be written.
    """
    if taken := workspace.names(number):
        raise UsageError(f"{workspace.raw} already holds {taken[0]}", "choose another number with -d or remove it")
    if geometry not in (OWN, OF_IMAGE):
        raise UsageError(f"masks cannot lie where {geometry!r} says", f"choose --geometry {OWN} or {OF_IMAGE}")
    if link and geometry == OF_IMAGE:
        raise UsageError("masks that stay where they are keep their headers", "leave --link or --geometry image out")
    check_place(workspace.raw / "dataset")
    recognised = _recognise(source, choice, reporter, link=link)
    _check_names(recognised)
    name = name or _default_name(recognised.info, source)
    folder = workspace.raw / dataset_folder_name(number, name)
    if geometry == OF_IMAGE and any(case.series for case in recognised.cases):
        what = "--geometry image is for image files: a mask of a DICOM series lies where its own header says"
        raise UsageError(what, "leave it out")
    recognised = replace(recognised, info=recognised.info.model_copy(update={"name": name}))
    stay_there = ""
    if link:
        stay_there = _describe_links(_write_linked(recognised, folder, reporter), reporter)
    else:
        _write_copies(recognised, folder, reporter, on_image=geometry == OF_IMAGE)
    dataset = Dataset.open(folder)
    if others := [other for other in workspace.names(number) if other != folder.name]:
        what = f"another run has made {others[0]} meanwhile, which has the number of {folder.name} too"
        raise UsageError(what, "give one of them another number, by renaming its folder")
    for line in describe_odd_grids(_read_extents(dataset), channels=dataset.info.channels):
        reporter.say(line)
    reporter.say(f"{dataset.name}: {len(dataset.cases)} training cases, {len(recognised.tests)} test scans{stay_there}")
    return dataset


def describe_source(source: Path | tuple[Path, Path], folder: Path, reporter: Reporter) -> Dataset:
    """Recognises image files, and describes them as a dataset in a folder, so that they can be checked as one.

    Args:
        source: See `import_source`.
        folder: Folder that is made for dataset.json and for the files that an import would convert.
        reporter: Shows progress, and is told what an import would leave out, and how many cases it would make.

    Raises:
        UsageError: They are DICOM files.
        AutosegError: The files could not be imported; see `import_source`.
    """
    images, labels = source if isinstance(source, tuple) else (source, None)
    if is_dicom_dataset(images, labels):
        raise UsageError(f"{images} holds DICOM files", "check_dicom checks those")
    recognised = recognise(source, reporter)
    _check_names(recognised)
    _write_linked(recognised, folder, reporter)
    dataset = Dataset.open(folder)
    counts = f"{len(dataset.cases)} training cases and {len(recognised.tests)} test scans"
    reporter.say(f"{images}: an import would bring {counts}; this check keeps nothing")
    return dataset


def _recognise(
    source: Path | tuple[Path, Path], choice: SeriesChoice, reporter: Reporter, *, link: bool = False
) -> Source:
    """Recognises what a source holds, in DICOM, which cannot be linked, or in image files."""
    images, labels = source if isinstance(source, tuple) else (source, None)
    if is_dicom_dataset(images, labels):
        if link:
            what = f"{images} holds DICOM files, which --link cannot list: a dataset consists of image files"
            raise UsageError(what, "leave --link out, and the series are converted")
        return recognise_dicom(images, labels, choice, reporter)
    return recognise(source, reporter)


def _check_names(source: Source) -> None:
    """Refuses names of cases and labels that tables would carry to a spreadsheet as formulas.

    Raises:
        ProblemsError: There are such names, with a line for each.
    """
    names = [*(case.name for case in (*source.cases, *source.tests)), *source.info.labels]
    if lines := [f"the name {name!r} is a formula; {FORMULA_FIX}" for name in names if is_formula(name)]:
        raise ProblemsError(lines)


def _read_extents(dataset: Dataset) -> list[CaseExtent]:
    """Reads size and spacing of each case from the header of its first image; those without one are left out."""

    def read(case: Case) -> CaseExtent:
        shape, spacing_mm = read_grid(case.images[0])
        return CaseExtent(name=case.name, shape=shape, spacing_mm=spacing_mm)

    extents = map_in_threads(read, dataset.cases, title="", reporter=SILENT)
    return [extent for extent in extents if isinstance(extent, CaseExtent)]


def _write_linked(source: Source, folder: Path, reporter: Reporter) -> Conversions:
    """Writes a dataset.json that lists the files of the source, and files that must be converted, which it returns."""
    conversions = find_conversions(source)
    info, notes = describe_linked(source, conversions)
    with atomic_folder(folder, replace=False) as writing:

        def write(case: Case) -> None:
            if case.name in conversions.images:
                write_images(case, writing, source.info)
            if case.name in conversions.labels:
                write_label(case, writing, source)

        for name, cases in ((TRAINING_IMAGES, conversions.images), (TRAINING_LABELS, conversions.labels)):
            if cases:
                (writing / name).mkdir()
        converted = [case for case in source.cases if case.name in conversions.names]
        results_or_raise(map_in_threads(write, converted, title="converting", reporter=reporter))
        info.save(info_file(writing), notes)
        _copy_splits(source, writing)
    return conversions


def _describe_links(conversions: Conversions, reporter: Reporter) -> str:
    """Says which files are written all the same, and returns what the last line of an import says of the others."""
    for line in conversions.describe():
        reporter.say(line)
    return ", which stay where they are" + ", as all files do" * (not conversions.names)


def _copy_splits(source: Source, folder: Path) -> None:
    if source.splits is not None:
        copy_file(source.splits, folder / source.splits.name)


def _write_copies(source: Source, folder: Path, reporter: Reporter, *, on_image: bool) -> None:
    """Copies or converts all files of the source into a new raw dataset; masks lie on their images if asked for."""
    with atomic_folder(folder, replace=False) as writing:

        def write(case: Case) -> None:
            write_images(case, writing, source.info)
            if case.label is not None:
                write_label(case, writing, source, on_image=on_image)

        for name in (TRAINING_IMAGES, TRAINING_LABELS, *((TEST_IMAGES,) if source.tests else ())):
            (writing / name).mkdir()
        results_or_raise(map_in_threads(write, source.cases + source.tests, title="importing", reporter=reporter))
        source.info.save(info_file(writing), {"numTraining": len(source.cases), **source.notes})
        _copy_splits(source, writing)
        if any(case.series for case in source.cases):
            save_tags(source.cases, writing, reporter)


def _default_name(info: DatasetInfo, source: Path | tuple[Path, Path]) -> str:
    folder = source[0].resolve().parent if isinstance(source, tuple) else source.resolve()
    words = re.sub(r"^(Task|Dataset)\d+_", "", readable_name(info.name or folder.name))
    return re.sub(r"\W+", "_", words).strip("_-")
