"""The explanations of a plan: sentences with the numbers behind them, in plain words."""

import re

import pytest
from planning_cases import GOLDEN_NAMES, fingerprint_of, golden_fingerprint, golden_info, info_of, plan_of

from autoseg.planning.planner import PlanningOptions, make_plan

JARGON = re.compile(
    r"\b(nnU-Net|topology|anisotrop\w+|isotrop\w+|pool\w*|kernel\w*|stride\w*|z-score|batch_dice|IQR)\b"
)


@pytest.mark.parametrize("preset", [None, "small", "24gb"])
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_sentences_are_plain(name, preset):
    """Every one is a single line that ends with a full stop and uses no word that only experts know."""
    plan = plan_of(golden_fingerprint(name), golden_info(name), gigabytes=24, preset=preset)
    assert plan.why
    for sentence in plan.why:
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert not JARGON.search(sentence), sentence
    assert len(set(plan.why)) == len(plan.why)


def test_every_number_of_a_configuration_is_explained():
    """Patch, batch, resolutions, features, memory and rotations of each configuration are in its sentences."""
    plan = plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"))
    for name in ("2d", "3d_fullres", "3d_lowres"):
        one = plan.configurations[name]
        text = " ".join(sentence for sentence in plan.why if sentence.startswith(f"{name}: "))
        for words in (
            " x ".join(map(str, one.patch_size)),
            " x ".join(map(str, one.median_shape)),
            f"a batch has {one.batch_size} patches",
            f"{len(one.architecture.stages)} resolutions",
            f"{one.architecture.stages[0].features} to {one.architecture.stages[-1].features} features",
            f"{one.estimated_bytes / 1e9:.1f} GB of 8.0 GB",
            f"{one.augmentation.rotation_degrees:g} degrees",
        ):
            assert words in text


@pytest.mark.parametrize(
    ("shape", "spacing", "words"),
    [
        ((3, 300, 300), (5, 1, 1), "There is no 3D configuration: 3 slices make no volume."),
        ((60, 5, 5), (1, 1, 1), "There is no 2d: slices of 5 x 5 voxels are too small"),
        ((40, 50, 60), (1, 1, 1), "25% are enough to see where it is."),
        ((20, 320, 320), (5, 1, 1), "do not look along axes whose voxels are still at least twice as long"),
        ((20, 320, 320), (5, 1, 1), "z comes first, because the voxels are longest along it, 5 mm"),
        ((64, 64, 64), (1, 1, 1), "typical 64 x 64 x 64, all of it."),
        ((500, 500, 500), (1, 1, 1), "the largest of which two fit into the memory budget"),
    ],
)
def test_reasons_fit_the_data(shape, spacing, words):
    """The reason names the special property of the images."""
    plan = plan_of(fingerprint_of([shape] * 40, [spacing] * 40), info_of("T2"))
    assert words in " ".join(plan.why)


def test_the_reference_counts_in_its_own_measure():
    """By the rules "nnunet", batches are explained by feature map elements, not by bytes."""
    options = PlanningOptions(dataset="D", memory_budget_bytes=8 * 10**9, preset="plain", rules="nnunet")
    plan = make_plan(golden_fingerprint("LiverCT"), golden_info("LiverCT"), options)
    text = " ".join(plan.why)
    assert "counted as 85 million (2D) or 560 million (3D) feature map elements" in text
    assert "a patch counts 453 million elements" in text
