"""Preprocessing of one case, and its inverse."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from small_models import small_configuration

from autoseg.errors import ArtifactError, ImageError
from autoseg.imaging.geometry import Box, Geometry, Shape, Vector, Volume
from autoseg.planning.plan import Configuration
from autoseg.preprocessing.case import (
    PreprocessRecord,
    preprocess_case,
    preprocess_segmentation,
    restore_case,
    restore_masks,
)

CLASSES = 4
AXIS_ORDERS = [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
sizes = st.integers(1, 11)


def configuration(spacing_mm: tuple[float, ...]) -> Configuration:
    """A configuration with this spacing."""
    return small_configuration(len(spacing_mm)).model_copy(update={"spacing_mm": spacing_mm})


def oblique_geometry(shape: Shape, spacing_mm: Vector) -> Geometry:
    """A grid that is turned about all axes."""
    matrix = Rotation.from_euler("xyz", [10, -25, 40], degrees=True).as_matrix()
    return Geometry(
        shape=shape,
        spacing_mm=spacing_mm,
        origin_mm=(-12.5, 40.0, 3.25),
        direction=tuple(tuple(map(float, row)) for row in matrix),  # type: ignore[arg-type]
    )


def make_case(geometry: Geometry, seed: int = 0, *, empty: bool = False) -> tuple[Volume, Volume]:
    """An image with a border of zeros, and labels from 0 to 3 where it is not zero."""
    random = np.random.default_rng(seed)
    starts = [int(random.integers(0, size)) for size in geometry.shape]
    inside = np.zeros(geometry.shape, dtype=np.bool_)
    inside[tuple(slice(start, None) for start in starts)] = True
    image = (random.uniform(1, 9, geometry.shape) * inside).astype(np.float32)[np.newaxis]
    label = np.zeros(geometry.shape) if empty else random.integers(0, CLASSES, geometry.shape) * inside
    return Volume(array=image, geometry=geometry), Volume(array=label.astype(np.int32), geometry=geometry)


def one_hot(label: NDArray[np.integer]) -> NDArray[np.float32]:
    """Logits of a network that is sure of the label map; what is outside counts as background."""
    return (np.maximum(label, 0) == np.arange(CLASSES).reshape(-1, 1, 1, 1)).astype(np.float32)


@settings(max_examples=80, deadline=None)
@given(
    shape=st.tuples(sizes, sizes, sizes),
    axis_order=st.sampled_from(AXIS_ORDERS),
    spacing_mm=st.sampled_from([(1.0, 1.0, 1.0), (0.7, 0.7, 5.0), (4.0, 0.5, 0.6)]),
    seed=st.integers(0, 99),
    empty=st.booleans(),
    flat=st.booleans(),
)
def test_restoring_undoes_preprocessing_at_equal_spacing(
    shape: Shape, axis_order: tuple[int, int, int], spacing_mm: Vector, seed: int, empty: bool, flat: bool
) -> None:
    """Labels and geometry come back exactly: any shape, oblique axes, any axis order, 2D or 3D, empty or not."""
    image, label = make_case(oblique_geometry(shape, spacing_mm), seed, empty=empty)
    permuted_mm = tuple(spacing_mm[axis] for axis in axis_order)
    chosen = configuration(permuted_mm[1:] if flat else permuted_mm)
    case = preprocess_case(image, label, axis_order=axis_order, configuration=chosen)
    assert case.label is not None
    assert case.label.shape == case.image.shape[1:] == case.record.shape
    restored = restore_case(one_hot(case.label), case.record)
    assert restored.geometry == image.geometry
    np.testing.assert_array_equal(restored.array, label.array)


@pytest.mark.parametrize("axis_order", AXIS_ORDERS)
@pytest.mark.parametrize("target_mm", [(1.0, 1.0, 1.0), (3.1, 0.45, 0.6), (5.0, 0.6)])
def test_structures_stay_in_place_at_another_spacing(
    axis_order: tuple[int, int, int], target_mm: tuple[float, ...]
) -> None:
    """A ball survives resampling and its inverse but for its surface."""
    geometry = oblique_geometry((24, 37, 31), (1.5, 0.8, 1.1))
    distances = np.linalg.norm((np.indices(geometry.shape).T - (12, 18, 15)) * geometry.spacing_mm, axis=-1).T
    label = Volume(array=(distances < 10).astype(np.int32), geometry=geometry)
    image = Volume(array=(1 + label.array + np.zeros((1, 1, 1, 1))).astype(np.float32), geometry=geometry)
    case = preprocess_case(image, label, axis_order=axis_order, configuration=configuration(target_mm))
    assert case.label is not None
    restored = restore_case(one_hot(case.label), case.record)
    assert restored.geometry == geometry
    overlap = np.sum((restored.array == 1) & (label.array == 1))
    assert 2 * overlap / (restored.array.sum() + label.array.sum()) > 0.9


def test_the_shape_follows_from_the_spacing() -> None:
    """Golden: 20 x 320 x 320 voxels of 3.6 x 0.6125 x 0.6125 mm are 24 x 392 x 392 of 3 x 0.5 x 0.5 mm."""
    geometry = Geometry(shape=(20, 320, 320), spacing_mm=(3.6, 0.6125, 0.6125))
    image = Volume(
        array=np.random.default_rng(0).uniform(1, 2, (1, 20, 320, 320)).astype(np.float32), geometry=geometry
    )
    case = preprocess_case(image, None, axis_order=(0, 1, 2), configuration=configuration((3.0, 0.5, 0.5)))
    assert case.label is None
    assert case.image.shape == (1, 24, 392, 392)
    assert case.image.dtype == np.float32


def test_a_2d_configuration_keeps_the_first_axis() -> None:
    """Slices are neither added nor dropped, whatever their distance."""
    image, label = make_case(Geometry(shape=(5, 9, 12), spacing_mm=(7.0, 1.0, 1.0)))
    image = replace(image, array=np.abs(image.array) + 1)
    case = preprocess_case(image, label, axis_order=(0, 1, 2), configuration=configuration((0.5, 2.0)))
    assert case.record.shape == (5, 18, 6)
    assert case.record.spacing_mm == (7.0, 0.5, 2.0)


def test_a_coarse_target_leaves_one_voxel() -> None:
    """No axis vanishes."""
    image, label = make_case(Geometry(shape=(2, 3, 4), spacing_mm=(1.0, 1.0, 1.0)))
    case = preprocess_case(image, label, axis_order=(0, 1, 2), configuration=configuration((100.0, 100.0, 100.0)))
    assert case.record.shape == (1, 1, 1)
    assert restore_case(one_hot(np.zeros((1, 1, 1), dtype=np.int8)), case.record).array.shape == (2, 3, 4)


def test_background_outside_the_image_is_marked() -> None:
    """-1 only where the image is zero and nothing is labelled; labels there are kept."""
    geometry = Geometry(shape=(1, 4, 6), spacing_mm=(1.0, 1.0, 1.0))
    array = np.zeros((1, 1, 4, 6), dtype=np.float32)
    array[0, 0, :, 2] = [1, 2, 3, 4]
    array[0, 0, 0, 4] = 5
    label = np.zeros((1, 4, 6), dtype=np.int32)
    label[0, 3, 3], label[0, 1, 2] = 2, 1
    case = preprocess_case(
        Volume(array=array, geometry=geometry),
        Volume(array=label, geometry=geometry),
        axis_order=(0, 1, 2),
        configuration=configuration((1.0, 1.0, 1.0)),
    )
    assert case.record.box == Box(start=(0, 0, 2), stop=(1, 4, 5))
    assert case.label is not None
    assert case.label.tolist() == [[[0, -1, 0], [1, -1, -1], [0, -1, -1], [0, 2, -1]]]


@pytest.mark.parametrize(("highest", "dtype"), [(127, np.int8), (128, np.int16)])
def test_labels_take_the_smallest_type(highest: int, dtype: type[np.integer]) -> None:
    """One byte up to 127 labels."""
    image, label = make_case(Geometry(shape=(3, 3, 3), spacing_mm=(1.0, 1.0, 1.0)))
    label.array[-1, -1, -1] = highest
    case = preprocess_case(image, label, axis_order=(0, 1, 2), configuration=configuration((1.0, 1.0, 1.0)))
    assert case.label is not None
    assert case.label.dtype == dtype
    assert case.label.max() == highest


def test_the_inputs_are_left_as_they_are() -> None:
    """Neither direction writes into what it was given, at equal spacing either."""
    image, label = make_case(oblique_geometry((4, 5, 6), (1.0, 1.0, 1.0)))
    before = image.array.copy(), label.array.copy()
    case = preprocess_case(image, label, axis_order=(2, 0, 1), configuration=configuration((1.0, 1.0, 1.0)))
    case.image[...] = 7
    np.testing.assert_array_equal(image.array, before[0])
    np.testing.assert_array_equal(label.array, before[1])


def test_logits_may_be_a_tensor() -> None:
    """The predictor's result goes in as it is, in half precision too."""
    image, label = make_case(oblique_geometry((4, 5, 6), (1.0, 1.0, 1.0)))
    case = preprocess_case(image, label, axis_order=(0, 1, 2), configuration=configuration((0.8, 1.2, 0.9)))
    assert case.label is not None
    logits = one_hot(case.label)
    expected = restore_case(logits, case.record)
    for tensor in (torch.from_numpy(logits), torch.from_numpy(logits).half()):
        np.testing.assert_array_equal(restore_case(tensor, case.record).array, expected.array)


