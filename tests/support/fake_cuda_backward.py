"""Backward passes on the pretended GPU of `fake_cuda`, which need more of torch than its public ways.

Autograd asks the device for a guard, a stream and "an accelerator". So for a while the table of device guards gets a
copy of the CPU's guard whose device is cuda:0 and whose events do nothing, and the hooks of CUDA say that CUDA is there
and that no device was used yet. Which entries of these tables are meant depends on the version of torch and on the
processor, so this runs in programs of its own: see `run_apart`.
"""

import ctypes
import mmap
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from fake_cuda import CPU_ENTRY, CUDA_ENTRY, GUARDS, why_no_pretended_cuda

VERSIONS = ("2.13",)
"""Versions of torch whose tables were looked up."""

SET_DEVICE, DESTROY_EVENT, RECORD, BLOCK = 3, 11, 12, 13
ANSWERED_BY_DEVICE = (0, 1, 2, 5, 6, 7, 8, 9)
"""Methods of a guard: those that do nothing here, and those that return a device or a stream. Source: the order in
c10/core/impl/DeviceGuardImplInterface.h of torch 2.13."""

IS_BUILT, HAS_PRIMARY_CONTEXT = 2, 4
"""Methods of the hooks of CUDA, after two destructors. Source: ATen/detail/CUDAHooksInterface.h of torch 2.13."""

DESTRUCTORS = 2

RETURN_CUDA_0 = bytes.fromhex("b80100000031d2c3")
"""mov eax, 1; xor edx, edx; ret: the device cuda:0, or its first stream, in the registers of x86-64."""


def why_no_backward() -> str | None:
    """Returns why backward passes cannot be pretended here; None if they can."""
    if torch.__version__.rpartition(".")[0] not in VERSIONS:
        return f"the tables of torch {torch.__version__} were not looked up"
    if platform.machine() != "x86_64" or platform.system() != "Linux":
        return "the machine code is that of x86-64 on Linux"
    return why_no_pretended_cuda()


requires_backward = pytest.mark.skipif(
    why_no_backward() is not None, reason=f"backward passes cannot be pretended: {why_no_backward()}"
)


def run_apart(code: str) -> str:
    """Runs code in a program of its own, and returns what it prints; the tests fail with its error if it fails."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:] or f"ended by signal {-result.returncode}"
    return result.stdout


@contextmanager
def backward_hooks() -> Iterator[None]:
    """Lets `pretended_cuda(backward=True)` work inside; the tables of torch are as before afterwards."""
    folder = Path(torch.__file__).parent / "lib"
    core, cpu = (ctypes.CDLL(str(folder / name)) for name in ("libc10.so", "libtorch_cpu.so"))
    guards = (ctypes.c_void_p * 2).in_dll(core, GUARDS)
    guard, methods = _copy_object(guards[CPU_ENTRY], methods=30)
    for number in (DESTROY_EVENT, RECORD, BLOCK):
        methods[DESTRUCTORS + number] = methods[DESTRUCTORS + SET_DEVICE]
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(RETURN_CUDA_0)
    view = ctypes.c_char.from_buffer(code)
    for number in ANSWERED_BY_DEVICE:
        methods[DESTRUCTORS + number] = ctypes.addressof(view)
    get_hooks = cpu._ZN2at6detail12getCUDAHooksEv
    get_hooks.restype = ctypes.c_void_p
    hooks = ctypes.c_void_p.from_address(get_hooks())
    hooks_before = hooks.value
    fake_hooks, hook_methods = _copy_object(get_hooks(), methods=60)
    kind = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)
    answers = {IS_BUILT: kind(lambda *_: True), HAS_PRIMARY_CONTEXT: kind(lambda *_: False)}
    for number, answer in answers.items():
        hook_methods[DESTRUCTORS + number] = ctypes.cast(answer, ctypes.c_void_p).value
    guards[CUDA_ENTRY], hooks.value = ctypes.addressof(guard), fake_hooks[0]
    try:
        yield
    finally:
        guards[CUDA_ENTRY], hooks.value = None, hooks_before


def _copy_object(address: int, *, methods: int) -> tuple[ctypes.Array, ctypes.Array]:
    """Copies an object of C++ without fields: returns the object, and its table of methods, which can be changed."""
    table = (ctypes.c_void_p * (DESTRUCTORS + methods))()
    header = DESTRUCTORS * ctypes.sizeof(ctypes.c_void_p)
    ctypes.memmove(table, ctypes.c_void_p.from_address(address).value - header, ctypes.sizeof(table))
    copied = (ctypes.c_void_p * 2)()
    copied[0] = ctypes.addressof(table) + header
    return copied, table
