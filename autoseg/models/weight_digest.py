"""The digest of trained weights: tells one trained network from another, in best.json, checkpoints and predictions."""

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

DIGITS = 16

VALUES_PER_TENSOR = 64
"""Number of values of each weight tensor that the digest reads. Decision: a step of training changes all tensors that
are not frozen, and reading every value of five networks would slow the start of a prediction."""


def digest_weights(weights: "Mapping[str, torch.Tensor]") -> str:
    """Returns 16 hexadecimal digits that follow from the names and the first values of weights, in any order.

    Example:
        >>> import torch
        >>> digest_weights({"bias": torch.zeros(2)})
        '6f58b40558756bb6'
        >>> digest_weights({"bias": torch.ones(2)}) == digest_weights({"bias": torch.zeros(2)})
        False
    """
    digest = sha256()
    for name, tensor in sorted(weights.items()):
        values = tensor.detach().reshape(-1)[:VALUES_PER_TENSOR].float().cpu().numpy()
        digest.update(name.encode() + np.ascontiguousarray(values, dtype="<f4").tobytes())
    return digest.hexdigest()[:DIGITS]


def is_digest_of(stored: str, weights: "Mapping[str, torch.Tensor]") -> bool:
    """Whether a stored digest is that of some weights, also if an older checkpoint stores it as its origin."""
    return stored == digest_weights(weights) or stored == _digest_of_older_origins(weights)


def _digest_of_older_origins(weights: "Mapping[str, torch.Tensor]") -> str:
    """Returns the digest that older checkpoints hold of the weights that they began with. Only compared, never stored.

    It follows from names, shapes, types and all values.
    """
    import torch  # noqa: PLC0415 - best.json is read without it

    digest = sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:DIGITS]
