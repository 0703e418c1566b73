"""Tests of the norm that Triton calculates on a GPU: its values in Triton's interpreter, and what needs no Triton.

Triton comes with torch for CUDA. With torch for the CPU, `pip install triton` adds it: a download of 189 MB, which is
why it is not among the packages for tests.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.networks import fused_norm
from autoseg.networks.fused_norm import Layout, memory_order
from autoseg.networks.instance_norm import InstanceNorm, channels_last

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed; pip install triton adds it"
)

SIZES = [(2, 5, 3, 4, 5), (9, 18, 2, 3), (1, 3, 40, 41), (1, 8, 2, 1, 1)]
ERRORS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def plain(x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, slope: float) -> Tensor:
    """What torch's own layers calculate."""
    y = F.instance_norm(x, weight=weight, bias=bias, eps=1e-5)
    return F.leaky_relu(y if shortcut is None else y + shortcut, slope)


def with_gradients(function, gradient: Tensor, leaves: list[Tensor | None], slope: float) -> list[Tensor]:
    """Returns the result of a function and the gradients of its tensors."""
    leaves = [leaf if leaf is None else leaf.detach().clone().requires_grad_() for leaf in leaves]
    y = function(*leaves, slope)
    return [y, *torch.autograd.grad(y, [leaf for leaf in leaves if leaf is not None], gradient.to(y.dtype))]


def fused(x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, slope: float) -> Tensor:
    """What the kernels calculate."""
    return fused_norm.normalize_activate(x, weight, bias, shortcut, slope=slope, epsilon=1e-5)


def compare(size: tuple[int, ...], dtype: torch.dtype, order: str, *, mean=5.0, most=None, device="cpu") -> None:
    """Compares result and gradients with those of torch in float64, with and without a shortcut and the activation.

    Args:
        size: Shape of the map.
        dtype: Its type.
        order: Order of the memory of the map, and in one case another of its gradient.
        mean: Mean of its values, whose standard deviation is 3.
        most: Largest error as a share of the largest value.
        device: Device of all tensors.
    """
    generator = torch.Generator().manual_seed(1)
    x, shortcut, gradient = (torch.randn(size, generator=generator).to(device) for _ in range(3))
    x = (3 * x + mean).to(dtype)
    weight, bias = torch.randn(2, size[1], generator=generator).to(device)
    x = channels_last(x) if order == "channels last" else x
    gradient = channels_last(gradient) if order == "another order of the gradient" else gradient
    for adds, slope in product((False, True), (0.01, 1.0)):
        leaves = [x, weight, bias, shortcut.to(dtype) if adds else None]
        exact = [leaf if leaf is None else leaf.double() for leaf in leaves]
        gradient = gradient.to(dtype)
        ours = with_gradients(fused, gradient, leaves, slope)
        theirs = with_gradients(plain, gradient, exact, slope)
        for our, their, leaf in zip(ours, theirs, [x, x, weight, bias, x], strict=False):
            assert (our.dtype, our.stride()) == (leaf.dtype, leaf.stride())
            error = (our.double() - their).abs().max().item() / max(0.1, their.abs().max().item())
            assert error < (most or ERRORS[dtype]), (adds, slope, our.shape)


@needs_triton
def test_values_and_gradients_are_those_of_torch():
    """In all types and orders, also of odd sizes, several parts, two voxels, and batches of more than eight.

    Triton decides whether to interpret when the kernels are imported, so this happens in a program of its own.
    """
    code = "import test_fused_norm; test_fused_norm.compare_all()"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    folder = os.path.dirname(__file__)  # noqa: PTH120
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def compare_all() -> None:
    """The comparisons of the test above."""
    fused_norm.VALUES_AT_ONCE, fused_norm.CHANNELS_AT_ONCE = 256, 16
    for order in ("contiguous", "channels last"):
        for size in SIZES:
            few = size[2:].count(1) > 1  # two voxels that happen to be near each other have few digits in common
            compare(size, torch.float32, order, most=1e-3 if few else None)
        compare(SIZES[0], torch.float16, order)
        compare(SIZES[0], torch.bfloat16, order)
        compare((2, 3, 40, 31), torch.float32, order, mean=3000.0, most=2e-4)  # by E[x^2] - E[x]^2 it were 0.05
    compare(SIZES[0], torch.float32, "another order of the gradient")


@pytest.mark.gpu
@pytest.mark.parametrize("order", ["contiguous", "channels last"])
@pytest.mark.parametrize("dtype", list(ERRORS))
@pytest.mark.parametrize("size", [*SIZES[:3], (2, 32, 64, 48, 40), (12, 96, 33, 35), (2, 320, 4, 4, 4)])
def test_values_and_gradients_of_a_gpu_are_those_of_torch(size, dtype, order):
    """The kernels as the GPU runs them, of the sizes of networks."""
    assert fused_norm.works_on(torch.device("cuda"))
    compare(size, dtype, order, most=max(1e-4, ERRORS[dtype]), device="cuda")


