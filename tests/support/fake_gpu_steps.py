"""Whole training steps, with gradients, on the pretended GPU; run by `fake_cuda_backward.run_apart`."""

import sys
import weakref

import torch
from fake_cuda import CUDA, pretended_cuda
from fake_cuda_backward import backward_hooks
from fake_gpu_runs import fake_architecture, fake_batch, fake_run, fake_state
from literature_networks import build, image_for
from memory_cases import CASES, Case
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autoseg.networks.architecture import Axes
from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.memory import CONTEXT_BYTES, training_bytes
from autoseg.planning.presets import PresetName
from autoseg.runtime.device import autocast
from autoseg.runtime.reporting import SILENT
from autoseg.training.loop import train_step

BLOCK_BYTES = 512
"""What torch's allocator rounds the bytes of a tensor up to."""


def check_step(preset: PresetName, patch_size: Axes, *, bfloat16: bool = True, **settings) -> None:
    """Takes two steps, and makes sure that gradients are where and what they should be, and that nothing waits."""
    run = fake_run(fake_architecture(preset, len(patch_size)), patch_size, **settings)
    with backward_hooks(), pretended_cuda(bfloat16=bfloat16, backward=True) as counts:
        state = fake_state(run)
        for _ in range(2):
            counts.reset()
            loss = train_step(state, fake_batch(run), run, SILENT)
        assert (loss.device, loss.dtype) == (CUDA, torch.float32)
        for weights in state.network.parameters():
            if weights.grad is not None:  # the coarsest output does not count in the loss
                assert (weights.grad.device, weights.grad.dtype) == (CUDA, torch.float32)
                ordered = all(size > 1 for size in weights.shape)
                assert not ordered or weights.grad.stride() == weights.stride(), tuple(weights.shape)
    waits = [kind for _, kind, _ in counts.waits]
    assert waits in ([], ["item"] if not bfloat16 else []), counts.list_waits()


def check_literature() -> None:
    """Makes sure that no network of the literature waits in a forward pass, once its constants are on the device."""
    for name in NETWORKS:
        network = build(name)  # with values, because weights are drawn until all are within bounds
        shape = image_for(network).shape
        with pretended_cuda() as counts, autocast(CUDA):
            network = network.to(CUDA)
            image = torch.zeros(shape, device=CUDA)
            network(image)
            counts.reset()
            assert all(output.device == CUDA for output in network(image)), name
        assert counts.list_waits() == [], (name, counts.list_waits())


class _Ledger(TorchDispatchMode):
    """Adds up the bytes of living tensors on the GPU, and keeps the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self.living: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cuda":
                self._enter(tensor.untyped_storage())
        self.most = max(self.most, sum(self.living.values()))
        return result

    def _enter(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata not in self.living:
            self.living[storage._cdata] = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES
            weakref.finalize(storage, self.living.pop, storage._cdata)


def write_peaks() -> None:
    """Writes for each memory case the estimate of its step and the peak of its tensors, in bytes."""
    for case in CASES:
        estimate, peak = measure_peak(case)
        sys.stdout.write(f"{case.name}\t{estimate}\t{peak}\n")


def measure_peak(case: Case) -> tuple[int, int]:
    """Returns the estimate of a training step without the context of CUDA, and the largest sum of its tensors."""
    architecture = case.architecture()
    run = fake_run(architecture, case.patch_size, batch_size=case.batch_size, average_decay=0.99)
    with backward_hooks(), pretended_cuda(backward=True), _Ledger() as ledger:
        state = fake_state(run)
        for _ in range(2):
            train_step(state, fake_batch(run), run, SILENT)
    return training_bytes(architecture, case.patch_size, case.batch_size) - CONTEXT_BYTES, ledger.most
