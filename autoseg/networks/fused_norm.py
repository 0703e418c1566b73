"""Instance norm, the sum with a shortcut, and leaky ReLU in few passes over a map on a CUDA GPU, by Triton.

Torch's batch norm, its joined samples, and the activation after it read and write a map 8 times forwards, and 13 times
backwards. Here it is read twice and written once forwards, and backwards read four times and written once; a shortcut
adds one read forwards, and two reads and a write backwards. Maps keep the order of their memory, in batches of any
size.

Torch knows two operations, `autoseg::normalize_activate` and its backward pass, also without values: tensors on the
device "meta" and fake tensors get the shapes and the order of the results.
"""

import warnings
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PARTS_AT_ONCE = 64
"""Number of parts whose sums are joined at once."""

LEAST_CAPABILITY = (8, 0)
"""Lowest compute capability of a GPU that Triton supports. Source: Triton's documentation."""

MOST_VALUES = 2**31
"""Values of a sample that kernels do not reach, because they count the places within a sample with 32 bits."""

VALUES_AT_ONCE, CHANNELS_AT_ONCE = 4096, 64
"""Values that a program of a kernel holds at once, and of how many channels if these are last. Decision: 16 values for
each thread of 8 warps; 64 values of 16 bits fill a line of the cache."""

PROGRAMS = 1024
"""Number of programs that sum up the parts of a map. Decision: several for each multiprocessor of a large GPU."""

WARPS = 8

TYPES = (torch.float32, torch.float16, torch.bfloat16)


