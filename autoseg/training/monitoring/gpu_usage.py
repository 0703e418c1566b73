"""Memory and utilization of a CUDA GPU during an epoch. Other devices do not report them."""

from contextlib import suppress
from statistics import fmean

import torch


class GpuUsage:
    """Measures the usage of a device from now on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._shares: list[float] = []
        self._can_sample = device.type == "cuda"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def sample(self) -> None:
        """Samples the share of the last moment in which the device calculated.

        Torch asks NVIDIA's library, for which it needs a package that may be missing; and the library raises an error
        of its own on GPUs, such as parts of one, of which it does not know. Then no further sample is taken.
        """
        if self._can_sample:
            self._can_sample = False
            with suppress(Exception):
                self._shares.append(torch.cuda.utilization(self._device) / 100)
                self._can_sample = True

    @property
    def utilization(self) -> float | None:
        """Mean share of the time in which the device calculated, 0 to 1; None if it is unknown."""
        return fmean(self._shares) if self._shares else None

    @property
    def memory_bytes(self) -> int | None:
        """Largest number of bytes of the GPU that torch reserved; None on other devices."""
        return torch.cuda.max_memory_reserved(self._device) if self._device.type == "cuda" else None
