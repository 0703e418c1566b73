"""The segmentation of one scan, written to a file that the user names."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from autoseg.datasets.dataset import Case
from autoseg.errors import UsageError
from autoseg.imaging.formats import SERIES_ENDINGS, split_ending, writable_ending
from autoseg.imaging.image_files import convert_image, write_series
from autoseg.imaging.image_writing import require_writer
from autoseg.inference.folder import segment_scans
from autoseg.inference.interfaces import ImageSegmenter
from autoseg.runtime.reporting import Reporter
from autoseg.runtime.writable import check_writable


def names_a_file(output: Path) -> bool:
    """Returns whether a path for results is that of an image file; a folder that is there already is a folder.

    Example:
        >>> names_a_file(Path("mask.nii.gz")), names_a_file(Path("masks"))
        (True, False)
    """
    return bool(split_ending(output)[1]) and not output.is_dir()


def segment_into_file(segmenter: ImageSegmenter, scans: Sequence[Case], output: Path, reporter: Reporter) -> list[Path]:
    """Segments one scan into one file, and writes nothing else.

    The points in time of a series become a series of label maps.

    Args:
        segmenter: The model.
        scans: The scan, or the points in time of one series.
        output: Path of the label map; its ending chooses the format.
        reporter: Shows progress, and gets a line if the result deserves a look.

    Returns:
        The path of the file.

    Raises:
        UsageError: There are several scans, the model writes a mask for each structure, the format cannot be written,
            or the file is the scan itself.
        ProblemsError: The scan could not be segmented.
        WriteError: The file cannot be written.
    """
    check_single_file(segmenter, scans, output)
    with TemporaryDirectory() as folder:
        if scans[0].time_point is not None:
            points = segment_scans(segmenter, scans, Path(folder), {}, reporter)
            write_series(output, points, scans[0].images[0])
            return [output]
        [result] = segment_scans(segmenter, [replace(scans[0], name="result")], Path(folder), {}, reporter)
        convert_image(result, (output,))
    return [output]


def check_single_file(segmenter: ImageSegmenter, scans: Sequence[Case], output: Path) -> None:
    """Finds out before the work whether one file can hold the results; for the errors see `segment_into_file`."""
    ending = split_ending(output)[1]
    if len({scan.images for scan in scans}) != 1:
        raise UsageError(f"{output} is one file, and there are {len(scans)} scans", "give a folder with -o")
    if segmenter.info.targets.as_masks:
        what = f"{output} is one file, and the model writes a mask for each structure, since they may overlap"
        raise UsageError(what, "give a folder with -o")
    if writable_ending(ending) != ending:
        raise UsageError(f"results cannot be written as {ending}", f"choose {writable_ending(ending)}")
    if scans[0].time_point is not None and ending.lower() not in SERIES_ENDINGS:
        raise UsageError(f"{ending} holds no series over time", "choose .nii.gz, .nrrd or .mha, or give a folder")
    if output.resolve() in {image.resolve() for image in scans[0].images}:
        raise UsageError(f"{output} is the scan itself", "give another file with -o")
    require_writer(ending)
    check_writable(output.parent)
