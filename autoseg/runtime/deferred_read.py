"""Values of a device that the CPU reads later, so that neither has to wait for the other at once."""

from collections.abc import Callable

import torch
from torch import Tensor


def read_later(tensor: Tensor) -> Callable[[], Tensor]:
    """Starts to copy a tensor to the CPU, and returns a function that waits for the copy and returns it.

    On a CUDA GPU the copy is queued behind the work that computes the tensor; the function waits for that work alone,
    while what was queued after it goes on. On other devices the copy is made at once.

    Example:
        >>> read_total = read_later(torch.ones(3).sum())
        >>> read_total()
        tensor(3.)
    """
    if tensor.device.type != "cuda":
        copied = tensor.cpu()
        return lambda: copied
    copied = tensor.to("cpu", non_blocking=True)  # torch takes pinned memory for this
    is_copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
    is_copied.record(torch.cuda.current_stream(tensor.device))

    def wait() -> Tensor:
        is_copied.synchronize()
        return copied

    return wait
