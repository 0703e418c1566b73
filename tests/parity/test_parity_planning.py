"""Fingerprints, plans and folds beside nnU-Net's."""

import json

import numpy as np
import pytest
from both_programs import PLAN_FILES, ask
from parity_sets import SETS
from reference_plan_cases import compare

from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.datasets.splits import make_splits

LARGEST_SHIFT = 0.02
"""Of intensities, in standard deviations of the foreground: both programs draw voxels at random, each by its own."""


@pytest.mark.parametrize("name", SETS)
def test_fingerprints(bench, figures, name):
    """Shapes, spacings and the share that cropping keeps are the same, and intensities but for the draws.

    Voxels that nobody labelled are foreground for nnU-Net, and are left out of the intensities here.
    """
    made = bench.make(name)
    ours, theirs = made.fingerprint, read_fingerprint(made.theirs / "dataset_fingerprint.json")
    assert [case.shape_after_crop for case in ours.cases] == [case.shape_after_crop for case in theirs.cases]
    assert ours.median_relative_size_after_crop == pytest.approx(theirs.median_relative_size_after_crop, abs=1e-12)
    spacings = [[case.spacing_mm for case in one.cases] for one in (ours, theirs)]
    if made.kind.info.file_ending == ".png":  # nnU-Net gives pictures a thickness of 999 pixels
        spacings = [[spacing[1:] for spacing in one] for one in spacings]
    np.testing.assert_allclose(*spacings, rtol=1e-6)
    if made.kind.info.targets.ignore is not None:
        figures.add(
            "fingerprint", name, "shapes, spacings, crop the same; intensities: unlabelled voxels left out here", "-"
        )
        return
    shifts = [
        abs(getattr(our, fact) - getattr(their, fact)) / their.std
        for our, their in zip(ours.channels, theirs.channels, strict=True)
        for fact in type(our).model_fields
    ]
    assert max(shifts) < LARGEST_SHIFT
    found = f"shapes, spacings, crop the same; intensities within {max(shifts):.1e} standard deviations"
    figures.add("fingerprint", name, found, "the same; intensities but for the draws")


@pytest.mark.parametrize("name", SETS)
def test_plans(bench, figures, name):
    """Every decision of every planner is the same, from our fingerprint and from theirs."""
    made = bench.make(name)
    for preset in PLAN_FILES:
        for fingerprint in (made.fingerprint, read_fingerprint(made.theirs / "dataset_fingerprint.json")):
            compare(made.plan(preset, fingerprint), made.read_plans(preset))
    figures.add("plan", name, f"all decisions of {', '.join(PLAN_FILES)} the same", "the same")


def test_splits(nnunet, figures):
    """The same cases are held out in the same folds."""
    groups = [[f"case_{number:03d}" for number in range(count)] for count in (5, 6, 12, 33, 260)]
    answer = ask(nnunet, "split", {"names": groups})
    for names, theirs in zip(groups, json.loads(str(answer["splits"])), strict=True):
        ours = [{"train": list(fold.training), "val": list(fold.validation)} for fold in make_splits(names).folds]
        assert ours == theirs
    figures.add("splits", ", ".join(str(len(names)) for names in groups) + " cases", "the same", "the same")
