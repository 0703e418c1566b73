"""The blocks of the Swin transformer, in any number of dimensions, of which nnFormer and Swin-Unet are made.

Source: Liu et al. 2021, "Swin transformer: hierarchical vision transformer using shifted windows", section 3.

    x -+-> norm -> queries, keys, values -> attention in a window -> mix -> + -+-> norm -> wide -> gelu -> narrow -> +
       |                                                                    ^  |                                     ^
       '--------------------------------------------------------------------'  '-------------------------------------'

The windows of every second block are shifted by half an edge. To how well two voxels of a window meet, each head adds a
learned number for their offset. Wide is four times as many features. Of each branch training leaves out a share of the
samples (stochastic depth), which grows evenly from 0 in the first block of a network to its largest in the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from autoseg.networks.ops import Edges, Ops, Window

Value = TypeVar("Value")

EXPANSION = 4
"""Of the feed-forward layers: how many times wider they are inside. Source: the paper."""


def count_heads(features: int, head_features: int) -> int:
    """As many heads as have so many features or more, and divide the features; at least one."""
    most = max(1, features // head_features)
    return max(heads for heads in range(1, most + 1) if features % heads == 0)


def drop_path_rates(largest: float, blocks: Sequence[int]) -> list[list[float]]:
    """The share of samples that each block leaves out, by stages of some blocks."""
    last = max(1, sum(blocks) - 1)
    starts = [sum(blocks[:number]) for number in range(len(blocks))]
    return [
        [largest * (start + one) / last for one in range(count)] for start, count in zip(starts, blocks, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Blocks at one resolution.

    Attributes:
        name: Of the layers.
        heads: Of the attention.
        edges: Of the windows.
        drop_path_rates: Of the samples that each block leaves out in training.
    """

    name: str
    heads: int
    edges: Edges
    drop_path_rates: Sequence[float]


def swin_stage(ops: Ops[Value], x: Value, stage: Stage, skip: Value | None = None) -> Value:
    """Draws blocks one after the other; with a skip, a map of the same shape, the first is one of skip attention.

    That asks with the map itself, without a linear layer, and takes keys and values from the skip. Source: Zhou et al.
    2023, nnFormer, and its number of weights. Decision: one norm serves both, and past the attention goes their sum.
    """
    for number in range(len(stage.drop_path_rates)):
        x = _swin_block(ops, x, stage, number, skip if number == 0 else None)
    return x


def _swin_block(ops: Ops[Value], x: Value, stage: Stage, number: int, skip: Value | None) -> Value:
    name, share, features = f"{stage.name}.{number}", stage.drop_path_rates[number], ops.features(x)
    if skip is None:
        source = ops.layer_norm(x, f"{name}.norm0")
        query = ops.linear(source, features, f"{name}.query")
    else:
        query, source = ops.unflatten_maps(ops.layer_norm(ops.flatten_maps([x, skip]), f"{name}.norm0"), [x, skip])
        x = ops.add(x, skip)
    key, value = (ops.linear(source, features, f"{name}.{part}") for part in ("key", "value"))
    window = Window(edges=stage.edges, shifted=number % 2 == 1, bias=f"{name}.offsets")
    y = ops.linear(ops.attention(query, key, value, stage.heads, window), features, f"{name}.mixed")
    x = ops.add(x, ops.drop_path(y, share))
    y = ops.gelu(ops.linear(ops.layer_norm(x, f"{name}.norm1"), EXPANSION * features, f"{name}.wide"))
    return ops.add(x, ops.drop_path(ops.linear(y, features, f"{name}.narrow"), share))
