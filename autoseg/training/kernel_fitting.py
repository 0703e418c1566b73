"""Kernels of a trained convolution, fitted to a convolution of another size, dimension or number of channels."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from autoseg.training.weight_transfer import fit_channels


def fit_kernel(kernel: torch.Tensor, shape: Sequence[int], *, reads_image: bool = False) -> torch.Tensor | None:
    """Returns a kernel of another shape, or None if there is no sensible one.

    Along each axis

        1 -> n      it is repeated and divided by n: what does not change along the axis is answered as before
                    (Carreira and Zisserman 2017, who inflate 2D kernels so)
        n -> 1      it is summed, which is the inverse
        n -> more   it gets a border of zeros, and answers as before

    and a smaller kernel than before, of more than 1, has no such answer. A 2D kernel gets a first axis, along which it
    is inflated, and a 3D kernel is summed along it for a 2D network. If the kernel reads the image, the number of
    channels may differ as well, see `fit_channels`: the names of foreign channels are not known, so each starts as
    their mean.

    Example:
        >>> fit_kernel(torch.tensor([[[[1.0, 2.0, 3.0]]]]), (1, 1, 1, 1)).flatten().tolist()
        [6.0]
        >>> fit_kernel(torch.ones(1, 1, 3, 3), (1, 1, 3, 3, 3))[0, 0, :, 0, 0].round(decimals=3).tolist()
        [0.3330000042915344, 0.3330000042915344, 0.3330000042915344]

    Args:
        kernel: The trained kernel, shape (features, channels, *size).
        shape: The shape that is wanted.
        reads_image: Whether its channels are those of the image.
    """
    if kernel.ndim not in (4, 5) or len(shape) not in (4, 5) or kernel.shape[0] != shape[0]:
        return None
    if kernel.shape[1] != shape[1]:
        if not reads_image:
            return None
        kernel = fit_channels(kernel, (None,) * shape[1])
    fitted: torch.Tensor | None = kernel if kernel.ndim == 5 else kernel.unsqueeze(2)
    size = tuple(shape[2:]) if len(shape) == 5 else (1, *shape[2:])
    for axis, length in enumerate(size, start=2):
        fitted = None if fitted is None else _fit_axis(fitted, axis, length)
    return fitted if fitted is None else fitted.reshape(*shape).contiguous()


def _fit_axis(kernel: torch.Tensor, axis: int, length: int) -> torch.Tensor | None:
    before = kernel.shape[axis]
    if before == length:
        return kernel
    if length == 1:
        return kernel.sum(axis, keepdim=True)
    if before == 1:
        return kernel.expand(*kernel.shape[:axis], length, *kernel.shape[axis + 1 :]) / length
    border, odd = divmod(length - before, 2)
    if border < 0 or odd:
        return None
    return F.pad(kernel, (0, 0) * (kernel.ndim - 1 - axis) + (border, border))


def describe_fit(old: Sequence[int], new: Sequence[int]) -> str:
    """Returns what `fit_kernel` did, for people.

    Example:
        >>> describe_fit((32, 1, 3, 3, 3), (32, 4, 1, 3, 3))
        '1 channel becomes 4, the kernel 3x3x3 becomes 1x3x3'
    """
    parts = []
    if old[1] != new[1]:
        parts.append(f"{old[1]} channel{'s' * (old[1] > 1)} become{'s' * (old[1] == 1)} {new[1]}")
    if tuple(old[2:]) != tuple(new[2:]):
        parts.append(f"the kernel {_times(old[2:])} becomes {_times(new[2:])}")
    return ", ".join(parts)


def _times(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
