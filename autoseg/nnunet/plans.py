"""The content of nnU-Net's plans.json as types; features that this package lacks are refused by name.

Source: nnU-Net v2.8.1, plans handler; before version 2.4 the keys of the network were part of the configuration.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from autoseg.errors import ModelError
from autoseg.networks.architecture import PositiveFloat, PositiveInt
from autoseg.planning.channel_settings import NormalizationScheme
from autoseg.runtime.json_text import first_mistake, read_json_text

Finite = Annotated[float, Field(allow_inf_nan=False)]
AxisSizes = Annotated[list[PositiveInt], Field(min_length=2, max_length=3)]
PerStage = PositiveInt | Annotated[list[PositiveInt], Field(max_length=32)]
AxesPerStage = PositiveInt | Annotated[list[PositiveInt | AxisSizes], Field(max_length=32)]

Content = TypeVar("Content", bound=BaseModel)

LIBRARY = "dynamic_network_architectures."
CANNOT = "predict with nnU-Net, or train its dataset here"

SCHEMES: dict[str, NormalizationScheme] = {
    "CTNormalization": "ct",
    "ZScoreNormalization": "zscore",
    "RescaleTo01Normalization": "rescale_to_0_1",
    "RGBTo01Normalization": "rgb_to_0_1",
    "NoNormalization": "none",
}
"""nnU-Net's name of a normalization to the name of this package."""

RESAMPLING: dict[str, dict[str, object]] = {
    "resampling_fn_data": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}
"""Default resampling of nnU-Net, which is that of this package."""

RESAMPLER, PREPROCESSOR, LABELLER = "resample_data_or_seg_to_shape", "DefaultPreprocessor", "LabelManager"


class NetworkPlan(BaseModel):
    """Arguments of a network class; arguments that are left out have the default of the class."""

    n_stages: Annotated[int, Field(ge=1, le=32)]
    features_per_stage: PerStage
    conv_op: str
    kernel_sizes: AxesPerStage
    strides: AxesPerStage
    n_conv_per_stage: PerStage | None = None
    n_blocks_per_stage: PerStage | None = None
    n_conv_per_stage_decoder: PerStage | Annotated[list[PositiveInt], Field(max_length=0)]
    conv_bias: bool = False
    norm_op: str | None = None
    norm_op_kwargs: dict[str, Any] | None = None
    dropout_op: str | None = None
    dropout_op_kwargs: dict[str, Any] | None = None
    nonlin: str | None = None
    nonlin_kwargs: dict[str, Any] | None = None
    nonlin_first: bool = False
    block: str | None = None
    bottleneck_channels: PerStage | None = None
    stem_channels: int | None = None
    deep_supervision: bool = False

    model_config = {"extra": "forbid"}


class ArchitecturePlan(BaseModel):
    """Class of a network and its arguments."""

    network_class_name: str
    arch_kwargs: NetworkPlan

    @property
    def kind(self) -> str:
        """Name of the class without its module."""
        return self.network_class_name.rpartition(".")[2]


class ConfigurationPlan(BaseModel):
    """A configuration of nnU-Net."""

    preprocessor_name: str
    batch_size: PositiveInt
    patch_size: AxisSizes
    median_image_size_in_voxels: Annotated[list[Finite], Field(min_length=2, max_length=3)]
    spacing: Annotated[list[PositiveFloat], Field(min_length=2, max_length=3)]
    normalization_schemes: Annotated[list[str], Field(min_length=1)]
    use_mask_for_norm: list[bool]
    resampling_fn_data: str = RESAMPLER
    resampling_fn_seg: str = RESAMPLER
    resampling_fn_probabilities: str = RESAMPLER
    resampling_fn_data_kwargs: dict[str, Any]
    resampling_fn_seg_kwargs: dict[str, Any]
    resampling_fn_probabilities_kwargs: dict[str, Any]
    architecture: ArchitecturePlan
    batch_dice: bool = False
    previous_stage: str | None = None

    @model_validator(mode="after")
    def _lists_fit(self) -> Self:
        dimensions = len(self.patch_size)
        if len(self.spacing) != dimensions or len(self.median_image_size_in_voxels) != dimensions:
            raise ValueError("spacing, patch_size and median_image_size_in_voxels must have as many axes")
        if len(self.use_mask_for_norm) != len(self.normalization_schemes):
            raise ValueError("use_mask_for_norm must have an entry for each of normalization_schemes")
        return self


class Intensities(BaseModel):
    """Foreground intensity statistics of a channel, by which CT images are normalized."""

    mean: Finite
    std: Finite
    percentile_00_5: Finite
    percentile_99_5: Finite

    def as_normalization(self) -> dict[str, float]:
        """Returns the statistics by the names of `planning.settings.Normalization`."""
        return {"lower": self.percentile_00_5, "upper": self.percentile_99_5, "mean": self.mean, "std": self.std}


