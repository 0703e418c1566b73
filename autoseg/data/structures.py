"""Where structures are in labels, as a network sees them."""

from collections.abc import Iterable

import torch

from autoseg.targets import Numbers


def find_structures(labels: torch.Tensor, structures: Iterable[Numbers]) -> torch.Tensor:
    """Where each structure is: (n, structures, *size), bool, for labels (n, *size) and the numbers of each."""
    found = []
    for numbers in structures:
        where = labels == numbers[0]
        for number in numbers[1:]:
            where = where | (labels == number)
        found.append(where)
    return torch.stack(found, dim=1)
