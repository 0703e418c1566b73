"""Window attention, compared with a plain implementation that handles one pair of voxels after the other."""

import copy
import itertools
from math import ceil

import numpy as np
import pytest
import torch
from torch import nn

from autoseg.networks import windows
from autoseg.networks.attention import window_attention
from autoseg.networks.ops import Window

CASES = [
    ((5,), (9,), False),  # size, edges of windows, shifted; all clipped
    ((8,), (4,), False),
    ((8,), (4,), True),
    ((10,), (4,), True),  # padded
    ((4, 6), (2, 3), False),
    ((4, 6), (2, 3), True),
    ((5, 7), (3, 3), True),
    ((7, 7), (7, 7), True),  # one window: nothing to shift
    ((3, 9), (4, 4), True),  # clipped along one axis, padded along the other
    ((4, 4, 4), (2, 2, 2), True),
    ((5, 3, 4), (2, 4, 3), True),
    ((2, 5, 5), (4, 2, 5), False),
]
"""Windows of various sizes along each axis, in one, two and three dimensions."""


def draw(size, features=6, samples=2, seed=0, dtype=torch.float64):
    """Returns random queries, keys and values."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(samples, features, *size, generator=generator, dtype=dtype) for _ in range(3)]


def table_of(edges, heads, seed=7, dtype=torch.float64):
    """Returns a random bias for each offset in a window and each head."""
    rows = int(np.prod([2 * edge - 1 for edge in edges]))
    return torch.randn(rows, heads, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def find_window(place, size, edges, shifted):
    """Returns the window of a voxel: its number along each axis, and whether a shift wrapped it around."""
    found = []
    for at, length, edge in zip(place, size, map(min, edges, size), strict=True):
        shift = edge // 2 if shifted and edge < length else 0
        count = ceil(length / edge)
        found.append(("cut off",) if at < shift else (at - shift) // edge % count)
    return tuple(found)


def find_row(place, other, edges):
    """Returns the row of the table for two voxels; offsets run from -(edge - 1) to edge - 1, the last axis fastest."""
    offsets = [at - seen for at, seen in zip(place, other, strict=True)]
    counts = [2 * edge - 1 for edge in edges]
    return int(np.ravel_multi_index([one + edge - 1 for one, edge in zip(offsets, edges, strict=True)], counts))


def attend_plainly(query, key, value, heads, edges=None, *, shifted=False, table=None):
    """Calculates the attention of each voxel and head separately."""
    size, width = query.shape[2:], query.shape[1] // heads
    places = list(itertools.product(*map(range, size)))
    result = torch.zeros_like(value)
    for sample, head, place in itertools.product(range(len(query)), range(heads), places):
        part = slice(head * width, (head + 1) * width)
        own = None if edges is None else find_window(place, size, edges, shifted)
        seen = [one for one in places if edges is None or find_window(one, size, edges, shifted) == own]
        scores = torch.stack([query[(sample, part, *place)] @ key[(sample, part, *one)] for one in seen]) / width**0.5
        if table is not None:
            scores = scores + table[[find_row(place, one, edges) for one in seen], head]
        found = torch.stack([value[(sample, part, *one)] for one in seen])
        result[(sample, part, *place)] = scores.softmax(dim=0) @ found
    return result


@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("size", [(7,), (3, 4), (2, 3, 2)])
def test_attention_of_all_voxels_is_that_of_the_formula(size, heads):
    """The heads attend independently, whatever the order in memory."""
    given = draw(size)
    expected = attend_plainly(*given, heads)
    torch.testing.assert_close(window_attention(*given, heads), expected)
    torch.testing.assert_close(
        window_attention(*(one.movedim(1, -1).contiguous().movedim(-1, 1) for one in given), 3),
        (attend_plainly(*given, 3)),
    )


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(("size", "edges", "shifted"), CASES)
def test_attention_in_windows_is_that_of_the_formula(size, edges, shifted, biased):
    """The results also agree where windows are shifted, clipped or padded; the table is that of the full window."""
    given, heads = draw(size), 2
    table = table_of(edges, heads) if biased else None
    window = Window(edges=edges, shifted=shifted, bias="table" if biased else None)
    expected = attend_plainly(*given, heads, edges, shifted=shifted, table=table)
    torch.testing.assert_close(window_attention(*given, heads, window, table), expected)


@pytest.mark.parametrize(("size", "edges", "shifted"), CASES)
def test_gradients_are_those_of_the_formula(size, edges, shifted):
    """The gradients of queries, keys, values and table agree with those of the plain implementation."""
    given = [*draw(size, features=2, samples=1), table_of(edges, 2)]
    weight = torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    window, found = Window(edges=edges, shifted=shifted, bias="table"), []
    for plainly in (False, True):
        leaves = [one.clone().requires_grad_() for one in given]
        *maps, table = leaves
        y = (
            attend_plainly(*maps, 2, edges, shifted=shifted, table=table)
            if plainly
            else window_attention(*maps, 2, window, table)
        )
        found.append(torch.autograd.grad((y * weight).sum(), leaves))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("size", "edges", "shifted"), CASES)
def test_voxels_come_back_from_their_windows(size, edges, shifted):
    """Partitioning and merging is the identity, and so are the gradients through both."""
    x = draw(size)[0].requires_grad_()
    blocks = tuple(map(min, edges, size))
    shifts = tuple(edge // 2 if shifted and edge < length else 0 for edge, length in zip(blocks, size, strict=True))
    parts = windows.partition_windows(x, blocks, shifts, 2)
    assert parts.shape[0] == 2
    assert parts.shape[1] == np.prod([ceil(length / edge) for length, edge in zip(size, blocks, strict=True)])
    assert parts.shape[2:] == (2, np.prod(blocks), 3)
    back = windows.merge_windows(parts, blocks, shifts, size)
    assert torch.equal(back, x)
    weight = draw(size, seed=5)[0]
    assert torch.equal(torch.autograd.grad((back * weight).sum(), x)[0], weight)


def find_seen(size, edges, shifted):
    """Returns which voxels affect which, by the gradient: shape (voxels, voxels)."""
    given = draw(size, features=2, samples=1)
    window = Window(edges=edges, shifted=shifted)
    value = given[2].requires_grad_()
    y = window_attention(*given, 1, window)[0, 0].flatten()
    gradients = [torch.autograd.grad(one, value, retain_graph=True)[0][0, 0].flatten() for one in y]
    return torch.stack(gradients) != 0


def test_shifted_windows_see_what_the_cut_leaves_together():
    """Worked by hand: eight voxels, windows of four, shifted by two: 0 1 | 2 3 4 5 | 6 7."""
    blocks = [[0, 1], [2, 3, 4, 5], [6, 7]]
    expected = torch.zeros(8, 8, dtype=torch.bool)
    for block in blocks:
        expected[np.ix_(block, block)] = True
    assert torch.equal(find_seen((8,), (4,), True), expected)


def test_regions_of_shifted_windows_by_hand():
    """A map of 4 x 4 and windows of 2 x 2 have nine regions; corners that share the last window stay separate."""
    regions = np.array([[0, 1, 1, 2], [3, 4, 4, 5], [3, 4, 4, 5], [6, 7, 7, 8]]).ravel()
    assert torch.equal(find_seen((4, 4), (2, 2), True), torch.tensor(regions[:, None] == regions[None, :]))


def test_padding_sees_and_says_nothing():
    """Worked by hand: five voxels, windows of three: 0 1 2 | 3 4 and one voxel of padding."""
    regions = np.array([0, 0, 0, 1, 1])
    assert torch.equal(find_seen((5,), (3,), False), torch.tensor(regions[:, None] == regions[None, :]))
    even = [torch.ones(1, 2, 5, dtype=torch.float64) for _ in range(3)]
    assert torch.equal(window_attention(*even, 1, Window(edges=(3,))), even[2])


def test_blocks_of_attention_alternate_so_that_all_is_seen():
    """A window after a shifted one after a window reaches beyond its own borders."""
    plain, shifted = (find_seen((8, 8), (4, 4), shift).double() for shift in (False, True))
    assert (plain @ plain == 0).any()
    assert (plain @ shifted @ plain > 0).all()


def test_table_is_read_by_hand():
    """A window of 2 x 2 has nine offsets: where voxel 0 attends to voxel 3, the offset is (-1, -1), the first row."""
    index = windows.index_relative_positions((2, 2), (2, 2), torch.device("cpu"))
    assert index.tolist() == [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    larger = windows.index_relative_positions((2,), (4,), torch.device("cpu"))
    assert larger.tolist() == [[3, 2], [4, 3]]


def test_large_entry_of_the_table_lets_each_voxel_see_one_neighbour():
    """Each voxel attends to the one before it along the first axis, or to itself if that is in another window."""
    edges, table = (4, 4), torch.zeros(49, 1, dtype=torch.float64)
    table[find_row((1, 0), (0, 0), edges)] = 200.0
    table[find_row((0, 0), (0, 0), edges)] = 100.0
    query, key, value = draw((8, 8), features=1)
    y = window_attention(query, key, value, 1, Window(edges=edges, bias="table"), table)
    expected = value.roll(1, 2)
    expected[:, :, ::4] = value[:, :, ::4]
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shifted", [False, True])
def test_attention_in_16_bits(dtype, shifted):
    """Mixed types give finite results close to the exact ones, and gradients of the types of the inputs."""
    query, key, value = draw((10, 10), features=8, dtype=torch.float32)
    table = table_of((4, 4), 2, dtype=torch.float32).requires_grad_()
    leaves = [query.requires_grad_(), key.to(dtype).requires_grad_(), value.to(dtype).requires_grad_(), table]
    window = Window(edges=4, shifted=shifted, bias="table")
    with torch.autocast("cpu", dtype):
        y = window_attention(*leaves[:3], 2, window, table)
    assert y.dtype == dtype
    exact = window_attention(query, key, value, 2, window, table)
    torch.testing.assert_close(y.float(), exact, atol=0.05, rtol=0.05)
    gradients = torch.autograd.grad(y.float().square().sum(), leaves)
    assert all(one.isfinite().all() and one.dtype == leaf.dtype for one, leaf in zip(gradients, leaves, strict=True))


@pytest.mark.parametrize("biased", [False, True])
def test_gradients_are_the_same_each_time(biased):
    """Runs on several threads in float32, where another order of summation gives another number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        leaves = [
            one.requires_grad_()
            for one in (*draw((24, 24), features=8, dtype=torch.float32), table_of((8, 8), 2, dtype=torch.float32))
        ]
        window = Window(edges=8, shifted=True, bias="table" if biased else None)
        found = []
        for _ in range(4):
            y = window_attention(*leaves[:3], 2, window, leaves[3] if biased else None)
            found.append(torch.autograd.grad(y.square().sum(), leaves if biased else leaves[:3]))
    finally:
        torch.set_num_threads(threads)
    for gradients in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(gradients, found[0], strict=True))


