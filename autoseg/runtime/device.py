"""The device that a network runs on: its choice, precision, memory and random state."""

import gc
import os
import re
from contextlib import AbstractContextManager, nullcontext

import torch

from autoseg.errors import UsageError
from autoseg.runtime.forks import watch_forks
from autoseg.runtime.gpu_decisions import gains_from_compiling, stores_channels_last
from autoseg.runtime.machine import retain_freed_memory

IMITATES_BFLOAT16 = ("AVX512_CORE", "AVX512_CORE_VNNI")
"""Values of ONEDNN_MAX_CPU_ISA with which oneDNN takes bfloat16, but imitates it: a training step then takes longer
than in float32 with AVX2. Source: measured with tests/benchmarks/instruction_sets.py."""


def resolve_device(name: str) -> torch.device:
    """Returns the device of a name.

    Args:
        name: Name of a device. "auto" takes a CUDA GPU if there is one, else an Apple GPU ("mps"), else the CPU.
            "cuda:1" is the second CUDA GPU.

    Raises:
        UsageError: This machine has no such device, or this process was forked from one that uses it.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    watch_forks()
    name, available = str(name), _available_devices()
    if name == "auto":
        name = available[0]
    if name.startswith("cuda") and torch.cuda._is_in_bad_fork():
        what = "this process was forked from one that uses a CUDA GPU, which it can then not use itself"
        raise UsageError(what, "start processes by 'spawn', or choose device 'cpu'")
    if name in available:
        return torch.device(name)
    if re.fullmatch(r"cuda:\d+", name) and "cuda" in available and int(name[5:]) < torch.cuda.device_count():
        return torch.device(name)
    raise UsageError(f"there is no device '{name}' here", f"choose one of: auto, {', '.join(available)}")


def _available_devices() -> list[str]:
    """Returns the names of the devices, the fastest first."""
    devices = []
    if torch.cuda.is_available():
        devices.append("cuda")
        devices += [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def gpu_memory_bytes(device: torch.device | None = None) -> int | None:
    """Returns the bytes of memory of a CUDA GPU, by default of the first; None if it is missing or another device."""
    if not torch.cuda.is_available() or (device is not None and device.type != "cuda"):
        return None
    return int(torch.cuda.get_device_properties(device or 0).total_memory)


def precision(device: torch.device) -> torch.dtype:
    """Returns the number format in which a network calculates on a device; its weights stay float32 everywhere.

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
    """Returns whether convolutions can use instructions of the CPU for bfloat16.

    They cannot if this version of torch does not know of such instructions, or if the environment variable
    ONEDNN_MAX_CPU_ISA keeps oneDNN, which calculates the convolutions, from using them.
    """
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    if probe is None or not probe() or not torch._C._has_mkldnn:
        return False
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in IMITATES_BFLOAT16:
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context in which networks calculate in a device's `precision`; layers that need float32 keep it."""
    dtype = precision(device)
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def exactly(device: torch.device) -> AbstractContextManager[None]:
    """Returns a context in which networks calculate in float32; on a CUDA GPU without TF32, which has fewer digits.

    Everything else that cuDNN is told stays as it is: torch's context would otherwise switch it off.
    """
    if device.type != "cuda":
        return nullcontext()
    cudnn = torch.backends.cudnn
    kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    return cudnn.flags(**kept, allow_tf32=False)


def needs_scaling(device: torch.device) -> bool:
    """Returns whether the loss must be scaled up before the backward pass, so that small gradients survive float16."""
    return precision(device) == torch.float16


def prefers_channels_last(device: torch.device) -> bool:
    """Returns whether weights and batches are stored with the channels last for training.

    Decision: for CUDA GPUs see `gpu_decisions.json`. Not on a CPU, where the network orders its feature maps by itself:
    that makes a step in bfloat16 1.18 times as fast, and ordering the weights too adds nothing (measured with
    `tests/benchmarks/memory_order.py`). Not on an Apple GPU, which we have not measured.
    """
    return device.type == "cuda" and stores_channels_last(device)


def compiles_well(device: torch.device) -> bool:
    """Returns whether compiling a network, which takes a minute, is worth while.

    Decision: for CUDA GPUs see `gpu_decisions.json`; elsewhere it is not.
    """
    return device.type == "cuda" and gains_from_compiling(device)


def make_ready(device: torch.device) -> None:
    """Prepares a device for many training steps, or tiles, of one size.

    On a CUDA GPU, cuDNN tries its kernels once for each size, and uses the fastest from then on. On a CPU, freed memory
    is kept for the next step.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    elif device.type == "cpu":
        retain_freed_memory()


def wait_for(device: torch.device) -> None:
    """Waits until a device has done all its work; a CPU works at once."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def copy_to(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor to a device, unless it is there already.

    A copy from the CPU to a CUDA GPU is asynchronous, from pinned memory. A copy to an Apple GPU is not, because the
    GPU might read the memory after it has been freed.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


RandomState = tuple[torch.Tensor, ...]


def random_state(device: torch.device) -> RandomState:
    """Returns the states of torch's random number generators, on the CPU and on a device."""
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    elif device.type == "mps":
        states.append(torch.mps.get_rng_state())
    return tuple(states)


def restore_random_state(device: torch.device, state: RandomState) -> None:
    """Restores the states that `random_state` returned."""
    torch.set_rng_state(state[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state[1], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state[1])


def tells_when_full(device: torch.device) -> bool:
    """Returns whether full memory always raises an error; on a CPU the system often kills the program instead."""
    return device.type != "cpu"


def free_cached_memory(device: torch.device) -> None:
    """Frees the memory that torch has kept for later tensors, which may have other sizes."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def gpu_memory_within_reach(device: torch.device) -> int | None:
    """Returns the bytes of a CUDA GPU that this program has or could still allocate; None for another device."""
    if device.type != "cuda":
        return None
    return int(free_gpu_memory(device) + torch.cuda.memory_allocated(device))


def free_gpu_memory(device: torch.device) -> int:
    """Returns the bytes of a CUDA GPU that new tensors of this program could take.

    That is more than what the driver calls free, because torch keeps memory that it has freed for later tensors.
    """
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def forget_peak(device: torch.device) -> None:
    """Resets `peak_bytes`."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Returns the peak of the bytes of tensors on a CUDA GPU since `forget_peak`; None for another device."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
