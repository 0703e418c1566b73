"""Steps in which a CUDA GPU repeats the kernels of the network as graphs, if the setting `compile` is "graphs".

A graph holds the forward pass, and another the backward pass, of patches of one shape. The loss, its scaling for
float16, the limit of the gradients and the optimizer stay outside. Patches of a new size, and the last micro-batch of
an uneven batch, get graphs of their own.

Source: torch's documentation of `torch.compile`, mode "reduce-overhead", and of CUDAGraph trees.
"""

import torch
from torch import nn

from autoseg.training.state import Run


def captures_graphs(run: Run) -> bool:
    """Returns whether the compiled network of a run is captured in graphs.

    Several ranks exchange gradients in the middle of the backward pass, which no graph can hold.
    """
    return run.settings.compile == "graphs" and run.device.type == "cuda" and run.ranks.alone


def begin_micro_batch(network: nn.Module, number: int) -> None:
    """Prepares for the next call of a network that is captured in graphs, which overwrites what the last one returned.

    The gradients of the first micro-batch are among that, so they are copied before the second; all further ones are
    added to the copy.

    Args:
        network: The network, compiled or not.
        number: Number of the micro-batch in its step, from 1.
    """
    if number == 2:
        for weights in network.parameters():
            if weights.grad is not None:
                weights.grad = weights.grad.clone()
    torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
