"""What the planner decides, as types: plan.json, made to be read and edited. Every number carries its unit.

Numbers that shape the result live here; numbers that only shape a run (device, workers) are command-line options.
"""

from math import prod
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from autoseg.architecture import Architecture, Axes, PositiveInt, Section
from autoseg.artifact import Artifact

ConfigurationName = Literal["2d", "3d_fullres", "3d_lowres", "3d_cascade_fullres"]
CONFIGURATION_NAMES: tuple[ConfigurationName, ...] = get_args(ConfigurationName)
RulesName = Literal["autoseg", "nnunet"]
RULES_NAMES: tuple[RulesName, ...] = get_args(RulesName)
PresetName = Literal[
    "small", "4gb", "8gb", "11gb", "16gb", "24gb", "40gb", "80gb", "plain", "resenc_m", "resenc_l", "resenc_xl"
]
PRESET_NAMES: tuple[PresetName, ...] = get_args(PresetName)
NormalizationScheme = Literal["ct", "zscore", "rescale_to_0_1", "rgb_to_0_1", "none"]

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]
ShareKept = Annotated[float, Field(ge=0, lt=1)]
AxisNumbers = tuple[Annotated[int, Field(ge=0, le=2)], ...]
Spacing = tuple[PositiveFloat, PositiveFloat] | tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Normalization(Section):
    """How the intensities of one channel are brought to a common scale.

    Attributes:
        scheme: "ct" clips to [lower, upper], then subtracts `mean` and divides by `std`, all four measured over the
            foreground of the dataset; "zscore" subtracts the image's own mean and divides by its own standard
            deviation; "rescale_to_0_1" maps the image's own range to 0 to 1; "rgb_to_0_1" divides by 255; "none"
            leaves values alone.
        only_nonzero: z-score over the region that is not zero and leave the rest at zero.
        lower, upper, mean, std: For "ct", in the unit of the image (Hounsfield units).
    """

    scheme: NormalizationScheme
    only_nonzero: bool = False
    lower: float | None = None
    upper: float | None = None
    mean: float | None = None
    std: float | None = None

    @model_validator(mode="after")
    def _ct_is_complete(self) -> Self:
        if self.scheme == "ct" and None in (self.lower, self.upper, self.mean, self.std):
            raise ValueError("the scheme 'ct' needs lower, upper, mean and std")
        return self


