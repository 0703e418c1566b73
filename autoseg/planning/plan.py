"""The types of plan.json, which is made to be read and edited; every number carries its unit in its name.

Everything that affects the result is here; what affects a run alone (device, workers) is a command-line option.
"""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from autoseg.networks.architecture import Architecture, Axes, PositiveFloat, PositiveInt, Section, count_weights
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.networks.literature.table import NETWORKS
from autoseg.networks.monai import MonaiSpec
from autoseg.networks.monai_names import is_monai
from autoseg.networks.patch_sizes import PatchSizes
from autoseg.networks.spec import NetworkSpec
from autoseg.planning.channel_settings import MOST_NEIGHBOURS, Normalization, count_inputs, follow_channels, name_inputs
from autoseg.planning.patch_growth import PatchStage, find_growth_problem, find_stage
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.settings import (
    AugmentationSettings,
    MeasuredMemory,
    TrainingSettings,
    default_augmentation,
)
from autoseg.runtime.artifact import Artifact

ConfigurationName = Literal["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
CONFIGURATION_NAMES: tuple[ConfigurationName, ...] = get_args(ConfigurationName)
RulesName = Literal["autoseg", "nnunet"]
RULES_NAMES: tuple[RulesName, ...] = get_args(RulesName)
PresetName = Literal[
    "small", "4gb", "8gb", "11gb", "16gb", "24gb", "40gb", "80gb", "plain", "resenc_m", "resenc_l", "resenc_xl"
]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)

