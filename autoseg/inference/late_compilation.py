"""A network that is compiled in the middle of a long prediction."""

import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autoseg.runtime.compiler import compile_quietly, describe_fallback
from autoseg.runtime.device import compiles_well
from autoseg.runtime.full_memory import is_memory_full

COMPILE_AFTER_SECONDS = 300.0
"""Seconds of prediction after which a network is compiled. Decision: compiling takes about a minute. How many scans are
left is not known here, so a prediction first lasts as long as compiling takes to pay off."""

PAUSE_SECONDS = 10.0
"""Seconds between two batches that count as a pause, such as between two scans that a program segments."""


class LateCompiler:
    """Calls a network, and compiles it once it has predicted for long, where the device gains from that.

    Only batches of the most frequent shape take the compiled network, because each other shape would be compiled anew.
    If compiling fails, a warning says why, and the network runs as it is.

    Args:
        network: The network, in evaluation mode.
        device: Its device.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._network = network
        self._waits = compiles_well(device)
        self._compiled: Callable[[Tensor], Tensor] | None = None
        self._shapes: Counter[torch.Size] = Counter()
        self._seconds = 0.0
        self._last_call: float | None = None

    def __call__(self, patches: Tensor) -> Tensor:
        """Returns the logits of patches."""
        if self._waits:
            self._count(patches.shape)
        if self._compiled is None or patches.shape != self._shapes.most_common(1)[0][0]:
            return self._network(patches)
        try:
            return self._compiled(patches)
        except Exception as error:
            if is_memory_full(error):
                raise
            self._compiled = None
            warnings.warn(describe_fallback(error), stacklevel=2)
        return self._network(patches)

    def __getstate__(self) -> dict[str, Any]:
        """Supports pickling and copying: a compiled network stays behind, and is compiled again in due time."""
        waits = self._waits or self._compiled is not None
        return {**self.__dict__, "_compiled": None, "_waits": waits, "_last_call": None}

    def _count(self, shape: torch.Size) -> None:
        """Adds up the time between calls, and compiles the network when that was long."""
        now = time.monotonic()
        if self._last_call is not None and now - self._last_call < PAUSE_SECONDS:
            self._seconds += now - self._last_call
        self._last_call = now
        self._shapes[shape] += 1
        if self._seconds > COMPILE_AFTER_SECONDS:
            self._waits = False
            self._compiled = compile_quietly(self._network)