class AugmentationSettings(Section):
    """Random changes of the training patches. Source: the reference method's table (nnU-Net v2.8.1).

    A probability is per patch, an amount is drawn uniformly from its range. A "factor" range (low, high) that
    spans 1 is drawn from below or above 1 with equal chance.

    Attributes:
        rotation_probability, rotation_degrees: About each of `rotation_axes`; the largest angle either way.
        rotation_axes: Axes of the case, in the plan's order, about which patches rotate. (0,) turns them within the
            planes that are stacked along the first axis, which is the only turn that a 2D patch knows.
        scaling_probability, scaling_factor: The same for all axes, or for those of the planes within which patches
            turn; above 1 the structures appear larger.
        deformation_probability, deformation_spacing_voxels, deformation_std_voxels: Voxels move smoothly: by random
            amounts of this standard deviation at points of this distance, by cubic splines in between. Off unless a
            plan asks for it.
        histogram_matching_probability: The patch gets, per channel, the distribution of intensities that another patch
            of the batch has. Off unless a plan asks for it.
        noise_probability, noise_std: Gaussian, its standard deviation between 0 and this.
        blur_probability, blur_sigma_voxels: Gaussian, each channel with chance one half, each axis by an amount of its
            own.
        brightness_probability, brightness_factor: Multiplies, per channel.
        contrast_probability, contrast_factor: About the channel's mean, keeping its range.
        low_resolution_probability, low_resolution_factor: Down and up again, each channel with chance one half, along
            the axes that are scaled.
        gamma_inverted_probability, gamma_probability, gamma_exponent: Keeping the channel's mean and deviation.
        mirror_axes: Axes of the patch that are flipped with chance one half each, in training and in prediction.
        swap_axis: The one of `mirror_axes` that runs from the left to the right of the body, if left and right
            structures have labels of their own.
        swapped_labels: Pairs of label numbers, such as left and right kidney, that a flip along `swap_axis` exchanges.
    """

    rotation_probability: Fraction = 0.2
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 30.0
    rotation_axes: AxisNumbers = (0, 1, 2)
    scaling_probability: Fraction = 0.2
    scaling_factor: tuple[PositiveFloat, PositiveFloat] = (0.7, 1.4)
    deformation_probability: Fraction = 0.0
    deformation_spacing_voxels: PositiveFloat = 32.0
    deformation_std_voxels: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 4.0
    histogram_matching_probability: Fraction = 0.0
    noise_probability: Fraction = 0.1
    noise_std: Annotated[float, Field(ge=0)] = 0.1
    blur_probability: Fraction = 0.2
    blur_sigma_voxels: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.0)
    brightness_probability: Fraction = 0.15
    brightness_factor: tuple[PositiveFloat, PositiveFloat] = (0.75, 1.25)
    contrast_probability: Fraction = 0.15
    contrast_factor: tuple[PositiveFloat, PositiveFloat] = (0.75, 1.25)
    low_resolution_probability: Fraction = 0.25
    low_resolution_factor: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.0)
    gamma_inverted_probability: Fraction = 0.1
    gamma_probability: Fraction = 0.3
    gamma_exponent: tuple[PositiveFloat, PositiveFloat] = (0.7, 1.5)
    mirror_axes: AxisNumbers = (0, 1, 2)
    swap_axis: Annotated[int, Field(ge=0, le=2)] | None = None
    swapped_labels: tuple[tuple[PositiveInt, PositiveInt], ...] = ()

    def moving_axes(self, dimensions: int) -> tuple[int, ...]:
        """Axes of a patch of 2 or 3 dimensions along which it is scaled, deformed and coarsened.

        All of them, but the first one stays as it is if a volume turns about no other: its slices are thick then.
        """
        return (1, 2) if dimensions == 3 and self.rotation_axes == (0,) else tuple(range(dimensions))

    @model_validator(mode="after")
    def _swaps_are_complete(self) -> Self:
        if (self.swap_axis is None) != (not self.swapped_labels):
            raise ValueError("swap_axis and swapped_labels must be given together, or both left out")
        if self.swap_axis is not None and self.swap_axis not in self.mirror_axes:
            raise ValueError(f"swap_axis must be one of mirror_axes, {list(self.mirror_axes)}")
        labels = [label for pair in self.swapped_labels for label in pair]
        if len(set(labels)) != len(labels):
            raise ValueError("each label may stand once in swapped_labels")
        return self

    @field_validator("rotation_axes", "mirror_axes")
    @classmethod
    def _axes_differ(cls, axes: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(axes)) != len(axes):
            raise ValueError(f"each axis may be named once, not {axes}")
        return axes


def _usual_augmentation(known: dict[str, Any]) -> AugmentationSettings:
    """The augmentation of a configuration whose other fields are `known`."""
    architecture = known.get("architecture")
    if isinstance(architecture, Architecture) and architecture.dimensions == 2:
        return AugmentationSettings(rotation_degrees=180, rotation_axes=(0,), mirror_axes=(0, 1))
    return AugmentationSettings()