def test_logits_on_another_grid_are_refused() -> None:
    """A mix-up of cases does not go unnoticed."""
    image, _ = make_case(oblique_geometry((4, 5, 6), (1.0, 1.0, 1.0)))
    case = preprocess_case(image, None, axis_order=(0, 1, 2), configuration=configuration((1.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match=r"do not lie on the grid"):
        restore_case(np.zeros((2, 9, 9, 9), dtype=np.float32), case.record)


def test_a_label_map_of_another_shape_is_refused() -> None:
    """The pair must be mended."""
    image, _ = make_case(Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0)))
    _, label = make_case(Geometry(shape=(4, 5, 7), spacing_mm=(1.0, 1.0, 1.0)))
    with pytest.raises(ImageError, match="7 x 5 x 4 voxels"):
        preprocess_case(image, label, axis_order=(0, 1, 2), configuration=configuration((1.0, 1.0, 1.0)))


def test_the_record_survives_the_disk(tmp_path: Path) -> None:
    """Every digit of the geometry comes back."""
    image, _ = make_case(oblique_geometry((4, 5, 6), (0.1, 1 / 3, 2.7)))
    case = preprocess_case(image, None, axis_order=(2, 0, 1), configuration=configuration((1.0, 1.0, 1.0)))
    case.record.save(tmp_path / "case.json")
    assert PreprocessRecord.load(tmp_path / "case.json") == case.record


