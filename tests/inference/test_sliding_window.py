"""Tests of tiles, their weights, and the prediction of whole images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoseg.errors import ModelError
from autoseg.inference.axis_tiling import axis_tiles, gaussian_weights, tile_starts
from autoseg.inference.predictor import FunctionPredictor
from autoseg.inference.sliding_window import predict_volume

CPU = torch.device("cpu")

sizes = st.integers(1, 40)


def random_image(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that follow from the seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@FunctionPredictor
def identity(patches: Tensor) -> Tensor:
    """Every channel is a class."""
    return patches


@pytest.mark.parametrize(
    ("size", "tile", "overlap_step", "expected"),
    [
        (110, 64, 0.5, [0, 23, 46]),
        (100, 64, 0.5, [0, 18, 36]),
        (200, 96, 0.5, [0, 35, 69, 104]),
        (150, 80, 0.5, [0, 35, 70]),
        (65, 64, 0.5, [0, 1]),
        (64, 64, 0.5, [0]),
        (129, 64, 0.5, [0, 22, 43, 65]),
        (300, 128, 0.75, [0, 86, 172]),
        (10, 4, 0.5, [0, 2, 4, 6]),
        (9, 4, 0.5, [0, 2, 3, 5]),
        (3, 1, 0.5, [0, 1, 2]),
    ],
)
def test_tile_starts_of_the_reference(size, tile, overlap_step, expected):
    """Tiles start where those of the reference method start."""
    assert tile_starts(size, tile, overlap_step) == expected


@given(tile=sizes, more=sizes)
@settings(max_examples=60, deadline=None)
def test_tiles_cover_the_axis_and_overlap(tile, more):
    """The first tile is at the start, the last at the end, and neighbours are at most half a tile apart."""
    starts = tile_starts(tile + more, tile)
    steps = np.diff(starts)
    assert (starts[0], starts[-1]) == (0, more)
    assert (steps >= 1).all()
    assert (steps <= max(1, tile / 2) + 0.5).all()  # starts are rounded


def test_axis_without_room_is_refused():
    """Padding is the caller's work."""
    with pytest.raises(ValueError, match="pad it"):
        tile_starts(5, 8)


def test_gaussian_weights_of_the_reference():
    """The map of the reference method is ten times the product of the weights along the axes."""
    line = gaussian_weights(8)
    expected = [0.003355, 0.111090, 1.353353, 6.065307, 10, 6.065307, 1.353353, 0.111090]
    np.testing.assert_allclose(10 * line, expected, rtol=2e-4)
    cube = 10 * line[:, None, None] * line[:, None] * line
    assert cube.argmax() == (4 * 8 + 4) * 8 + 4
    assert cube.max().item() == 10
    assert cube.min().item() == pytest.approx(3.775e-10, rel=1e-3)
    assert cube.sum().item() == pytest.approx(157.4315, rel=1e-5)


@given(tile=sizes, more=sizes)
@settings(max_examples=40, deadline=None)
def test_shares_of_the_tiles_add_up_to_one(tile, more):
    """Every voxel of an axis is divided among its tiles without loss."""
    total = torch.zeros(tile + more)
    for one in axis_tiles(tile + more, tile):
        assert (one.shares > 0).all()
        total[one.region] += torch.from_numpy(one.shares)
    torch.testing.assert_close(total, torch.ones(tile + more))