Spacing = tuple[PositiveFloat, PositiveFloat] | tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Configuration(Section):
    """A configuration: the resolution, patches, network and augmentation of one model.

    Attributes:
        spacing_mm: Voxel spacing of the network's input in mm along each axis, in the plan's axis order; a 2D
            configuration leaves out the first axis, which keeps its own spacing.
        patch_size: Size in voxels of the patches that the network takes, along each axis. Some networks predict only
            the centre of a patch.
        batch_size: Number of patches per training step.
        median_shape: Median shape of the resampled training cases in voxels along each axis.
        normalization: The normalization of each channel, in the order of the channels.
        batch_dice: Whether the Dice loss is calculated over all patches of a batch together, rather than for each
            patch.
        architecture: The architecture of the network.
        network: A network of the literature or of MONAI (see `networks`), or one of an installed package (see
            `plugins`), instead of the default network. It takes from the architecture the numbers of channels and the
            divisor of the patches. For a network of the literature all settings are written out, and the stages of the
            architecture follow from them, whatever a file says.
        estimated_bytes: Device memory of one training step in bytes, estimated by `planning.memory`, or as it was
            measured.
        measured_memory: The measurement behind `estimated_bytes`, if the memory of a device ran out in training.
        previous: The configuration whose segmentation is an additional input: "3d_lowres" in a cascade.
        patch_growth: Smaller patches that training begins with, in their order; see `planning.patch_growth`. Each of
            them, and `patch_size` at the end, gets an equal share of the steps. Empty if patches do not grow.
        neighbouring_slices: Number of slices on each side of a slice that a 2D network sees as further channels; at the
            first and last slice of a scan that slice stands for those beyond. `in_channels` of the architecture follows
            from it, whatever a file says.
        augmentation: Random augmentation of the patches; left out, the one for patches with equal edges.
    """

    spacing_mm: Spacing
    patch_size: Axes
    batch_size: PositiveInt
    median_shape: Axes
    normalization: Annotated[tuple[Normalization, ...], Field(min_length=1)]
    batch_dice: bool
    architecture: Architecture
    network: Plugin | None = None
    estimated_bytes: PositiveInt
    measured_memory: MeasuredMemory | None = None
    previous: ConfigurationName | None = None
    patch_growth: tuple[PatchStage, ...] = ()
    neighbouring_slices: Annotated[int, Field(ge=0, le=MOST_NEIGHBOURS)] = 0
    augmentation: AugmentationSettings = Field(default_factory=default_augmentation)

    @model_validator(mode="before")
    @classmethod
    def _complete_network(cls, fields: Any) -> Any:
        fields = follow_channels(fields)
        try:
            network = Plugin.model_validate(fields["network"])
            stated = Architecture.model_validate(fields["architecture"])
        except (TypeError, KeyError, ValidationError):
            return fields  # there is no named network, or the fields' own validation explains better what is wrong
        spec = MonaiSpec(network.name) if is_monai(network.name) else NETWORKS.get(network.name)
        if spec is None:
            return fields
        settings = spec.complete(network.settings)
        architecture = spec.make_architecture(
            settings, stated.dimensions, in_channels=stated.in_channels, out_channels=stated.out_channels
        )
        return {**fields, "architecture": architecture, "network": Plugin(name=network.name, settings=settings)}

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        dimensions = self.architecture.dimensions
        for name in ("spacing_mm", "patch_size", "median_shape"):
            if len(getattr(self, name)) != dimensions:
                raise ValueError(f"{name} must have {dimensions} values, as the network's kernels have")
        problem = self.patches.find_problem(self.patch_size)
        if problem or (problem := find_growth_problem(self.patch_growth, self.patch_size, self.patches)):
            raise ValueError(problem)
        if dimensions == 3 and self.neighbouring_slices:
            raise ValueError("neighbouring_slices must be 0 in 3D, where patches hold several slices")
        if self.previous is None and self.previous_channels:
            raise ValueError(f"normalization needs one entry per image channel, {self.architecture.in_channels}")
        if self.previous is not None and self.previous_channels < 1:
            raise ValueError(f"{self.previous} as a further input needs more in_channels than normalization has")
        return self

    @model_validator(mode="after")
    def _network_takes_the_patch(self) -> Self:
        spec, network = self.spec, self.network
        if spec is None or network is None:
            return self
        only = spec.fixed_patch(spec.parse(network.settings))
        if only not in (None, self.patch_size):
            raise ValueError(f"patch_size {self.patch_size} must be settings.patch of {spec.title}, which is {only}")
        if only is not None and self.patch_growth:
            raise ValueError(f"patch_growth must be empty: {spec.title} takes patches of one size only")
        return self

    @model_validator(mode="after")
    def _augmentation_suits(self) -> Self:
        dimensions, settings = self.architecture.dimensions, self.augmentation
        if dimensions == 2 and not set(settings.rotation_axes) <= {0}:
            raise ValueError("augmentation.rotation_axes of a 2D configuration must be [0], or [] for no rotation")
        if any(axis >= dimensions for axis in settings.mirror_axes):
            raise ValueError(f"augmentation.mirror_axes must be below {dimensions}, the number of axes of the patch")
        if any(max(pair) >= self.architecture.out_channels for pair in settings.swapped_labels):
            raise ValueError("augmentation.swapped_labels must be below out_channels of the architecture")
        if settings.custom and self.previous is not None:
            raise ValueError(
                "augmentation.custom must be empty where the segmentation of another configuration is an input, "
                "which transforms do not get"
            )
        return self

    @property
    def spec(self) -> NetworkSpec | None:
        """The specification of a network of the literature; None for all other networks."""
        return None if self.network is None else NETWORKS.get(self.network.name)

    @property
    def patches(self) -> PatchSizes:
        """The patch sizes that the network takes, and the margin that it does not predict."""
        spec, network = self.spec, self.network
        if spec is None or network is None:
            return PatchSizes.divisible_by(self.architecture.divisor)
        return spec.patches(network.settings, self.architecture.dimensions)

    @property
    def centre_size(self) -> tuple[int, ...]:
        """Size in voxels of the part of a patch that the network predicts: the patch without its margin."""
        return self.patches.centre(self.patch_size)

    @property
    def auxiliary_outputs(self) -> tuple[AuxiliaryOutput, ...]:
        """The last outputs of training that predict something other than the labels."""
        if self.network is None or self.spec is None:
            return ()
        return self.spec.auxiliary_outputs(self.spec.parse(self.network.settings))

    @property
    def is_foreign(self) -> bool:
        """Whether the network is neither the default one nor built in: it comes from MONAI or an installed package."""
        return self.network is not None and self.spec is None

    @property
    def weights(self) -> int | None:
        """Number of trainable weights of the network; None if it is unknown."""
        if self.network is None:
            return count_weights(self.architecture)
        spec = self.spec
        return None if spec is None else spec.count(self.network.settings, self.architecture, self.patch_size).weights

    @property
    def without_estimates(self) -> "Configuration":
        """The configuration without its memory estimates: equal for all that train and predict in the same way."""
        return self.model_copy(update={"estimated_bytes": 1, "measured_memory": None})

    @property
    def patch_voxels(self) -> int:
        """Number of voxels of a patch."""
        return prod(self.patch_size)

    @property
    def step_voxels(self) -> int:
        """Number of voxels of all patches of a training step."""
        return self.patch_voxels * self.batch_size

    @property
    def takes_other_patches(self) -> bool:
        """Whether it is known that the network takes patches of other sizes than `patch_size` as well."""
        if self.network is None or self.spec is None:
            return self.network is None
        return self.spec.fixed_patch(self.spec.parse(self.network.settings)) is None

    @property
    def stages(self) -> tuple[PatchStage, ...]:
        """Patches and batches of the training in their order, the full ones last, each for an equal share of steps."""
        return (*self.patch_growth, PatchStage(patch_size=self.patch_size, batch_size=self.batch_size))

    def stage_at(self, progress: float, *, timed: bool = False) -> PatchStage:
        """Returns patch and batch when a share of the training is done; see `patch_growth.find_stage`."""
        return find_stage(self.stages, progress, timed=timed)

    @property
    def image_channels(self) -> int:
        """Number of channels of the preprocessed images: one for each channel of the scans, or for each window."""
        return sum(channel.channels for channel in self.normalization)

    @property
    def inputs_of_scan(self) -> tuple[int, ...]:
        """Number of channels that the network gets of each channel of the scans: of each window, of each slice."""
        return tuple(count_inputs(self.normalization, self.neighbouring_slices))

    def name_inputs(self, channel_names: Sequence[str]) -> tuple[str, ...]:
        """Returns a name for each channel that the network gets of a scan, given the names of the scan's channels."""
        return tuple(name_inputs(channel_names, self.normalization, self.neighbouring_slices))

    @property
    def previous_channels(self) -> int:
        """Number of input channels from the segmentation of the previous configuration: one per structure."""
        return self.architecture.in_channels - sum(self.inputs_of_scan)


