"""The files of a case, written into a raw dataset: copied byte for byte if they can be, else converted."""

import shutil
from dataclasses import replace
from pathlib import Path

from autoseg.datasets.channel_files import CHANNEL_SUFFIX
from autoseg.datasets.dataset import TEST_IMAGES, TRAINING_IMAGES, TRAINING_LABELS, Case
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ImageError
from autoseg.imaging.formats import PLANE_ENDINGS
from autoseg.imaging.geometry import Volume
from autoseg.imaging.image_files import convert_image, read_image, read_label_map, write_label_map
from autoseg.imaging.image_headers import channels_in
from autoseg.imaging.pictures.files import is_plain
from autoseg.imaging.placing import lay_on_grid
from autoseg.imaging.spatial_words import describe_shape
from autoseg.importing import pairing
from autoseg.importing.dicom_files import write_channels
from autoseg.importing.dicom_image_masks import read_on_series
from autoseg.importing.label_values import is_identity, renumber
from autoseg.importing.picture_facts import has_own_place
from autoseg.importing.recognised_source import Source
from autoseg.importing.structures import combine_masks
from autoseg.runtime.os_errors import advise_reading, reason_of


def image_targets(case: Case, info: DatasetInfo) -> tuple[Path, ...]:
    """Returns where the images of a case are written, from the folder of the dataset on.

    Example:
        >>> channels, labels = {"0": "T1", "1": "T2"}, {"background": 0, "a": 1}
        >>> info = DatasetInfo(channel_names=channels, labels=labels, file_ending=".nii.gz")
        >>> [path.as_posix() for path in image_targets(Case(name="b_1", images=(Path("b_1.nrrd"),)), info)]
        ['imagesTs/b_1_0000.nii.gz', 'imagesTs/b_1_0001.nii.gz']
    """
    folder, ending = Path(TEST_IMAGES if case.label is None else TRAINING_IMAGES), info.file_ending
    if len(case.images) == 1 and ending in PLANE_ENDINGS and info.channels > 1:  # one file holds all colours
        numbered = CHANNEL_SUFFIX.search(pairing.stem_of(case.images[0]))
        return (folder / f"{case.name}{'_0000' if numbered else ''}{ending}",)
    lacks = case.missing_channels if case.missing_channels and channels_in(case.images[0]) == 1 else ()
    present = (channel for channel in range(info.channels) if channel not in lacks)
    return tuple(folder / f"{case.name}_{channel:04d}{ending}" for channel in present)


def label_target(case: Case, info: DatasetInfo) -> Path:
    """Returns where the label map of a case is written, from the folder of the dataset on."""
    return Path(TRAINING_LABELS) / (case.name + info.file_ending)


def write_images(case: Case, dataset: Path, info: DatasetInfo) -> None:
    """Copies or converts the images of a case into the folder of a dataset, whose subfolders are there.

    Raises:
        ImageError: A file cannot be read.
        ArtifactError: A file cannot be written.
    """
    targets = [dataset / target for target in image_targets(case, info)]
    if case.series:
        write_channels(case, targets[0].parent)
        return
    if len(targets) != len(case.images) or case.time_point is not None:
        convert_image(case.images[0], tuple(targets), case.time_point)
        return
    for path, target in zip(case.images, targets, strict=True):
        copy_file(path, target)


def write_label(case: Case, dataset: Path, source: Source, *, on_image: bool = False) -> None:
    """Copies or converts the label map of a case into the folder of a dataset, whose subfolders are there.

    Args:
        case: A training case.
        dataset: Folder of the dataset.
        source: The source of the case, which says what the values of its masks mean.
        on_image: Whether the label map gets the place of its image, whatever its header says.

    Raises:
        ImageError: A file cannot be read, or the label map has to lie on its image and has another shape.
        DatasetError: Masks of structures lie on different grids.
        ArtifactError: A file cannot be written.
    """
    target = dataset / label_target(case, source.info)
    if source.dicom is not None:
        write_label_map(target, source.dicom.read_label(case.name))
    elif case.series:
        write_label_map(target, read_on_series(case, source.structures, source.numbers))
    elif case.label is not None and source.structures is not None:
        write_label_map(target, _lay_whole(combine_masks(case.label, source.structures), case))
    elif case.label is not None:
        _write_numbered(case.label, target, source.numbers, case.time_point)
    if not case.series and (on_image or not has_own_place(case)):
        _lay_on_image(target, case)


def _write_numbered(path: Path, target: Path, numbers: dict[int, int], time_point: int | None) -> None:
    is_same_kind = pairing.ending_of(path) == pairing.ending_of(target) and is_plain(path)
    if is_identity(numbers) and is_same_kind and time_point is None and channels_in(path) == 1:
        copy_file(path, target)
        return
    volume = read_label_map(path, time_point)
    if not is_identity(numbers):
        volume = replace(volume, array=renumber(volume.array, numbers))
    write_label_map(target, volume)


def _lay_whole(label_map: Volume, case: Case) -> Volume:
    """Returns the label map of a case on the whole grid of its image; 3D Slicer cuts files to what was drawn."""
    if case.label is None or case.label.is_dir():
        return label_map
    return lay_on_grid(label_map, read_image(case.images[:1]).geometry) or label_map


def _lay_on_image(label: Path, case: Case) -> None:
    """Writes a label map again with the place of its image, whose voxels are as many along each axis."""
    volume, grid = read_label_map(label), read_image(case.images[:1], case.time_point).geometry
    if volume.array.shape != grid.shape:
        sizes = f"{describe_shape(volume.array.shape)}, the image {describe_shape(grid.shape)}"
        what = f"the mask of {case.images[0]} has {sizes}"
        raise ImageError(what, "resample the mask onto the image")
    write_label_map(label, Volume(array=volume.array, geometry=grid))


def copy_file(path: Path, target: Path) -> None:
    """Copies a file, or converts it if the target has another ending or other programs would read other numbers.

    Raises:
        ImageError: The file cannot be read.
    """
    if pairing.ending_of(path) != pairing.ending_of(target) or not is_plain(path):
        convert_image(path, (target,))
        return
    try:
        shutil.copy2(path, target)
    except OSError as error:
        if error.filename != str(path) or error.filename2 is not None:  # both are named if the copy cannot be written
            raise
        raise ImageError(f"cannot read {path}: {reason_of(error)}", advise_reading(error)) from error