class Layout(NamedTuple):
    """A map in memory, and how it is divided among the programs of a kernel.

    Attributes:
        samples: Number of samples.
        channels: Number of channels.
        voxels: Number of voxels of a sample.
        row_step: Distance of voxels in memory.
        column_step: Distance of channels in memory.
        rows: Number of voxels that a program holds at once.
        columns: Number of channels that a program holds at once.
        parts: Number of parts into which the voxels are divided for sums.
    """

    samples: int
    channels: int
    voxels: int
    row_step: int
    column_step: int
    rows: int
    columns: int
    parts: int

    @classmethod
    def of(cls, x: Tensor) -> "Layout":
        """Returns the layout of a map that is contiguous in one of the two orders.

        Example: with the channels last, the voxels are as far apart as there are channels.
            >>> Layout.of(torch.zeros(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d))[:5]
            (2, 3, 120, 3, 1)
        """
        samples, channels = x.shape[:2]
        voxels = x[0, 0].numel()
        is_first = x.is_contiguous()
        if is_first:
            rows = min(VALUES_AT_ONCE, _power_of_two(voxels))
            columns = min(VALUES_AT_ONCE // rows, _power_of_two(channels))
        else:
            columns = min(CHANNELS_AT_ONCE, _power_of_two(channels))
            rows = min(VALUES_AT_ONCE // columns, _power_of_two(voxels))
        most = max(1, PROGRAMS // (samples * -(-channels // columns)))
        parts = min(-(-voxels // rows), most)
        parts = -(-voxels // (rows * -(-voxels // (rows * parts))))  # whole blocks each, so that no part is empty
        steps = (1, voxels) if is_first else (channels, 1)
        return cls(samples, channels, voxels, *steps, rows, columns, parts)

    @property
    def part_rows(self) -> int:
        """Number of voxels of a part, whole blocks; the last part may have fewer."""
        return self.rows * -(-self.voxels // (self.rows * self.parts))

    @property
    def sum_grid(self) -> tuple[int, int, int]:
        """Numbers of the programs that sum up parts."""
        return self.parts, -(-self.channels // self.columns), self.samples

    @property
    def grid(self) -> tuple[int, int, int]:
        """Numbers of the programs that calculate each value."""
        return -(-self.voxels // self.rows), -(-self.channels // self.columns), self.samples

    @property
    def blocks(self) -> dict[str, int]:
        """The constants with which kernels are compiled."""
        return {"ROWS": self.rows, "COLUMNS": self.columns, "num_warps": WARPS}


def _power_of_two(number: int) -> int:
    """Returns the smallest power of two that is at least a number."""
    return 1 << (number - 1).bit_length()


def memory_order(x: Tensor) -> torch.memory_format:
    """Returns the order in which a map (n, c, *size) is kept: channels last, unless it is contiguous or neither."""
    last = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return last if x.is_contiguous(memory_format=last) and not x.is_contiguous() else torch.contiguous_format


def suits(x: Tensor) -> bool:
    """Returns whether a map is normalized here: on a CUDA GPU for which Triton is installed, outside a compiler.

    A compiler fuses the single layers by itself. Maps of one voxel are left to torch, which refuses them.
    """
    return (
        x.device.type == "cuda"
        and not torch.compiler.is_compiling()
        and x.dtype in TYPES
        and x.ndim in (4, 5)
        and x[0, 0].numel() > 1
        and x[0].numel() < MOST_VALUES
        and works_on(x.device)
    )


@lru_cache
def works_on(device: torch.device) -> bool:
    """Returns whether the kernels can be compiled for a GPU, which is tried once.

    Triton needs a recent GPU, and a C compiler on the machine.
    """
    if find_spec("triton") is None or torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return False
    try:
        x = torch.ones(1, 2, 2, 2, device=device)
        y, statistics = torch.ops.autoseg.normalize_activate(x, x[0, :, 0, 0], x[0, :, 0, 0], None, 1.0, 1.0)
        torch.ops.autoseg.normalize_activate_backward(y, x, None, statistics, *2 * [x[0, :, 0, 0]], 1.0)
    except Exception as error:  # noqa: BLE001 - whatever Triton raises, the layers of torch do the same
        cause = (str(error).strip() or type(error).__name__).splitlines()[0]
        warnings.warn(f"norms are not fused, which is slower, because Triton failed: {cause}", stacklevel=2)
        return False
    return True


def normalize_activate(
    x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, *, slope: float, epsilon: float
) -> Tensor:
    """Maps (n, c, *size) to the leaky ReLU of the normalized, scaled and shifted map plus a shortcut.

    Args:
        x: The map, in any order of the memory, which the result keeps.
        weight: Scale of each channel.
        bias: Shift of each channel.
        shortcut: A map of the same shape that is added before the activation, or None.
        slope: Negative slope; 1 leaves out the activation.
        epsilon: Added to the variance.
    """
    return cast(Tensor, FusedNorm.apply(x, weight, bias, shortcut, (slope, epsilon)))  # type: ignore[no-untyped-call]


class FusedNorm(torch.autograd.Function):
    """The operation and its gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, constants: tuple[float, float]
    ) -> Tensor:
        """Returns the map of `normalize_activate`; the constants are slope and epsilon."""
        order = memory_order(x)
        x = x.contiguous(memory_format=order)
        if shortcut is not None:
            shortcut = shortcut.contiguous(memory_format=order)
        y, statistics = torch.ops.autoseg.normalize_activate(x, weight, bias, shortcut, *constants)
        ctx.slope, ctx.shortcut_type = constants[0], None if shortcut is None else shortcut.dtype
        ctx.save_for_backward(x, None if shortcut is None else y, statistics, weight, bias)
        return cast(Tensor, y)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, None]:
        """Returns the gradients of x, weight, bias and the shortcut."""
        x, y, statistics, weight, bias = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=memory_order(x))
        of_x, of_shortcut, sums = torch.ops.autoseg.normalize_activate_backward(
            gradient, x, y, statistics, weight, bias, ctx.slope
        )
        of_bias, of_weight = sums.sum(dim=0).to(weight.dtype)
        return of_x, of_weight, of_bias, None if y is None else of_shortcut.to(ctx.shortcut_type), None


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, slope: float, epsilon: float
) -> tuple[Tensor, Tensor]:
    """Returns the result, and mean and inverse standard deviation of each map, (n, 2, channels), float32."""
    from autoseg.networks import fused_norm_kernels as kernels  # noqa: PLC0415 - Triton is not installed everywhere

    layout = Layout.of(x)
    y = torch.empty_like(x)
    partial = x.new_empty((layout.samples, layout.parts, 2, layout.channels), dtype=torch.float32)
    statistics = x.new_empty((layout.samples, 2, layout.channels), dtype=torch.float32)
    size = layout.voxels, layout.channels
    steps = layout.row_step, layout.column_step
    kernels.sum_squares[layout.sum_grid](x, partial, *size, layout.part_rows, *steps, **layout.blocks)
    kernels.join_squares[layout.sum_grid[1:]](
        partial,
        statistics,
        *size,
        layout.part_rows,
        layout.parts,
        epsilon,
        PARTS=PARTS_AT_ONCE,
        COLUMNS=layout.columns,
    )
    kernels.normalize[layout.grid](
        x, shortcut, y, statistics, weight, bias, *size, *steps, slope, shortcut is not None, **layout.blocks
    )
    return y, statistics


def _backward(  # noqa: PLR0913, PLR0917 - the arguments of the operation
    gradient: Tensor, x: Tensor, y: Tensor | None, statistics: Tensor, weight: Tensor, bias: Tensor, slope: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of the map and of the shortcut, and those of bias and weight, (n, 2, channels), float32.

    Without a shortcut, which is when `y` is None, its gradient is empty.
    """
    from autoseg.networks import fused_norm_kernels as kernels  # noqa: PLC0415 - Triton is not installed everywhere

    layout = Layout.of(x)
    of_x = torch.empty_like(x)
    of_shortcut = torch.empty_like(x) if y is not None else x.new_empty(0)
    partial = x.new_empty((layout.samples, layout.parts, 2, layout.channels), dtype=torch.float32)
    size = layout.voxels, layout.channels
    options = layout.row_step, layout.column_step, slope, y is not None
    known = gradient, x, y, statistics, weight, bias
    kernels.sum_gradients[layout.sum_grid](*known, partial, *size, layout.part_rows, *options, **layout.blocks)
    sums = partial.sum(dim=1)
    kernels.gradient_of_map[layout.grid](*known, sums, of_x, of_shortcut, *size, *options, **layout.blocks)
    return of_x, of_shortcut, sums


def _forward_shapes(x: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty((x.shape[0], 2, x.shape[1]), dtype=torch.float32)


def _backward_shapes(_gradient: Tensor, x: Tensor, y: Tensor | None, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    of_shortcut = torch.empty_like(x) if y is not None else x.new_empty(0)
    return torch.empty_like(x), of_shortcut, x.new_empty((x.shape[0], 2, x.shape[1]), dtype=torch.float32)


_LIBRARY: Any = torch.library.Library("autoseg", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define(
    "normalize_activate(Tensor x, Tensor weight, Tensor bias, Tensor? shortcut, float slope, float epsilon) "
    "-> (Tensor, Tensor)"
)
_LIBRARY.define(
    "normalize_activate_backward(Tensor gradient, Tensor x, Tensor? y, Tensor statistics, Tensor weight, Tensor bias, "
    "float slope) -> (Tensor, Tensor, Tensor)"
)
for _name, _run, _shapes in (
    ("normalize_activate", _forward, _forward_shapes),
    ("normalize_activate_backward", _backward, _backward_shapes),
):
    _LIBRARY.impl(_name, _run, "CUDA")
    _LIBRARY.impl(_name, _run, "CPU")  # by Triton's interpreter, for tests
    torch.library.register_fake(f"autoseg::{_name}", _shapes, lib=_LIBRARY)
