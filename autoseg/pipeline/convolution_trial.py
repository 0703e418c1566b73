"""Tries convolutions that some versions of torch calculate wrongly on a CPU, in a process of its own.

The process may crash or hang, which is said as well. See `autoseg.networks.convolutions` for the faults.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from autoseg.networks.convolutions import convolve
from autoseg.networks.instance_norm import channels_last
from autoseg.runtime.device import precision

SECONDS = 30.0
"""Time after which the process is ended. Decision: it takes two seconds, most of them to load torch."""
LARGEST_ERROR = 0.05
"""As a share of the largest gradient. Decision: 16 bits are right to 0.01, and wrong gradients wrong by 0.3 or more."""
REPETITIONS = 5

THIN = "3D convolutions of volumes thinner than their kernel"
STRIDED = "2D convolutions of kernel 1 with a stride and few channels"
OURS, TORCH = "autoseg", "torch"
STEPS = tuple(product((OURS, TORCH), (THIN, STRIDED)))
"""What is tried, in this order: the last one damages memory, and nothing after it could be trusted."""

Convolution = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class Trial:
    """Which convolutions have wrong gradients, of those that were tried.

    Attributes:
        ours: Of the program's own convolutions; empty as long as it avoids the faults.
        torch: Of torch's.
    """

    ours: tuple[str, ...]
    torch: tuple[str, ...]


def try_convolutions(seconds: float = SECONDS) -> Trial:
    """Tries the program's convolutions, and then torch's, in a process of its own.

    Args:
        seconds: Time after which the process is ended.

    Raises:
        RuntimeError: It could not be started, or it failed or hung before it began.
    """
    command = [sys.executable, "-m", "autoseg.pipeline.convolution_trial"]
    try:
        done = subprocess.run(  # noqa: S603 - this program itself
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as error:
        if not error.stdout:
            raise RuntimeError(f"it did not begin within {seconds:.0f} seconds") from error
        return read_trial(error.stdout.decode().splitlines(), ended=True)
    except OSError as error:
        raise RuntimeError(str(error)) from error
    lines = done.stdout.decode().splitlines()
    if not lines:
        messages = done.stderr.decode(errors="replace").strip().splitlines()
        raise RuntimeError(messages[-1] if messages else f"exit code {done.returncode}")
    return read_trial(lines, ended=done.returncode != 0)


def read_trial(lines: Sequence[str], *, ended: bool) -> Trial:
    """Returns what a process found that may have crashed.

    Args:
        lines: What it wrote: that it has begun, and for each of `STEPS` whether it is wrong.
        ended: Whether it crashed or hung, which is a fault of the step that it was at, or of the last one.

    Example:
        >>> read_trial(["begun", "false", "false", "false"], ended=True)
        Trial(ours=(), torch=('2D convolutions of kernel 1 with a stride and few channels',))
    """
    wrong = [json.loads(line) for line in lines[1:]]
    if ended:
        wrong = [*wrong[: len(STEPS) - 1], True]
    found = [step for step, is_bad in zip(STEPS, wrong, strict=False) if is_bad]
    return Trial(*(tuple(kind for whose, kind in found if whose == program) for program in (OURS, TORCH)))


def try_step(convolution: Convolution, kind: str) -> bool:
    """Returns whether a kind of convolutions has wrong gradients; one that is not used on this CPU has none.

    Args:
        convolution: Has the arguments of `convolve`.
        kind: `THIN` or `STRIDED`.
    """
    if kind == THIN:
        lower = precision(torch.device("cpu")) == torch.bfloat16
        return lower and is_wrong(convolution, (2, 8, 2, 16, 16), kernel=3, stride=1, lower=True)
    shapes = ((8, 4, 64, 64), (8, 12, 64, 64))  # fewer channels than AVX2, and than AVX-512, processes together
    return any(is_wrong(convolution, shape, kernel=1, stride=2, lower=False) for shape in shapes)


def is_wrong(convolution: Convolution, shape: tuple[int, ...], *, kernel: int, stride: int, lower: bool) -> bool:
    """Returns whether the gradient of the weights of a convolution is wrong, at least once in some repetitions.

    Args:
        convolution: Has the arguments of `convolve`.
        shape: Shape (n, c, *size) of the maps, which have the channels last.
        kernel: Length of the kernel along each axis.
        stride: Stride along each axis.
        lower: Whether to calculate in bfloat16 rather than in float32.
    """
    generator = torch.Generator().manual_seed(0)
    axes = len(shape) - 2
    maps = channels_last(torch.randn(shape, generator=generator))
    weight = torch.randn(8, shape[1], *(kernel,) * axes, generator=generator).requires_grad_()
    options = {"stride": (stride,) * axes, "padding": (kernel // 2,) * axes, "dilation": (1,) * axes}

    def gradient(function: Convolution, x: Tensor, w: Tensor) -> Tensor:
        result = function(x, w, None, **options)
        coefficients = torch.randn(result.shape, generator=torch.Generator().manual_seed(1)).to(result.dtype)
        return torch.autograd.grad(result, w, channels_last(coefficients))[0].double()

    right = gradient(_plain, maps.double(), weight.double())
    for _ in range(REPETITIONS):
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            error = float((gradient(convolution, maps, weight) - right).abs().max() / right.abs().max())
        if not error <= LARGEST_ERROR:  # or not a number
            return True
    return False


def main() -> None:
    """Prints that it has begun, and then for each of `STEPS` whether it is wrong, as soon as it is known."""
    torch.set_num_threads(1)  # with one thread the damage ends the process at once; with two, it may hang
    _say("begun")
    for program, kind in STEPS:
        _say(json.dumps(try_step(convolve if program == OURS else _plain, kind)))


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def _plain(x: Tensor, weight: Tensor, bias: Tensor | None, **options: tuple[int, ...]) -> Tensor:
    function: Convolution = F.conv2d if weight.ndim == 4 else F.conv3d
    return function(x, weight, bias, **options)


if __name__ == "__main__":
    main()
