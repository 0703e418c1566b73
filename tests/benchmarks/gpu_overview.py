"""What a GPU does, in one command of a quarter of an hour, and what autoseg decides by it.

    python tests/benchmarks/gpu_overview.py [--minutes 14] [--report FOLDER] [--hippocampus WORKSPACE] [--update]
    python tests/benchmarks/gpu_overview.py --device cpu --tiny
    python tests/benchmarks/gpu_overview.py --read FOLDER/gpu_overview.json --update

Needs torch, numpy, scipy and pydantic, no network, no SimpleITK and no data: cases are made up in memory. The parts
come in the order of what is learned per minute, each in a process of its own with a time limit of its own, so one that
crashes or takes too long costs only its own rows. Each row is printed at once; gpu_overview.json and gpu_overview.md
in the folder of --report are written anew after each part.

    ceilings   versions, bytes per second, matrix products, one 3D convolution
    tests      pytest -m gpu
    steps      a step of four plans, compiled or not, channels last or first, beside its convolutions alone
    profile    the kernels that take most of the time of a step
    loop       steps with the loader: batches that the GPU or the CPU augments, with all cores and with four
    tiles      the sliding window with 3 and with 25 classes
    memory     the peak of twelve networks beside the estimate of planning
    nnunet     a step of nnU-Net's network, if dynamic_network_architectures is installed
    training   two minutes of the prepared WORKSPACE of hippocampus, or of made-up cases

--update writes what was measured into autoseg/runtime/gpu_decisions.json, which decides for all GPUs of that compute
capability; with --read, from the results of another machine.
"""

import argparse
import importlib.util
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

FOLDER = Path(__file__).parent
CHECKOUT = FOLDER.parents[1]
sys.path.insert(0, str(CHECKOUT))

NEEDED = ("torch", "numpy", "scipy", "pydantic")
USEFUL = {
    "pytest": "the tests for GPUs",
    "pytest_timeout": "the tests for GPUs",
    "hypothesis": "the tests for GPUs",
    "triton": "compiling on a GPU",
    "blosc2": "--hippocampus",
    "dynamic_network_architectures": "nnU-Net's step",
}
LIMITS = {
    "ceilings": 60,
    "tests": 180,
    "steps": 300,
    "profile": 60,
    "loop": 240,
    "tiles": 60,
    "memory": 150,
    "nnunet": 90,
    "training": 180,
}
"""Seconds that each part may take, in the order in which they run."""

LEAST_SECONDS = 15
"""A part is left out if less time than this is left."""


def main() -> None:
    """Measures part by part; or reads what was measured elsewhere."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="small networks and few repetitions, to try the script out")
    parser.add_argument("--minutes", type=float, default=14.0, help="time for all parts together")
    parser.add_argument("--parts", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    parser.add_argument("--report", type=Path, default=Path(), help="folder for gpu_overview.json and gpu_overview.md")
    parser.add_argument("--hippocampus", type=Path, metavar="WORKSPACE", help="a workspace with prepared cases")
    parser.add_argument("--read", type=Path, metavar="JSON", help="measure nothing; take these results")
    parser.add_argument("--update", action="store_true", help="write autoseg/runtime/gpu_decisions.json")
    arguments = parser.parse_args()
    if not check_packages():
        sys.exit(2)
    from gpu_overview_report import update_decisions  # needs pydantic

    read = arguments.read
    results = measure(arguments) if read is None else json.loads(read.read_text(encoding="utf-8"))
    if arguments.update:
        for line in update_decisions(results):
            print(line)


def check_packages() -> bool:
    """Says which packages are missing, and returns whether all that are needed are installed."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    for name in missing:
        print(f"missing: {name}, without which nothing can be measured; install it, or bring it along as a wheel")
    for name, purpose in USEFUL.items():
        if importlib.util.find_spec(name) is None:
            print(f"missing: {name}, which is only for {purpose}")
    return not missing


def measure(arguments: argparse.Namespace) -> dict:
    """Runs the parts one after the other within the time, and returns what they found."""
    from gpu_overview_report import write_report

    ends_at = time.monotonic() + 60 * arguments.minutes
    rows, problem = run_part("machine", arguments, 120)
    if not rows:
        print(f"nothing can be measured: {problem}")
        sys.exit(1)
    results: dict = {"machine": rows[0], "parts": {}}
    print(f"{rows[0]['line']}\n", flush=True)
    for part in arguments.parts:
        seconds = min(LIMITS[part], ends_at - time.monotonic())
        started = time.monotonic()
        print(f"# {part}", flush=True)
        rows, problem = [], "left out: no time was left"
        if seconds >= LEAST_SECONDS:
            rows, problem = run_part(part, arguments, seconds)
        if problem:
            print(f"  {part}: {problem}", flush=True)
        seconds = round(time.monotonic() - started, 1)
        results["parts"][part] = {"rows": rows, "problem": problem, "seconds": seconds}
        write_report(results, arguments.report)
    return results


def run_part(part: str, arguments: argparse.Namespace, limit: float) -> tuple[list[dict], str]:
    """Runs a part as a process, and prints its rows as they come.

    Returns:
        The rows, and what went wrong; an empty text if nothing did.
    """
    command = [sys.executable, str(FOLDER / "gpu_overview_part.py"), part, "--device", arguments.device]
    command += ["--tiny"] if arguments.tiny else []
    command += ["--hippocampus", str(arguments.hippocampus.resolve())] if arguments.hippocampus else []
    ends_at = time.monotonic() + limit
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(), start_new_session=True
        )
        lines: queue.Queue[str | None] = queue.Queue()
        reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
        reader.start()
        rows, timed_out = _collect_rows(lines, ends_at, part)
        if timed_out:
            os.killpg(process.pid, signal.SIGKILL)  # and the tests that it may have started
        code = process.wait()
        reader.join(timeout=1)
        errors.seek(0)
        last = (errors.read().strip().splitlines() or ["no message"])[-1]
    if timed_out:
        return rows, f"stopped after {limit:.0f} s; the rows until then count"
    return rows, f"ended with code {code}: {last[:300]}" if code else ""


def environment() -> dict[str, str]:
    """Returns the environment of a part: this package, and the modules of tests/support."""
    paths = [str(CHECKOUT), str(CHECKOUT / "tests" / "support"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def _read_lines(process: subprocess.Popen, lines: "queue.Queue[str | None]") -> None:
    with process.stdout:
        for line in process.stdout:
            lines.put(line)
    lines.put(None)


def _collect_rows(lines: "queue.Queue[str | None]", ends_at: float, part: str) -> tuple[list[dict], bool]:
    """Returns the rows until the output ends or the time is over, and whether it was over."""
    rows: list[dict] = []
    while True:
        try:
            line = lines.get(timeout=max(0.0, ends_at - time.monotonic()))
        except queue.Empty:
            return rows, True
        if line is None:
            return rows, False
        if line.startswith("ROW "):
            rows.append(json.loads(line[4:]))
            if part != "machine":
                cells = ", ".join(f"{name} {value}" for name, value in rows[-1].items() if name != "what")
                print(f"  {rows[-1]['what']}: {cells}", flush=True)


if __name__ == "__main__":
    main()
