"""One case on the grid of a configuration, and the way back: `preprocess_case` and its inverse `restore_case`.

>>> from autoseg.planning.plan import Configuration
>>> from autoseg.planning.channel_settings import Normalization
>>> geometry = Geometry(shape=(1, 1, 4), spacing_mm=(1.0, 1.0, 1.0))
>>> image = Volume(array=np.array([[[[0, 2, 4, 0]]]], dtype=np.float32), geometry=geometry)
>>> label = Volume(array=np.array([[[0, 2, 1, 0]]]), geometry=geometry)
>>> configuration = Configuration.model_construct(
...     spacing_mm=(1.0, 1.0, 1.0), normalization=(Normalization(scheme="zscore"),)
... )
>>> case = preprocess_case(image, label, axis_order=(0, 1, 2), configuration=configuration)
>>> case.image.tolist(), case.label.tolist(), case.record.box.slices[2]
([[[[-1.0, 1.0]]]], [[[2, 1]]], slice(1, 3, None))
>>> preprocess_segmentation(label, case.record).tolist()
[[[2, 1]]]
>>> logits = np.array([[[[0, 0]]], [[[1, 3]]], [[[2, 1]]]], dtype=np.float32)
>>> restore_case(logits, case.record).array.tolist()
[[[0, 2, 1, 0]]]
>>> [mask.array.tolist() for mask in restore_masks(logits - 1.5, case.record)]
[[[[0, 0, 0, 0]]], [[[0, 0, 1, 0]]], [[[0, 1, 0, 0]]]]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from autoseg.errors import ImageError
from autoseg.imaging.affine_geometry import describe_difference
from autoseg.imaging.cropping import nonzero_region
from autoseg.imaging.geometry import Box, Geometry, Shape, Vector, Volume
from autoseg.imaging.label_encoding import DatasetLabels, StoredLabels, mark_outside
from autoseg.imaging.spatial_words import describe_shape
from autoseg.imaging.targets import Numbers
from autoseg.preprocessing.label_resampling import resample_labels
from autoseg.preprocessing.normalization import find_missing, normalize
from autoseg.preprocessing.output_choice import choose_class, choose_region, resample_and_choose
from autoseg.preprocessing.resampling import IMAGE_ORDER, Order, resample_image
from autoseg.preprocessing.target_grid import check_memory, resampled_shape, target_spacing
from autoseg.runtime.artifact import Artifact

if TYPE_CHECKING:
    import torch

    from autoseg.planning.plan import Configuration

Axis = Annotated[int, Field(ge=0, le=2)]


class PreprocessRecord(Artifact):
    """What was done to a case: exactly what `restore_case` needs to undo it.

    Attributes:
        geometry: Grid of the image file.
        axis_order: Order into which the spatial axes were put; all following attributes are in this order.
        box: The part of the permuted image that cropping kept.
        shape: Voxels (z, y, x) of the preprocessed case.
        spacing_mm: Spacing of the configuration; the true spacing differs slightly because `shape` is rounded.
        orientation: Orientation to which the image was brought first, by `Geometry.reorientation_to`, if it was.
        missing_channels: Channels that the image lacks, which are 0 everywhere; see `find_missing`.
    """

    geometry: Geometry
    axis_order: tuple[Axis, Axis, Axis]
    box: Box
    shape: Shape
    spacing_mm: Vector
    orientation: str | None = None
    missing_channels: tuple[int, ...] = ()

    @property
    def grid(self) -> Geometry:
        """Grid of the whole image, axes in the order of the record; the box is a part of it."""
        turned = self.geometry if self.orientation is None else self.geometry.reoriented(self.orientation)
        return turned.permute(self.axis_order)

    @property
    def box_spacing_mm(self) -> Vector:
        """Spacing of the image file, axes in the order of the record: that of the box before it was resampled."""
        return self.grid.spacing_mm

    def crop(self, array: NDArray[Any]) -> NDArray[Any]:
        """Returns the cropping box of an array on the grid of the image file, axes in the order of the record.

        Args:
            array: Shape (z, y, x).

        Returns:
            A view of the same memory, in the shape of `box`; `uncrop` is the inverse.
        """
        if self.orientation is not None:
            array = self.geometry.reorientation_to(self.orientation).apply(array)
        return array.transpose(self.axis_order)[self.box.slices]

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if sorted(self.axis_order) != [0, 1, 2]:
            raise ValueError("axis_order must hold 0, 1 and 2 once each")
        edges = zip(self.box.start, self.box.stop, self.grid.shape, strict=True)
        if not all(0 <= start < stop <= size for start, stop, size in edges):
            raise ValueError(f"box does not lie inside the image of shape {self.grid.shape}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessedCase:
    """A case on the grid of a configuration.

    Attributes:
        image: Shape (c, z, y, x), float32.
        label: Shape (z, y, x), int8 or int16: `CaseLabels`, or `CascadeCodes` for the labels of a cascade. None if the
            case has no label map.
        record: What `restore_case` needs to undo preprocessing.
    """

    image: NDArray[np.float32]
    label: StoredLabels | None
    record: PreprocessRecord


def preprocess_case(  # noqa: PLR0913 - two of them are mostly left out
    image: Volume,
    label: Volume | None,
    *,
    axis_order: tuple[int, int, int],
    configuration: Configuration,
    device: torch.device | None = None,
    orientation: str | None = None,
    image_order: Order = IMAGE_ORDER,
) -> PreprocessedCase:
    """Reorients and permutes the axes, crops to the nonzero region, normalizes, and resamples.

    Source of the steps and their order: the reference method (nnU-Net v2.8.1, default preprocessor). An image of zeros
    only is not cropped.

    Args:
        image: Shape (c, z, y, x).
        label: `DatasetLabels` of shape (z, y, x) on the same grid, or None.
        axis_order: The axis order of the plan.
        configuration: Says how to normalize, and the spacing; a 2D configuration leaves the first axis as it is.
        device: Where the image is resampled, if its memory suffices; None for the CPU without torch.
        orientation: Orientation to bring the image to before its axes are permuted, such as "SPL"; None to leave it as
            it is. Planes are never reoriented.
        image_order: Order of the splines by which the image is resampled: 3, or 1 for linear.

    Raises:
        ImageError: The image has other channels than the plan, or another shape than the label map, or does not fit
            into memory at the spacing of the configuration.
    """
    if label is not None and label.geometry.shape != image.geometry.shape:
        sizes = f"{describe_shape(label.geometry.shape)}, its image {describe_shape(image.geometry.shape)}"
        raise ImageError(f"the label map has {sizes}", "put both on one grid")
    is_flat = image.geometry.dimensions == 2
    turned = None if is_flat or orientation in (None, image.geometry.orientation) else orientation

    def arrange(volume: Volume) -> Volume:
        return (volume if turned is None else volume.reoriented(turned)).permute(axis_order)

    permuted = arrange(image)
    box, mask = nonzero_region(permuted.array)
    cropped, mask = permuted.crop(box), mask[box.slices]
    spacing_mm = cropped.geometry.spacing_mm
    target_mm = target_spacing(configuration.spacing_mm, spacing_mm)
    shape = resampled_shape(box.shape, spacing_mm, target_mm)
    check_memory(sum(channel.channels for channel in configuration.normalization), shape, target_mm, axis_order)
    missing = find_missing(cropped.array, configuration.normalization)
    normalized = normalize(cropped.array, configuration.normalization, mask, missing)
    resampled_label = None
    if label is not None:
        marked = mark_outside(DatasetLabels(arrange(label).crop(box).array), mask)
        resampled_label = resample_labels(marked, spacing_mm, shape, target_mm)
    return PreprocessedCase(
        image=_resample(normalized, (spacing_mm, shape, target_mm), image_order, device),
        label=resampled_label,
        record=PreprocessRecord(
            geometry=image.geometry,
            axis_order=axis_order,
            box=box,
            shape=shape,
            spacing_mm=target_mm,
            orientation=turned,
            missing_channels=missing,
        ),
    )


def preprocess_segmentation(label: Volume, record: PreprocessRecord) -> DatasetLabels:
    """Brings a segmentation on the grid of the image file to the grid of its preprocessed case.

    Args:
        label: Label map (z, y, x) on the grid of the image file.
        record: The record of the case.

    Returns:
        A label map of shape `record.shape`, without `OUTSIDE`.

    Raises:
        ImageError: The segmentation lies on another grid than its image.
    """
    difference = describe_difference(record.geometry, label.geometry)
    if difference is not None:
        raise ImageError(f"the segmentation lies on another grid than its image: {difference}", "predict again")
    in_box = DatasetLabels(record.crop(label.array))
    return resample_labels(in_box, record.box_spacing_mm, record.shape, record.spacing_mm)


def _resample(
    image: NDArray[np.float32], grids: tuple[Vector, Shape, Vector], order: Order, device: torch.device | None
) -> NDArray[np.float32]:
    if device is not None:
        from autoseg.preprocessing import device_resampling  # noqa: PLC0415 - it needs torch

        if (resampled := device_resampling.resample_image_if_it_fits(device, image, *grids, order)) is not None:
            return resampled
    return resample_image(image, *grids, order)


def restore_case(
    logits: NDArray[np.floating] | torch.Tensor, record: PreprocessRecord, region_class_order: Numbers = ()
) -> Volume:
    """Brings the logits of a preprocessed case back to the grid of its image file, as a label map.

    Args:
        logits: Shape (outputs, *record.shape), of 16 or 32 bit: of classes that exclude each other, or of regions. A
            tensor on a GPU is resampled there.
        record: The record of the case.
        region_class_order: For regions: the number that each writes into the label map; see `Targets`.

    Returns:
        Label map (z, y, x), uint8 or int16, with the geometry of the image file; 0 outside the cropping box.

    Raises:
        ValueError: The logits lie on another grid than the preprocessed case.
    """
    winners = _choose_outputs(logits, record, exclusive=not region_class_order)
    if region_class_order:
        numbers = np.array([0, *region_class_order], dtype=np.uint8 if max(region_class_order) < 256 else np.int16)
        return uncrop(numbers.take(winners), record, outside=0)
    return uncrop(winners, record, outside=0)


def restore_masks(logits: NDArray[np.floating] | torch.Tensor, record: PreprocessRecord) -> Iterator[Volume]:
    """Brings the logits of structures that may overlap back to the grid of the image file, as one mask for each.

    Args:
        logits: Shape (structures, *record.shape), of 16 or 32 bit. A tensor on a GPU is resampled there.
        record: The record of the case.

    Yields:
        A mask (z, y, x) per structure, uint8, 0 or 1; each is made when it is asked for.

    Raises:
        ValueError: The logits lie on another grid than the preprocessed case.
    """
    for number in range(len(logits)):
        winners = _choose_outputs(logits[number : number + 1], record, exclusive=False)
        yield uncrop(winners, record, outside=0)


def _choose_outputs(
    logits: NDArray[np.floating] | torch.Tensor, record: PreprocessRecord, *, exclusive: bool
) -> NDArray[np.uint8] | NDArray[np.int16]:
    """Chooses an output at each voxel of the box: of classes the highest, of regions, from 1, the last positive one."""
    _check_grid(logits, record)
    grids = record.spacing_mm, record.box.shape, record.box_spacing_mm
    if not isinstance(logits, np.ndarray) and logits.device.type != "cpu":
        from autoseg.preprocessing import device_resampling  # noqa: PLC0415 - it needs torch

        if (chosen := device_resampling.choose_if_it_fits(logits, *grids, exclusive=exclusive)) is not None:
            return chosen
    return resample_and_choose(logits_as_array(logits, record), choose_class if exclusive else choose_region, *grids)


def logits_as_array(logits: NDArray[np.floating] | torch.Tensor, record: PreprocessRecord) -> NDArray[np.floating]:
    """Returns the logits of a case as an array in the memory of the CPU; ValueError if they lie on another grid."""
    _check_grid(logits, record)
    return logits if isinstance(logits, np.ndarray) else np.asarray(logits.cpu())


def _check_grid(logits: NDArray[np.floating] | torch.Tensor, record: PreprocessRecord) -> None:
    if tuple(logits.shape[1:]) != record.shape:
        raise ValueError(f"logits of shape {tuple(logits.shape)} do not lie on the grid {record.shape} of the case")


def uncrop(inside: NDArray[Any], record: PreprocessRecord, outside: float) -> Volume:
    """Puts the content of the cropping box back on the grid of the image file; the inverse of `PreprocessRecord.crop`.

    Args:
        inside: Shape (z, y, x) of the box, at the spacing of the image file, axes in the order of the record.
        record: The record of the case.
        outside: The value of all voxels outside the box.
    """
    array = np.full(record.geometry.shape, outside, dtype=inside.dtype)
    record.crop(array)[:] = inside
    return Volume(array=array, geometry=record.geometry)
