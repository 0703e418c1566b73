"""Seconds until a data report of many made-up cases is open in Chromium, and can be sorted and searched.

    python tests/benchmarks/report_opening.py FOLDER [--cases 500] [--rounds 5]

Makes a dataset of tiny cases in FOLDER, writes its page, and opens it in a Chromium without a window, which must be
installed, by playwright; a page that is there already is opened as it is. "open" is the time from the request to the
event load and the second frame after it. Prints a table in Markdown for RESULTS.md.
"""

import argparse
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

from measured_on import print_machine
from playwright.sync_api import sync_playwright
from tiny_workspaces import NUMBER, write_volumes

import autoseg

FRAME = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


def measure(page: Any, address: str) -> dict[str, float]:
    """Opens, sorts and filters the page; returns the seconds of each."""
    seconds = {}
    begin = time.perf_counter()
    page.goto(address, wait_until="load")
    page.evaluate(FRAME)
    seconds["open"] = time.perf_counter() - begin
    begin = time.perf_counter()
    page.locator("#cases thead th button").nth(5).click()
    page.evaluate(FRAME)
    seconds["sort"] = time.perf_counter() - begin
    begin = time.perf_counter()
    page.fill("#filter", "case_1")
    page.evaluate(FRAME)
    seconds["filter"] = time.perf_counter() - begin
    return seconds


def main() -> None:
    """Makes the page, and measures it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        parser.error("install Chromium first")
    print_machine()
    report = arguments.folder / "page.html"
    if not report.is_file():
        write_volumes(arguments.folder, cases=arguments.cases)
        autoseg.report_data(NUMBER, report, workspace=arguments.folder)
    rounds = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(arguments.rounds):
            page = browser.new_page(viewport={"width": 1200, "height": 900})
            rounds.append(measure(page, report.as_uri()))
            page.close()
        browser.close()
    print("| page | size, MB | open, s (median, highest) | sort, s | filter, s |")
    print("|---|---|---|---|---|")
    times = {name: [values[name] for values in rounds] for name in rounds[0]}
    opened = f"{statistics.median(times['open']):.2f}, {max(times['open']):.2f}"
    others = " | ".join(f"{statistics.median(times[name]):.2f}" for name in ("sort", "filter"))
    size = report.stat().st_size / 1e6
    print(f"| {arguments.cases} cases | {size:.1f} | {opened} | {others} |")


if __name__ == "__main__":
    main()
