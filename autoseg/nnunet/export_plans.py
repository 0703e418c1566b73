"""Content of nnU-Net's plans.json for exported configurations."""

from collections.abc import Mapping
from typing import Any

from autoseg.models.checkpoint import Checkpoint
from autoseg.nnunet.architectures import describe_architecture
from autoseg.nnunet.models import REORIENTING
from autoseg.nnunet.plans import LABELLER, PREPROCESSOR, RESAMPLER, RESAMPLING, SCHEMES
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.plan import ConfigurationName

PLANS = "nnUNetPlans"

READERS = {
    ".nii.gz": "SimpleITKIO",
    ".nrrd": "SimpleITKIO",
    ".mha": "SimpleITKIO",
    ".gipl": "SimpleITKIO",
    ".nii": "NibabelIO",
    ".png": "NaturalImage2DIO",
    ".bmp": "NaturalImage2DIO",
    ".tif": "NaturalImage2DIO",
}
"""File ending to the reader class of nnU-Net."""

DEFAULT_ENDING = ".nii.gz"

REORIENTING_READERS = {"SAR": REORIENTING}
"""Orientation to the reader class of nnU-Net that reorients scans to it."""


def describe_plans(checkpoints: Mapping[ConfigurationName, Checkpoint], orientation: str | None) -> dict[str, Any]:
    """Returns the content of plans.json.

    Args:
        checkpoints: A checkpoint of each exported configuration of a plan.
        orientation: Common orientation of the training cases, if it is known.
    """
    first = next(iter(checkpoints.values()))
    plan, configuration, order = first.plan, first.configuration, first.plan.axis_order
    ending = first.info.file_ending
    return {
        "dataset_name": plan.dataset,
        "plans_name": PLANS,
        "original_median_spacing_after_transp": list(configuration.spacing_mm),
        "original_median_shape_after_transp": list(configuration.median_shape),
        "image_reader_writer": REORIENTING_READERS.get(orientation or "", READERS.get(ending, READERS[DEFAULT_ENDING])),
        "transpose_forward": list(order),
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {name: _describe_configuration(name, checkpoints) for name in checkpoints},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": LABELLER,
        "foreground_intensity_properties_per_channel": {
            str(number): _describe_intensities(channel) for number, channel in enumerate(configuration.normalization)
        },
    }


def _describe_configuration(
    name: ConfigurationName, checkpoints: Mapping[ConfigurationName, Checkpoint]
) -> dict[str, Any]:
    """Returns a configuration in plans.json."""
    configuration = checkpoints[name].configuration
    followers = [other for other, checkpoint in checkpoints.items() if checkpoint.configuration.previous == name]
    scheme_names = {scheme: nnunet_name for nnunet_name, scheme in SCHEMES.items()}
    return {
        "data_identifier": f"{PLANS}_{name}",
        "preprocessor_name": PREPROCESSOR,
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "median_image_size_in_voxels": list(configuration.median_shape),
        "spacing": list(configuration.spacing_mm),
        "normalization_schemes": [scheme_names[_as_ct(channel).scheme] for channel in configuration.normalization],
        "use_mask_for_norm": [channel.only_nonzero for channel in configuration.normalization],
        **dict.fromkeys(RESAMPLING, RESAMPLER),
        **{f"{key}_kwargs": dict(options) for key, options in RESAMPLING.items()},
        "architecture": describe_architecture(configuration.architecture),
        "batch_dice": configuration.batch_dice,
        **({} if configuration.previous is None else {"previous_stage": configuration.previous}),
        **({"next_stage": followers[0]} if followers else {}),
    }


def _as_ct(channel: Normalization) -> Normalization:
    """Returns a window as the normalization of CT that has the same result; any other as it is.

    Example:
        >>> ct = _as_ct(Normalization(window_hu=[-200, 300]))
        >>> ct.scheme, ct.lower, ct.upper, ct.mean, ct.std
        ('ct', -200.0, 300.0, 50.0, 250.0)
    """
    if channel.window_hu is None:
        return channel
    lower, upper = channel.window_hu[0]
    return Normalization(scheme="ct", lower=lower, upper=upper, mean=(lower + upper) / 2, std=(upper - lower) / 2)


def _describe_intensities(channel: Normalization) -> dict[str, float]:
    """Returns the intensity statistics of a channel; those that its plan lacks, because they are not needed, are 0."""
    channel = _as_ct(channel)
    statistics = (channel.mean, channel.std, channel.lower, channel.upper)
    mean, std, lower, upper = (0.0 if value is None else value for value in statistics)
    return {"mean": mean, "std": std, "percentile_00_5": lower, "percentile_99_5": upper}
