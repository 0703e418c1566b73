"""The line that says what a figure was measured on: cores, instruction set, precision and the version of torch."""

import os

import torch

from autoseg.runtime.device import precision
from autoseg.runtime.machine import count_cores

INSTRUCTION_SETS = {"AVX512": "AVX-512", "DEFAULT": "the baseline instruction set"}
"""Names for what torch reports; the others, such as AVX2, are shown as they are."""
ISA_LIMIT = "ONEDNN_MAX_CPU_ISA"
"""Environment variable that keeps oneDNN, which calculates the convolutions, to an older instruction set."""


def machine_line(device: torch.device | None = None) -> str:
    """Returns one line for the table of a benchmark, by default about the CPU.

    An example: "Measured on: 2 cores, AVX-512 with bfloat16, no AMX; networks in bfloat16; torch 2.13.0".
    """
    device = device or torch.device("cpu")
    parts = [f"{count_cores()} cores", describe_instructions()]
    if device.type == "cuda":
        parts.insert(0, torch.cuda.get_device_name(device))
    elif device.type != "cpu":
        parts.insert(0, device.type)
    number_format = str(precision(device)).removeprefix("torch.")
    return f"Measured on: {', '.join(parts)}; networks in {number_format}; torch {torch.__version__}"


def describe_instructions() -> str:
    """Returns the instruction set that torch uses on this CPU, and whether it has bfloat16 and AMX."""
    capability = torch.backends.cpu.get_cpu_capability()
    bfloat16 = precision(torch.device("cpu")) == torch.bfloat16
    text = f"{INSTRUCTION_SETS.get(capability, capability)} {'with' if bfloat16 else 'without'} bfloat16"
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    if has_amx is not None:
        text += ", AMX" if has_amx() else ", no AMX"
    limit = os.environ.get(ISA_LIMIT)
    return f"{text}, {ISA_LIMIT}={limit}" if limit else text
