"""A training step on torch's device "meta", for the memory that it would take on a GPU.

Nothing is calculated, but tensors are made and freed as on a GPU, so their bytes can be added up at each moment.
"""

import weakref

import torch
from small_models import usual_loss
from torch.utils._python_dispatch import TorchDispatchMode

from autoseg.networks.architecture import Architecture, Axes
from autoseg.networks.default_unet import UNet


class _Ledger(TorchDispatchMode):
    """Adds up the bytes of living tensors, and keeps the largest sum.

    A convolution is taken to work on copies of its input and output in another order of the memory, as cuDNN's fast
    ones for 16-bit numbers do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        made = result if isinstance(result, tuple | list) else [result]
        for tensor in made:
            if isinstance(tensor, torch.Tensor):
                self._enter(tensor.untyped_storage())
        self.most = max(self.most, sum(self.living.values()) + _copies(str(function), args, made))
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.living:
            self.living[storage._cdata] = storage.nbytes()
            weakref.finalize(storage, self.living.pop, storage._cdata)


def _copies(name: str, args, made) -> int:
    """Returns the bytes that a convolution, or its backward pass, copies."""
    if name.startswith("aten.convolution_backward"):
        return args[0].nbytes + args[1].nbytes
    return args[0].nbytes + made[0].nbytes if name.startswith("aten.convolution") else 0


def peak_of_a_patch(architecture: Architecture, patch_size: Axes, *, recomputes: bool = False) -> int:
    """Returns the bytes that one more patch in a large batch adds to the peak of a training step in bfloat16."""
    with torch.device("meta"):
        network = UNet(architecture).bfloat16()
    network.recomputes = recomputes
    peaks = []
    for batch_size in (30, 31):
        with _Ledger() as ledger:
            image = torch.empty(batch_size, architecture.in_channels, *patch_size, device="meta")
            target = torch.empty(batch_size, *patch_size, dtype=torch.int64, device="meta")
            outputs = network(image.bfloat16())
            usual_loss(architecture.out_channels)(outputs, target).backward()
        peaks.append(ledger.most)
        network.zero_grad(set_to_none=True)
    return peaks[1] - peaks[0]
