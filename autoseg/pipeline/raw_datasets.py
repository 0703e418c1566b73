"""Raw datasets: straightened if need be, brought into the workspace from foreign files, and checked."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from autoseg.datasets.dataset import Dataset, Problem
from autoseg.datasets.integrity import check_dataset
from autoseg.dicom.search import unpacked
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import UsageError
from autoseg.importing.case_mending import Fix
from autoseg.importing.mending import mend_dataset
from autoseg.importing.sources import OWN, describe_source, import_source
from autoseg.importing.straightening import straighten_files
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.workspace import dataset_folder_name, find_workspace

FilePath = str | os.PathLike[str]


def import_dataset(
    source: FilePath,
    number: int,
    *,
    labels: FilePath | None = None,
    name: str | None = None,
    link: bool = False,
    geometry: str = OWN,
    series: str | None = None,
    channels: Sequence[str] = (),
    resample_tilt: bool = False,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> Dataset:
    """Brings a dataset into the workspace, whole or not at all; the source is left as it is.

    Images without a mask are left out and named to `reporter`, and so are masks without an image. Scans in a folder
    "imagesTs" become test scans. Masks whose values are not 0, 1, 2, ... are renumbered. A file of several volumes
    holds channels; if its mask has as many volumes they are points in time, and each becomes a case: CASE_t00, ...

    Args:
        source: A folder of the Medical Segmentation Decathlon or of nnU-Net, a folder with one folder per case, a
            folder that holds a folder of images and one of masks, or, with `labels`, a folder of images. Or series of
            DICOM files, with segmentations (DICOM-SEG) or structure sets (RTSTRUCT) beside them or in `labels`: a
            folder, a zip file, or a DICOMDIR.
        number: Number of the new dataset, 1 to 999; it must be free.
        labels: Folder of masks, if `source` holds images only.
        name: Name of the new dataset; by default the name that the source states, else that of its folder.
        link: Copy nothing but what must be converted: the new dataset.json lists where the files are. Test scans are
            left out then.
        geometry: "own" leaves masks where their headers say; "image" lays each on the voxels of its image, for masks
            that were drawn on their images but have other headers.
        series: Which series of each examination in DICOM, as in `predict`; by default that with masks.
        channels: The same for each channel; series of other grids are resampled onto the first.
        resample_tilt: Whether DICOM slices of a tilted gantry are resampled to a straight grid.
        workspace: Folder that holds raw/, preprocessed/ and results/; by default $AUTOSEG_WORKSPACE, else the current
            folder.
        reporter: Shows progress, and is told what is left out.

    Returns:
        The dataset in the workspace; its `problems` are cases whose files are incomplete.

    Raises:
        UsageError: The kind of the source is not known, the number is taken, the name is impossible, or the source is
            to be linked and is in DICOM, or has to be changed.
        DatasetError: The source contradicts itself, no image has a mask, or the masks are no label maps.
        ImageError: A file cannot be read.
        ArtifactError: The workspace cannot be written.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("source/Dataset001_Demo", cases=2)
        >>> dataset = autoseg.import_dataset(made.folder, 1, workspace="work")
        >>> dataset.name, [case.name for case in dataset.cases]
        ('Dataset001_Demo', ['demo_001', 'demo_002'])
    """
    images = as_path(source, "source")
    choice = SeriesChoice(series=series, channels=tuple(channels), resample_tilt=resample_tilt)
    with unpacked(images) as opened:
        return import_source(
            opened if labels is None else (opened, as_path(labels, "labels")),
            workspace=find_workspace(workspace),
            number=number,
            name=name,
            link=link,
            geometry=geometry,
            choice=choice,
            reporter=reporter,
        )


def straighten(source: FilePath, output: FilePath, *, masks: bool = False, reporter: Reporter = SILENT) -> list[Path]:
    """Copies images and masks to grids whose axes are at right angles, as CT with a tilted gantry needs it.

    Slices stay in their planes, and their rows in their lines; only where each slice begins changes, so that nothing is
    interpolated across slices. The new grid has the distance between slices that is measured across them, and reaches
    as far as the old one. Images are interpolated linearly and have outside the smallest value of their channel; in
    masks each voxel takes the label of the nearest voxel, and 0 outside. An image and its mask get the same grid.
    Files that are straight, or no images, are copied as they are.

    Args:
        source: An image, a folder, or a raw dataset. Files in folders such as labelsTr, labels, masks or segmentations
            are masks, and so are those whose names end in _mask, _seg or _label.
        output: Folder for the copies, which must not exist; for one image also the file.
        masks: Whether all files are masks, whatever their names.
        reporter: Shows progress, and is told which files were taken for images and which for masks.

    Returns:
        The files that were resampled.

    Raises:
        UsageError: There are no images, or the folder for the copies exists or lies in the source.
        ImageError: A file cannot be read.
        ProblemsError: Several files cannot be read, with a line for each.
        ArtifactError: The copies cannot be written.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("source/Dataset001_Demo", cases=2)
        >>> autoseg.straighten(made.folder, "straight")  # all were straight: the copies are as they were
        []
    """
    files = straighten_files(as_path(source, "source"), as_path(output, "output"), masks=masks, reporter=reporter)
    return [file.path for file in files if file.kind is not None]


def check(
    number: int,
    *,
    skip: Sequence[str] = (),
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> list[Problem]:
    """Reads every case of a dataset and lists all that is wrong; one bad case never hides another.

    Args:
        number: Number of the dataset: 4 for "Dataset004_Hippocampus".
        skip: Names of cases to leave out.
        workspace: See `import_dataset`.
        reporter: Shows progress, and is told what is odd but no reason to stop.

    Returns:
        The problems: of missing files, then of each case, then of the dataset as a whole. Empty if all is well.

    Raises:
        DatasetError: There is no such dataset, its dataset.json is wrong, or there is no such case to skip.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("work/raw/Dataset001_Demo", cases=2)
        >>> autoseg.check(1, workspace="work")
        []
    """
    dataset = Dataset.open(find_workspace(workspace).dataset(number).raw).without(skip)
    return _check(dataset, dataset.name, reporter)


def check_files(source: FilePath, *, labels: FilePath | None = None, reporter: Reporter = SILENT) -> list[Problem]:
    """Checks images and masks before they are imported, as `check` does afterwards; nothing is kept.

    Args:
        source: A folder as `import_dataset` takes it, not of DICOM files, which `check_dicom` checks.
        labels: Folder of masks, if `source` holds images only.
        reporter: Shows progress, and is told what an import would bring and leave out, and what is odd.

    Returns:
        The problems; see `check`.

    Raises:
        AutosegError: The files could not be imported; see `import_dataset`.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("source/Dataset001_Demo", cases=2)
        >>> autoseg.check_files(made.folder)
        []
    """
    images = as_path(source, "source")
    paths = images if labels is None else (images, as_path(labels, "labels"))
    with TemporaryDirectory() as folder:
        dataset = describe_source(paths, Path(folder) / "dataset", reporter)
        return _check(dataset, str(source), reporter)


def _check(dataset: Dataset, name: str, reporter: Reporter) -> list[Problem]:
    """Returns the problems of a dataset, and says what is odd, or that all is sound."""
    checked = check_dataset(dataset, reporter)
    for remark in checked.remarks:
        reporter.say(f"{name}: {remark}")
    if not checked.problems:
        cases, count = f"{name}: {len(dataset.cases)} cases", len(checked.remarks)
        remarked = f"{cases} without a problem, and {count} remark{'s' * (count > 1)} to look at, above"
        reporter.say(remarked if checked.remarks else f"{cases}, all sound")
    return list(checked.problems)


def fix(
    number: int,
    copy_number: int | None = None,
    *,
    workspace: FilePath | None = None,
    reporter: Reporter = SILENT,
) -> tuple[Dataset, list[Fix]] | None:
    """Writes a copy of a dataset in which is mended what needs no judgement; the dataset itself stays as it is.

    Mended are: channels and label maps whose headers differ from that of their image by less than half a voxel
    everywhere; the letters and endings of file names, and files of other formats; label maps with a palette, with equal
    channels or saved as floats; masks of 0 and 255 in a dataset of one label; `dataset.json` in other encodings, with
    comments, with a list of files, or with a wrong number of cases. All else is left to you, and `check` names it.

    Args:
        number: Number of the dataset.
        copy_number: Number of the copy, 1 to 999; it must be free. By default the next free one.
        workspace: See `import_dataset`.
        reporter: Shows progress.

    Returns:
        The copy, and what was mended, which its fixes.csv lists too. None if there was nothing to mend, and no copy is
        made.

    Raises:
        DatasetError: There is no such dataset, or its dataset.json is wrong.
        UsageError: The number of the copy is taken.
        ArtifactError: The copy cannot be written.

    Example:
        >>> import autoseg
        >>> made = autoseg.make_demo_dataset("work/raw/Dataset001_Demo", cases=2)
        >>> autoseg.fix(1, workspace="work")  # nothing to mend
    """
    place = find_workspace(workspace)
    folder = place.dataset(number).raw
    if copy_number is None:
        copy_number = next((free for free in range(number + 1, 1000) if not place.names(free)), number)
    if taken := place.names(copy_number):
        raise UsageError(f"{place.raw} already holds {taken[0]}", "choose another number with --as")
    target = place.raw / dataset_folder_name(copy_number, folder.name.partition("_")[2])
    fixes = mend_dataset(folder, target, reporter)
    return (Dataset.open(target), fixes) if fixes else None
