"""The content of nnU-Net's plans.json, as types; what this program cannot do is refused by name.

Source: nnU-Net v2.8.1, plans handler; before version 2.4 a configuration described its network in keys of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from autoseg.errors import ModelError
from autoseg.networks.architecture import PositiveInt
from autoseg.planning.plan import NormalizationScheme
from autoseg.planning.settings import PositiveFloat
from autoseg.runtime.artifact import first_mistake, read_text

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
"""nnU-Net's names of normalizations, and ours."""

RESAMPLING: dict[str, dict[str, object]] = {
    "resampling_fn_data": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}
"""How nnU-Net resamples unless a plan says otherwise, which is how this program does."""

RESAMPLER, PREPROCESSOR, LABELLER = "resample_data_or_seg_to_shape", "DefaultPreprocessor", "LabelManager"


class NetworkPlan(BaseModel):
    """A network, as arguments of its class; one that is left out has the value that the class gives it."""

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
    """The class of a network, and its arguments."""

    network_class_name: str
    arch_kwargs: NetworkPlan

    @property
    def kind(self) -> str:
        """Name of the class, without the place where it is found."""
        return self.network_class_name.rpartition(".")[2]


class ConfigurationPlan(BaseModel):
    """One of nnU-Net's configurations."""

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
    """What CT images are normalized by."""

    mean: Finite
    std: Finite
    percentile_00_5: Finite
    percentile_99_5: Finite


class NnunetPlans(BaseModel):
    """All of plans.json; keys that are not listed do not matter here.

    Attributes:
        configurations: As they stand in the file; see `configuration`.
        source: The file.
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
        there, back = self.transpose_forward, self.transpose_backward
        if sorted(there) != [0, 1, 2] or any(back[axis] != place for place, axis in enumerate(there)):
            raise ValueError("transpose_backward must be the inverse of transpose_forward")
        return self

    @classmethod
    def load(cls, path: Path) -> "NnunetPlans":
        """Reads the file.

        Raises:
            ArtifactError: It is missing or no text.
            ModelError: A key is missing or wrong; the text names it.
        """
        text = read_text(path)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{path} is no JSON", "get a sound copy from where it came") from error
        if isinstance(content, dict) and "foreground_intensity_properties_by_modality" in content:  # as it was once
            former = content["foreground_intensity_properties_by_modality"]
            content.setdefault("foreground_intensity_properties_per_channel", former)
        return _parse(cls, {**content, "source": str(path)} if isinstance(content, dict) else content, str(path))

    def configuration(self, name: str) -> ConfigurationPlan:
        """One configuration, with what it inherits.

        Raises:
            ModelError: There is none of this name, a key is missing or wrong, or the configuration prepares images in a
                way that this program does not; the text says which.
        """
        where = f"{self.source}, {name}"
        merged = _describe_network(self._inherit(name, ()), where)
        found = _parse(ConfigurationPlan, merged, where)
        _check_preparation(found, where)
        if self.label_manager != LABELLER:
            raise ModelError(f"{self.source} handles labels by {self.label_manager!r}, which is unknown here", CANNOT)
        return found

    def _inherit(self, name: str, above: tuple[str, ...]) -> dict[str, Any]:
        if name not in self.configurations or name in above:
            what = (
                f"{self.source} lacks the configuration {name!r}" if name not in above else f"{name!r} follows itself"
            )
            raise ModelError(what, "get a sound copy from where it came")
        own = self.configurations[name]
        parent = own.get("inherits_from")
        return own if parent is None else {**self._inherit(str(parent), (*above, name)), **own}


def _check_preparation(found: ConfigurationPlan, where: str) -> None:
    """Refuses all but nnU-Net's usual ways to normalize and resample."""
    if found.preprocessor_name != PREPROCESSOR:
        raise ModelError(f"{where}: the preprocessor {found.preprocessor_name!r} is unknown here", CANNOT)
    for scheme in found.normalization_schemes:
        if scheme not in SCHEMES:
            raise ModelError(f"{where}: the normalization {scheme!r} is unknown here", CANNOT)
    for key, usual in RESAMPLING.items():
        name, given = getattr(found, key), {"order_z": 0, **getattr(found, f"{key}_kwargs")}
        if name != RESAMPLER:
            raise ModelError(f"{where}: {key} is {name!r}, which is unknown here", CANNOT)
        if given != usual:
            raise ModelError(f"{where}: {key} resamples by {given}, not by {usual} as it does here", CANNOT)


def _describe_network(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The configuration with its network under the key of today."""
    if "architecture" in content or "UNet_class_name" not in content:
        return dict(content)
    try:
        kind, dimensions = content["UNet_class_name"], len(content["patch_size"])
        stages, base, most = (
            len(content["n_conv_per_stage_encoder"]),
            int(content["UNet_base_num_features"]),
            int(content["unet_max_num_features"]),
        )
        network = {
            "n_stages": stages,
            "features_per_stage": [min(base << stage, most) for stage in range(min(stages, 33))],
            "kernel_sizes": content["conv_kernel_sizes"],
            "strides": content["pool_op_kernel_sizes"],
            "n_conv_per_stage_decoder": content["n_conv_per_stage_decoder"],
        }
        per_stage = content["n_conv_per_stage_encoder"]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{where}: its network is not described ({error})", CANNOT) from error
    blocks = "n_conv_per_stage" if kind == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {**network, blocks: per_stage, **usual_layers(dimensions)}
    named = f"{LIBRARY}architectures.unet.{kind}"
    return {**content, "architecture": {"network_class_name": named, "arch_kwargs": arguments}}


def usual_layers(dimensions: int) -> dict[str, Any]:
    """The layers of nnU-Net's networks, which are those of ours."""
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


def _parse(kind: type[Content], content: object, source: str) -> Content:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ModelError(f"{source}: {first_mistake(error)}", CANNOT) from error
