"""Datasets of many small cases: seconds, processor seconds and memory of each command, and how they grow.

    python tests/benchmarks/scale.py FOLDER [--cases 200 2000 20000] [--scans 100 1000 10000] [--only check plan]

The cases are made up, see small_cases.py; FOLDER keeps them and the workspaces for the next call. Each command is a
process of its own, as a user would type it; see programs.py for how time and memory are measured. Prints a table in
Markdown for RESULTS.md; growth is the quotient of the last two columns. Needs Linux.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from made_up_model import make_model
from measured_on import print_machine
from programs import MEGABYTE, Run, call_ours, limit_cores, watch
from small_cases import write_raw_dataset, write_scans

from autoseg.workspace import DatasetFolders, Workspace

NUMBER, LINKED_NUMBER = 7, 8
NAME = "Dataset007_Many"
LOADER = Path(__file__).with_name("measure_scale.py")
PATCH = (16, 24, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a number of cases or scans is.

    Attributes:
        root: Folder of all of it.
        cases: Number of cases or scans.
    """

    root: Path
    cases: int

    @property
    def source(self) -> Path:
        """The raw dataset, before it is imported."""
        return self.root / NAME

    @property
    def workspace(self) -> Workspace:
        """The workspace."""
        return Workspace(root=self.root / "work")

    @property
    def folders(self) -> DatasetFolders:
        """The folders of the imported dataset."""
        return self.workspace.folders(NAME)

    def prepare(self) -> None:
        """Writes the dataset, unless an earlier call did."""
        if not self.source.is_dir():
            write_raw_dataset(self.source, self.cases)
        self.workspace.root.mkdir(exist_ok=True)

    def run(self, command: str, *options: object, number: int = NUMBER) -> Run:
        """Runs a command of autoseg for the dataset."""
        return call_ours(self.workspace, command, number, *options)

    def report(self) -> Run:
        """Makes the page that shows the dataset."""
        return self._watch(["report", "data", "-d", NUMBER, "-w", self.workspace.root])

    def predict(self, *options: object) -> Run:
        """Segments all scans by a small model that is made up."""
        model, scans = self.root / "model", self.root / "scans"
        if not scans.is_dir():
            write_scans(scans, self.cases)
        make_model(model, classes=3, spacing_mm=(1.2, 1.0, 1.0), patch=PATCH, features=2, mirrored=False)
        words = ["predict", "-m", model, "-i", scans, "-o", self.root / "masks", "--device", "cpu", *options]
        return self._watch(words)

    def evaluate(self) -> Run:
        """Compares the label maps of all scans with themselves."""
        return self._watch(["evaluate", self.root / "masks", self.root / "masks", "-o", self.root / "scores"])

    def _watch(self, words: Sequence[object]) -> Run:
        command = [sys.executable, "-m", "autoseg", *words]
        return watch([str(word) for word in command], self.root / f"{words[0]}.log")


def do_import(place: Place) -> Run:
    """Copies the dataset into the workspace."""
    shutil.rmtree(place.folders.raw, ignore_errors=True)
    return place.run("import", place.source)


def do_link(place: Place) -> Run:
    """Lists the files of the dataset."""
    shutil.rmtree(place.workspace.folders("Dataset008_Linked").raw, ignore_errors=True)
    return place.run("import", place.source, "--link", "--name", "Linked", number=LINKED_NUMBER)


def do_fingerprint(place: Place) -> Run:
    """Takes the fingerprint anew."""
    shutil.rmtree(place.folders.preprocessed, ignore_errors=True)
    return place.run("fingerprint")


def do_preprocess(place: Place) -> Run:
    """Assigns the folds, and prepares all cases."""
    shutil.rmtree(place.folders.cases("3d_fullres"), ignore_errors=True)
    return place.run("preprocess", "-c", "3d_fullres")


def do_predict(place: Place) -> Run:
    """Segments all scans."""
    shutil.rmtree(place.root / "masks", ignore_errors=True)
    return place.predict()


def do_sampling(place: Place) -> Run:
    """Opens the prepared cases for training, and makes batches."""
    log = place.root / "sampling.log"
    run = watch([sys.executable, str(LOADER), str(place.workspace.root), str(NUMBER)], log)
    seconds = json.loads(log.read_text().splitlines()[-1])
    place.root.joinpath("sampling.txt").write_text(
        f"first batch after {seconds['start']:.1f} s, then {1000 * seconds['batch']:.1f} ms each"
    )
    return run


OF_CASES: dict[str, Callable[[Place], Run]] = {
    "import": do_import,
    "import --link": do_link,
    "check": lambda place: place.run("check"),
    "check of links": lambda place: place.run("check", number=LINKED_NUMBER),
    "fingerprint": do_fingerprint,
    "plan": lambda place: place.run("plan", "--preset", "small"),
    "preprocess": do_preprocess,
    "preprocess, all done": lambda place: place.run("preprocess", "-c", "3d_fullres"),
    "sampling": do_sampling,
    "report data": Place.report,
    "status": lambda place: place.run("status"),
}
OF_SCANS: dict[str, Callable[[Place], Run]] = {
    "predict": do_predict,
    "predict --continue, all done": lambda place: place.predict("--continue"),
    "evaluate": Place.evaluate,
}


def main() -> None:
    """Runs the commands at each number of cases and scans, and prints a table of both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, nargs="+", default=[200, 2000, 20000])
    parser.add_argument("--scans", type=int, nargs="+", default=[100, 1000, 10000])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of rows")
    arguments = parser.parse_args()
    limit_cores()
    print_machine()
    folder = arguments.folder.resolve()
    for kind, counts, steps in (("cases", arguments.cases, OF_CASES), ("scans", arguments.scans, OF_SCANS)):
        chosen = {name: step for name, step in steps.items() if not arguments.only or name in arguments.only}
        if chosen:
            for line in rows_of(kind, [prepare(folder, kind, count) for count in counts], chosen):
                print(line, flush=True)


def prepare(folder: Path, kind: str, count: int) -> Place:
    """Returns the place of a number of cases or scans, where cases are written already."""
    place = Place(root=folder / f"{kind}_{count}", cases=count)
    place.root.mkdir(parents=True, exist_ok=True)
    if kind == "cases":
        place.prepare()
    return place


def rows_of(kind: str, places: Sequence[Place], steps: dict[str, Callable[[Place], Run]]) -> Iterator[str]:
    """Yields the lines of a table, one for each step: seconds, processor seconds and MB at each number."""
    yield f"\n| {kind} | {' | '.join(f'{place.cases:,}' for place in places)} | growth |"
    yield f"|---|{'---|' * len(places)}---|"
    for name, step in steps.items():
        runs = [step(place) for place in places]
        growth = f"{runs[-1].seconds / runs[-2].seconds:.1f}" if len(runs) > 1 else "-"
        cells = (f"{run.seconds:.1f} s, {run.processor_seconds:.1f} s, {describe(run)}" for run in runs)
        yield f"| {name} | {' | '.join(cells)} | {growth} |"
        if name == "sampling":
            yield f"| of it | {' | '.join((place.root / 'sampling.txt').read_text() for place in places)} | |"
    pages = [place.folders.data_report for place in places]
    if "report data" in steps:
        sizes = " | ".join(f"{page.stat().st_size / MEGABYTE:.1f} MB" for page in pages)
        yield f"| size of the report | {sizes} | |"


def describe(run: Run) -> str:
    """Returns the most memory of a run, with all its processes."""
    return f"{run.all_processes / MEGABYTE:.0f} MB"


if __name__ == "__main__":
    main()
