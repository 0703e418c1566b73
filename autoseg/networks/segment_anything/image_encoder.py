"""The image encoder: a transformer over the patches of an image, most of whose blocks attend in windows.

Where a pair of patches lies in a window counts by two tables for each block, one for the offset in rows and one for
that in columns, whose entries are multiplied with the query (decomposed relative positions).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autoseg.networks.convolutions import Conv2d
from autoseg.networks.segment_anything.layers import EPSILON, Perceptron, map_norm
from autoseg.networks.segment_anything.sizes import Sizes
from autoseg.networks.windows import cached_constant, merge_windows, partition_windows

UNSHIFTED = (0, 0)


class ImageEncoder(nn.Module):
    """Encodes images.

    Args:
        sizes: Sizes of the network.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbedding(sizes)
        self.pos_embed = nn.Parameter(torch.zeros(1, sizes.grid, sizes.grid, sizes.width))
        self.blocks = nn.ModuleList(_Block(sizes, edge) for edge in sizes.windows)
        self.neck = nn.Sequential(
            Conv2d(sizes.width, sizes.features, 1, bias=False),
            map_norm(sizes.features),
            Conv2d(sizes.features, sizes.features, 3, padding=1, bias=False),
            map_norm(sizes.features),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (n, 3, image, image) to (n, features, grid, grid)."""
        x = self.patch_embed(image) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        encoded: Tensor = self.neck(x.movedim(3, 1))
        return encoded


class _PatchEmbedding(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.proj = Conv2d(3, sizes.width, sizes.patch, stride=sizes.patch)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (n, 3, image, image) to patches (n, grid, grid, width)."""
        patches: Tensor = self.proj(image)
        return patches.movedim(1, 3)


class _Block(nn.Module):
    """Attention and a perceptron, each after a norm and added to its input."""

    def __init__(self, sizes: Sizes, edge: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.width, eps=EPSILON)
        self.attn = _WindowAttention(sizes, edge)
        self.norm2 = nn.LayerNorm(sizes.width, eps=EPSILON)
        self.mlp = Perceptron(sizes.width, sizes.hidden, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Maps patches (n, rows, columns, width) to the same."""
        x = x + self.attn(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class _WindowAttention(nn.Module):
    """Multi-head attention in square windows.

    Where the last windows reach beyond the image, zeros are attended to as well, as in the published network.

    Args:
        sizes: Sizes of the network.
        edge: Patches along an edge of a window.
    """

    def __init__(self, sizes: Sizes, edge: int) -> None:
        super().__init__()
        self.edge, self.heads = edge, sizes.width // sizes.head_width
        self.qkv = nn.Linear(sizes.width, 3 * sizes.width)
        self.proj = nn.Linear(sizes.width, sizes.width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * edge - 1, sizes.head_width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * edge - 1, sizes.head_width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps patches (n, rows, columns, width) to the same."""
        _, rows, columns, _ = x.shape
        window = (self.edge, self.edge)
        x = F.pad(x, (0, 0, 0, -columns % self.edge, 0, -rows % self.edge))
        size = (x.shape[1], x.shape[2])
        query, key, value = (
            partition_windows(part.movedim(3, 1), window, UNSHIFTED, self.heads) for part in self.qkv(x).chunk(3, dim=3)
        )
        offsets = _index_offsets(self.edge, x.device)
        tables = self.rel_pos_h[offsets], self.rel_pos_w[offsets]
        # One head after the other: all at once take 0.8 GB for each copy of the scores of 64 x 64 patches.
        heads = [_attend(*head, *tables) for head in zip(query.unbind(2), key.unbind(2), value.unbind(2), strict=True)]
        merged = merge_windows(torch.stack(heads, dim=2), window, UNSHIFTED, size).movedim(1, 3)
        result: Tensor = self.proj(merged[:, :rows, :columns])
        return result


def _attend(query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Applies attention within each window.

    Args:
        query: Shape (n, windows, patches, head features), as `key` and `value`.
        key: See above.
        value: See above.
        by_row: Entry of the table of rows for each row of a query and each row of a key, (edge, edge, head features).
        by_column: The same for columns.
    """
    edge, (samples, windows, _, features) = len(by_row), query.shape
    places = query.reshape(samples, windows, edge, edge, features)
    scores = (query * features**-0.5) @ key.mT
    pairs = scores.view(samples, windows, edge, edge, edge, edge)
    pairs = pairs + torch.einsum("nwyxc,ykc->nwyxk", places, by_row.to(query.dtype))[..., None]
    pairs = pairs + torch.einsum("nwyxc,xkc->nwyxk", places, by_column.to(query.dtype))[..., None, :]
    shares: Tensor = pairs.reshape(scores.shape).softmax(dim=3)
    return shares @ value


@cached_constant
def _index_offsets(edge: int, device: torch.device) -> Tensor:
    """Returns the row in the table of offsets for each position of a query and each of a key along an axis.

    Worked example: along an edge of 2 the table has the rows of the offsets -1, 0 and 1; a patch attends to itself by
    row 1, the first to the second by row 0, and the second to the first by row 2.
    """
    positions = torch.arange(edge, device=device)
    return positions[:, None] - positions[None, :] + edge - 1