@needs_triton
def test_kernels_compile_for_a_gpu(tmp_path, monkeypatch):
    """Triton translates each kernel into machine code of an H100, which needs no GPU."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.compiler import compile as compile_kernel

    from autoseg.networks import fused_norm_kernels as kernels

    for name, adds in product(("sum_squares", "join_squares", "normalize", "sum_gradients", "gradient_of_map"), "01"):
        kernel = getattr(kernels, name)
        constants = {"ROWS": 64, "COLUMNS": 64, "PARTS": 64, "HAS_SHORTCUT": adds == "1", "column_step": 1}
        unused = [] if adds == "1" else ["shortcut", "y" if "grad" in name else "shortcut", "of_shortcut"]
        constants |= dict.fromkeys(unused)
        maps = {"x", "y", "shortcut", "gradient", "of_x", "of_shortcut"}
        floats = {"slope": "fp32", "epsilon": "fp32"}
        counts = {"voxels", "channels", "rows", "parts", "row_step"}
        signature = {
            argument: "constexpr"
            if argument in constants
            else floats.get(argument, "i32" if argument in counts else "*bf16" if argument in maps else "*fp32")
            for argument in kernel.arg_names
        }
        used = {argument: value for argument, value in constants.items() if argument in signature}
        source = ASTSource(fn=kernel, signature=signature, constexprs=used)
        compiled = compile_kernel(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
        assert len(compiled.asm["cubin"]) > 0


@pytest.mark.parametrize("order", ["contiguous", "channels last"])
@pytest.mark.parametrize(
    "size", [*SIZES, (2, 32, 128, 128, 128), (64, 32, 320, 320), (1, 320, 4, 4, 4), (300, 2, 9, 9)]
)
def test_programs_cover_a_map_once(size, order):
    """Parts are whole blocks, none is empty, together they hold all voxels, and steps are those of the memory."""
    x = torch.empty(size, device="meta")
    x = channels_last(x) if order == "channels last" else x
    layout = Layout.of(x)
    voxels = x[0, 0].numel()
    assert layout.part_rows % layout.rows == 0
    assert (layout.parts - 1) * layout.part_rows < voxels <= layout.parts * layout.part_rows
    assert layout.grid[0] * layout.rows >= voxels
    assert layout.grid[1] * layout.columns >= size[1]
    assert layout.rows * layout.columns <= fused_norm.VALUES_AT_ONCE
    assert (x.stride(-1), x.stride(1)) == (layout.row_step, layout.column_step)
    assert layout.parts == 1 or layout.parts * layout.grid[1] * size[0] <= fused_norm.PROGRAMS


@pytest.fixture
def pretended_triton(monkeypatch):
    """Lets tensors without values be normalized as on a GPU, which needs no kernel."""
    monkeypatch.setattr(fused_norm, "suits", lambda x: x.device.type == "meta")


@pytest.mark.parametrize("order", ["contiguous", "channels last"])
@pytest.mark.parametrize("batch_size", [2, 9])
@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.usefixtures("pretended_triton")
def test_the_order_of_the_memory_stays_in_batches_of_any_size(dimensions, batch_size, order):
    """Forwards and backwards, also in batches of more than eight, and where a gradient comes in the other order."""
    x = torch.empty(batch_size, 8, *(6,) * dimensions, device="meta")
    other = channels_last(x)
    if order == "channels last":
        x, other = other, x
    x.requires_grad_()
    norm = InstanceNorm(8).to("meta")
    for y in (norm.activate(x.clone()), norm.activate(x.clone(), other), norm(x.clone())):
        [of_x] = torch.autograd.grad(y, x, torch.empty_like(other))
        assert y.stride() == of_x.stride() == x.stride()


@pytest.mark.usefixtures("pretended_triton")
def test_one_operation_replaces_the_norm_its_sum_and_its_activation():
    """Torch sees one operation forwards, with the result and the statistics."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(function._schema.name)
            return function(*args, **(kwargs or {}))

    names: list[str] = []
    norm = InstanceNorm(8).to("meta")
    x = torch.empty(2, 8, 4, 4, 4, device="meta")
    with Names():
        norm.activate(x, torch.empty_like(x))
    assert [name for name in names if "aten::empty" not in name and name != "aten::detach"] == [
        "autoseg::normalize_activate"
    ]


def test_a_cpu_and_maps_of_one_voxel_keep_the_layers_of_torch():
    """Neither is a case for Triton."""
    assert not fused_norm.suits(torch.zeros(2, 3, 4, 4, 4))
    assert memory_order(torch.zeros(2, 3, 4, 4).permute(0, 2, 3, 1)) == torch.contiguous_format


def test_failing_kernels_are_told_once_and_replaced(monkeypatch):
    """Without a compiler on the machine, say, the layers of torch do the work."""

    def fail(*_args, **_options):
        raise RuntimeError("no C compiler\nat all")

    fused_norm.works_on.cache_clear()
    monkeypatch.setattr(fused_norm, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(fused_norm.torch, "ones", fail)
    with pytest.warns(UserWarning, match="because Triton failed: no C compiler$"):
        assert not fused_norm.works_on(torch.device("cuda"))
    assert not fused_norm.works_on(torch.device("cuda"))  # and the line does not come again
    fused_norm.works_on.cache_clear()
