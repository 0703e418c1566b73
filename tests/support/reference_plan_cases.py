"""Compares plans by the rules "nnunet" with nnU-Net's own plans, for tests and benchmarks."""

SCHEMES = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "NoNormalization": "none",
    "RescaleTo01Normalization": "rescale_to_0_1",
    "RGBTo01Normalization": "rgb_to_0_1",
}


def decisions(configuration) -> dict:
    """Returns the decisions of a configuration, under the names of the reference method."""
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


def reference_decisions(configuration: dict) -> dict:
    """Returns the same decisions of a configuration of the reference method."""
    network = configuration["architecture"]["arch_kwargs"]
    keys = ("strides", "kernel_sizes", "features_per_stage", "n_blocks_per_stage", "n_conv_per_stage")
    copied = ("spacing", "patch_size", "batch_size", "batch_dice", "use_mask_for_norm")
    return {
        **{key: configuration[key] for key in copied},
        "normalization": [SCHEMES[scheme] for scheme in configuration["normalization_schemes"]],
        "network": {key: network[key] for key in (*keys, "n_conv_per_stage_decoder") if key in network},
    }


def compare(plan, golden: dict) -> None:
    """Fails unless both plans have the same configurations with the same decisions."""
    assert list(plan.axis_order) == golden["transpose_forward"]
    assert plan.configurations.keys() == golden["configurations"].keys()
    for name, configuration in plan.configurations.items():
        reference = golden["configurations"][name]
        if "inherits_from" not in reference:
            assert decisions(configuration) == reference_decisions(reference), name
            continue
        parent = plan.configurations[reference["inherits_from"]]
        assert configuration.previous == reference["previous_stage"]
        same = {"previous": None, "architecture": parent.architecture, "estimated_bytes": parent.estimated_bytes}
        assert configuration.model_copy(update=same) == parent
        added = configuration.architecture.out_channels - 1
        assert configuration.architecture.in_channels == parent.architecture.in_channels + added
