"""Compares convolutions with double precision, one after the other; the program that `convolution_faults.py` starts.

    PYTHON tests/benchmarks/measure_convolution_faults.py torch|autoseg REPETITIONS < CASES

Each line of the input is a case in JSON. Before a case its number is printed, and after it the largest errors of the
result, of the gradient of the input, and of that of the weights, as shares of the largest right value. If a convolution
ends the program, the last number tells which.
"""

import argparse
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from autoseg.networks.convolutions import ConvTranspose3d, convolve
from autoseg.networks.instance_norm import channels_last

Convolution = Callable[[Tensor, Tensor, Tensor], Tensor]


class Case(NamedTuple):
    """A convolution; edges are those of each axis.

    Attributes:
        batch: Number of samples.
        channels: Features of the input.
        features: Features of the output.
        groups: Groups of features.
        size: Size of the maps.
        kernel: Size of the kernel.
        stride: Steps of the kernel.
        dilation: Voxels from one element of the kernel to the next.
        padding: Zeros on each side of the maps.
        transposed: Whether it is a transposed convolution.
        order: "channels last" or "voxels last".
        precision: Type of the maps, "float32" or "bfloat16"; weights are float32, and bfloat16 is that of autocast.
        threads: Threads that calculate.
    """

    batch: int
    channels: int
    features: int
    groups: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    transposed: bool
    order: str
    precision: str
    threads: int


def main() -> None:
    """Measures each case of the input."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", choices=("torch", "autoseg"))
    parser.add_argument("repetitions", type=int)
    arguments = parser.parse_args()
    for number, line in enumerate(sys.stdin):
        case = Case(*(tuple(value) if isinstance(value, list) else value for value in json.loads(line)))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        errors = measure(case, find_convolution(case, arguments.program), arguments.repetitions)
        sys.stdout.write(json.dumps(errors) + "\n")


def find_convolution(case: Case, program: str) -> Convolution:
    """Returns the function of torch that calculates a case, or the program's own; it has no 2D transposed ones."""
    options = {"stride": case.stride, "padding": case.padding, "dilation": case.dilation, "groups": case.groups}
    flat = len(case.size) == 2
    if program == "autoseg" and case.transposed and not flat:
        layer = ConvTranspose3d(case.channels, case.features, case.kernel, **options)
        return lambda maps, weight, bias: functional_call(layer, {"weight": weight, "bias": bias}, maps)
    if case.transposed:
        return partial(F.conv_transpose2d if flat else F.conv_transpose3d, **options)
    if program == "autoseg":
        return partial(convolve, **options)
    return partial(F.conv2d if flat else F.conv3d, **options)


def measure(case: Case, convolution: Convolution, repetitions: int) -> list[float]:
    """Returns the largest errors of a convolution over some repetitions: of its result, and of two gradients."""
    torch.set_num_threads(case.threads)
    generator = torch.Generator().manual_seed(0)
    precision = getattr(torch, case.precision)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(precision).float()

    ends = (case.channels, case.features) if case.transposed else (case.features, case.channels)
    maps, bias = draw(case.batch, case.channels, *case.size), draw(case.features)
    weight = draw(ends[0], ends[1] // case.groups, *case.kernel)
    exact = partial(calculate, find_convolution(case, "torch"), weight.double(), bias.double())
    shape = find_convolution(case, "torch")(maps.double(), weight.double(), bias.double()).shape
    coefficients = draw(*shape)
    right = exact(maps.double(), coefficients.double())
    order = channels_last if case.order == "channels last" else torch.clone
    errors = [0.0, 0.0, 0.0]
    for _ in range(repetitions):
        with torch.autocast("cpu", torch.bfloat16, enabled=case.precision == "bfloat16"):
            results = calculate(convolution, weight, bias, order(maps.to(precision)), order(coefficients))
        errors = [max(error, difference(*pair)) for error, *pair in zip(errors, results, right, strict=True)]
    return errors


def calculate(
    convolution: Convolution, weight: Tensor, bias: Tensor, maps: Tensor, coefficients: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the result, the gradient of the input, and that of the weights, where the loss is a weighted sum."""
    maps, weight = maps.detach().requires_grad_(), weight.detach().clone().requires_grad_()
    result = convolution(maps, weight, bias)
    result.backward(coefficients.to(result.dtype))
    return result.detach(), maps.grad, weight.grad


def difference(result: Tensor, right: Tensor) -> float:
    """Returns the largest difference as a share of the largest right value; infinite if a result is not finite."""
    error = float((result.double() - right).abs().max() / right.abs().max().clamp(min=1e-30))
    return error if error < float("inf") else float("inf")


if __name__ == "__main__":
    main()
