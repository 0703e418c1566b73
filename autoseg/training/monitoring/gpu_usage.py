"""What a CUDA GPU tells about itself during an epoch: memory, and how busy it is. Other devices tell nothing."""

from contextlib import suppress
from statistics import fmean

import torch


class GpuUsage:
    """Watches a device from now on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._shares: list[float] = []
        self._can_ask = device.type == "cuda"
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def look(self) -> None:
        """Asks how much of the last moment the device calculated.

        Torch asks NVIDIA's library, for which it needs a package that may be missing; then nobody asks again.
        """
        if self._can_ask:
            self._can_ask = False
            with suppress(ImportError, RuntimeError):
                self._shares.append(torch.cuda.utilization(self._device) / 100)
                self._can_ask = True

    @property
    def utilization(self) -> float | None:
        """Mean share of the time in which the device calculated, 0 to 1; None if that cannot be known."""
        return fmean(self._shares) if self._shares else None

    @property
    def memory_bytes(self) -> int | None:
        """The most memory of the device that torch held; None on other devices."""
        return torch.cuda.max_memory_reserved(self._device) if self._device.type == "cuda" else None
