"""Conversion of a configuration in nnU-Net's plans.json."""

from collections.abc import Sequence
from math import ceil
from typing import Any

from pydantic import ValidationError

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import ModelError
from autoseg.networks.architecture import Axes, count_weights
from autoseg.nnunet.architectures import read_architecture
from autoseg.nnunet.checkpoint_file import NnunetCheckpoint
from autoseg.nnunet.plans import CANNOT, SCHEMES, ConfigurationPlan, NnunetPlans
from autoseg.planning.augmentation_choice import choose_augmentation
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.memory import training_bytes
from autoseg.planning.plan import Configuration, Spacing
from autoseg.planning.settings import AugmentationSettings
from autoseg.runtime.json_text import first_mistake

LARGEST_GROWTH = 2
"""Largest ratio of the weights of the described network to those of its checkpoint, before the network is built; as in
`models.checkpoint`."""


def read_configuration(
    plan: ConfigurationPlan, checkpoint: NnunetCheckpoint, plans: NnunetPlans, info: DatasetInfo
) -> Configuration:
    """Converts a configuration and checks that its network fits its checkpoint.

    Args:
        plan: The configuration in plans.json.
        checkpoint: A checkpoint of it.
        plans: The content of plans.json.
        info: Channels and labels.

    Returns:
        The configuration. The `previous` of the second stage of a cascade is always "3d_lowres".

    Raises:
        ModelError: This package cannot represent it; the text says why.
    """
    where = f"{plans.source}, {checkpoint.configuration}"
    patch, targets = _axes(plan.patch_size), info.targets
    coarse_channels = len(targets.structures) if plan.previous_stage is not None else 0
    channels = info.channels + coarse_channels, targets.outputs
    architecture = read_architecture(plan.architecture, channels, len(patch), where)
    stored = sum(value.numel() for value in checkpoint.weights.values())
    if count_weights(architecture) > LARGEST_GROWTH * stored:
        raise ModelError(f"{where}: the network has more weights than the {stored} of its checkpoint", CANNOT)
    try:
        return Configuration(
            spacing_mm=_spacing(plan.spacing),
            patch_size=patch,
            batch_size=plan.batch_size,
            median_shape=_axes([max(1, ceil(size)) for size in plan.median_image_size_in_voxels]),
            normalization=tuple(_read_normalization(plan, plans, info)),
            batch_dice=plan.batch_dice,
            architecture=architecture,
            estimated_bytes=training_bytes(architecture, patch, plan.batch_size),
            previous=None if plan.previous_stage is None else "3d_lowres",
            augmentation=_read_augmentation(patch, checkpoint.mirror_axes),
        )
    except ValidationError as error:
        raise ModelError(f"{where}: {first_mistake(error)}", CANNOT) from error


def _read_augmentation(patch: Axes, mirror_axes: Sequence[int]) -> AugmentationSettings:
    """Returns nnU-Net's default augmentation, with mirroring along the axes that are mirrored in prediction."""
    default: dict[str, Any] = choose_augmentation(patch).model_dump()
    return AugmentationSettings(**{**default, "mirror_axes": tuple(mirror_axes)})


def _read_normalization(plan: ConfigurationPlan, plans: NnunetPlans, info: DatasetInfo) -> list[Normalization]:
    """Converts the normalization of each channel."""
    where, schemes = f"{plans.source}: normalization_schemes", plan.normalization_schemes
    if len(schemes) != info.channels:
        raise ModelError(f"{where} has {len(schemes)} entries for {info.channels} channels", CANNOT)
    channels = []
    for number, (name, masked) in enumerate(zip(schemes, plan.use_mask_for_norm, strict=True)):
        scheme, intensities = SCHEMES[name], plans.foreground_intensity_properties_per_channel.get(str(number))
        if scheme == "ct" and intensities is None:
            raise ModelError(f"{where} has CT for channel {number}, of which no intensities are known", CANNOT)
        statistics = {} if scheme != "ct" or intensities is None else intensities.as_normalization()
        only_nonzero = scheme == "zscore" and masked
        channels.append(Normalization(scheme=scheme, only_nonzero=only_nonzero, window_hu=None, **statistics))
    return channels


def _axes(sizes: Sequence[int]) -> Axes:
    return (sizes[0], sizes[1]) if len(sizes) == 2 else (sizes[0], sizes[1], sizes[2])


def _spacing(values: Sequence[float]) -> Spacing:
    return (values[0], values[1]) if len(values) == 2 else (values[0], values[1], values[2])
