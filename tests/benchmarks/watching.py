"""Watches a fold of the demo while it is trained, and compares the processor time of both in one run.

    python tests/benchmarks/watching.py FOLDER [--epochs 14]

A browser is stood in for: the states are asked for every five seconds, and the page whenever its version changes. What
the watching process takes before its first page, mostly to load libraries, is left out.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from measured_on import print_machine

import autoseg

NUMBER = 1
POLL_SECONDS = 5.0


def processor_seconds(process: "subprocess.Popen[str]") -> float:
    """Returns the processor time of a running process and of its threads. Source: the manual of proc(5)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(*arguments: object) -> "subprocess.Popen[str]":
    """Starts a command of the program."""
    command = [sys.executable, "-u", "-m", "autoseg", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read(address: str) -> bytes:
    """Returns what is served at an address."""
    with urlopen(address) as answer:  # noqa: S310 - the address of the process that is measured
        return answer.read()


def watch_training(workspace: Path, epochs: int) -> tuple[float, float, int]:
    """Returns the processor seconds of the training and of the watching, and how many pages were made."""
    watching = start("watch", "-d", NUMBER, "-w", workspace)
    assert watching.stdout is not None
    address = re.search(r"http://\S+", watching.stdout.readline())[0]
    read(address)
    before = processor_seconds(watching)
    options = ("-c", "3d_fullres", "-f", 0, "--epochs", epochs, "--device", "cpu", "-w", workspace)
    log = (workspace / "training.log").open("w")
    training = subprocess.Popen(
        [sys.executable, "-m", "autoseg", "train", "-d", str(NUMBER), *map(str, options)], stdout=log, text=True
    )
    version, pages, trained = "", 0, 0.0
    while training.poll() is None:
        state = json.loads(read(f"{address}state"))
        if state["version"] != version:
            version, pages = state["version"], pages + 1
            read(address)
        trained = processor_seconds(training)
        time.sleep(POLL_SECONDS)
    watched = processor_seconds(watching) - before
    watching.terminate()
    watching.wait()
    assert training.returncode == 0
    return trained, watched, pages


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=14)
    options = parser.parse_args(arguments)
    workspace = options.folder / "watched"
    print_machine()
    autoseg.make_demo_dataset(workspace / "raw" / "Dataset001_Demo")
    autoseg.plan_and_preprocess(NUMBER, configurations=["3d_fullres"], preset="small", workspace=workspace)
    trained, watched, pages = watch_training(workspace, options.epochs)
    print("| fold 0 of the demo | processor seconds |\n|---|---|")
    print(f"| training and validation | {trained:.1f} |")
    print(f"| watching, {pages} pages | {watched:.2f} |")
    print(f"| watching, in percent of the training | {100 * watched / trained:.2f} |")


if __name__ == "__main__":
    main()
