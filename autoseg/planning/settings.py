"""How patches are changed and how a fold is trained, as types: the parts of plan.json that shape learning alone."""

from typing import Annotated, Literal, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.planning.plugins import CustomTransform, Plugin

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]
ShareKept = Annotated[float, Field(ge=0, lt=1)]
AxisNumbers = tuple[Annotated[int, Field(ge=0, le=2)], ...]
CUSTOM = AliasChoices("custom", "own")  # Plans of version 0.1 say "own".


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
        custom: Transforms of installed packages, applied after all others; see `plugins`.
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
    custom: tuple[CustomTransform, ...] = Field(default=(), validation_alias=CUSTOM, serialization_alias="own")

    def in_plane_axes(self, dimensions: int) -> tuple[int, ...]:
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
        custom: A loss of an installed package, instead of both terms; see `plugins`.
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
    custom: Plugin | None = Field(default=None, validation_alias=CUSTOM, serialization_alias="own")

    @model_validator(mode="after")
    def _custom_loss_stands_alone(self) -> Self:
        usual = {name: field.default for name, field in type(self).model_fields.items() if name != "custom"}
        changed = [name for name, value in usual.items() if getattr(self, name) != value]
        if self.custom is not None and changed:
            raise ValueError(f"{changed[0]} has no effect with a loss of your own; set it back to {usual[changed[0]]}")
        return self

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
        micro_batch_size: Number of patches that are on the device at once; a step adds up the gradients of its
            micro-batches. Left out, the whole batch, or as many as fit if the memory of the device runs out.
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
