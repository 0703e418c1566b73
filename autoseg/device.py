"""Where the network runs, and in which precision."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from autoseg.errors import AutosegError, UsageError


def resolve_device(name: str) -> torch.device:
    """Turns the name of a device into the device, and makes sure that it is there.

    Args:
        name: "auto" takes a CUDA GPU if there is one, else an Apple GPU ("mps"), else the CPU. "cuda:1" is the second
            CUDA GPU.

    Raises:
        UsageError: There is no such device.
    """
    available = _available_devices()
    if name == "auto":
        return torch.device(available[0])
    if name in available:
        return torch.device(name)
    if re.fullmatch(r"cuda:\d+", name) and "cuda" in available and int(name[5:]) < torch.cuda.device_count():
        return torch.device(name)
    raise UsageError(f"there is no device '{name}' here", f"choose one of: auto, {', '.join(available)}")


def _available_devices() -> list[str]:
    """Names of the devices, the fastest first."""
    devices = []
    if torch.cuda.is_available():
        devices.append("cuda")
        devices += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def gpu_memory_bytes(device: torch.device | None = None) -> int | None:
    """Memory of a CUDA GPU, by default of the first; None if there is none, or the device is another."""
    if not torch.cuda.is_available() or (device is not None and device.type != "cuda"):
        return None
    return int(torch.cuda.get_device_properties(device or 0).total_memory)


def precision(device: torch.device) -> torch.dtype:
    """The number format in which the network calculates on a device; its weights stay float32 everywhere.

    Decision: bfloat16 where the hardware has it, because it has the range of float32 and needs no care; float16 on
    older CUDA GPUs; float32 on an Apple GPU, whose 3D convolutions in half precision we have not measured, and on a
    CPU that would have to imitate bfloat16, which is slower than float32.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if device.type == "cpu" and _cpu_has_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; no, if this version of torch has no name for the question."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return probe is not None and bool(probe())


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """A context in which the network calculates in the device's `precision`; layers that need float32 keep it."""
    dtype = precision(device)
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def needs_scaling(device: torch.device) -> bool:
    """Whether the loss must be scaled up before the backward pass, lest small gradients vanish in float16."""
    return precision(device) == torch.float16


@contextmanager
def memory_named(device: torch.device, advice: str) -> Iterator[None]:
    """Says in one line that the memory of a device is full, and what to do about it.

    Raises:
        AutosegError: It is. Torch has an error of its own for CUDA; of an Apple GPU only the text tells.
    """
    try:
        yield
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise AutosegError(f"the memory of the device {device} is full", advice) from error
