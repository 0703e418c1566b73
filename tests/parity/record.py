"""Records nnU-Net's results for the small made-up cases, with which the default test suite compares ours.

    python tests/parity/record.py PATH/TO/python

PATH/TO/python belongs to an environment with nnunetv2 2.8.1; README.md says how to make one. Writes
golden/parity_cases.npz and golden/parity.json, which `tests/parity/test_parity_goldens.py` compares with.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "support"))

from both_programs import ask, ask_about_cases  # noqa: E402
from parity_cases import SPLIT_COUNTS, TILED_IMAGES  # noqa: E402
from parity_judged import JUDGED  # noqa: E402

GAUSSIAN_TILE = [8, 12, 10]


def main() -> None:
    """Asks nnU-Net and writes its answers."""
    python, golden = Path(sys.argv[1]), TESTS / "golden"
    arrays = {}
    for name, answer in ask_about_cases(python).items():
        answer["probabilities"] = answer["probabilities"].astype(np.float16)
        arrays |= {f"{name}_{key}": value for key, value in answer.items()}
    arrays["gaussian"] = ask(python, "weigh", {"patches": [GAUSSIAN_TILE]})["0_single"]
    np.savez_compressed(golden / "parity_cases.npz", **arrays)
    tiles = ask(python, "tile", {"images": TILED_IMAGES})
    content = {
        "tiles": [[tiles[f"{number}_{axis}"].tolist() for axis in range(3)] for number in range(len(TILED_IMAGES))],
        "held_out": _ask_for_splits(python),
        "judged": _ask_for_judgement(python),
    }
    (golden / "parity.json").write_text(json.dumps(content) + "\n")


def _ask_for_splits(python: Path) -> list[list[list[str]]]:
    """Returns the held-out cases of each fold, for each number of cases."""
    names = [[f"case_{number:03d}" for number in range(count)] for count in SPLIT_COUNTS]
    splits = json.loads(str(ask(python, "split", {"names": names})["splits"]))
    return [[fold["val"] for fold in folds] for folds in splits]


def _ask_for_judgement(python: Path) -> dict[str, Any]:
    """Returns summary.json without names of files, and the steps of postprocessing, of each set of segmentations."""
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / str(number) for number, name in enumerate(JUDGED)}
        question = {"folders": [one.write(folders[name]) for name, one in JUDGED.items()]}
        ask(python, "evaluate", question)
        ask(python, "decide", question)
        found = {}
        for name, folder in folders.items():
            summary = json.loads((folder / "prediction" / "summary.json").read_text())
            summary["metric_per_case"] = [{"metrics": case["metrics"]} for case in summary["metric_per_case"]]
            steps = json.loads((folder / "prediction" / "postprocessing.json").read_text())
            kept = ("postprocessing_fns", "postprocessing_kwargs")
            found[name] = {"summary": summary, "postprocessing": {key: steps[key] for key in kept}}
        return found


if __name__ == "__main__":
    main()
