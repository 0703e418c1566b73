"""Looks for convolutions of torch on a CPU that are wrong, or that crash, and tells whether the program avoids them.

    python tests/benchmarks/convolution_faults.py [--cases 6000] [--repetitions 2] [--seed 0]
        [--instructions AVX2 AVX512_CORE DEFAULT] [--programs torch autoseg]

The cases are drawn from a grid: 2D and 3D maps of several sizes, 1, 2 and 8 samples, 1 to 16 channels in and out,
cubic and flat kernels of 1 to 7, strides of 1 to 3 and of the kernel, dilation, groups, depthwise and transposed
convolutions, both orders of memory, float32, bfloat16 where the instruction set has it, one and two threads. Each
result and gradient is compared with double precision. Cases run in processes whose memory the C library of GNU checks;
a process that ends is a fault of its case, or, if that alone does nothing, of the case among those before it that does.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from measure_convolution_faults import Case
from measured_on import print_machine

MEASURE = Path(__file__).with_name("measure_convolution_faults.py")
CAPABILITIES = {"AVX2": "avx2", "AVX512_CORE": "avx512"}
"""What torch's own code calls the instruction sets of oneDNN."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest error of a right result, as a share of the largest value: some units of the last place, over long sums."""
TOGETHER = 250
"""Cases of a process."""
SECONDS = 120
"""Time of a process; a convolution that hangs is a fault as well."""
SUSPECTS = 12
"""Number of cases before the end of a process that may be to blame; most damage is noticed in its own case."""
RESULTS = ("result", "gradient of input", "gradient of weights")
CRASH = "crash"
SIZES: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((3, 5), (8, 8), (9, 16), (16, 16), (18, 36), (33, 17), (64, 64)),
    3: ((1, 8, 8), (2, 6, 6), (4, 4, 4), (3, 12, 12), (5, 7, 9), (6, 12, 18), (8, 8, 8), (16, 16, 16)),
}


@dataclass(frozen=True)
class Fault:
    """A case that went wrong.

    Attributes:
        case: The case.
        wrong: Which of `RESULTS` is wrong, or `CRASH`.
        error: Largest error as a share of the largest right value; infinite for NaN and a crash.
    """

    case: Case
    wrong: str
    error: float


