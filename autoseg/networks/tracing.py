"""Whether a network is being traced for an export to other runtimes, which have faults and fast paths of their own."""

import torch


def is_traced() -> bool:
    """Returns whether operators are being recorded, as for ONNX; then layers take the plain operator of torch.

    Example:
        >>> is_traced()
        False
    """
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]
