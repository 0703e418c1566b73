"""The instruction set of the processor, in words."""

import pytest
import torch

from autoseg.runtime import device
from autoseg.runtime.processor import describe_instructions


@pytest.mark.parametrize(
    ("capability", "has_bfloat16", "words"),
    [
        ("AVX512", True, "AVX-512 with bfloat16"),
        ("AVX512", False, "AVX-512 without bfloat16"),
        ("AVX2", False, "AVX2 without bfloat16"),
        ("DEFAULT", False, "the baseline instruction set without bfloat16"),
    ],
)
def test_names_instructions_and_bfloat16(
    capability: str, has_bfloat16: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether networks calculate in bfloat16 does not follow from the instruction set alone."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: has_bfloat16)
    assert describe_instructions().startswith(words)


def test_names_a_limit_of_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It explains why a new processor is slow."""
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert describe_instructions().endswith("ONEDNN_MAX_CPU_ISA=AVX2")
