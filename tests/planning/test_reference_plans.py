"""The rules "nnunet": every decision equals the reference method's, for its default and residual-encoder presets."""

import json

import pytest
from planning_cases import GOLDEN, GOLDEN_NAMES, golden_fingerprint, golden_info
from reference_plan_cases import compare

from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.nnunet_files import read_fingerprint
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.presets import PRESETS

PLANNERS = {"plain": "nnUNetPlans", "resenc_m": "nnUNetResEncUNetMPlans", "resenc_l": "nnUNetResEncUNetLPlans"}
RANDOM = json.loads((GOLDEN.parent / "random_plans.json").read_text())


@pytest.mark.parametrize("preset", PLANNERS)
@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_golden_plans(name, preset):
    """The plans of six datasets: their grid, and every decision for each configuration."""
    golden = json.loads((GOLDEN / name / f"{PLANNERS[preset]}.json").read_text())
    options = PlanningOptions(
        dataset="Dataset999_Golden",
        memory_budget_bytes=PRESETS[preset].memory_bytes,
        preset=preset,
        rules="nnunet",
    )
    plan = make_plan(golden_fingerprint(name), golden_info(name), options)
    compare(plan, golden)
    for key, configuration in plan.configurations.items():
        if "median_image_size_in_voxels" in golden["configurations"][key]:
            assert list(configuration.median_shape) == golden["configurations"][key]["median_image_size_in_voxels"]


@pytest.mark.parametrize("case", RANDOM, ids=lambda case: f"seed{case['seed']}")
def test_plans_of_random_datasets(case, tmp_path):
    """Thick slices, thin axes, huge and tiny images, up to four channels, other memory: always equal decisions."""
    path = tmp_path / "dataset_fingerprint.json"
    path.write_text(json.dumps(case["fingerprint"]))
    fingerprint = read_fingerprint(path)
    info = DatasetInfo.parse(json.dumps(case["dataset"]), source="dataset.json")
    for preset, golden in case["plans"].items():
        gigabytes = case["memory_gb"] or PRESETS[preset].memory_bytes / 1e9
        options = PlanningOptions(
            dataset="Dataset999_Random",
            memory_budget_bytes=int(gigabytes * 1e9),
            preset=preset,
            rules="nnunet",
        )
        compare(make_plan(fingerprint, info, options), golden)
