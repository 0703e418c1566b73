"""Runs the paths of the package for CUDA on a machine without a GPU, with tensors that say cuda:0 and hold no values.

    >>> import torch
    >>> if why_no_pretended_cuda() is None:
    ...     with pretended_cuda() as counts:
    ...         image = torch.zeros(2, 1, 8, 8, device=CUDA)
    ...         is_positive = bool((image.mean() > 0).item())
    ...     counts.total_waits, [kind for _, kind, _ in counts.waits]
    (1, ['item'])

Within `pretended_cuda`, torch's fake tensors have devices, types, shapes and orders of memory, and each operation is
checked as torch checks it before a kernel starts: a tensor on the wrong device, or types that do not fit, raise torch's
own error. No value is calculated; what the program reads from the device is made up. `DeviceCounts` counts kernels,
bytes and waits. What depends on values, and what only a kernel refuses, is not found.

How to use it in a test:
    - `pytestmark = requires_pretended_cuda` skips the tests where torch offers no hook, and says why.
    - Make cases, patches and whatever needs values (`Batches._prepare`) before the context, networks inside it.
    - The context is under `no_grad`; this forward part needs a single entry in torch's table of device guards, which is
      taken out again. Gradients need more, which depends on the version of torch: `fake_cuda_backward`.
    - `counts.reset()` forgets what was counted so far, `with counts.during("loss")` names a phase, and
      `counts.list_waits()` says where the program waits. `fake_gpu_runs` makes networks, batches and runs of any size.
    - Streams and events of `torch.cuda` do nothing here, but `synchronize` counts as a wait.
"""

import ctypes
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import fused_sgd_without_values  # noqa: F401 - registers what torch lacks
import numpy as np
import pytest
import torch
from device_counts import DeviceCounts
from torch import nn
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._mode_utils import no_dispatch

CUDA, MPS = torch.device("cuda:0"), torch.device("mps:0")

GUARDS = "_ZN3c104impl26device_guard_impl_registryE"
"""Torch's table of device guards, one entry for each type of device, as the linker names it."""

CPU_ENTRY, CUDA_ENTRY, MPS_ENTRY = 0, 1, 13
"""Numbers of the types of devices. Source: c10/core/DeviceType.h."""

FOREACH_MODULES = ("torch.optim.optimizer", "torch.utils._foreach_utils")
FOREACH_TYPES = [torch.Tensor, nn.Parameter, FakeTensor]
"""Types of tensors that optimizers change many at once, as they do on a GPU; torch's own lists lack fake ones."""

NUMPY, DEEPCOPY = torch.Tensor.numpy, torch.Tensor.__deepcopy__

FREE_BYTES, TOTAL_BYTES, HELD_BYTES = 130 * 2**30, 141 * 2**30, 2**30


def why_no_pretended_cuda() -> str | None:
    """Returns why CUDA cannot be pretended with this build of torch; None if it can."""
    if torch.cuda.is_available() or torch.version.cuda is not None:
        return "this build of torch has CUDA itself"
    library = Path(torch.__file__).parent / "lib" / "libc10.so"
    if not library.exists():
        return "this build of torch has no libc10.so"
    try:
        entry = _guards()[CUDA_ENTRY]
    except (OSError, ValueError):
        return "libc10.so of this build of torch has no table of device guards"
    return None if entry is None else "torch's table of device guards has an entry for CUDA already"


def _guards() -> ctypes.Array[ctypes.c_void_p]:
    core = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    return (ctypes.c_void_p * (MPS_ENTRY + 1)).in_dll(core, GUARDS)


requires_pretended_cuda = pytest.mark.skipif(
    why_no_pretended_cuda() is not None, reason=f"CUDA cannot be pretended: {why_no_pretended_cuda()}"
)


@contextmanager
def pretended_cuda(
    *, bfloat16: bool = True, free_bytes: int = FREE_BYTES, backward: bool = False
) -> Iterator[DeviceCounts]:
    """Pretends that this machine has a CUDA GPU, "cuda:0", of compute capability 9.0.

    Args:
        bfloat16: Whether the GPU has bfloat16; if not, networks calculate in float16 and the loss is scaled.
        free_bytes: Free memory of the GPU, as torch tells it.
        backward: Whether gradients are calculated; only within `fake_cuda_backward.backward_hooks`.

    Yields:
        What the GPU would have to do.
    """
    counts = DeviceCounts()
    changes = [
        *_tensor_changes(counts),
        *_cuda_changes(counts, bfloat16=bfloat16, free_bytes=free_bytes),
    ]
    with pretended_device(CUDA_ENTRY, counts, changes, backward=backward):
        yield counts


