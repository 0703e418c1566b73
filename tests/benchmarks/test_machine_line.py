"""The line above each table names cores, instruction set and precision as they are when it is printed."""

import pytest
import torch
from machine_line import machine_line

from autoseg.runtime import device
from autoseg.runtime.machine import count_cores


def test_names_cores_precision_and_torch() -> None:
    """The line agrees with the program that it describes."""
    line = machine_line()
    number_format = str(device.precision(torch.device("cpu"))).removeprefix("torch.")
    assert line.startswith(f"Measured on: {count_cores()} cores, ")
    assert line.endswith(f"; networks in {number_format}; torch {torch.__version__}")


@pytest.mark.parametrize(
    ("has_bfloat16", "words"),
    [(True, ("with bfloat16", "networks in bfloat16")), (False, ("without bfloat16", "networks in float32"))],
)
def test_tells_processors_with_bfloat16_from_others(
    has_bfloat16: bool, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures in bfloat16 and in float32 cannot be taken for each other."""
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: has_bfloat16)
    assert all(word in machine_line() for word in words)


@pytest.mark.parametrize(("capability", "name"), [("AVX512", "AVX-512"), ("AVX2", "AVX2"), ("SVE256", "SVE256")])
def test_names_the_instruction_set(capability: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch says what it uses; a limit of oneDNN stands beside it."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert f" cores, {name} with" in machine_line()
    assert "ONEDNN_MAX_CPU_ISA=AVX2" in machine_line()
