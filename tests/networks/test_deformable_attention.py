"""Deformable attention, compared with a slow implementation of it; and positional encodings."""

from itertools import product
from math import cos, floor, pi, sin

import pytest
import torch

from autoseg.networks.attention import deformable_attention, positional_encoding
from autoseg.networks.feature_map import FeatureMap
from autoseg.networks.shape_ops import ShapeOps
from autoseg.networks.torch_layers import initialize_weights, make_layer

SIZES = {2: [(4, 6), (2, 3)], 3: [(2, 4, 6), (1, 2, 3)]}
EVERY = [2, 3]
CPU = torch.device("cpu")
HEADS, POINTS, WIDTH, SAMPLES = 2, 3, 2, 2


def noise(*shape, seed=0):
    """Returns normal random numbers in 64 bits."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def parts_of(dimensions, spread=1.5):
    """Returns values, sampling offsets and attention weights before the softmax, for two maps."""
    sizes = SIZES[dimensions]
    line = sum(torch.Size(size).numel() for size in sizes)
    values = [noise(SAMPLES, HEADS * WIDTH, *size, seed=number) for number, size in enumerate(sizes)]
    looks = HEADS * len(sizes) * POINTS
    return values, spread * noise(SAMPLES, looks * dimensions, line, seed=5), noise(SAMPLES, looks, line, seed=6)


def value_at(one, place):
    """Returns the value of a map (*size) at a position in voxels: linearly interpolated, 0 beyond the border."""
    total = 0.0
    for corner in product((0, 1), repeat=one.ndim):
        index = [floor(x) + step for x, step in zip(place, corner, strict=True)]
        if all(0 <= number < length for number, length in zip(index, one.shape, strict=True)):
            share = 1.0
            for x, number in zip(place, index, strict=True):
                share *= 1 - abs(x - number)
            total += share * one[tuple(index)].item()
    return total


def sample_slowly(values, offsets, weights):
    """Calculates deformable attention by loops, as the docstring of `Ops` defines it."""
    axes, sizes = values[0].ndim - 2, [one.shape[2:] for one in values]
    result = torch.zeros(SAMPLES, HEADS * WIDTH, weights.shape[2], dtype=torch.float64)
    voxels = [(size, index) for size in sizes for index in product(*map(range, size))]
    for n, head, (place, (size, index)) in product(range(SAMPLES), range(HEADS), enumerate(voxels)):
        looks = len(values) * POINTS
        shares = weights[n, head * looks : (head + 1) * looks, place].softmax(dim=0)
        for number, point in product(range(len(values)), range(POINTS)):
            first = ((head * len(values) + number) * POINTS + point) * axes
            moved = offsets[n, first : first + axes, place].flip(0)  # now the first axis first
            target = sizes[number]
            found = [(i + 0.5) / a * b - 0.5 for i, a, b in zip(index, size, target, strict=True)]
            found = [x + shift.item() for x, shift in zip(found, moved, strict=True)]
            for feature in range(head * WIDTH, (head + 1) * WIDTH):
                value = value_at(values[number][n, feature], found)
                result[n, feature, place] += shares[number * POINTS + point] * value
    return result


@pytest.mark.parametrize("dimensions", EVERY)
def test_sampling_is_what_it_is_said_to_be(dimensions):
    """The results are equal for any offsets, weights, heads and maps, beyond the border too."""
    values, offsets, weights = parts_of(dimensions)
    torch.testing.assert_close(
        deformable_attention(values, offsets, weights, HEADS), sample_slowly(values, offsets, weights)
    )


@pytest.mark.parametrize("dimensions", EVERY)
def test_at_its_own_place_each_voxel_gets_the_mean_of_all_maps(dimensions):
    """Without offsets, all sampling points are the voxel itself and have equal weights."""
    size = SIZES[dimensions][0]
    values = [noise(SAMPLES, HEADS * WIDTH, *size, seed=number) for number in range(3)]
    looks, line = HEADS * 3 * POINTS, 3 * values[0][0, 0].numel()
    zeros = torch.zeros(SAMPLES, looks * dimensions, line), torch.zeros(SAMPLES, looks, line)
    mean = torch.stack(values).mean(dim=0).flatten(2)
    torch.testing.assert_close(deformable_attention(values, *zeros, HEADS), torch.cat([mean] * 3, dim=2))


@pytest.mark.parametrize(("dimensions", "axis"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("step", [1, -2])
def test_offsets_count_voxels_of_the_map(dimensions, axis, step):
    """Offsets have the last axis first; beyond the border the value is 0."""
    values = noise(1, 1, *SIZES[dimensions][0])
    offsets = torch.zeros(1, dimensions, values.numel())
    offsets[:, dimensions - 1 - axis] = step
    found = deformable_attention([values], offsets, torch.zeros(1, 1, values.numel()), 1).view_as(values)
    expected, length = torch.zeros_like(values), values.shape[2 + axis]
    if abs(step) < length:
        kept = slice(max(0, -step), min(length, length - step))
        expected.movedim(2 + axis, 0)[kept] = values.roll(-step, 2 + axis).movedim(2 + axis, 0)[kept]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dimensions", EVERY)
def test_values_offsets_and_weights_have_gradients(dimensions):
    """Gradients agree with finite differences, at points off the voxels, where the interpolation has a kink."""
    values, offsets, weights = parts_of(dimensions)
    given = [one[:1].clone().requires_grad_() for one in (*values, offsets, weights)]
    assert torch.autograd.gradcheck(lambda *x: deformable_attention(x[:2], *x[2:], HEADS), given, fast_mode=True)


def test_places_are_exact_in_16_bits():
    """Positions along 300 voxels exceed the precision of bfloat16; only the sampled values are rounded."""
    values = noise(1, 2, 300, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = deformable_attention([values], torch.zeros(1, 2, 900).bfloat16(), torch.zeros(1, 1, 900).bfloat16(), 1)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, values.flatten(2), rtol=0.01, atol=1e-3)


def fresh_layers(dimensions, heads, points=4):
    """Returns the initial layers of `deformable_attention` by their last name."""
    shape_ops = ShapeOps(dimensions)
    maps = [FeatureMap(6 * heads, (4,) * dimensions), FeatureMap(6 * heads, (2,) * dimensions)]
    shape_ops.deformable_attention(shape_ops.flatten_maps(maps), maps, heads, points, "look")
    made = {name.split(".")[1]: (make_layer(layer), layer) for name, layer in shape_ops.layers.items()}
    for module, layer in made.values():
        initialize_weights(module, layer)
    return {name: module for name, (module, _) in made.items()}


def test_fresh_heads_look_both_ways_along_each_axis():
    """Two heads per axis point both ways, 1 to 4 voxels far, in both maps; all points have equal weights."""
    layers = fresh_layers(3, heads=6)
    line = noise(2, 36, 72).float()
    assert layers["weights"](line).abs().max() == 0
    offsets = layers["offsets"](line)
    assert torch.equal(offsets, offsets[:1, :, :1].expand_as(offsets))
    rays = offsets[0, :, 0].view(6, 2, 4, 3)  # heads, maps, points, axes
    for head, direction in enumerate([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]):
        expected = torch.tensor([1.0, 2, 3, 4])[:, None] * torch.tensor(direction, dtype=torch.float32)
        assert torch.equal(rays[head], expected.expand(2, -1, -1))


def test_fresh_heads_in_planes_look_around():
    """Eight heads point to the sides and corners of squares that are 1 to 4 voxels away."""
    rays = fresh_layers(2, heads=8)["offsets"].bias.view(8, 2, 4, 2)
    around = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    for point in range(4):
        expected = (point + 1) * torch.tensor(around, dtype=torch.float32)
        torch.testing.assert_close(rays[:, 1, point], expected)


def test_waves_tell_places_apart():
    """Encodings follow the formula of DETR: 128 features per axis, sines and cosines in turn, growing wavelengths."""
    size = (3, 4, 5)
    found = positional_encoding(384, size, CPU)
    assert found.shape == (384, *size)
    for axis, feature, index in [(0, 0, 0), (0, 1, 2), (1, 2, 3), (1, 63, 1), (2, 127, 4), (2, 126, 0)]:
        angle = 2 * pi * (index + 0.5) / size[axis] / 10_000 ** (2 * (feature // 2) / 128)
        expected = (sin, cos)[feature % 2](angle)
        along = found[128 * axis + feature].movedim(axis, 0)[index]
        torch.testing.assert_close(along, torch.full_like(along, expected))
    assert len(found.flatten(1).T.unique(dim=0)) == 60
    assert positional_encoding(384, (8, 8), CPU).shape == (384, 8, 8)
    assert positional_encoding(10, (2, 2, 2), CPU)[6:].abs().max() == 0  # two for each axis, and what remains
