"""How long the end of an epoch holds the training: checkpoints written in the loop, or beside it by a thread.

    python tests/benchmarks/checkpoint_writing.py FOLDER [--megabytes 250] [--rounds 5]

A state of weights and momentum of that size is saved into FOLDER both ways, in pairs. Products of matrices stand for
the steps that go on meanwhile: they are timed while the thread writes, beside those of an idle disk. Prints a table in
Markdown.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from measured_on import print_machine
from small_models import small_checkpoint

from autoseg.models.checkpoint import Checkpoint, save_checkpoint
from autoseg.training.checkpoint_writer import open_checkpoint_writer

TENSORS = 50
SIDE = 700


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print_machine()
    checkpoint, path = make_checkpoint(arguments.megabytes), arguments.folder / "checkpoint.pt"
    held: dict[str, list[float]] = {"in the loop": [], "beside it": []}
    idle_steps, busy_steps = [], []
    with open_checkpoint_writer(lambda written, _: save_checkpoint(written, path)) as writer:
        writer.save(checkpoint, [])  # takes its memory
        writer.wait()
        for _ in range(arguments.rounds):
            held["in the loop"].append(clock(lambda: save_checkpoint(checkpoint, path)))
            idle_steps += [clock(step) for _ in range(20)]
            held["beside it"].append(clock(lambda: writer.save(checkpoint, [])))
            while writer.is_writing:
                busy_steps.append(clock(step))
            writer.wait()
    print("| checkpoint is written | seconds that the loop is held, median | largest |\n|---|---|---|")
    for name, seconds in held.items():
        print(f"| {name} | {statistics.median(seconds):.3f} | {max(seconds):.3f} |")
    means = [1000 * statistics.mean(seconds) for seconds in (idle_steps, busy_steps) if seconds]
    print(f"\nA step takes {' ms, and while the thread writes '.join(f'{mean:.1f}' for mean in means)} ms.")


def make_checkpoint(megabytes: int) -> Checkpoint:
    """Returns a checkpoint with weights and momentum of that size together."""
    numbers = megabytes * 10**6 // 4 // 2 // TENSORS
    weights = {str(number): torch.randn(numbers) for number in range(TENSORS)}
    momentum = {number: {"momentum_buffer": torch.randn(numbers)} for number in range(TENSORS)}
    training = {"weights": weights, "optimizer": {"state": momentum}, "reports": []}
    return replace(small_checkpoint(), weights=weights, training=training)


def step() -> None:
    """Stands for a training step."""
    product = torch.ones(SIDE, SIDE)
    for _ in range(4):
        product = product @ product / SIDE


def clock(work) -> float:
    """Returns the seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
