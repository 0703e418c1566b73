"""Compares the estimate of memory with what torch takes, for a dozen networks; prints a table in Markdown.

    python tests/benchmarks/memory.py [--only "2D, plain" residual]

On a CUDA GPU it measures the peak of three training steps. Without one it measures the bytes that autograd keeps for
one small patch on the CPU, and the bytes that the patch adds to the peak of a step on torch's device "meta", where
tensors are made and freed as on a GPU. --only takes parts of the networks' names.
"""

import argparse
from collections.abc import Iterator, Sequence

import torch
from measured_on import print_machine
from memory_cases import CASES, Case, kept_bytes, peak_bytes
from pretended_gpu import peak_of_a_patch

from autoseg.planning.memory import (
    CONTEXT_BYTES,
    activation_bytes,
    bytes_per_patch,
    count_weights,
    training_bytes,
)


def main() -> None:
    """Prints one row per network as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[""], help="parts of the names of networks")
    arguments = parser.parse_args()
    cases = [case for case in CASES if any(part in case.name for part in arguments.only)]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print_machine(device)
    for row in rows_of_a_gpu(cases) if device.type == "cuda" else rows_of_a_cpu(cases):
        print(f"| {' | '.join(row)} |", flush=True)


def rows_of_a_gpu(cases: Sequence[Case]) -> Iterator[list[str]]:
    """Yields the cells of each row: the peak of training steps on a CUDA GPU."""
    yield ["network", "million weights", "patch", "batch", "estimated MB", "measured MB", "ratio"]
    yield ["---"] * 7
    for case in cases:
        architecture = case.architecture()
        estimate = training_bytes(architecture, case.patch_size, case.batch_size) - CONTEXT_BYTES
        weights = f"{count_weights(architecture) / 1e6:.1f}"
        measured = peak_bytes(case, torch.device("cuda"))
        yield [case.name, weights, _edges(case.patch_size), str(case.batch_size), *_compared(estimate, measured)]


def rows_of_a_cpu(cases: Sequence[Case]) -> Iterator[list[str]]:
    """Yields the cells of each row: the bytes that one patch keeps on the CPU, and adds to the peak on "meta"."""
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
    for case in cases:
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
