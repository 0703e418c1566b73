"""Scores and postprocessing beside nnU-Net's, on made-up segmentations."""

import json
from pathlib import Path

import numpy as np
import pytest
from both_programs import ask
from parity_judged import JUDGED

from autoseg.imaging.image_files import read_label_map
from autoseg.imaging.postprocessing import apply_rules
from autoseg.nnunet.postprocessing_file import read_rules


@pytest.fixture(scope="module")
def judged(nnunet, tmp_path_factory) -> dict[str, Path]:
    """Folders in which nnU-Net evaluated, and decided about postprocessing."""
    folders = {name: tmp_path_factory.mktemp("judged") for name in JUDGED}
    question = {"folders": [one.write(folders[name]) for name, one in JUDGED.items()]}
    ask(nnunet, "evaluate", question)
    ask(nnunet, "decide", question)
    return {name: folder / "prediction" for name, folder in folders.items()}


@pytest.mark.parametrize("name", JUDGED)
def test_scores(judged, figures, name):
    """Every number of summary.json that both programs have is the same."""
    numbers = JUDGED[name].compare_scores(json.loads((judged[name] / "summary.json").read_text()))
    figures.add("evaluation", f"made up: {name}", f"{numbers} numbers the same", "the same")


@pytest.mark.parametrize("name", JUDGED)
def test_postprocessing(judged, figures, name):
    """The same largest components are kept, and that removes the same voxels."""
    ours, theirs = JUDGED[name].find_rules(), read_rules(judged[name], JUDGED[name].info.targets)
    assert theirs is not None
    assert (ours.keep_largest_foreground, ours.keep_largest) == (theirs.keep_largest_foreground, theirs.keep_largest)
    for number, (_, guess) in enumerate(JUDGED[name].volumes()):
        written = read_label_map(judged[name] / "postprocessed" / f"case_{number}.nii.gz").array
        np.testing.assert_array_equal(apply_rules(guess, theirs).array, written)
    chosen = theirs.describe().removeprefix("postprocessing: ")
    figures.add("postprocessing", f"made up: {name}", f"the same: {chosen}", "the same")


def test_each_decision_occurs(judged):
    """There is a case for each: else agreement would say little."""
    rules = {name: read_rules(folder, JUDGED[name].info.targets) for name, folder in judged.items()}
    assert rules["islands"].keep_largest_foreground
    assert rules["attached"].keep_largest == ((1,),)
    assert rules["two parts"].keep_largest == ((2,),)
    assert not rules["nothing to do"].keep_largest_foreground
    assert rules["nothing to do"].keep_largest == ()
