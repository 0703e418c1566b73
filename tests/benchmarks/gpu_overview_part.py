"""One part of gpu_overview.py, which starts it as a process of its own.

    python tests/benchmarks/gpu_overview_part.py PART --device DEVICE [--tiny] [--hippocampus WORKSPACE]

Prints each row as a line of JSON as soon as it is measured.
"""

import argparse
import json

import torch
from gpu_overview_loop import measure_loop, measure_tiles, run_gpu_tests, train_for_a_while
from gpu_overview_plans import Choice
from gpu_overview_speed import measure_ceilings, measure_memory, measure_nnunet_step, measure_steps, profile_steps
from measured_on import machine_line

from autoseg.runtime.device import make_ready, resolve_device

PARTS = {
    "ceilings": measure_ceilings,
    "tests": run_gpu_tests,
    "steps": measure_steps,
    "profile": profile_steps,
    "loop": measure_loop,
    "tiles": measure_tiles,
    "memory": measure_memory,
    "nnunet": measure_nnunet_step,
    "training": train_for_a_while,
}


def show_machine(device: torch.device) -> None:
    """Prints what is measured: the line of all benchmarks, and the compute capability of a CUDA GPU."""
    capability = list(torch.cuda.get_device_capability(device)) if device.type == "cuda" else None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    described = {"line": machine_line(device), "device": name, "capability": capability, "torch": torch.__version__}
    print("ROW " + json.dumps(described), flush=True)


def main() -> None:
    """Measures one part, and prints its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, "machine"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--hippocampus")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    if arguments.part == "machine":
        show_machine(device)
        return
    make_ready(device)
    PARTS[arguments.part](Choice(device=device, tiny=arguments.tiny, hippocampus=arguments.hippocampus))


if __name__ == "__main__":
    main()
