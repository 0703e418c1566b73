"""Prints the first line of each benchmark, which says what its figures were measured on.

The scripts here are run by themselves, without pytest; importing this module makes tests/support importable for them.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from machine_line import machine_line

__all__ = ["machine_line", "print_machine"]


def print_machine(device: torch.device | None = None) -> None:
    """Prints cores, instruction set and precision; call it when the cores of the process have been limited."""
    print(f"{machine_line(device)}\n", flush=True)
