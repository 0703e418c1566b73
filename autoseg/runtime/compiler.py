"""Compiling networks with torch's compiler, without its advice."""

import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import torch

Compiled = TypeVar("Compiled", bound=Callable[..., object])

TF32_ADVICE = "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled"
"""Beginning of a warning of torch's compiler on CUDA GPUs. Decision: it is not for users, because networks calculate in
16 bits there, and the few products of matrices that stay in float32 need its digits."""


def compile_quietly(function: Compiled, *, graphs: bool = False) -> Compiled:
    """Compiles a function of tensors of one size, at its first call.

    Args:
        function: A network, or another function of tensors.
        graphs: Whether a CUDA GPU repeats all kernels of a call as one graph, which spares the CPU to start them one by
            one. What the function returned is overwritten by its next call.

    Returns:
        The compiled function, which has the same weights.
    """
    warnings.filterwarnings("ignore", message=TF32_ADVICE, category=UserWarning)
    return cast(Compiled, torch.compile(function, dynamic=False, mode="reduce-overhead" if graphs else None))


def describe_fallback(error: Exception) -> str:
    """Returns the line that says why the network runs uncompiled.

    Example:
        >>> describe_fallback(RuntimeError("no C compiler"))
        'the network runs uncompiled, which is slower, because compiling it failed: no C compiler'
    """
    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"the network runs uncompiled, which is slower, because compiling it failed: {cause}"
