"""Errors about full memory, of a device or of this machine: recognized, and turned into one line; without torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from autoseg.errors import AutosegError

FULL_MEMORY_TEXTS = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "ALLOC_FAILED",
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm",
)
"""Texts of errors about full memory. CUBLAS_STATUS_ALLOC_FAILED and CUDNN_STATUS_ALLOC_FAILED are those of NVIDIA's
libraries that get no memory for themselves. The last two come from torch where cuDNN has no algorithm whose workspace
fits; they also come where cuDNN cannot calculate a convolution at all, which fails again with a smaller batch."""

GPU_ERROR_TEXTS = ("CUDA", "CUBLAS", "CUDNN", "cuDNN", "MPS")
"""Texts by which an error about full memory is one of a GPU."""


def is_memory_full(error: BaseException) -> bool:
    """Returns whether an error says that the memory of a device, or of this machine, is full.

    In most cases only the text of torch's error tells; see `FULL_MEMORY_TEXTS`.

    Example:
        >>> is_memory_full(RuntimeError("CUDA out of memory")), is_memory_full(RuntimeError("shape mismatch"))
        (True, False)
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(text in str(error) for text in FULL_MEMORY_TEXTS)
    )


@contextmanager
def memory_named(device: Any | None, advice: str) -> Iterator[None]:
    """Turns an error about full memory into one line that names the device and says what to do.

    Args:
        device: Device of the work inside the context; None if it uses the CPU and perhaps a GPU, of which the error
            tells whose memory is full.
        advice: What the user can do.

    Raises:
        AutosegError: The memory is full.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_memory_full(error):
            raise
        name = f"device {device or 'cpu'}"
        if device is None and any(text in str(error) for text in GPU_ERROR_TEXTS):
            name = "GPU"
        raise AutosegError(f"the memory of the {name} is full", advice) from error
