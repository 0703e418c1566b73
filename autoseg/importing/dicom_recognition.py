"""Recognises datasets of series of DICOM files, whose masks are DICOM objects or image files."""

from dataclasses import replace
from pathlib import Path

from autoseg.datasets.dataset import Case
from autoseg.datasets.info import DatasetInfo, info_file
from autoseg.dicom.detection import holds_dicom
from autoseg.dicom.examinations import group_examinations
from autoseg.dicom.search import find_series
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import DatasetError, UsageError
from autoseg.importing import pairing
from autoseg.importing.dicom_files import name_channels
from autoseg.importing.dicom_image_masks import is_structured, pair_image_masks
from autoseg.importing.dicom_source import find_dicom_dataset, find_masks
from autoseg.importing.label_names import name_labels
from autoseg.importing.label_values import number_values, read_values
from autoseg.importing.mask_matching import list_mask_files
from autoseg.importing.recognised_source import Source
from autoseg.importing.source_folders import IMAGE_FOLDERS, LABEL_FOLDERS, find_subfolder
from autoseg.importing.structure_source import read_structures
from autoseg.importing.structures import find_case_folders
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.thread_map import map_in_threads, results_or_raise


def is_dicom_dataset(source: Path, labels: Path | None) -> bool:
    """Returns whether a source is read as DICOM: it is, or holds, DICOM files, and its images are no image files.

    Image files beside DICOM files may be their masks.

    Args:
        source: The source of images.
        labels: Folder of masks; None if they lie in the source.
    """
    if not source.is_dir():
        return holds_dicom(source)
    if labels is not None:
        return not pairing.list_images(source) and holds_dicom(source)
    return not _holds_images(source) and holds_dicom(source)


def recognise_dicom(source: Path, labels: Path | None, choice: SeriesChoice, reporter: Reporter) -> Source:
    """Recognises the cases of a source in DICOM, and their masks.

    Args:
        source: Folder or DICOMDIR of series, and of masks if `labels` is None. Folders such as "images" and "masks" in
            it are taken for those of series and of masks.
        labels: Folder of masks, or a file.
        choice: Which series are meant.
        reporter: Shows progress, and is told what belongs together and what is left out.

    Raises:
        UsageError: The folder of masks does not exist.
        DatasetError: There are no masks, or none belongs to a series.
        AutosegError: A file is damaged, or it is not clear which series of a case is meant.
    """
    if labels is None and source.is_dir():
        scans, masks = find_subfolder(source, IMAGE_FOLDERS), find_subfolder(source, LABEL_FOLDERS)
        if scans is not None and masks is not None and holds_dicom(scans):
            source, labels = scans, masks
    if labels is not None and not labels.exists():
        raise UsageError(f"{labels} does not exist", "give the folder of masks with --labels")
    files = find_series(source)
    examinations = group_examinations(files.series, source)
    masks_in_dicom = find_masks(files, labels)
    place = source if labels is None else labels
    images = [place] if place.is_file() and pairing.ending_of(place) else list_mask_files(place)
    if masks_in_dicom or not images or not examinations:
        pairing.report_left_out("Image files beside masks in DICOM", map(str, images), reporter)
        dicom = find_dicom_dataset(source, examinations, masks_in_dicom, choice, reporter)
        return Source(info=dicom.describe(), cases=dicom.cases, tests=(), dicom=dicom)
    folder = place if place.is_dir() else place.parent
    cases = pair_image_masks(examinations, images, (source, folder), choice, reporter)
    return _read_masks(cases, folder, reporter)


def _holds_images(source: Path) -> bool:
    """Returns whether a folder has the layout of a dataset of image files; see `recognition`."""
    if info_file(source).is_file():
        return True
    if any(pairing.list_images(folder) for folder in find_case_folders(source)):
        return True
    scans, masks = find_subfolder(source, IMAGE_FOLDERS), find_subfolder(source, LABEL_FOLDERS)
    return scans is not None and masks is not None and bool(pairing.list_images(scans))


def _read_masks(cases: tuple[Case, ...], folder: Path, reporter: Reporter) -> Source:
    """Reads what masks in image files hold."""
    names = name_channels([case.series for case in cases])
    structured = [case for case in cases if case.label is not None and is_structured(case.label)]
    if structured and len(structured) < len(cases):
        other = next(case for case in cases if case not in structured)
        what = f"{structured[0].label} is a mask per structure, and {other.label} is one of all structures"
        raise DatasetError(what, "bring them in one way")
    if structured:
        recognised = read_structures(cases, folder, reporter)
        return replace(recognised, info=recognised.info.model_copy(update={"channel_names": names}))
    labels = [case.label for case in cases if case.label is not None]
    values = results_or_raise(map_in_threads(read_values, labels, title="reading masks", reporter=reporter))
    numbers = number_values(values, folder, reporter)
    info = DatasetInfo(channel_names=names, labels=name_labels(numbers, (folder,), reporter), file_ending=".nii.gz")
    return Source(info=info, cases=cases, tests=(), numbers=numbers)
