"""Tests of the choice of device and precision."""

import pytest
import torch

from autoseg.errors import AutosegError, UsageError
from autoseg.runtime.device import (
    autocast,
    exactly,
    free_gpu_memory,
    gpu_memory_within_reach,
    make_ready,
    needs_scaling,
    precision,
    prefers_channels_last,
    random_state,
    resolve_device,
    restore_random_state,
)
from autoseg.runtime.full_memory import is_memory_full, memory_named

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def machine(monkeypatch):
    """Pretends to be a machine with other devices."""

    def pretend(*, gpus: int = 0, apple: bool = False, bfloat16: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_options: bfloat16)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: apple)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bfloat16)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bfloat16)

    return pretend


def test_auto_takes_the_fastest_device(machine):
    """A CUDA GPU comes before an Apple GPU, and an Apple GPU before the CPU."""
    chosen = []
    for gpus, apple in [(2, True), (0, True), (0, False)]:
        machine(gpus=gpus, apple=apple)
        chosen.append(resolve_device("auto").type)
    assert chosen == ["cuda", "mps", "cpu"]


def test_a_gpu_is_found_by_its_number(machine):
    """GPUs are numbered from 0."""
    machine(gpus=2)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda:2", "mps", "gpu", "cuda:x", "cuda:", ""])
def test_absent_device_is_refused_with_the_list_of_the_others(machine, name):
    """The error names the missing device and lists the available ones."""
    machine(gpus=2)
    with pytest.raises(UsageError, match=f"no device '{name}' here; choose one of: auto, cuda, cuda:0, cuda:1, cpu"):
        resolve_device(name)


@pytest.mark.parametrize(
    ("kind", "bfloat16", "expected"),
    [
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float16),
        ("mps", False, torch.float32),
        ("cpu", True, torch.bfloat16),
        ("cpu", False, torch.float32),
    ],
)
def test_precision_follows_the_hardware(machine, kind, bfloat16, expected):
    """Only float16 needs a scaled loss."""
    machine(gpus=1, apple=True, bfloat16=bfloat16)
    assert precision(torch.device(kind)) == expected
    assert needs_scaling(torch.device(kind)) == (expected == torch.float16)


@pytest.mark.parametrize("reason", ["an older instruction set is asked for", "torch has no oneDNN"])
def test_precision_follows_what_convolutions_are_calculated_with(machine, monkeypatch, reason):
    """A CPU that has bfloat16 calculates in float32 if its convolutions cannot use it."""
    machine(bfloat16=True)
    if reason == "torch has no oneDNN":
        monkeypatch.setattr(torch._C, "_has_mkldnn", False)
    else:
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert precision(CPU) == torch.float32


@pytest.mark.parametrize("bfloat16", [True, False])
def test_autocast_calculates_in_the_precision_of_the_device(machine, bfloat16):
    """A matrix product has the precision of the device inside the context, and float32 outside."""
    machine(bfloat16=bfloat16)
    ones = torch.ones(2, 2)
    with autocast(CPU):
        assert (ones @ ones).dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    assert (ones @ ones).dtype == torch.float32


@pytest.mark.usefixtures("gpu_beliefs")
@pytest.mark.parametrize(
    ("kind", "capability", "expected"),
    [
        ("cuda", (9, 0), True),
        ("cuda", (7, 0), True),
        ("cuda", (6, 1), False),
        ("cpu", None, False),
        ("mps", None, False),
    ],
)
def test_tensor_cores_want_the_channels_last(monkeypatch, kind, capability, expected):
    """Older GPUs have no tensor cores; on a CPU the network orders its feature maps by itself."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert prefers_channels_last(torch.device(kind)) == expected


@pytest.mark.parametrize(("kind", "tried"), [("cuda", True), ("cpu", False)])
def test_kernels_are_tried_where_sizes_stay_the_same(monkeypatch, kind, tried):
    """The kernels are those of cuDNN, which a CPU does not have."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    make_ready(torch.device(kind))
    assert torch.backends.cudnn.benchmark == tried


def test_random_numbers_go_on_where_they_were():
    """This holds after any number of draws."""
    torch.manual_seed(4)
    before = random_state(CPU)
    first = torch.rand(3)
    restore_random_state(CPU, before)
    assert torch.equal(torch.rand(3), first)


@pytest.mark.parametrize(
    ("device", "error"),
    [
        ("cuda", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        ("mps", RuntimeError("MPS backend out of memory")),
        ("cpu", MemoryError("Unable to allocate 2.00 GiB")),
    ],
)
def test_full_memory_is_said_in_one_line(device, error):
    """The line names the device and the advice, however long the device's message is."""
    with (
        pytest.raises(AutosegError, match=rf"^the memory of the device {device} is full; take a smaller patch$"),
        memory_named(torch.device(device), "take a smaller patch"),
    ):
        raise error


def test_other_errors_of_the_device_are_bugs():
    """They are raised as they are."""
    with pytest.raises(RuntimeError, match="illegal access"), memory_named(CPU, "take a smaller patch"):
        raise RuntimeError("illegal access")


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB",
        "MPS backend out of memory (MPS allocated: 17.00 GB)",
        "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory",
        "GET was unable to find an engine to execute this computation",
        "Unable to find a valid cuDNN algorithm to run convolution",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_full_memory_is_recognized(text):
    """Also where cuDNN or cuBLAS say it in their own words."""
    assert is_memory_full(RuntimeError(text))
    assert not is_memory_full(ValueError(text))


@pytest.mark.parametrize(
    "text", ["CUDA out of memory", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "MPS backend out of memory"]
)
def test_full_gpu_is_not_called_the_cpu(text):
    """Work of the CPU that asks a GPU for a part of it."""
    with pytest.raises(AutosegError, match=r"^the memory of the GPU is full; wait$"), memory_named(None, "wait"):
        raise RuntimeError(text)


@pytest.mark.parametrize("benchmark", [True, False])
def test_exact_calculation_keeps_cudnn(benchmark, monkeypatch):
    """Only TF32 is switched off, and only within the context."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
    before = torch.backends.cudnn.allow_tf32
    with exactly(CUDA):
        assert torch.backends.cudnn.enabled
        assert torch.backends.cudnn.benchmark == benchmark
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before


def test_memory_that_torch_keeps_is_free(monkeypatch):
    """What was freed stays with torch's allocator, and the driver does not call it free."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10, 100))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 60)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 25)
    assert free_gpu_memory(CUDA) == 10 + 60 - 25
    assert gpu_memory_within_reach(CUDA) == 10 + 60
    assert gpu_memory_within_reach(CPU) is None


@pytest.mark.parametrize("limit", ["AVX512_CORE", "avx512_core_vnni"])
def test_imitated_bfloat16_is_not_taken(limit, monkeypatch):
    """A processor that has bfloat16 is kept from it by the environment; oneDNN would imitate it slowly."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert precision(torch.device("cpu")) == torch.float32
