"""Compares the estimate of memory with what torch takes, for a dozen networks; prints a table in Markdown.

    python tests/benchmarks/memory.py

On a CUDA GPU: the peak of three training steps. Without one: what autograd keeps for one small patch, on the CPU, and
what the patch adds to the peak of a step on torch's device "meta", which follows the network's way on a GPU.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "support"))

from memory_cases import CASES, kept_bytes, peak_bytes  # noqa: E402
from pretended_gpu import peak_of_a_patch  # noqa: E402

from autoseg.planning.memory import (  # noqa: E402
    CONTEXT_BYTES,
    activation_bytes,
    bytes_per_patch,
    count_weights,
    training_bytes,
)


def main() -> None:
    """Prints one row per network as soon as it is measured."""
    for row in rows_of_a_gpu() if torch.cuda.is_available() else rows_of_a_cpu():
        print(f"| {' | '.join(row)} |", flush=True)


def rows_of_a_gpu() -> Iterator[list[str]]:
    """Peak of training steps."""
    yield ["network", "million weights", "patch", "batch", "estimated MB", "measured MB", "ratio"]
    yield ["---"] * 7
    for case in CASES:
        architecture = case.architecture()
        estimate = training_bytes(architecture, case.patch_size, case.batch_size) - CONTEXT_BYTES
        weights = f"{count_weights(architecture) / 1e6:.1f}"
        measured = peak_bytes(case, torch.device("cuda"))
        yield [case.name, weights, _edges(case.patch_size), str(case.batch_size), *_compared(estimate, measured)]


def rows_of_a_cpu() -> Iterator[list[str]]:
    """What one patch keeps, on the CPU, and adds to the peak, on paper."""
    yield [
        "network",
        "patch",
        "kept: estimated MB",
        "measured MB",
        "ratio",
        "peak: estimated MB",
        "on meta MB",
        "ratio",
    ]
    yield ["---"] * 8
    for case in CASES:
        architecture, patch = case.architecture(), case.small_patch
        kept = _compared(activation_bytes(architecture, patch, 1), kept_bytes(architecture, patch))
        peak = _compared(bytes_per_patch(architecture, patch), peak_of_a_patch(architecture, patch))
        yield [case.name, _edges(patch), *kept, *peak]


def _edges(patch_size: tuple[int, ...]) -> str:
    return " x ".join(map(str, patch_size))


def _compared(estimated: int, measured: int) -> list[str]:
    return [f"{estimated / 1e6:,.1f}", f"{measured / 1e6:,.1f}", f"{estimated / measured:.3f}"]


if __name__ == "__main__":
    main()