@pytest.mark.parametrize(
    ("field", "value"), [("axis_order", [0, 0, 1]), ("box", {"start": [0, 0, 0], "stop": [9, 1, 1]})]
)
def test_an_impossible_record_is_refused(tmp_path: Path, field: str, value: object) -> None:
    """A record edited by hand is checked before it is used."""
    image, _ = make_case(Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0)))
    case = preprocess_case(image, None, axis_order=(0, 1, 2), configuration=configuration((1.0, 1.0, 1.0)))
    text = PreprocessRecord.model_construct(**{**case.record.model_dump(), field: value}).model_dump_json(
        warnings=False
    )
    with pytest.raises(ArtifactError, match=field):
        PreprocessRecord.parse(text, source="case.json")


def test_structures_that_overlap_become_a_mask_each() -> None:
    """Where its logit is positive, whatever the others say; nothing outside the box."""
    record = PreprocessRecord(
        geometry=Geometry(shape=(6, 8, 9), spacing_mm=(1.0, 1.0, 1.0)),
        axis_order=(0, 2, 1),
        box=Box(start=(1, 0, 2), stop=(5, 9, 8)),
        shape=(4, 9, 6),
        spacing_mm=(1.0, 1.0, 1.0),
    )
    logits = np.random.default_rng(0).normal(size=(3, *record.shape)).astype(np.float32)
    masks = list(restore_masks(logits, record))
    assert len(masks) == 3
    for values, mask in zip(logits, masks, strict=True):
        expected = np.zeros((6, 8, 9), dtype=np.uint8)
        expected.transpose(record.axis_order)[record.box.slices] = values > 0
        np.testing.assert_array_equal(mask.array, expected)
        assert mask.geometry == record.geometry


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(sizes, sizes, sizes),
    axis_order=st.sampled_from(AXIS_ORDERS),
    orientation=st.sampled_from(["SPL", "IAR", "RSA", "PIL", "LSP", "ALI"]),
    seed=st.integers(0, 9),
)
def test_turned_images_are_preprocessed_as_if_they_had_lain_so(
    shape: Shape, axis_order: tuple[int, int, int], orientation: str, seed: int
) -> None:
    """The network sees the same voxels as of the image turned by hand, and its result lies as the file does."""
    image, label = make_case(oblique_geometry(shape, (1.0, 1.25, 1.5)), seed)
    plan = {"axis_order": axis_order, "configuration": configuration((1.2, 1.0, 1.3))}
    turned = preprocess_case(image, label, orientation=orientation, **plan)
    by_hand = preprocess_case(image.reoriented(orientation), label.reoriented(orientation), **plan)
    np.testing.assert_array_equal(turned.image, by_hand.image)
    np.testing.assert_array_equal(turned.label, by_hand.label)

    logits = np.random.default_rng(seed).normal(size=(CLASSES, *turned.record.shape)).astype(np.float32)
    back, back_by_hand = (restore_case(logits, one.record) for one in (turned, by_hand))
    assert back.geometry == image.geometry
    np.testing.assert_array_equal(back.reoriented(orientation).array, back_by_hand.array)
    for mask, mask_by_hand in zip(*(restore_masks(logits, one.record) for one in (turned, by_hand)), strict=True):
        np.testing.assert_array_equal(mask.reoriented(orientation).array, mask_by_hand.array)
    np.testing.assert_array_equal(
        preprocess_segmentation(back, turned.record), preprocess_segmentation(back_by_hand, by_hand.record)
    )
    assert PreprocessRecord.parse(turned.record.to_json(), "it") == turned.record


def test_planes_and_images_that_lie_right_are_not_turned() -> None:
    """A plane does not know where its axes lead."""
    image, _ = make_case(Geometry(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0)))
    plan = {"axis_order": (0, 1, 2), "configuration": configuration((1.0, 1.0, 1.0))}
    assert preprocess_case(image, None, orientation="SPL", **plan).record.orientation is None
    plane = Volume(array=image.array, geometry=replace(image.geometry, dimensions=2))
    assert preprocess_case(plane, None, orientation="SAR", **plan).record.orientation is None
