"""The blocks of the Swin transformer, in 2D and 3D, of which nnFormer and Swin-Unet are made.

Source: Liu et al. 2021, "Swin transformer: hierarchical vision transformer using shifted windows", section 3.

    x -+-> norm -> queries, keys, values -> attention in a window -> mix -> + -+-> norm -> wide -> gelu -> narrow -> +
       |                                                                    ^  |                                     ^
       '--------------------------------------------------------------------'  '-------------------------------------'

The windows of every second block are shifted by half an edge. Each head adds a relative position bias to its attention
scores. The feed-forward layers ("wide", "narrow") have four times as many hidden features. In training each branch is
skipped for a fraction of the samples (stochastic depth); the rate grows linearly from 0 in the first block of a network
to its maximum in the last one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from autoseg.networks.ops import Edges, Ops, Window

Value = TypeVar("Value")

EXPANSION = 4
"""Hidden features of the feed-forward layers, as a multiple of their input. Source: the paper."""


def count_heads(features: int, head_features: int) -> int:
    """Returns the largest number of heads that divides the features and leaves each head `head_features` or more.

    >>> count_heads(96, 32)
    3
    """
    limit = max(1, features // head_features)
    return max(heads for heads in range(1, limit + 1) if features % heads == 0)


def drop_path_rates(largest: float, blocks: Sequence[int]) -> list[list[float]]:
    """Returns the rate of stochastic depth of each block, by stages; it grows linearly from 0 to `largest`.

    >>> drop_path_rates(0.5, (1, 2))
    [[0.0], [0.25, 0.5]]
    """
    last = max(1, sum(blocks) - 1)
    starts = [sum(blocks[:number]) for number in range(len(blocks))]
    return [
        [largest * (start + block) / last for block in range(count)]
        for start, count in zip(starts, blocks, strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SwinStage:
    """The blocks at one resolution.

    Attributes:
        name: Prefix of the names of the layers.
        heads: Number of attention heads.
        edges: Edges of the windows in voxels.
        drop_path_rates: Rate of stochastic depth of each block.
    """

    name: str
    heads: int
    edges: Edges
    drop_path_rates: Sequence[float]


def swin_stage(ops: Ops[Value], x: Value, stage: SwinStage, skip: Value | None = None) -> Value:
    """Applies the blocks of a stage; with a skip, a map of the same shape, the first block has skip attention.

    Its queries are the map itself, without a linear layer, and its keys and values come from the skip. Source: Zhou et
    al. 2023, nnFormer, and its number of weights. Decision: one norm serves both, and their sum is the shortcut around
    the attention.
    """
    for number in range(len(stage.drop_path_rates)):
        x = _swin_block(ops, x, stage, number, skip if number == 0 else None)
    return x


def _swin_block(ops: Ops[Value], x: Value, stage: SwinStage, number: int, skip: Value | None) -> Value:
    name, rate, features = f"{stage.name}.{number}", stage.drop_path_rates[number], ops.features(x)
    if skip is None:
        source = ops.layer_norm(x, f"{name}.norm0")
        query = ops.linear(source, features, f"{name}.query")
    else:
        query, source = ops.unflatten_maps(ops.layer_norm(ops.flatten_maps([x, skip]), f"{name}.norm0"), [x, skip])
        x = ops.add(x, skip)
    key, value = (ops.linear(source, features, f"{name}.{role}") for role in ("key", "value"))
    window = Window(edges=stage.edges, shifted=number % 2 == 1, bias=f"{name}.offsets")
    y = ops.linear(ops.attention(query, key, value, stage.heads, window), features, f"{name}.mixed")
    x = ops.add(x, ops.drop_path(y, rate))
    y = ops.gelu(ops.linear(ops.layer_norm(x, f"{name}.norm1"), EXPANSION * features, f"{name}.wide"))
    return ops.add(x, ops.drop_path(ops.linear(y, features, f"{name}.narrow"), rate))
