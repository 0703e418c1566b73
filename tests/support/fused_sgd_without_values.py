"""The fused step of gradient descent on tensors without values, which torch lacks; registered when imported."""

from collections.abc import Sequence

import torch

_LIBRARY = torch.library.Library("aten", "IMPL")


def step_without_values(params, grads, momentum_buffer_list, **_):
    """Refuses what a GPU refuses: weights, gradients or momentum of another type or layout.

    Source: `check_fast_path_restrictions` in ATen's ForeachUtils.h.
    """
    check_lists([tensors for tensors in (params, grads, momentum_buffer_list) if tensors])


def check_lists(lists: Sequence[Sequence[torch.Tensor]]) -> None:
    """Compares the tensors of several lists; strides along axes of one element do not matter."""
    for group in zip(*lists, strict=True):
        layouts = {(tensor.dtype, tensor.device.type, _steps(tensor)) for tensor in group}
        if len(layouts) > 1:
            raise RuntimeError(f"params, grads and momentum must have the same dtype, device and layout: {layouts}")


def _steps(tensor: torch.Tensor) -> tuple[int, ...]:
    """Returns the strides along axes of more than one element; the others do not matter."""
    return tuple(step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)


for _overload in ("_fused_sgd_", "_fused_sgd_.tensor_lr"):
    _LIBRARY.impl(_overload, step_without_values, "Meta")