@contextmanager
def pretended_mps() -> Iterator[DeviceCounts]:
    """Pretends that this machine has an Apple GPU, "mps", which has no numbers of 64 bits with a point.

    Raises:
        TypeError: Within the context, a float64 tensor would be made on the device.

    Yields:
        What the GPU would have to do.
    """
    counts, state = DeviceCounts("mps"), torch.zeros(16, dtype=torch.uint8)
    answers = {"get_rng_state": state, "set_rng_state": None, "empty_cache": None, "synchronize": None}
    changes = [
        *_tensor_changes(counts),
        *((torch.mps, name, _answering(answer)) for name, answer in answers.items()),
    ]
    with pretended_device(MPS_ENTRY, counts, changes):
        yield counts


@contextmanager
def pretended_device(
    entry: int, counts: DeviceCounts, changes: Sequence[tuple[object, str, object]], *, backward: bool = False
) -> Iterator[None]:
    """Pretends a device; everything is as before afterwards.

    Args:
        entry: Its entry in the table of device guards.
        counts: Counts what it would have to do.
        changes: What torch lacks for it, and what fake tensors do not bear: (owner, attribute, value).
        backward: Whether gradients are calculated.
    """
    guards = _guards()
    with ExitStack() as stack:
        if guards[entry] is None:
            guards[entry] = guards[CPU_ENTRY]
            stack.callback(guards.__setitem__, entry, None)
        for owner, name, replacement in changes:
            stack.enter_context(patch.object(owner, name, replacement, create=True))
        if backward:
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        else:
            stack.enter_context(torch.no_grad())
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        stack.enter_context(counts)
        yield


class PretendedStream:
    """A stream of a GPU, on which nothing runs."""

    counts: DeviceCounts

    def __init__(self, *_: object, **__: object) -> None:
        self.device, self.device_index, self.device_type, self.stream_id = CUDA, 0, 1, 0

    def wait_stream(self, stream: object) -> None:
        """Does nothing: the GPU waits, not the program."""

    def wait_event(self, event: object) -> None:
        """Does nothing."""

    def record_event(self, event: object = None) -> "PretendedEvent":
        """Returns an event."""
        return event if isinstance(event, PretendedEvent) else PretendedEvent()

    def query(self) -> bool:
        """Returns that all work is done."""
        return True

    def synchronize(self) -> None:
        """Counts a wait."""
        self.counts.note_wait("synchronize")

    def __enter__(self) -> "PretendedStream":
        return self

    def __exit__(self, *_: object) -> None:
        pass