def main() -> None:
    """Measures all cases with each instruction set and prints two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=6000, help="for each instruction set and program")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--instructions", nargs="+", default=("AVX2", "AVX512_CORE", "DEFAULT"))
    parser.add_argument("--programs", nargs="+", choices=("torch", "autoseg"), default=("torch", "autoseg"))
    arguments = parser.parse_args()
    print_machine()
    counts: list[str] = []
    rows: list[str] = []
    for instructions in arguments.instructions:
        cases = draw_cases(arguments.cases, arguments.seed, has_bfloat16(instructions))
        for program in arguments.programs:
            faults = []
            for fault in find_faults(cases, program, instructions, arguments.repetitions):
                faults.append(fault)
                print(f"{instructions}, {program}: {fault}", file=sys.stderr, flush=True)
            wrong = len({fault.case for fault in faults})
            counts.append(f"| {instructions} | {program} | {len(cases)} | {wrong} |")
            rows += (f"| {instructions} | {program} | {row} |" for row in describe(faults, cases))
    print("| instructions | convolutions of | cases | wrong |\n|---|---|---:|---:|", *counts, sep="\n")
    print("\n| instructions | convolutions of | kind | what is wrong | wrong | of | at worst | where |")
    print("|---|---|---|---|---:|---:|---:|---|", *rows, sep="\n", flush=True)


def has_bfloat16(instructions: str) -> bool:
    """Returns whether convolutions in bfloat16 are more than emulated with an instruction set."""
    question = "import torch; print(torch.ops.mkldnn._is_mkldnn_bf16_supported())"
    done = subprocess.run(
        [sys.executable, "-c", question], env=environment(instructions), capture_output=True, text=True, check=True
    )
    return done.stdout.strip() == "True"


def environment(instructions: str) -> dict[str, str]:
    """Returns the environment of a process that calculates with an instruction set, and checks its memory."""
    variables = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions, "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    variables |= {"OMP_WAIT_POLICY": "passive", "LD_PRELOAD": "libc_malloc_debug.so.0"}
    variables.pop("ATEN_CPU_CAPABILITY", None)
    if instructions in CAPABILITIES:
        variables["ATEN_CPU_CAPABILITY"] = CAPABILITIES[instructions]
    return variables


def draw_cases(count: int, seed: int, bfloat16: bool) -> list[Case]:
    """Draws different cases that have a result; the same ones for the same arguments."""
    generator = random.Random(seed)
    cases: dict[Case, None] = {}
    while len(cases) < count:
        case = draw_case(generator, ("float32", "bfloat16") if bfloat16 else ("float32",))
        if case is not None:
            cases[case] = None
    return list(cases)


def draw_case(generator: random.Random, precisions: Sequence[str]) -> Case | None:
    """Draws a case; None if its kernel does not fit into its maps."""
    dimensions = generator.choice((2, 3))
    size = generator.choice(SIZES[dimensions])
    edge = generator.choice((1, 1, 2, 3, 3, 4, 5, 6, 7))
    kernel = spread(generator, edge, dimensions)
    stride = kernel if generator.random() < 0.15 else spread(generator, generator.choice((1, 1, 2, 2, 3)), dimensions)
    transposed = generator.random() < 0.15
    dilation = (2 if generator.random() < 0.1 and edge > 1 else 1,) * dimensions
    padding = tuple(step * (length // 2) for step, length in zip(dilation, kernel, strict=True))
    if generator.random() < 0.3:
        padding = (0,) * dimensions
    channels, features = generator.randint(1, 16), generator.randint(1, 16)
    groups = 1
    if generator.random() < 0.15:
        groups = generator.choice([number for number in range(1, channels + 1) if channels % number == 0])
        features = groups * generator.randint(1, max(1, 16 // groups))
    reach = [step * (length - 1) + 1 for step, length in zip(dilation, kernel, strict=True)]
    if not transposed and any(a + 2 * b < c for a, b, c in zip(size, padding, reach, strict=True)):
        return None
    if transposed and any((a - 1) * b + c - 2 * d < 1 for a, b, c, d in zip(size, stride, reach, padding, strict=True)):
        return None
    return Case(
        batch=generator.choice((1, 2, 8)),
        channels=channels,
        features=features,
        groups=groups,
        size=size,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        padding=padding,
        transposed=transposed,
        order=generator.choice(("channels last", "channels last", "voxels last")),
        precision=generator.choice(precisions),
        threads=generator.choice((1, 2)),
    )


def spread(generator: random.Random, value: int, dimensions: int) -> tuple[int, ...]:
    """Returns a value for each axis, or, sometimes, 1 for the first axis, as thick slices have it."""
    first = 1 if generator.random() < 0.2 else value
    return (first, *(value,) * (dimensions - 1))


def find_faults(cases: Sequence[Case], program: str, instructions: str, repetitions: int) -> Iterator[Fault]:
    """Yields what goes wrong; each process takes some cases, and a new one goes on where one ended."""
    position = 0
    while position < len(cases):
        part = cases[position : position + TOGETHER]
        measured, ended = run(part, program, instructions, repetitions)
        for case, errors in zip(part, measured, strict=False):
            yield from judge(case, errors)
        if ended:
            yield from find_crash(part[: len(measured) + 1], program, instructions)
        position += min(len(measured) + ended, len(part))


def judge(case: Case, errors: Sequence[float]) -> Iterator[Fault]:
    """Yields the results of a case that are not right."""
    for name, error in zip(RESULTS, errors, strict=True):
        if not error <= TOLERANCE[case.precision]:
            yield Fault(case, name, error)


def find_crash(suspects: Sequence[Case], program: str, instructions: str) -> Iterator[Fault]:
    """Yields the cases that end a process of their own, from the last one back to the first that does."""
    for case in suspects[: -SUSPECTS - 1 : -1]:
        if run([case], program, instructions, repetitions=20)[1]:
            yield Fault(case, CRASH, math.inf)
            return
    yield Fault(suspects[-1], f"{CRASH}, not alone", math.inf)


def run(cases: Sequence[Case], program: str, instructions: str, repetitions: int) -> tuple[list[list[float]], bool]:
    """Measures cases in a process group of its own.

    Returns:
        The errors of the cases that were measured, and whether the process ended, or hung, before the last.
    """
    process = subprocess.Popen(
        [sys.executable, str(MEASURE), program, str(repetitions)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(instructions),
        start_new_session=True,
    )
    try:
        output, messages = process.communicate("".join(json.dumps(case) + "\n" for case in cases), timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, messages = process.communicate()
    measured = [json.loads(line) for line in output.splitlines() if line.startswith("[")]
    if process.returncode == 1:
        raise RuntimeError(messages)  # an error of Python is one of this benchmark
    return measured, process.returncode != 0


def describe(faults: Sequence[Fault], cases: Sequence[Case]) -> Iterator[str]:
    """Yields a row for each kind of convolution and each thing that is wrong with it."""
    groups: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in faults:
        groups[kind_of(fault.case), fault.wrong].append(fault)
    for (kind, wrong), members in sorted(groups.items()):
        total = sum(kind_of(case) == kind for case in cases)
        worst = max(fault.error for fault in members)
        where = "; ".join(f"{name} {values}" for name, values in ranges(members))
        yield f"{kind} | {wrong} | {len(members)} | {total} | {worst:.1e} | {where}"


def kind_of(case: Case) -> str:
    """Returns the words for what distinguishes convolutions from each other most."""
    words = [f"{len(case.size)}D", case.precision, case.order]
    words.append("kernel 1" if max(case.kernel) == 1 else "larger kernel")
    words.append("strided" if max(case.stride) > 1 else "stride 1")
    words += ["transposed"] * case.transposed + ["grouped"] * (case.groups > 1) + ["dilated"] * (max(case.dilation) > 1)
    return ", ".join(words)


def ranges(faults: Sequence[Fault]) -> Iterator[tuple[str, str]]:
    """Yields the values that the cases of some faults have in common, or between which they are."""
    for name in ("batch", "channels", "features", "size", "kernel", "stride", "padding", "threads"):
        values = sorted({getattr(fault.case, name) for fault in faults})
        shown = values if len(values) < 4 else (values[0], "to", values[-1])
        yield name, " ".join(str(value).replace(" ", "") for value in shown)


if __name__ == "__main__":
    main()
