"""Tiles of networks that predict less than they see: images are mirrored beyond their border."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.axis_tiling import aligned_starts, mirrored_tiles
from autoseg.inference.predictor import FunctionPredictor, MirroringPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.inference.tiling import tile_image
from autoseg.networks.patch_sizes import PatchSizes

CPU = torch.device("cpu")


@given(size=st.integers(1, 60), steps=st.integers(1, 6), step=st.sampled_from([1, 2, 8]), rest=st.integers(0, 7))
@settings(max_examples=80, deadline=None)
def test_aligned_tiles_cover_the_axis_at_multiples_of_the_step(size, steps, step, rest):
    """Half of what sticks out is on each side; shares add up to 1."""
    tile = steps * step + rest % step
    starts = aligned_starts(size, tile, step)
    assert starts[0] == 0
    assert all(start % step == 0 for start in starts)
    assert all(0 < auxiliary_outputs <= tile for auxiliary_outputs in np.diff(starts))
    assert size <= starts[-1] + tile < size + max(tile, step) + step
    tiles, inside = mirrored_tiles(size, tile, step, margin=3)
    total = torch.zeros(starts[-1] + tile)
    for one in tiles:
        total[one.region] += torch.from_numpy(one.shares)
    torch.testing.assert_close(total, torch.ones_like(total))
    assert inside.stop - inside.start == size
    assert abs(inside.start - (len(total) - inside.stop)) <= 1


def test_tiles_shorter_than_the_step_leave_no_gap():
    """They cannot keep to it."""
    assert aligned_starts(10, 4, 8) == [0, 2, 4, 6]
    assert aligned_starts(2, 4, 8) == [0]


def test_tiles_of_the_example():
    """Of the module's text."""
    tiles, inside = mirrored_tiles(18, 12, 8, 1)
    assert [one.region.start - inside.start for one in tiles] == [-1, 7]
    first, last = (one.source.start + one.source_order for one in tiles)
    assert first.tolist() == [2, 1, *range(12)]
    assert last.tolist() == [*range(6, 18), 16, 15]


def centre(margin):
    """A predictor whose logits are the middle of what it sees."""
    return FunctionPredictor(lambda patches: patches[(..., *(slice(one, -one or None) for one in margin))])


@given(
    shape=st.tuples(st.integers(1, 2), *[st.integers(1, 14)] * 3),
    tile=st.lists(st.integers(2, 6), min_size=2, max_size=3),
    margin=st.integers(1, 9),
    batch_size=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_identity_returns_its_input(shape, tile, margin, batch_size):
    """Whatever the size of the image, though it be smaller than the tile or the margin; in 2D and 3D."""
    image = torch.randn(*shape)
    patches = PatchSizes(smallest=(2 + 2 * margin,) * len(tile), step=(2,) * len(tile), margin=(margin,) * len(tile))
    result = predict_volume(
        image,
        centre(patches.margin),
        patch_size=tuple(edge + 2 * margin for edge in tile),
        batch_size=batch_size,
        device=CPU,
        patches=patches,
    )
    torch.testing.assert_close(result, image, rtol=1e-5, atol=1e-5)


def test_plain_tiles_are_predicted_once():
    """Tiles that see one value everywhere, and those only: with something in its margin, a tile is its own."""
    seen = []

    @FunctionPredictor
    def watch(patches):
        seen.extend(patches)
        return patches[..., 2:-2]

    image = torch.zeros(1, 1, 1, 32)
    image[..., 9] = 1
    patches = PatchSizes(smallest=(1, 1, 8), step=(1, 1, 4), margin=(0, 0, 2))
    result = predict_volume(image, watch, patch_size=(1, 1, 8), batch_size=1, device=CPU, patches=patches)
    assert torch.equal(result, image)
    assert len(tile_image(image.numpy(), (1, 1, 8), patches).tiles) == 8
    assert len(seen) == 3  # those that hold voxel 9 in their middle or margin, and one for all others


def test_agreement_counts_each_voxel_of_the_image_once():
    """Mirror images of a patch are votes on its centre; the map of disagreement has the size of the image."""
    patches = PatchSizes(smallest=(10, 10, 10), step=(2, 2, 2), margin=(4, 4, 4))

    @FunctionPredictor
    def classes(seen):
        inner = centre((4, 4, 4))(seen)
        return torch.cat([torch.zeros_like(inner), inner], dim=1)

    agreement = EnsembleAgreement(MirroringPredictor(classes, (0, 2)), Targets.of_labels({"one": 1}), with_map=True)
    image = torch.randn(1, 7, 9, 5)
    plain = predict_volume(image, classes, patch_size=(14, 12, 10), batch_size=3, device=CPU, patches=patches)
    asked = predict_volume(image, agreement, patch_size=(14, 12, 10), batch_size=3, device=CPU, patches=patches)
    torch.testing.assert_close(asked, plain)
    found = agreement.result()
    assert found.votes == 4
    assert found.structures["one"] == pytest.approx(1)
    assert found.disagreement.shape == (7, 9, 5)
    assert found.disagreement.max() == 0