@given(
    shape=st.tuples(st.integers(1, 2), *[st.integers(1, 14)] * 3),
    patch=st.lists(st.integers(1, 8), min_size=2, max_size=3).map(tuple),
    batch_size=st.integers(1, 5),
)
@settings(max_examples=40, deadline=None)
def test_identity_returns_its_input(shape, patch, batch_size):
    """Tiles put together give the image again, whatever its size, in 2D and 3D."""
    image = random_image(*shape)
    result = predict_volume(image, identity, patch_size=patch, batch_size=batch_size, device=CPU)
    torch.testing.assert_close(result, image, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("patch", [(6, 5, 4), (5, 4)])
def test_batch_size_does_not_change_the_result(patch):
    """A predictor that treats patches one by one gives the same logits in any batch."""

    @FunctionPredictor
    def centred(patches: Tensor) -> Tensor:
        return patches - patches.amax(dim=tuple(range(1, patches.ndim)), keepdim=True)

    results = [
        predict_volume(random_image(1, 9, 8, 7), centred, patch_size=patch, batch_size=batch_size, device=CPU)
        for batch_size in (1, 3, 1000)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_centre_of_a_tile_counts_most():
    """Where tiles disagree, the one whose centre is nearer prevails."""
    numbers = iter(range(3))

    @FunctionPredictor
    def numbered(patches: Tensor) -> Tensor:
        return torch.full_like(patches, next(numbers))

    image = torch.arange(16.0).reshape(1, 1, 1, 16)
    line = predict_volume(image, numbered, patch_size=(1, 1, 8), batch_size=1, device=CPU)[0, 0, 0]
    assert (line[:4] == 0).all()
    assert line[5] < 0.5
    assert line[7] > 0.5
    assert (line[12:] == 2).all()


def test_small_image_is_centred_in_zeros():
    """The padding is zero, half on each side, the odd voxel after the image; it is not part of the result."""
    seen = []

    @FunctionPredictor
    def watch(patches: Tensor) -> Tensor:
        seen.append(patches)
        return patches

    image = torch.ones(1, 2, 3, 5)
    result = predict_volume(image, watch, patch_size=(2, 4, 8), batch_size=2, device=CPU)
    assert torch.equal(result, image)
    expected = torch.zeros(1, 1, 2, 4, 8)
    expected[..., :3, 1:6] = 1
    assert torch.equal(seen[0], expected)


def test_two_values_predict_slices():
    """A 2D patch gives the predictor one slice at a time: what another slice holds is of no account."""

    @FunctionPredictor
    def brightest(patches: Tensor) -> Tensor:
        assert patches.ndim == 4
        return patches.amax(dim=(1, 2, 3), keepdim=True).expand_as(patches)

    image = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 6, 6)
    result = predict_volume(image, brightest, patch_size=(6, 6), batch_size=3, device=CPU)
    torch.testing.assert_close(result, image)


def count_calls(image: Tensor, batch_size: int = 1) -> tuple[int, Tensor, float]:
    """Tiles that the predictor saw, the result, and the progress that was told."""
    seen, shares = [], []

    @FunctionPredictor
    def brighten(patches: Tensor) -> Tensor:
        seen.append(len(patches))
        return torch.cat([patches + patches.amax(dim=(2, 3, 4), keepdim=True), -patches], dim=1)

    options = {"patch_size": (4, 4, 4), "batch_size": batch_size, "device": CPU, "on_progress": shares.append}
    result = predict_volume(image, brighten, **options)
    return sum(seen), result, sum(shares)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiles_without_content_are_predicted_once(batch_size):
    """Air on one side, of another value on the other: the same logits as if every tile were predicted."""
    image = random_image(1, 12, 8, 20)
    image[..., :10], image[..., 14:] = -1.0, 2.0
    calls, result, told = count_calls(image, batch_size)
    tiles, mixed = 5 * 3 * 9, 5 * 3 * 3  # three of nine tiles along the last axis hold noise
    assert calls == mixed + 2 < tiles
    assert result.shape == (2, 12, 8, 20)
    assert told == pytest.approx(1)
    torch.testing.assert_close(result[0, ..., :8], torch.full((12, 8, 8), -2.0))
    torch.testing.assert_close(result[0, ..., 18:], torch.full((12, 8, 2), 4.0))


def test_channels_decide_together_what_has_no_content():
    """A tile that is plain in one channel and not in the other is like no other; order of values matters."""
    image = torch.zeros(2, 4, 4, 12)
    image[0, ..., :4], image[1, ..., :4] = 1.0, 2.0
    image[0, ..., 8:], image[1, ..., 8:] = 2.0, 1.0
    image[1, ..., 4:8] = random_image(4, 4, 4)
    result = predict_volume(image, identity, patch_size=(4, 4, 4), batch_size=1, device=CPU)
    torch.testing.assert_close(result, image)


def test_progress_adds_up_to_one():
    """Each batch reports its share of the work."""
    shares = []
    predict_volume(
        random_image(1, 9, 9, 9),
        identity,
        patch_size=(4, 4, 4),
        batch_size=5,
        device=CPU,
        on_progress=shares.append,
    )
    assert len(shares) == 13  # 4 * 4 * 4 tiles in batches of 5
    assert sum(shares) == pytest.approx(1)


@pytest.mark.parametrize("order", ["read-only", "reversed"])
def test_any_array_is_taken(order):
    """Arrays that torch cannot share are copied."""
    array = random_image(1, 4, 4, 4).numpy()
    if order == "reversed":
        array = array[:, ::-1]
    else:
        array.flags.writeable = False
    result = predict_volume(array, identity, patch_size=(4, 4, 4), batch_size=1, device=CPU)
    np.testing.assert_allclose(result, array, rtol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_refused(value):
    """One bad voxel stops the prediction with a clear line."""

    @FunctionPredictor
    def broken(patches: Tensor) -> Tensor:
        logits = patches.clone()
        logits[0, 0, 0, 0, 0] = value
        return logits

    with pytest.raises(ModelError, match="infinite values or NaN"):
        predict_volume(torch.zeros(1, 4, 4, 4), broken, patch_size=(2, 2, 2), batch_size=2, device=CPU)