class NnunetPlans(BaseModel):
    """The content of plans.json. Keys that are not listed here are not needed.

    Attributes:
        configurations: Configurations as they stand in the file; see `configuration`.
        source: Path of the file, for errors.
    """

    dataset_name: str
    plans_name: str = "nnUNetPlans"
    image_reader_writer: str = "SimpleITKIO"
    transpose_forward: tuple[int, int, int]
    transpose_backward: tuple[int, int, int]
    label_manager: str = LABELLER
    foreground_intensity_properties_per_channel: dict[str, Intensities]
    configurations: dict[str, dict[str, Any]]
    source: str

    @model_validator(mode="after")
    def _axes_go_there_and_back(self) -> Self:
        forward, backward = self.transpose_forward, self.transpose_backward
        if sorted(forward) != [0, 1, 2] or any(backward[axis] != position for position, axis in enumerate(forward)):
            raise ValueError("transpose_backward must be the inverse of transpose_forward")
        return self

    @classmethod
    def load(cls, path: Path) -> "NnunetPlans":
        """Reads the file.

        Raises:
            ArtifactError: It is missing or no text file.
            ModelError: A key is missing or wrong; the text names it.
        """
        text = read_json_text(path)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path} is no JSON", "get a sound copy from where it came") from error
        if isinstance(content, dict) and "foreground_intensity_properties_by_modality" in content:  # older key
            by_modality = content["foreground_intensity_properties_by_modality"]
            content.setdefault("foreground_intensity_properties_per_channel", by_modality)
        return _parse(cls, {**content, "source": str(path)} if isinstance(content, dict) else content, str(path))

    def configuration(self, name: str) -> ConfigurationPlan:
        """Returns a configuration, with the keys that it inherits.

        Raises:
            ModelError: There is no configuration of this name, a key is missing or wrong, or the preprocessing is one
                that this package lacks; the text says which.
        """
        where = f"{self.source}, {name}"
        merged = _describe_network(self._inherit(name, ()), where)
        configuration = _parse(ConfigurationPlan, merged, where)
        _check_preprocessing(configuration, where)
        if self.label_manager != LABELLER:
            raise ModelError(f"{self.source} handles labels by {self.label_manager!r}, which is unknown here", CANNOT)
        return configuration

    def _inherit(self, name: str, heirs: tuple[str, ...]) -> dict[str, Any]:
        """Returns the keys of a configuration and those that it inherits; `heirs` are those that inherit from it."""
        if name not in self.configurations or name in heirs:
            what = (
                f"{self.source} lacks the configuration {name!r}" if name not in heirs else f"{name!r} follows itself"
            )
            raise ModelError(what, "get a sound copy from where it came")
        configuration = self.configurations[name]
        parent = configuration.get("inherits_from")
        return configuration if parent is None else {**self._inherit(str(parent), (*heirs, name)), **configuration}


def _check_preprocessing(configuration: ConfigurationPlan, where: str) -> None:
    """Refuses all but nnU-Net's default preprocessor, normalizations and resampling."""
    if configuration.preprocessor_name != PREPROCESSOR:
        raise ModelError(f"{where}: the preprocessor {configuration.preprocessor_name!r} is unknown here", CANNOT)
    for scheme in configuration.normalization_schemes:
        if scheme not in SCHEMES:
            raise ModelError(f"{where}: the normalization {scheme!r} is unknown here", CANNOT)
    for key, default in RESAMPLING.items():
        name, options = getattr(configuration, key), {"order_z": 0, **getattr(configuration, f"{key}_kwargs")}
        if name != RESAMPLER:
            raise ModelError(f"{where}: {key} is {name!r}, which is unknown here", CANNOT)
        if options != default:
            raise ModelError(f"{where}: {key} resamples by {options}, not by {default} as it does here", CANNOT)


def _describe_network(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns a configuration with its network under the current key, "architecture"."""
    if "architecture" in content or "UNet_class_name" not in content:
        return dict(content)
    try:
        class_name, dimensions = content["UNet_class_name"], len(content["patch_size"])
        stages, base, largest = (
            len(content["n_conv_per_stage_encoder"]),
            int(content["UNet_base_num_features"]),
            int(content["unet_max_num_features"]),
        )
        network = {
            "n_stages": stages,
            "features_per_stage": [min(base << stage, largest) for stage in range(min(stages, 33))],
            "kernel_sizes": content["conv_kernel_sizes"],
            "strides": content["pool_op_kernel_sizes"],
            "n_conv_per_stage_decoder": content["n_conv_per_stage_decoder"],
        }
        per_stage = content["n_conv_per_stage_encoder"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: its network is not described ({error})", CANNOT) from error
    blocks = "n_conv_per_stage" if class_name == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {**network, blocks: per_stage, **default_layers(dimensions)}
    full_name = f"{LIBRARY}architectures.unet.{class_name}"
    return {**content, "architecture": {"network_class_name": full_name, "arch_kwargs": arguments}}


def default_layers(dimensions: int) -> dict[str, Any]:
    """Returns the layers of nnU-Net's default networks, which are those of this package.

    >>> default_layers(3)["norm_op"]
    'torch.nn.modules.instancenorm.InstanceNorm3d'

    Args:
        dimensions: Number of axes of a patch, 2 or 3.
    """
    return {
        "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _parse(model: type[Content], content: object, source: str) -> Content:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ModelError(f"{source}: {first_mistake(error)}", CANNOT) from error