class Attending(nn.Module):
    """A layer of attention as a network has it."""

    def __init__(self, window):
        super().__init__()
        self.window = window
        self.table = nn.Parameter(table_of((4, 4), 2, dtype=torch.float32))

    def forward(self, x):
        """Applies self-attention."""
        return window_attention(x, 2 * x, x, 2, self.window, self.table)


@pytest.mark.parametrize("size", [(13, 9), (4, 8)])
def test_training_after_prediction(size):
    """Constants that inference mode cached serve training too."""
    network = Attending(Window(edges=(4, 4), shifted=True, bias="table"))
    x = draw(size, dtype=torch.float32)[0]
    with torch.inference_mode():
        seen = network(x)
    x.requires_grad_()
    y = network(x)
    y.square().sum().backward()
    assert torch.equal(seen, y)
    assert network.table.grad.abs().sum() > 0
    assert x.grad.abs().sum() > 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch to itself
@pytest.mark.parametrize(
    ("size", "backend"),
    [((10, 7), "eager"), *(pytest.param(size, "inductor", marks=pytest.mark.slow) for size in ((8, 8), (10, 7)))],
)
def test_compiled_attention_is_the_same(size, backend):
    """The network compiles as one graph, forwards and backwards, and in evaluation too."""
    network = Attending(Window(edges=(4, 4), shifted=True, bias="table"))
    other = copy.deepcopy(network)
    compiled = torch.compile(network, fullgraph=True, dynamic=False, backend=backend)
    x = draw(size, dtype=torch.float32)[0].requires_grad_()
    y, expected = compiled(x), other(x)
    torch.testing.assert_close(y, expected)
    (gradient,) = torch.autograd.grad(y.square().sum() + 0 * network.table.sum(), x, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.square().sum(), x, retain_graph=True)[0])
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(network.table.grad, other.table.grad)
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), other(x))
