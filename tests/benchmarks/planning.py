"""Plans random datasets of every kind: each plan must be possible, none slow, and none smaller for more memory.

    python tests/benchmarks/planning.py [--datasets 1000]

From 1 to 5000 cases of 1 to 4 channels, spacings of 0.05 to 12 mm, 1 to 2000 voxels along each axis, 2 to 40 classes;
each for thirteen amounts of memory. Stops at the first plan that breaks one of these rules; prints a table in Markdown.
"""

import argparse
import time
from collections import Counter
from contextlib import suppress
from math import log

import numpy as np
from measured_on import print_machine

from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import AutosegError
from autoseg.planning.budget import FREE_SHARE
from autoseg.planning.plan import Plan
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.topology import choose_topology, design_network

GIGABYTES = (0.8, 2, 3.9, 5, 8, 10.9, 11, 13, 16, 20, 24, 40, 80)
SPREADS = (0.0, 0.1, 0.5)
"""Standard deviations of the logarithm of shapes and spacings between the cases of a dataset."""


def main() -> None:
    """Plans all datasets, counts the outcomes and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", type=int, default=1000)
    arguments = parser.parse_args()
    print_machine()
    seconds: list[float] = []
    outcomes: Counter[str] = Counter()
    for seed in range(arguments.datasets):
        fingerprint, info = random_dataset(np.random.default_rng(seed))
        step_voxels: dict[str, int] = {}
        for size in GIGABYTES:
            options = PlanningOptions(dataset="Dataset001_Random", memory_budget_bytes=int(size * 1e9))
            plan, spent = plan_twice(fingerprint, info, options)
            seconds.append(spent)
            if plan is None:
                outcomes["refused with a clear line"] += 1
                continue
            check_plan(plan, step_voxels, label=f"dataset {seed} with {size} GB")
            outcomes["plans"] += 1
            outcomes.update(list(plan.configurations))
    milliseconds = 1000 * np.asarray(seconds)
    print("| quantity | value |\n|---|---|")
    for outcome, count in outcomes.items():
        print(f"| {outcome} | {count} |")
    print(f"| mean processor time of a plan | {milliseconds.mean():.1f} ms |")
    for percent in (99, 99.9, 100):
        print(f"| {percent:g} % take at most | {np.percentile(milliseconds, percent):.1f} ms |")


def plan_twice(fingerprint: Fingerprint, info: DatasetInfo, options: PlanningOptions) -> tuple[Plan | None, float]:
    """Returns the plan, None if it is refused, and the processor seconds of the faster of two attempts from scratch."""
    seconds, plan = [], None
    for _ in range(2):
        for cached in (choose_topology, design_network):
            cached.cache_clear()
        start = time.process_time()
        with suppress(AutosegError):
            plan = make_plan(fingerprint, info, options)
        seconds.append(time.process_time() - start)
    return plan, min(seconds)


def random_dataset(random: np.random.Generator) -> tuple[Fingerprint, DatasetInfo]:
    """Returns the facts of a random dataset; half of all datasets have large images."""
    count = int(np.exp(random.uniform(0, log(5000))))
    shape = np.exp(random.uniform(log(100) if random.random() < 0.5 else 0, log(2000), 3))
    spacing = np.exp(random.uniform(log(0.05), log(12), 3))
    spread = random.choice(SPREADS)
    shapes = np.clip(np.round(shape * np.exp(random.normal(0, spread, (count, 3)))), 1, 2000).astype(int).tolist()
    spacings = np.clip(spacing * np.exp(random.normal(0, spread, (count, 3))), 0.05, 12).tolist()
    channels, classes = int(random.integers(1, 5)), int(random.integers(2, 41))
    facts = ChannelFacts(
        mean=40, median=42, std=15, minimum=-1000, maximum=3000, percentile_00_5=-90, percentile_99_5=210
    )
    fingerprint = Fingerprint(
        cases=tuple(
            CaseFacts(shape_after_crop=tuple(edges), spacing_mm=tuple(steps))
            for edges, steps in zip(shapes, spacings, strict=True)
        ),
        channels=(facts,) * channels,
        median_relative_size_after_crop=float(random.uniform(0.3, 1)),
    )
    names = random.choice(("CT", "T1", "T2", "noNorm"), channels)
    info = DatasetInfo(
        channel_names={str(number): str(name) for number, name in enumerate(names)},
        labels={"background": 0, **{f"organ_{number}": number for number in range(1, classes)}},
        file_ending=".nii.gz",
    )
    return fingerprint, info


def check_plan(plan: Plan, step_voxels: dict[str, int], label: str) -> None:
    """Checks that a plan fits, is divisible by its strides, and sees no fewer voxels than with less memory.

    Args:
        plan: Plan of a dataset.
        step_voxels: Voxels of a training step by configuration, in plans for less memory; those of this plan are added.
        label: Description of the dataset, for the message.

    Raises:
        ValueError: The plan breaks one of the rules.
    """
    for name, configuration in plan.configurations.items():
        subject = f"{label}: {name} with patch {configuration.patch_size}, batch {configuration.batch_size}"
        if configuration.estimated_bytes > (1 - FREE_SHARE) * plan.memory_budget_bytes:
            raise ValueError(f"{subject} does not fit")
        divisors = configuration.architecture.divisor
        for size, divisor in zip(configuration.patch_size, divisors, strict=True):
            if size % divisor or size // divisor < 4:
                raise ValueError(f"{subject} is not divisible by {divisors} down to 4 voxels")
        if configuration.step_voxels < step_voxels.get(name, 0):
            raise ValueError(f"{subject} sees fewer voxels than with less memory")
        step_voxels[name] = configuration.step_voxels


if __name__ == "__main__":
    main()
