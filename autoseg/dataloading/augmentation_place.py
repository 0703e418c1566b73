"""Where batches are augmented: by the threads that prepare them, or on the device of the network."""

from collections.abc import Sequence

import torch

from autoseg.errors import UsageError
from autoseg.planning.plugin_settings import CustomTransform
from autoseg.runtime.gpu_decisions import augments_faster


def augments_on_device(
    choice: str,
    device: torch.device,
    custom: Sequence[CustomTransform] = (),
    *,
    voxels: int,
    cores: int,
    shapes: bool = False,
) -> bool:
    """Returns whether batches are augmented on the device of the network.

    Decision: "auto" chooses the device only if it is a CUDA GPU, and as `gpu_decisions.json` says for it: a CPU that
    trains has nothing to gain from it, and on an Apple GPU nobody has tried it. Custom transforms change one patch at a
    time, on a CPU; the shapes that some losses need are made there after all changes, and so are the soft targets of
    distillation, see `soft_targets`.

    Args:
        choice: The user's choice: "auto", "cpu" or "device".
        device: Device of the network.
        custom: Custom transforms of the plan.
        voxels: Number of voxels of a batch.
        cores: Number of cores beside each device.
        shapes: Whether the loss needs more than labels: shapes, see `shapes`, or the probabilities of a teacher.

    Raises:
        UsageError: There is no such choice, or "device" is chosen with an Apple GPU, with custom transforms or with a
            loss that needs more than labels.

    Example:
        >>> augments_on_device("auto", torch.device("cpu"), voxels=2 * 128**3, cores=8)
        False
    """
    if choice not in ("auto", "cpu", "device"):
        raise UsageError(f"patches cannot be changed on {choice!r}", "choose --augment-on auto, cpu or device")
    if choice == "device" and device.type == "mps":
        raise UsageError("changing patches on an Apple GPU is untested", "choose --augment-on cpu")
    if choice == "device" and custom:
        raise UsageError(f"the transform {custom[0].name!r} changes patches on a CPU only", "choose --augment-on cpu")
    if choice == "device" and shapes:
        terms = "component_weight, skeleton_weight and border_weight of the loss"
        what = f"{terms}, and distillation, need patches that a CPU changes"
        raise UsageError(what, "choose --augment-on cpu")
    if choice == "auto":
        return device.type == "cuda" and not custom and not shapes and augments_faster(device, voxels, cores)
    return choice == "device"
