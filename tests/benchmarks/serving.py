"""Sends scans to a server of this machine, several at once, and watches its memory.

    python tests/benchmarks/serving.py FOLDER [--requests 200] [--at-once 6]

The server is a process of its own, with an untrained model of one fold, a scan of noise of 16 x 24 x 24 voxels, and the
usual queue. A request that finds the queue full is sent again, when the server says, and is counted.
"""

import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from measured_on import print_machine
from served_models import write_noise, write_small_model

WARM_SHARE = 4
"""Memory is compared from a quarter of the requests on, when libraries and buffers are loaded."""


def resident_mb(process: "subprocess.Popen[str]") -> float:
    """Returns the resident memory of a running process. Source: the manual of proc(5)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000


def send(address: str, content: bytes) -> tuple[bool, int]:
    """Sends a scan until it is taken, at most a hundred times; returns whether a mask came, and the refusals."""
    for refusals in range(100):
        files = {"scan": ("scan.nii.gz", content)}
        answer = httpx.post(f"{address}segment?answer=mask", files=files, timeout=300, trust_env=False)
        if answer.status_code != 503:
            return answer.status_code == 200 and answer.content.startswith(b"\x1f\x8b"), refusals
        time.sleep(int(answer.headers["Retry-After"]))
    return False, 100


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=6)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    print_machine()
    model = write_small_model(options.folder / "3d_fullres")
    content = write_noise(options.folder / "scan.nii.gz", shape=(16, 24, 24)).read_bytes()
    command = [sys.executable, "-u", "-m", "autoseg", "serve", str(model), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    address = re.search(r"http://\S+", process.stdout.readline())[0]
    answers, memory, began = [], [], time.perf_counter()
    with ThreadPoolExecutor(options.at_once) as pool:
        for answer in pool.map(lambda _: send(address, content), range(options.requests)):
            answers.append(answer)
            memory.append(resident_mb(process))
    seconds = time.perf_counter() - began
    process.terminate()
    process.communicate(timeout=60)
    warm = memory[len(memory) // WARM_SHARE :]
    print(f"| {options.requests} scans, {options.at_once} at once | figure |\n|---|---|")
    print(f"| answered with a mask | {sum(is_mask for is_mask, _ in answers)} |")
    print(f"| refused and sent again | {sum(refusals for _, refusals in answers)} |")
    print(f"| scans per second | {options.requests / seconds:.1f} |")
    print(f"| resident memory, MB, after a quarter of the scans | {warm[0]:.0f} |")
    print(f"| resident memory, MB, at the end | {warm[-1]:.0f} |")
    print(f"| exit code of the server | {process.returncode} |")


if __name__ == "__main__":
    main()