class PretendedEvent:
    """An event on a stream, which has happened already."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def record(self, stream: object = None) -> None:
        """Does nothing."""

    def wait(self, stream: object = None) -> None:
        """Does nothing: the GPU waits, not the program."""

    def query(self) -> bool:
        """Returns that it has happened."""
        return True

    def synchronize(self) -> None:
        """Counts a wait."""
        PretendedStream.counts.note_wait("synchronize")

    def elapsed_time(self, _: object) -> float:
        """Returns milliseconds that are made up."""
        return 1.0


def _cuda_changes(counts: DeviceCounts, *, bfloat16: bool, free_bytes: int) -> list[tuple[object, str, object]]:
    """Returns what a CPU build of torch lacks of `torch.cuda`."""
    state = torch.zeros(16, dtype=torch.uint8)
    answers: dict[str, object] = {
        "is_bf16_supported": bfloat16,
        "get_device_capability": (9, 0),
        "get_rng_state": state,
        "set_rng_state": None,
        "mem_get_info": (free_bytes, TOTAL_BYTES),
        "memory_reserved": HELD_BYTES,
        "memory_allocated": HELD_BYTES,
        "max_memory_reserved": HELD_BYTES,
        "max_memory_allocated": HELD_BYTES,
        "reset_peak_memory_stats": None,
        "empty_cache": None,
        "utilization": 50,
        "current_device": 0,
        "device_count": 1,
        "_lazy_init": None,
        "current_stream": PretendedStream(),
        "default_stream": PretendedStream(),
    }
    return [
        *((torch.cuda, name, _answering(answer)) for name, answer in answers.items()),
        (torch.cuda, "synchronize", lambda *_: counts.note_wait("synchronize")),
        (torch.cuda, "stream", lambda stream: stream),
        (torch.cuda, "Stream", PretendedStream),
        (torch.cuda, "Event", PretendedEvent),
        (torch.Tensor, "record_stream", _answering(None)),
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch._C, "_conv_determine_backend_memory_format", _cudnn_memory_format),
        *((importlib.import_module(name), "_foreach_supported_types", FOREACH_TYPES) for name in FOREACH_MODULES),
    ]


def _tensor_changes(counts: DeviceCounts) -> list[tuple[object, str, object]]:
    """Returns what fake tensors do not bear."""
    state = torch.zeros(16, dtype=torch.uint8)
    PretendedStream.counts = counts
    return [
        # C++ would write the state into memory that a fake tensor does not have
        (torch, "get_rng_state", lambda: state),
        (torch, "set_rng_state", lambda _: None),
        (torch.Tensor, "numpy", _fake_numpy),
        (FakeTensor, "tolist", _fake_tolist),
        (torch.Tensor, "pin_memory", _fake_pin_memory),
        (torch.Tensor, "__deepcopy__", _fake_deepcopy),
        (nn.Module, "_apply", _apply_without_swapping),
        (nn.Module, "load_state_dict", _load_state_dict),
    ]


def _answering(answer: object) -> Callable[..., object]:
    return lambda *_, **__: answer


def _fake_numpy(self, *args, **kwargs):
    """Returns zeros for a fake tensor, as all methods by which values leave a tensor do here."""
    if not isinstance(self, FakeTensor):
        return NUMPY(self, *args, **kwargs)
    if self.device.type != "cpu":
        raise TypeError(f"can't convert {self.device} device type tensor to numpy")
    return _values(self)


def _fake_tolist(self):
    if self.device.type != "cpu":
        PretendedStream.counts.note_wait("tolist")
    return _values(self).tolist()


def _fake_pin_memory(self, *_):
    if self.device.type != "cpu":
        raise RuntimeError(f"cannot pin a tensor on {self.device}, only dense CPU tensors can be pinned")
    PretendedStream.counts.note_pin(self)
    return self.clone()


def _fake_deepcopy(self, memo):
    """Copies without the memory that a fake tensor does not have, and that the original would read."""
    if not isinstance(self, FakeTensor):
        return DEEPCOPY(self, memo)
    copied = self.detach().clone()
    copied = nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied
    memo[id(self)] = copied
    return copied


def _values(tensor: FakeTensor) -> np.ndarray:
    """Returns zeros, but the values of a tensor that was made of numbers and never changed, which torch keeps."""
    if tensor.constant is not None:
        with no_dispatch():
            return NUMPY(tensor.constant)
    dtype = torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype
    return np.zeros(tuple(tensor.shape), dtype=str(dtype).removeprefix("torch."))


def _cudnn_memory_format(image: torch.Tensor, weight: torch.Tensor, _backend: object) -> torch.memory_format:
    """Returns the order of the result of a convolution: channels last if image or weights have it.

    Source: `cudnn_conv_suggest_memory_format` in ATen.
    """
    channels_last = torch.channels_last_3d if weight.ndim == 5 else torch.channels_last
    formats = (suggest_memory_format(image), suggest_memory_format(weight))
    return channels_last if channels_last in formats else torch.contiguous_format


def _apply_without_swapping(self, fn, recurse=True):
    """Changes all weights and buffers of a module as `nn.Module._apply` does, which swaps tensors in place."""
    for child in self.children():
        child._apply(fn)
    for name, weights in self._parameters.items():
        if weights is not None:
            with torch.no_grad():
                moved = fn(weights)
            self._parameters[name] = nn.Parameter(moved, weights.requires_grad)
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = fn(buffer)
    return self


def _load_state_dict(self, state_dict, strict=True, assign=False):
    """Copies weights after their names and shapes were compared."""
    own = self.state_dict()
    if own.keys() != state_dict.keys() or any(own[name].shape != state_dict[name].shape for name in own):
        raise RuntimeError(f"weights do not fit: {sorted(own.keys() ^ state_dict.keys())[:3]}")
    with torch.no_grad():
        for name, weights in own.items():
            weights.copy_(state_dict[name])