class Configuration(Section):
    """One way to look at the data.

    Attributes:
        spacing_mm: Voxel spacing of the network's input, in the plan's axis order; a 2D configuration leaves out the
            first axis, which keeps its own spacing.
        patch_size: Voxels that the network sees at once, per axis.
        batch_size: Patches per training step.
        median_shape: Median shape of the resampled training cases, per axis.
        normalization: One per channel.
        batch_dice: Whether the Dice loss pools the patches of a batch before it divides.
        architecture: The network.
        estimated_bytes: Device memory of one training step, by `planning.memory`.
        previous: The configuration whose segmentation is a further input: "3d_lowres" in a cascade.
        augmentation: See there; left out, it is that of a patch with equal edges.
    """

    spacing_mm: Spacing
    patch_size: Axes
    batch_size: PositiveInt
    median_shape: Axes
    normalization: Annotated[tuple[Normalization, ...], Field(min_length=1)]
    batch_dice: bool
    architecture: Architecture
    estimated_bytes: PositiveInt
    previous: ConfigurationName | None = None
    augmentation: AugmentationSettings = Field(default_factory=_usual_augmentation)

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        dimensions = self.architecture.dimensions
        for name in ("spacing_mm", "patch_size", "median_shape"):
            if len(getattr(self, name)) != dimensions:
                raise ValueError(f"{name} must have {dimensions} values, as the network's kernels have")
        for size, divisor in zip(self.patch_size, self.architecture.divisor, strict=True):
            if size % divisor:
                raise ValueError(f"patch_size {self.patch_size} must be divisible by {self.architecture.divisor}")
        if self.patch_size == self.architecture.divisor:
            raise ValueError(f"patch_size {self.patch_size} leaves one voxel at the coarsest resolution; double it")
        if self.previous is None and self.previous_channels:
            raise ValueError(f"normalization needs one entry per image channel, {self.architecture.in_channels}")
        if self.previous is not None and self.previous_channels < 1:
            raise ValueError(f"{self.previous} as a further input needs more in_channels than normalization has")
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
        return self

    @property
    def patch_voxels(self) -> int:
        """Of one patch."""
        return prod(self.patch_size)

    @property
    def step_voxels(self) -> int:
        """Of all patches of a training step."""
        return self.patch_voxels * self.batch_size

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return len(self.normalization)

    @property
    def previous_channels(self) -> int:
        """What the segmentation of a previous configuration adds to them: one per structure."""
        return self.architecture.in_channels - self.image_channels


class LossSettings(Section):
    """What training minimizes: the sum of an overlap term and a voxelwise term. Formulas: `training.losses`.

    Attributes:
        overlap: "dice", "squared_dice" as in V-Net, "tversky", or "none".
        voxelwise: "cross_entropy", which is binary for structures that may overlap, "focal", "top_k", or "none".
        overlap_weight, voxelwise_weight: Factors of the two.
        false_positives, false_negatives: For "tversky": how much either weighs.
        focal_exponent: For "focal": 0 is cross entropy.
        top_k_share: For "top_k": the share of the voxels, the worst ones, that counts.
        class_weights: How much each output of the network weighs in the voxelwise term, the background first if it is
            one; all the same if left out.
    """

    overlap: Literal["dice", "squared_dice", "tversky", "none"] = "dice"
    voxelwise: Literal["cross_entropy", "focal", "top_k", "none"] = "cross_entropy"
    overlap_weight: PositiveFloat = 1.0
    voxelwise_weight: PositiveFloat = 1.0
    false_positives: PositiveFloat = 0.3
    false_negatives: PositiveFloat = 0.7
    focal_exponent: Annotated[float, Field(ge=0, le=10)] = 2.0
    top_k_share: Annotated[float, Field(gt=0, le=1)] = 0.1
    class_weights: tuple[PositiveFloat, ...] | None = None

    @model_validator(mode="after")
    def _there_is_a_term(self) -> Self:
        if self.overlap == self.voxelwise == "none":
            raise ValueError("overlap and voxelwise cannot both be 'none'")
        if self.class_weights is not None and self.voxelwise == "none":
            raise ValueError("class_weights belong to the voxelwise term, which is 'none'")
        return self


_BELONGS_TO: dict[str, tuple[str, tuple[str, ...]]] = {
    "adam_betas": ("optimizer", ("adam", "adamw")),
    "schedule_power": ("schedule", ("polynomial",)),
    "step_share": ("schedule", ("step",)),
    "plateau_share": ("schedule", ("plateau",)),
    "step_factor": ("schedule", ("step", "plateau")),
}
"""Fields that only some optimizers or schedules have: where these are chosen, and their names."""


