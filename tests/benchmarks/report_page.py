"""Makes the data report of a dataset in a process of its own, and opens it: seconds, bytes, and time in the browser.

    python tests/benchmarks/report_page.py WORKSPACE [-d 4] [--rounds 3]

The browser is the Chromium of the tests, without a graphics card; without one, its rows are left out. A page is open
when its table can be used, and a case when its scan is drawn in the viewer.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from measured_on import print_machine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def make_page(workspace: Path, dataset: int, page: Path) -> tuple[float, float]:
    """Returns the seconds that the command takes, and those of processors, which other programs change less."""
    command = [sys.executable, "-m", "autoseg", "report", "data", "-d", str(dataset), "-w", workspace, "-o", page]
    started, before = time.perf_counter(), os.times()
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    after = os.times()
    processor = after.children_user - before.children_user + after.children_system - before.children_system
    return time.perf_counter() - started, processor


def open_page(page: Path) -> tuple[float, float]:
    """Returns the seconds until the page can be used, and those until the first case is drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        started = time.perf_counter()
        tab.goto(page.as_uri())
        opened = time.perf_counter()
        tab.locator("#cases .open").first.click()
        tab.locator("#viewer[data-shows]").wait_for(timeout=120_000)
        drawn = time.perf_counter()
        browser.close()
    return opened - started, drawn - opened


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("-d", "--dataset", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    print_machine()
    print("| data report | figure |\n|---|---|")
    with TemporaryDirectory() as folder:
        page = Path(folder) / "data.html"
        seconds = [make_page(options.workspace, options.dataset, page) for _ in range(options.rounds)]
        print(f"| seconds of the command | {min(wall for wall, _ in seconds):.1f} |")
        print(f"| processor seconds of the command | {min(processor for _, processor in seconds):.1f} |")
        print(f"| MB of the page | {page.stat().st_size / 1e6:.1f} |")
        if CHROMIUM is not None:
            times = [open_page(page) for _ in range(options.rounds)]
            print(f"| seconds until the page can be used | {min(time for time, _ in times):.2f} |")
            print(f"| seconds from the click until the first scan is drawn | {min(time for _, time in times):.1f} |")


if __name__ == "__main__":
    main()
