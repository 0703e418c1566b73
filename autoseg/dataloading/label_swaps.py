"""Labels of structures that change sides where a patch is mirrored."""

import torch


def swap_table(pairs: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Returns the label that takes the place of each label if the two labels of each pair are swapped, int16.

    Example:
        >>> swap_table(((1, 3),)).tolist()
        [0, 3, 2, 1]
    """
    partners = list(range(max((label for pair in pairs for label in pair), default=0) + 1))
    for first, second in pairs:
        partners[first], partners[second] = second, first
    return torch.tensor(partners, dtype=torch.int16)


def swap_labels(labels: torch.Tensor, partners: torch.Tensor) -> torch.Tensor:
    """Replaces labels by their partners; all labels without a partner stay, also negative ones.

    Args:
        labels: Label maps, integers.
        partners: What `swap_table` returns, on the device of the labels.

    Example:
        >>> swap_labels(torch.tensor([-1, 0, 1, 2, 3, 4]), swap_table(((1, 3),)))
        tensor([-1,  0,  3,  2,  1,  4])
    """
    within = labels.clamp(0, len(partners) - 1)
    return torch.where(labels == within, partners[within.long()].to(labels.dtype), labels)
