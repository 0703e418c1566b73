"""The line that says what a figure was measured on: cores, instruction set, precision and the version of torch."""

import torch

from autoseg.runtime.device import precision
from autoseg.runtime.machine import count_cores
from autoseg.runtime.processor import describe_instructions


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
