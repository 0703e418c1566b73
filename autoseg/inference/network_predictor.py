"""A network of torch as a predictor."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from autoseg.inference.late_compilation import LateCompiler
from autoseg.inference.predictor import Predictor
from autoseg.runtime.device import autocast, exactly, free_cached_memory, make_ready
from autoseg.runtime.full_memory import is_memory_full

VOXELS_AT_ONCE, VOXELS_AT_MOST = 2**20, 2**22
"""Number of voxels that a CPU predicts together, in small and in large patches; see `count_at_once`."""


def count_at_once(patch_size: Sequence[int], batch_size: int, device: torch.device) -> int:
    """Returns the number of patches that go through a network together.

    Decision, for a CPU: one for each core, up to four million voxels, and small ones up to one million. A convolution
    divides its samples among the cores; from one patch of 96 x 96 x 96 voxels to two, each took 0.7 of the time
    (measured on two cores). Elsewhere: as many as in training, whose steps take several times the memory.

    Example:
        >>> count_at_once((64, 64, 64), 2, torch.device("cuda"))
        2

    Args:
        patch_size: Size of a patch in voxels.
        batch_size: Batch size of training.
        device: Device of the network.
    """
    if device.type != "cpu":
        return batch_size
    voxels = prod(patch_size)
    return max(1, VOXELS_AT_ONCE // voxels, min(torch.get_num_threads(), VOXELS_AT_MOST // voxels))


@dataclass
class NetworkPredictor(Predictor):
    """A network as a predictor.

    Attributes:
        network: Moved to the device and put into evaluation mode, for good.
        device: Device of the network; patches may come from any other.
        most_patches: Number of patches that the memory of the device holds at once, as far as it is known; larger
            batches are divided.
        exact: Whether to calculate in float32, even where a lower precision is faster; then nothing is compiled.
    """

    network: nn.Module
    device: torch.device
    most_patches: int | None = None
    exact: bool = False

    def __post_init__(self) -> None:
        make_ready(self.device)
        self._forward: Callable[[Tensor], Tensor] = self.network.to(self.device).eval()
        if not self.exact:
            self._forward = LateCompiler(self._forward, self.device)

    @torch.inference_mode()
    def __call__(self, patches: Tensor) -> Tensor:
        """Returns logits in the precision of the network, on the predictor's device.

        If the memory of the device runs out, the batch is halved, down to single patches.
        """
        try:
            parts = torch.split(patches, self.most_patches or len(patches))
            logits = [self._predict(part) for part in parts]
            return logits[0] if len(logits) == 1 else torch.cat(logits)
        except RuntimeError as error:
            if not is_memory_full(error) or len(patches) == 1 or self.most_patches == 1:
                raise
        self.most_patches = (min(self.most_patches or len(patches), len(patches)) + 1) // 2
        free_cached_memory(self.device)
        return self(patches)

    def _predict(self, patches: Tensor) -> Tensor:
        with exactly(self.device) if self.exact else autocast(self.device):
            return self._forward(patches.to(self.device))
