"""Training, prediction and preprocessing alone and beside busy programs, by the way in which waiting threads wait.

    python tests/benchmarks/busy_machine.py [--seconds 3] [--rounds 2] [--works training prediction preprocessing]

Two cores, and beside each work as many busy programs as cores. Each run is a process of its own, which works for some
seconds alone and for as many beside the busy programs; the settings take turns. Set ONEDNN_MAX_CPU_ISA and
ATEN_CPU_CAPABILITY for the instruction set of another processor. Prints a table in Markdown for RESULTS.md; of several
rounds it gives the median.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from measured_on import print_machine
from programs import limit_cores

from autoseg.runtime.waiting_threads import SETTINGS_OF_USERS

MEASURE = Path(__file__).with_name("measure_busy_machine.py")
WORKS = ("training", "prediction", "preprocessing")
SETTINGS = {
    "the package's": {},
    "OpenMP's own": {"GOMP_SPINCOUNT": "300000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=15000": {"GOMP_SPINCOUNT": "15000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def main() -> None:
    """Runs each work with each setting in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=tuple(SETTINGS))
    parser.add_argument("--patch", type=int, nargs=3, default=(40, 56, 40), metavar=("Z", "Y", "X"))
    arguments = parser.parse_args()
    limit_cores()
    print_machine()
    print("| work | waiting threads | alone, s | beside busy programs, s | times |\n|---|---|---|---|---|", flush=True)
    for work in arguments.works:
        results: dict[str, list[dict]] = {name: [] for name in arguments.settings}
        for _ in range(arguments.rounds):
            for name, found in results.items():
                found.append(run(work, SETTINGS[name], arguments.seconds, arguments.patch))
        for name, found in results.items():
            alone, beside = (median(result[key] for result in found) for key in ("alone", "beside"))
            print(f"| {work} | {name} | {alone:.3f} | {beside:.3f} | {beside / alone:.2f} |", flush=True)


def run(work: str, variables: dict[str, str], seconds: float, patch: tuple[int, int, int]) -> dict:
    """Runs measure_busy_machine.py once, in which the package or the variables decide how threads wait."""
    command = [sys.executable, MEASURE, work, seconds, "--patch", *patch]
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS_OF_USERS}
    done = subprocess.run(
        [str(word) for word in command],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, **variables},
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
