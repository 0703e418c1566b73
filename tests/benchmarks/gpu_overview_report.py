"""What gpu_overview.py found, as JSON and Markdown, and as rows of the table of decisions."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from autoseg.runtime.gpu_decisions import FILE, AugmentationRow, Capability, DecisionRow, GpuDecisions

Results = dict[str, Any]
SOURCE = "tests/benchmarks/gpu_overview.py"


def write_report(results: Results, folder: Path) -> None:
    """Writes gpu_overview.json and gpu_overview.md."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu_overview.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu_overview.md").write_text("\n".join(_markdown(results)) + "\n", encoding="utf-8")


def _markdown(results: Results) -> Iterator[str]:
    yield results["machine"]["line"]
    for part, found in results["parts"].items():
        yield f"\n## {part} ({found['seconds']} s)\n"
        if found["problem"]:
            yield f"{found['problem']}\n"
        columns = list(dict.fromkeys(name for row in found["rows"] for name in row))
        if columns:
            yield f"| {' | '.join(columns)} |"
            yield f"|{'---|' * len(columns)}"
        for row in found["rows"]:
            yield f"| {' | '.join(_cell(row.get(name)) for name in columns)} |"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value).replace("|", "/")


def update_decisions(results: Results, path: Path = FILE) -> Iterator[str]:
    """Writes what was measured on a CUDA GPU into the table of decisions; yields a line for each row.

    The rows are for all GPUs of its compute capability, and replace those that an earlier measurement left.
    """
    machine = results["machine"]
    if machine["capability"] is None:
        yield f"{path.name} stays as it is: {machine['device']} is no CUDA GPU"
        return
    table, rows = GpuDecisions.load(path), decide(results)
    changes = {}
    for name, measured in rows.items():
        if measured:
            capability = tuple(machine["capability"])
            changes[name] = (*measured, *(row for row in getattr(table, name) if not _is_of(row, capability)))
            yield from (f"{name}: {row.model_dump(exclude_none=True)}" for row in measured)
        else:
            yield f"{name}: not measured, stays as it is"
    GpuDecisions.model_validate(table.model_copy(update=changes).model_dump()).save(path)


def decide(results: Results) -> dict[str, list[DecisionRow]]:
    """Returns the rows of each decision that follow from the results; none where too little was measured."""
    machine = results["machine"]
    capability = tuple(machine["capability"])
    common = {
        "least_capability": capability,
        "most_capability": capability,
        "source": SOURCE,
        "measured_on": f"{machine['device']}, torch {machine['torch']}",
    }
    rows: dict[str, list[DecisionRow]] = {"channels_last": [], "compile": [], "augment_on_device": []}
    steps = [row for row in _rows(results, "steps") if "ms_per_step" in row]
    for name, column, other in (
        ("channels_last", "channels_last", "compiled"),
        ("compile", "compiled", "channels_last"),
    ):
        gain = find_gain(steps, column, other, common=name == "compile")
        if gain is not None:
            rows[name] = [DecisionRow(choice=gain > 1, **common)]
    rows["augment_on_device"] = [
        AugmentationRow(**common, **row) for row in find_augmentation_rows(_rows(results, "loop"))
    ]
    return rows


def find_gain(steps: Iterable[Results], column: str, other: str, *, common: bool) -> float | None:
    """Returns how many times as fast steps are with a choice as without it, the mean over the plans.

    Args:
        steps: Rows of the part "steps".
        column: The choice.
        other: The other choice, which must be the same in both rows of a comparison.
        common: What the other choice is in these rows.
    """
    times = {(row["what"], row[column]): row["ms_per_step"] for row in steps if row[other] is common}
    gains = [times[what, False] / times[what, True] for what, chosen in times if chosen and (what, False) in times]
    return geometric_mean(gains) if gains else None


def find_augmentation_rows(loop: Iterable[Results]) -> list[Results]:
    """Returns where batches are augmented: a row for each size of batches and number of cores that was measured.

    A row holds for smaller batches and for more cores, too, unless a row before it does. The last one is for all
    others.
    """
    times: dict[tuple[int, int], dict[str, float]] = {}
    for row in loop:
        if "ms_per_step" in row:
            times.setdefault((row["voxels"], -row["cores"]), {})[row["augmented_on"]] = row["ms_per_step"]
    rows: list[Results] = [
        {"choice": value["device"] <= value["cpu"], "most_voxels": voxels, "least_cores": -cores}
        for (voxels, cores), value in sorted(times.items())
        if len(value) == 2
    ]
    return [*rows, {"choice": True}] if rows else []


def _rows(results: Results, part: str) -> list[Results]:
    return results["parts"].get(part, {}).get("rows", [])


def _is_of(row: DecisionRow, capability: Capability) -> bool:
    """Returns whether a row was measured on a GPU of a compute capability."""
    return row.measured_on is not None and row.least_capability == row.most_capability == capability
