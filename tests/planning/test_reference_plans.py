"""The rules "nnunet": every decision equals the reference method's, for its default and residual-encoder presets."""

import json

import pytest
from planning_cases import GOLDEN, GOLDEN_NAMES, golden_fingerprint, golden_info

from autoseg.importing.nnunet import read_fingerprint
from autoseg.info import DatasetInfo
from autoseg.planning.planner import PlanningOptions, make_plan
from autoseg.planning.presets import PRESETS

PLANNERS = {"plain": "nnUNetPlans", "resenc_m": "nnUNetResEncUNetMPlans", "resenc_l": "nnUNetResEncUNetLPlans"}
SCHEMES = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_to_0_1",
    "RGBTo01Normalization": "rgb_to_0_1",
}
RANDOM = json.loads((GOLDEN.parent / "random_plans.json").read_text())


def decisions(configuration) -> dict:
    """What was decided for a configuration, in the reference method's words."""
    stages = configuration.architecture.stages
    network = {
        "strides": [list(stage.stride) for stage in stages],
        "kernel_sizes": [list(stage.kernel) for stage in stages],
        "features_per_stage": [stage.features for stage in stages],
    }
    if configuration.architecture.residual == "block":
        network["n_blocks_per_stage"] = [stage.blocks for stage in stages]
        network["n_conv_per_stage_decoder"] = [stage.decoder_convolutions for stage in stages[:-1]]
    else:
        network["n_conv_per_stage"] = [stage.convolutions for stage in stages]
        network["n_conv_per_stage_decoder"] = network["n_conv_per_stage"][:-1]
    return {
        "spacing": list(configuration.spacing_mm),
        "patch_size": list(configuration.patch_size),
        "batch_size": configuration.batch_size,
        "batch_dice": configuration.batch_dice,
        "normalization": [channel.scheme for channel in configuration.normalization],
        "use_mask_for_norm": [channel.only_nonzero for channel in configuration.normalization],
        "network": network,
    }


def wanted(configuration: dict) -> dict:
    """The same of a configuration of the reference method."""
    network = configuration["architecture"]["arch_kwargs"]
    keys = ("strides", "kernel_sizes", "features_per_stage", "n_blocks_per_stage", "n_conv_per_stage")
    copied = ("spacing", "patch_size", "batch_size", "batch_dice", "use_mask_for_norm")
    return {
        **{key: configuration[key] for key in copied},
        "normalization": [SCHEMES[scheme] for scheme in configuration["normalization_schemes"]],
        "network": {key: network[key] for key in (*keys, "n_conv_per_stage_decoder") if key in network},
    }


def compare(plan, golden: dict) -> None:
    """Every configuration of both, and nothing else."""
    assert list(plan.axis_order) == golden["transpose_forward"]
    assert plan.configurations.keys() == golden["configurations"].keys()
    for name, configuration in plan.configurations.items():
        reference = golden["configurations"][name]
        if "inherits_from" not in reference:
            assert decisions(configuration) == wanted(reference), name
            continue
        parent = plan.configurations[reference["inherits_from"]]
        assert configuration.previous == reference["previous_stage"]
        same = {"previous": None, "architecture": parent.architecture, "estimated_bytes": parent.estimated_bytes}
        assert configuration.model_copy(update=same) == parent
        added = configuration.architecture.out_channels - 1
        assert configuration.architecture.in_channels == parent.architecture.in_channels + added


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
    """Thick slices, thin axes, huge and tiny images, up to four channels, other memory: always the same decisions."""
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
