"""Counts what a GPU would have to do: kernels, bytes, floating-point operations, copies, and waits of the program.

`DeviceCounts` is a dispatch mode of torch: it sees each operation before the operation runs. It is used on pretended
tensors; see `fake_cuda`. Counts are numbers of calls and of bytes, not times: they show what a change adds or removes.

A wait is a moment at which the program stops until the GPU has done all its work, because it asks for a value
(`.item()`, `nonzero`, a mask as an index) or copies without `non_blocking`. In a training step there should be none.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import autoseg

PACKAGE = Path(autoseg.__file__).parent
TESTS = Path(__file__).parents[1]
HARNESS = {Path(__file__).with_name(name) for name in ("device_counts.py", "fake_cuda.py", "fake_gpu_runs.py")}

NO_KERNEL = {
    "aten::empty",
    "aten::empty_like",
    "aten::empty_strided",
    "aten::new_empty",
    "aten::new_empty_strided",
    "aten::detach",
    "aten::detach_",
    "aten::alias",
    "aten::lift_fresh",
    "aten::_unsafe_view",
    "aten::_reshape_alias",
    "aten::is_same_size",
    "aten::set_",
    "aten::resize_",
    "aten::is_pinned",
    "aten::_efficientzerotensor",
    "aten::unsafe_chunk",
    "aten::unsafe_split",
    "aten::record_stream",
}
"""Operations that start no kernel."""

KERNELS = {
    "aten::convolution": 2,
    "aten::convolution_backward": 3,
    "aten::native_batch_norm": 3,
    "aten::native_batch_norm_backward": 3,
    "aten::_native_batch_norm_legit": 3,
    "aten::sort": 4,
    "aten::topk": 4,
    "aten::nonzero": 4,
    "aten::bincount": 4,
    "aten::grid_sampler_3d_backward": 2,
    "aten::embedding_dense_backward": 4,
    "autoseg::normalize_activate": 3,
    "autoseg::normalize_activate_backward": 3,
}
"""Kernels of operations that start more than one. Source: ATen's code for CUDA, and `networks.fused_norm`; counts of
cuDNN are typical ones."""

TWICE_READ = ("aten::native_batch_norm", "aten::_native_batch_norm", "autoseg::normalize_activate_backward")
"""Beginnings of the names of operations that read what they get twice: for sums, and then for each value."""

TENSORS_PER_FOREACH_KERNEL = 24

SIZED_BY_VALUES = ("aten::masked_select", "aten::unique_dim", "aten::_unique2", "aten::repeat_interleave")
"""Operations whose result has a size that only the values tell, beside those that `_answer` knows."""


def call_place() -> str:
    """Returns file and line of the innermost frame in the package or in the tests."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for root in (PACKAGE, TESTS):
            if path.is_relative_to(root) and path not in HARNESS:
                return f"{path.relative_to(root)}:{frame.f_lineno}"
        frame = frame.f_back
    return "torch"


