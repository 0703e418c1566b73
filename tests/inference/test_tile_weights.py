"""Tests of the weights of tiles on the device that adds them up."""

import numpy as np
import torch

from autoseg.inference.tile_weights import TileWeights
from autoseg.inference.tiling import tile_image
from autoseg.runtime import torch_arrays

META = torch.device("meta")


def test_weights_are_those_of_the_tiles_and_nothing_outside_the_image():
    """A padded image: what is outside weighs nothing, what is inside what it weighs anyway."""
    tiled = tile_image(np.zeros((1, 9, 3, 8)), (4, 4, 4))
    weights = TileWeights(torch.device("cpu"))
    for tile in tiled.tiles:
        assert torch.equal(weights(tile), torch.from_numpy(tile.shares))
        inside = weights.inside(tile, tiled.inside)
        _, part = tile.clip(tiled.inside)
        assert torch.equal(inside[part], torch.from_numpy(tile.shares[part]))
        assert inside.count_nonzero() == inside[part].numel() < inside.numel()


def test_each_place_along_an_axis_is_copied_once(monkeypatch):
    """27 tiles of a cube of three places along each axis need nine copies of the weights along an axis."""
    copied = []
    monkeypatch.setattr(
        torch_arrays, "copy_to", lambda tensor, device: copied.append(tensor.shape) or tensor.to(device)
    )
    tiled = tile_image(np.zeros((1, 8, 8, 8)), (4, 4, 4))
    weights = TileWeights(META)
    volumes = [weights(tile) for tile in tiled.tiles for _ in range(2)]
    assert len(tiled.tiles) == 27
    assert copied == [(4,)] * 9
    assert {(volume.shape, volume.device) for volume in volumes} == {((4, 4, 4), META)}
