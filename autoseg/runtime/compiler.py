"""Compiling networks with torch's compiler, without its advice."""

import warnings
from collections.abc import Callable
from typing import TypeVar, cast

import torch

Compiled = TypeVar("Compiled", bound=Callable[..., object])

TF32_ADVICE = "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled"
"""Beginning of a warning of torch's compiler on CUDA GPUs. Decision: it is not for users, because networks calculate in
16 bits there, and the few products of matrices that stay in float32 need its digits."""


def compile_quietly(function: Compiled) -> Compiled:
    """Compiles a function of tensors of one size, at its first call.

    Args:
        function: A network, or another function of tensors.

    Returns:
        The compiled function, which has the same weights.
    """
    warnings.filterwarnings("ignore", message=TF32_ADVICE, category=UserWarning)
    return cast(Compiled, torch.compile(function, dynamic=False))
