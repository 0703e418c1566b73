"""The processor as torch uses it: its instruction set, for the doctor and for the line above each measured table."""

import os

import torch

from autoseg.runtime.device import precision

INSTRUCTION_SETS = {"AVX512": "AVX-512", "DEFAULT": "the baseline instruction set"}
"""Names for what torch reports; the others, such as AVX2, are shown as they are."""
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""Environment variable that keeps oneDNN, which calculates the convolutions, to an older instruction set."""


def describe_instructions(*, integers: bool = False) -> str:
    """Returns the instruction set that torch uses on this CPU, and whether it has bfloat16 and AMX.

    Args:
        integers: Whether to say as well if it has VNNI, instructions that add up products of 8-bit integers.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    bfloat16 = precision(torch.device("cpu")) == torch.bfloat16
    text = f"{INSTRUCTION_SETS.get(capability, capability)} {'with' if bfloat16 else 'without'} bfloat16"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    if has_amx is not None:
        text += ", AMX" if has_amx() else ", no AMX"
    has_vnni = getattr(torch.cpu, "_is_vnni_supported", None)
    if integers and has_vnni is not None:
        text += ", VNNI" if has_vnni() else ", no VNNI"
    limit = os.environ.get(ISA_LIMIT)
    return f"{text}, {ISA_LIMIT}={limit}" if limit else text