class Plan(Artifact):
    """The plan of a dataset: all decisions on preprocessing, networks and training; plan.json.

    Attributes:
        dataset: Name of the dataset's folder, such as "Dataset004_Hippocampus".
        rules: The planning rules: "autoseg", those of this project, or "nnunet", those of the reference method.
        preset: The preset that sets the size of the network: "small" for two CPU cores or a laptop, "8gb" for a GPU of
            8 GB, ...
        memory_budget_bytes: Device memory in bytes that training may use.
        why: One sentence per decision, with the numbers behind it.
        axis_order: Order of the array axes (z, y, x) = (0, 1, 2) of an image in everything that follows; the first one
            is the coarsest.
        training: The training settings of each fold.
        configurations: The configurations by name: "2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres".
    """

    dataset: str
    rules: RulesName = "autoseg"
    preset: PresetName
    memory_budget_bytes: PositiveInt
    why: tuple[str, ...] = ()
    axis_order: tuple[int, int, int]
    training: TrainingSettings = TrainingSettings()
    configurations: Annotated[dict[ConfigurationName, Configuration], Field(min_length=1)]

    @property
    def trainable(self) -> list[ConfigurationName]:
        """The configurations that do not need the segmentation of another one."""
        return [name for name, configuration in self.configurations.items() if configuration.previous is None]

    @model_validator(mode="after")
    def _axis_order_is_permutation(self) -> Self:
        if sorted(self.axis_order) != [0, 1, 2]:
            raise ValueError("axis_order must hold 0, 1 and 2 once each")
        return self

    @model_validator(mode="after")
    def _classes_have_weights(self) -> Self:
        weights = self.training.loss.class_weights
        for name, configuration in self.configurations.items():
            outputs = configuration.architecture.out_channels
            if weights is not None and len(weights) != outputs:
                raise ValueError(f"training.loss.class_weights needs {outputs} values, as {name!r} has outputs")
        return self

    @model_validator(mode="after")
    def _names_say_the_dimensions(self) -> Self:
        for name, configuration in self.configurations.items():
            if not name.startswith(f"{configuration.architecture.dimensions}d"):
                raise ValueError(f"configuration {name!r} has kernels of {configuration.architecture.dimensions} axes")
        return self

    @model_validator(mode="after")
    def _previous_configurations_are_there(self) -> Self:
        for name, configuration in self.configurations.items():
            if configuration.previous is not None and configuration.previous not in self.configurations:
                raise ValueError(f"configuration {name!r} follows {configuration.previous!r}, which the plan lacks")
            if configuration.previous == name:
                raise ValueError(f"configuration {name!r} cannot follow itself")
        return self
