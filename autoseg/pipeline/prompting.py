"""First masks: a scan and prompts become a mask, by the user's own weights of Segment Anything or MedSAM."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoseg.datasets.info import BACKGROUND, DatasetInfo
from autoseg.dicom.detection import holds_dicom
from autoseg.dicom.selection import SeriesChoice
from autoseg.errors import ImageError, UsageError
from autoseg.imaging.formats import PLANE_ENDINGS, split_ending, writable_ending
from autoseg.imaging.geometry import Geometry, Volume
from autoseg.runtime.paths import as_path
from autoseg.runtime.reporting import SILENT, Reporter
from autoseg.runtime.writable import check_writable

HIGHEST_LABEL = 65535


def prompt(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str],
    boxes: Sequence[Sequence[float]] = (),
    points: Sequence[Sequence[float]] = (),
    background_points: Sequence[Sequence[float]] = (),
    unit: str = "voxels",
    propagate: bool = False,
    slices: tuple[int, int] | None = None,
    plane: str | None = None,
    preparation: str = "auto",
    window: tuple[float, float] | None = None,
    channel: int | None = None,
    label: int = 1,
    add: bool = False,
    series: str | None = None,
    device: str = "auto",
    reporter: Reporter = SILENT,
) -> Path:
    """Segments what is prompted in a scan, slice by slice, by weights of your own.

    The weights are a checkpoint of Segment Anything, of MedSAM, or of a network of the same architecture in any size.
    They are read as tensors and plain values: nothing in the file is run.

    Each box is a structure; all points together are one, and so are a single box and points. What they cover becomes
    one mask. Look at it before you train on it: where a structure ends, propagation often goes on.

    Args:
        source: The scan: an image file, or DICOM files as for `predict`.
        output: File of the mask, on the grid of the scan; its ending chooses the format.
        weights: File of the weights.
        boxes: Boxes, each by two opposite corners (z, y, x, z, y, x), or (y, x, y, x) for a picture. In voxels, both
            corners belong to the box, and the first voxel of an axis is 0.
        points: Points (z, y, x), or (y, x), in the structure.
        background_points: Points beside it, on slices with a box or with a point in it.
        unit: What coordinates are: "voxels", or "mm" in the frame of `imaging.geometry`: superior, posterior, left.
        propagate: Whether slices without prompts are segmented too, each by a box around the mask of the one before: a
            box prompts its middle slice, and the others of the box follow, or the whole volume if it has one slice.
            Without it, a box prompts each of its slices.
        slices: First and last voxel, along the axis that slices lie across, that are segmented.
        plane: The slices: "axial", "coronal" or "sagittal"; by default as the scan was probably taken: across the axis
            along which voxels lie farthest apart.
        preparation: How slices are prepared: "sam" or "medsam", as the network of the weights learned; "auto" says
            "medsam" if the file of the weights is called so.
        window: Intensities that become black and white, such as (-160, 240) for CT of the abdomen; by default the 0.5th
            and 99.5th percentile of all that are not 0.
        channel: Which channel of several, from 0.
        label: Number of the structure in the mask.
        add: Whether `output`, if it is there, keeps its labels, and the structure gets voxels of its background alone.
        series: Which series of DICOM files, if several could be meant.
        device: "auto", "cpu", "cuda" or "mps".
        reporter: Shows progress, and is told how slices are prepared and how much was found.

    Returns:
        The path of the mask.

    Raises:
        UsageError: There is no prompt, or one that is outside of the scan or otherwise cannot be meant; or an option
            does not fit the scan.
        ModelError: The weights are missing, damaged, hold more than tensors, or are of another network.
        ImageError: The scan, or the mask that is added to, cannot be read, or the mask cannot be written.

    Example:
        A box around a structure, from slice 20 to 31, that its outline follows::

            box = (20, 90, 40, 31, 140, 95)
            autoseg.prompt("scan.nii.gz", "mask.nii.gz", weights="medsam_vit_b.pth", boxes=[box], propagate=True)
    """
    from autoseg.prompting.pictures import choose_preparation, scale_intensities
    from autoseg.prompting.planes import slice_grid
    from autoseg.prompting.prompts import parse_unit, place_box, place_point
    from autoseg.prompting.segmenter import load_network
    from autoseg.prompting.structures import arrange_structures
    from autoseg.prompting.volume import segment_volume
    from autoseg.runtime.device import resolve_device

    source, output, weights = as_path(source, "source"), as_path(output, "output"), as_path(weights, "weights")
    prepared_as, known_unit, chosen = choose_preparation(preparation, weights), parse_unit(unit), resolve_device(device)
    _check_output(output, source, label)
    scan = _read_scan(source, series)
    before = _read_before(output, scan) if add else None
    geometry = scan.geometry
    if geometry.dimensions == 3 and split_ending(output)[1].lower() in PLANE_ENDINGS:
        raise UsageError(f"{output} cannot hold a volume", "choose .nii.gz")
    grid = slice_grid(geometry, plane)
    structures = arrange_structures(
        [place_box(corners, geometry, known_unit) for corners in boxes],
        [
            place_point(position, geometry, known_unit, is_foreground=inside)
            for positions, inside in ((points, True), (background_points, False))
            for position in positions
        ],
        grid,
        propagate=propagate,
        limits=slices,
    )
    intensities = scale_intensities(scan, channel, window)
    network = load_network(weights, chosen)
    mask = segment_volume(network, prepared_as, intensities, grid, structures, reporter)
    return _write(output, mask, before, label, geometry, reporter)


def _check_output(output: Path, source: Path, label: int) -> None:
    """Finds out before the work whether a mask can be written."""
    ending = split_ending(output)[1]
    if not ending or output.is_dir():
        raise UsageError(f"{output} is no file of an image format", "name a file for the mask, such as mask.nii.gz")
    if writable_ending(ending) != ending:
        raise UsageError(f"masks cannot be written as {ending}", f"choose {writable_ending(ending)}")
    if output.resolve() == source.resolve():
        raise UsageError(f"{output} is the scan itself", "give another file for the mask")
    if not 0 < label <= HIGHEST_LABEL:
        raise UsageError(f"{label} cannot be the number of a structure", f"choose from 1 to {HIGHEST_LABEL}")
    check_writable(output.parent)


def _read_scan(source: Path, series: str | None) -> Volume:
    from autoseg.datasets.scan_images import read_examination
    from autoseg.imaging.image_files import read_image

    if not source.exists():
        raise ImageError(f"{source} does not exist", "give the file of a scan")
    if holds_dicom(source):
        info = DatasetInfo(channel_names={"0": "scan"}, labels={BACKGROUND: 0, "mask": 1}, file_ending=".nii.gz")
        return read_examination(source, info, SeriesChoice(series=series))
    if series is not None:
        raise UsageError(f"{source} holds no DICOM series", "leave --series out")
    return read_image((source,))


def _read_before(output: Path, scan: Volume) -> Volume | None:
    """Returns the mask that is added to; None if there is none."""
    from autoseg.imaging.affine_geometry import describe_difference
    from autoseg.imaging.image_files import read_label_map

    if not output.is_file():
        return None
    before = read_label_map(output)
    if (difference := describe_difference(scan.geometry, before.geometry)) is not None:
        raise UsageError(f"{output} is no mask of this scan: {difference}", "give another file, or do not add to it")
    return before


def _write(
    output: Path, found: NDArray[np.bool_], before: Volume | None, label: int, geometry: Geometry, reporter: Reporter
) -> Path:
    from autoseg.imaging.image_files import write_label_map

    array = np.zeros(found.shape, np.int32) if before is None else before.array.copy()
    new = found & (array == 0)
    array[new] = label
    write_label_map(output, Volume(array=array, geometry=geometry))
    count, taken = int(new.sum()), int((found & ~new).sum())
    kept = f"; {taken} more have a label already, and keep it" if taken else ""
    reporter.say(f"{count} voxels are labelled {label}{kept}" if count or taken else "nothing was found there")
    return output