class TrainingSettings(Section):
    """How a fold is trained.

    Attributes:
        epochs: Number of epochs; the learning rate anneals over all of them.
        budget_seconds: If set, training lasts this long whatever the number of epochs, and anneals over that time.
        steps_per_epoch: Optimizer steps in an epoch.
        validation_steps: Batches of held-out patches at the end of an epoch, for the reported pseudo Dice.
        optimizer: "sgd" is stochastic gradient descent with Nesterov's momentum; "adam"; "adamw", whose weight decay is
            apart from the gradients. The last two want a learning rate of about 0.001 or less.
        learning_rate: The highest one, from which the schedule falls.
        schedule: How it falls over the training: "polynomial" and "cosine" to 0; "step" by `step_factor` after every
            `step_share`; "plateau" by `step_factor` whenever the training loss got no better for `plateau_share`.
        warmup_share: Share of the training, at its start, in which the learning rate rises to the highest one.
        schedule_power: For "polynomial": the rate falls as (1 - progress) to this power.
        step_share: For "step": share of the training, after the warm-up, between two falls.
        plateau_share: For "plateau": share of the training without a better loss before a fall.
        step_factor: For "step" and "plateau": what each fall multiplies the rate by.
        momentum: For "sgd".
        adam_betas: For "adam" and "adamw": what a step keeps of the running means of gradients and of their squares.
        weight_decay: Of all weights.
        gradient_norm: Gradients are scaled down to this L2 norm if they exceed it.
        foreground_fraction: Share of patches that are centred on foreground.
        average_decay: Share of the running average of the weights that one step keeps; 0 switches the average off.
            The averaged weights are the ones that are validated and predict.
        loss: What is minimized.
        micro_batch_size: Patches that are on the device at once; a step adds up the gradients of its micro-batches.
            Left out, the whole batch, or as many as fit if the memory of the device runs out.
        recompute_activations: Whether feature maps are calculated again on the way back instead of being kept: the same
            weights for less memory and about a third more time.
        compile: Whether the network is compiled for the device: "auto" does it on a CUDA GPU.
        seed: Of every random draw, together with the fold.
    """

    epochs: PositiveInt = 250
    budget_seconds: PositiveFloat | None = None
    steps_per_epoch: PositiveInt = 250
    validation_steps: PositiveInt = 25
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: PositiveFloat = 1e-2
    schedule: Literal["polynomial", "cosine", "step", "plateau"] = "polynomial"
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    schedule_power: PositiveFloat = 0.9
    step_share: InnerFraction = 0.3
    plateau_share: InnerFraction = 0.05
    step_factor: InnerFraction = 0.1
    momentum: Fraction = 0.99
    adam_betas: tuple[ShareKept, ShareKept] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 3e-5
    gradient_norm: PositiveFloat = 12.0
    foreground_fraction: Fraction = 0.33
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: LossSettings = LossSettings()
    micro_batch_size: PositiveInt | None = None
    recompute_activations: bool = False
    compile: Literal["auto", "on", "off"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 12345

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        for name, (owner, choices) in _BELONGS_TO.items():
            chosen, usual = getattr(self, owner), type(self).model_fields[name].default
            if chosen not in choices and getattr(self, name) != usual:  # who changes it expects an effect
                raise ValueError(f"{name} has no effect with the {owner} {chosen!r}; set it back to {usual}")
        if (
            self.optimizer != "sgd" and self.learning_rate >= 0.01
        ):  # each step is as long as that, whatever the gradient
            raise ValueError(f"learning_rate {self.learning_rate} is too high for {self.optimizer!r}; take about 0.001")
        return self


class Plan(Artifact):
    """Everything that was decided for a dataset; plan.json.

    Attributes:
        dataset: Name of its folder, such as "Dataset004_Hippocampus".
        rules: Those it was made by: this project's, or the reference method's.
        preset: The network's size: "small" for two CPU cores or a laptop, "8gb" for a GPU of 8 GB, ...
        memory_budget_bytes: Device memory that training may use.
        why: One sentence per decision, with the numbers behind it.
        axis_order: Order in which the array axes (z, y, x) of an image are put before anything else; the first one is
            the coarsest.
        training: See there.
        configurations: By name.
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
        """The configurations that need nothing but images."""
        return [name for name, configuration in self.configurations.items() if configuration.previous is None]

    @model_validator(mode="after")
    def _axis_order_is_one(self) -> Self:
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