class DeviceCounts(TorchDispatchMode):
    """Counts the work of a GPU by phase, and answers what only values could tell.

    Attributes:
        phase: Name under which operations are counted now; see `during`.
        kernels: Kernels, by phase.
        bytes_moved: Bytes that kernels read and write, by phase; of convolutions each tensor once.
        flops: Floating-point operations of convolutions, by phase.
        operations: Kernels by name of the operation, by phase.
        operation_bytes: Bytes by name of the operation, by phase.
        waits: Waits by (phase, kind, place in the package).
        copied: Bytes copied between devices, by (phase, direction).
        pinned_bytes: Bytes that were copied into pinned memory.
        pins: Number of such copies.
        device_type: Device whose work is counted.
    """

    def __init__(self, device_type: str = "cuda") -> None:
        super().__init__()
        self.device_type = device_type
        self.phase = "other"
        self.reset()

    def reset(self) -> None:
        """Sets all counts to zero."""
        self.kernels: Counter[str] = Counter()
        self.bytes_moved: Counter[str] = Counter()
        self.flops: Counter[str] = Counter()
        self.operations: dict[str, Counter[str]] = defaultdict(Counter)
        self.operation_bytes: dict[str, Counter[str]] = defaultdict(Counter)
        self.waits: Counter[tuple[str, str, str]] = Counter()
        self.copied: Counter[tuple[str, str]] = Counter()
        self.pinned_bytes = self.pins = 0

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Counts under the name of a phase; the innermost phase counts."""
        before, self.phase = self.phase, phase
        try:
            yield
        finally:
            self.phase = before

    def list_waits(self) -> list[str]:
        """Returns a line for each place that waits, such as "loss: item at training/losses.py:12, 4 times"."""
        return [f"{phase}: {kind} at {place}, {number} times" for (phase, kind, place), number in self.waits.items()]

    @property
    def total_waits(self) -> int:
        """The number of waits."""
        return sum(self.waits.values())

    @property
    def total_kernels(self) -> int:
        """The number of kernels of all phases."""
        return sum(self.kernels.values())

    def note_wait(self, kind: str) -> None:
        """Counts a wait at the place of the package that is running."""
        self.waits[self.phase, kind, call_place()] += 1

    def note_pin(self, tensor: torch.Tensor) -> None:
        """Counts a copy into pinned memory."""
        self.pinned_bytes += tensor.nbytes
        self.pins += 1

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        name, tensors = func._schema.name, _tensors_in((args, kwargs))
        if name == "aten::convolution" and args[0].dtype != args[1].dtype:
            raise RuntimeError(f"convolution of {args[0].dtype} by {args[1].dtype}")
        answer = self._answer(name, args, kwargs)
        if answer is not None:
            self._count(name, tensors, [])
            return answer[0]
        result = func(*args, **kwargs)
        made = _tensors_in(result)
        if any(self._is_on_device(tensor) for tensor in (*tensors, *made)):
            self._check_types(made)
            self._note_copies(name, args, kwargs, made)
            is_view = any(value.alias_info is not None and not value.alias_info.is_write for value in _returns(func))
            if not is_view and name not in NO_KERNEL:
                self._count(name, tensors, made)
                self._count_products(name, args, made)
        return result

    def _is_on_device(self, tensor: torch.Tensor) -> bool:
        return tensor.device.type == self.device_type

    def _check_types(self, made: Sequence[torch.Tensor]) -> None:
        if self.device_type == "mps" and any(tensor.dtype == torch.float64 for tensor in made):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")

    def _answer(self, name, args, kwargs):
        """Makes up the result of an operation that depends on values, in a tuple; None for any other operation.

        See `_made_up_number`. `nonzero` finds half of the elements, but nothing in a vector of up to 1000, because the
        package asks such vectors for losses that are not finite.
        """
        if name == "aten::_local_scalar_dense":
            if self._is_on_device(args[0]):
                self.note_wait("item")
            return (_made_up_number(args[0]),)
        if name == "aten::equal":
            self._note_wait_of(args[0], "equal")
            return (False,)
        if name == "aten::nonzero":
            self._note_wait_of(args[0], "nonzero")
            is_short = args[0].ndim == 1 and args[0].numel() <= 1000
            found = 0 if is_short else max(1, args[0].numel() // 2)
            return (args[0].new_empty((found, args[0].ndim), dtype=torch.int64),)
        if name == "aten::bincount":
            return self._answer_bincount(*args, **kwargs)
        if name in ("aten::index", "aten::index_put_") and any(_is_mask(index) for index in args[1]):
            return self._answer_mask(name, args[0], args[1])
        if name in SIZED_BY_VALUES:
            self._note_wait_of(args[0], name)
        return None

    def _note_wait_of(self, tensor: torch.Tensor, kind: str) -> None:
        if self._is_on_device(tensor):
            self.note_wait(kind)

    def _answer_bincount(self, values, weights=None, minlength=0):
        if weights is not None and weights.device != values.device:
            raise RuntimeError(f"bincount of values on {values.device} by weights on {weights.device}")
        for _ in range(3):  # the least and the largest value are read, and then the size
            self._note_wait_of(values, "bincount")
        return (values.new_empty((max(1, minlength),), dtype=torch.int64 if weights is None else torch.float64),)

    def _answer_mask(self, name, values, indices):
        self._note_wait_of(values, name.removeprefix("aten::") + " by a mask")
        if name == "aten::index_put_":
            return (values,)
        [mask] = [index for index in indices if index is not None]
        if mask.device.type == "cpu":
            self._note_wait_of(values, "index on the CPU")
        return (values.new_empty((max(1, mask.numel() // 2), *values.shape[mask.ndim :])),)

    def _note_copies(self, name, args, kwargs, made) -> None:
        if name == "aten::_to_copy" and args[0].device != made[0].device:
            self._note_copy(args[0], made[0], kwargs.get("non_blocking", False))
        if name == "aten::copy_" and args[0].device != args[1].device and args[1].ndim:
            self._note_copy(args[1], args[0], args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
        if name in ("aten::index", "aten::index_put_"):
            for index in args[1]:
                if index is not None and index.device.type == "cpu":
                    self._note_wait_of(args[0], "index on the CPU")

    def _note_copy(self, source: torch.Tensor, target: torch.Tensor, non_blocking: bool) -> None:
        direction = f"{source.device.type} to {target.device.type}"
        self.copied[self.phase, direction] += source.nbytes
        if not non_blocking:
            self.note_wait(f"copy from {direction}")

    def _count(self, name: str, tensors: Sequence[torch.Tensor], made: Sequence[torch.Tensor]) -> None:
        if not any(self._is_on_device(tensor) for tensor in (*tensors, *made)):
            return
        kernels = KERNELS.get(name, 1)
        if name.startswith(("aten::_foreach", "aten::_fused", "aten::_amp_foreach")):
            kernels = -(-len(tensors) // TENSORS_PER_FOREACH_KERNEL)
        moved = sum(tensor.nbytes for tensor in (*tensors, *made) if self._is_on_device(tensor))
        if name == "autoseg::normalize_activate":  # reads a shortcut once, the map twice
            moved += tensors[0].nbytes
        if name.startswith(TWICE_READ):
            moved += sum(tensor.nbytes for tensor in tensors if self._is_on_device(tensor))
        if name == "aten::_fused_sgd_":  # weights and momentum are written as well
            moved += 2 * moved // 3
        if name == "aten::convolution_backward":  # the gradient is read for the input and for the weights
            moved += tensors[0].nbytes
        self.kernels[self.phase] += kernels
        self.operations[self.phase][name] += kernels
        self.bytes_moved[self.phase] += moved
        self.operation_bytes[self.phase][name] += moved

    def _count_products(self, name, args, made) -> None:
        if name == "aten::convolution":
            image, weights, transposed = args[0], args[1], args[6]
            voxels = (image if transposed else made[0]).shape[2:].numel() * len(image)
            self.flops[self.phase] += 2 * weights.numel() * voxels
        elif name == "aten::convolution_backward":
            gradient, image, weights, transposed, needed = args[0], args[1], args[2], args[7], args[10]
            voxels = (image if transposed else gradient).shape[2:].numel() * len(image)
            self.flops[self.phase] += 2 * weights.numel() * voxels * (needed[0] + needed[1])


def _tensors_in(values) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def _returns(func) -> Sequence[torch._C.Argument]:
    return func._schema.returns


def _is_mask(index: torch.Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _made_up_number(tensor: torch.Tensor) -> bool | int | float:
    """Returns the value of a tensor: true, 1 or 1.0, but 0.0 on a GPU, where a gradient scaler asks for overflows."""
    if getattr(tensor, "constant", None) is not None:  # numbers that the program itself made a tensor of
        with no_dispatch():
            return tensor.constant.item()
    if tensor.dtype == torch.bool:
        return True
    if not tensor.is_floating_point():
        return 1
    return 1.0 if tensor.device.type == "cpu" else 0.0
