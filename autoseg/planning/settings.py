"""The types of the sections of plan.json on augmentation, training and measured memory."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from autoseg.networks.architecture import Architecture, PositiveFloat, PositiveInt, Section
from autoseg.planning.distillation_settings import DistillationSettings
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.plugin_settings import CUSTOM, CustomTransform

Fraction = Annotated[float, Field(ge=0, le=1)]
InnerFraction = Annotated[float, Field(gt=0, lt=1)]
ShareKept = Annotated[float, Field(ge=0, lt=1)]
AxisNumbers = tuple[Annotated[int, Field(ge=0, le=2)], ...]


class AugmentationSettings(Section):
    """Random augmentation of the training patches. Source: the reference method's table (nnU-Net v2.8.1).

    A probability is per patch; an amount is drawn uniformly from its range. A factor range (low, high) that spans 1 is
    drawn from below or above 1 with equal probability.

    Attributes:
        rotation_probability, rotation_degrees: Probability of a rotation about `rotation_axes`, and the largest angle
            about each of them in degrees, in both directions.
        rotation_axes: Axes of the case, in the plan's axis order, about which patches are rotated. [0] rotates them
            within the slices that are stacked along the first axis, which is the only rotation of a 2D patch.
        scaling_probability, scaling_factor: Probability of a scaling, and the range of its factor, the same for all
            axes, or for the two in-plane axes if patches are rotated in-plane only; above 1 structures appear larger.
        deformation_probability, deformation_spacing_voxels, deformation_std_voxels: Probability of an elastic
            deformation, the spacing of its control points in voxels, and the standard deviation of their displacements
            in voxels; cubic splines interpolate in between. Off by default.
        histogram_matching_probability: Probability that each channel of a patch gets the intensity distribution of
            another patch of the batch. Off by default.
        noise_probability, noise_std: Probability of Gaussian noise, and the largest standard deviation, which is drawn
            between 0 and this, in units of the normalized image.
        blur_probability, blur_sigma_voxels: Probability of a Gaussian blur, and the range of its sigma in voxels, drawn
            for each axis; each channel is blurred with probability one half.
        brightness_probability, brightness_factor: Probability that the intensities are multiplied, and the range of the
            factor, drawn for each channel.
        contrast_probability, contrast_factor: Probability that the differences from the channel's mean are multiplied,
            and the range of the factor; the channel's range of intensities is kept.
        low_resolution_probability, low_resolution_factor: Probability that the patch is downsampled and upsampled again
            along the axes that are scaled, and the range of the factor; each channel with probability one half.
        gamma_inverted_probability, gamma_probability, gamma_exponent: Probabilities of a gamma correction of the
            inverted and of the original intensities, and the range of its exponent; mean and standard deviation of the
            channel are kept.
        missing_channels_probability: Probability that a patch lacks channels, which are 0 everywhere then, as those of
            scans that lack them; one stays at least. Off by default. Source: arXiv 2602.20218.
        mirror_axes: Axes of the patch along which it is flipped, each with probability one half in training; prediction
            averages over the flips unless `prediction_mirroring` is false.
        prediction_mirroring: Whether prediction averages over the flips, unless it is told not to.
        swap_axis: The one of `mirror_axes` that runs from the left to the right of the body, if left and right
            structures have labels of their own.
        swapped_labels: Pairs of label numbers, such as left and right kidney, that a flip along `swap_axis` swaps.
        custom: Transforms of installed packages, applied after the built-in changes of intensity and before mirroring;
            see `plugins`.
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
    missing_channels_probability: Fraction = 0.0
    mirror_axes: AxisNumbers = (0, 1, 2)
    prediction_mirroring: bool = True
    swap_axis: Annotated[int, Field(ge=0, le=2)] | None = None
    swapped_labels: tuple[tuple[PositiveInt, PositiveInt], ...] = ()
    custom: tuple[CustomTransform, ...] = Field(default=(), validation_alias=CUSTOM, serialization_alias="own")

    def in_plane_axes(self, dimensions: int) -> tuple[int, ...]:
        """Returns the axes of a patch along which it is scaled, deformed and coarsened.

        These are all axes, except the first one if a 3D patch is rotated about that axis only: its slices are thick
        then.
        """
        return (1, 2) if dimensions == 3 and self.rotation_axes == (0,) else tuple(range(dimensions))

    @property
    def averaged_axes(self) -> tuple[int, ...]:
        """The axes over whose flips prediction averages, unless it is told not to."""
        return self.mirror_axes if self.prediction_mirroring else ()

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


def default_augmentation(fields: dict[str, Any]) -> AugmentationSettings:
    """Returns the default augmentation of a configuration with the other `fields`."""
    architecture = fields.get("architecture")
    if isinstance(architecture, Architecture) and architecture.dimensions == 2:
        return AugmentationSettings(rotation_degrees=180, rotation_axes=(0,), mirror_axes=(0, 1))
    return AugmentationSettings()


_BELONGS_TO: dict[str, tuple[str, tuple[str, ...]]] = {
    "adam_betas": ("optimizer", ("adam", "adamw")),
    "schedule_power": ("schedule", ("polynomial",)),
    "step_share": ("schedule", ("step",)),
    "plateau_share": ("schedule", ("plateau",)),
    "step_factor": ("schedule", ("step", "plateau")),
}
"""Fields that belong to some optimizers or schedules only: the field that chooses these, and their names."""


class TrainingSettings(Section):
    """The training settings of each fold.

    Attributes:
        epochs: Number of epochs; the learning rate anneals over all of them.
        budget_seconds: If set, training lasts this many seconds regardless of the number of epochs, and anneals over
            that time.
        steps_per_epoch: Number of optimizer steps in an epoch.
        validation_steps: Number of batches of validation patches at the end of an epoch, for the reported pseudo Dice.
        optimizer: The optimizer: "sgd" is stochastic gradient descent with Nesterov momentum; "adam"; "adamw" has a
            weight decay that is decoupled from the gradients. The last two need a learning rate of about 0.001 or less.
        learning_rate: The highest learning rate, from which the schedule falls.
        schedule: The schedule of the learning rate: "polynomial" and "cosine" fall to 0; "step" falls by `step_factor`
            after every `step_share`; "plateau" falls by `step_factor` whenever the training loss has not improved for
            `plateau_share`.
        warmup_share: Fraction of the training, at its start, in which the learning rate rises to its highest value.
        schedule_power: Exponent of "polynomial": the learning rate falls as (1 - progress) to this power.
        step_share: Fraction of the training, after the warm-up, between two falls of "step".
        plateau_share: Fraction of the training without a better loss before a fall of "plateau".
        step_factor: Factor by which each fall of "step" and "plateau" multiplies the learning rate.
        momentum: Momentum of "sgd".
        adam_betas: Decay rates per step of the running means of the gradients and of their squares in "adam" and
            "adamw".
        weight_decay: Weight decay of all weights.
        gradient_norm: Largest L2 norm of the gradients of a step; larger gradients are scaled down to it.
        foreground_fraction: Fraction of the patches that are centred on foreground.
        foreground_sampling: How the voxel in the centre of such a patch is drawn. "voxels": a case, then one of its
            structures, then any of its voxels. "components": a structure of the dataset, then a case that has it, then
            a connected component of it, then a voxel of that; a small lesion is drawn as often as a large one, and a
            structure that few cases have as often as one that all have.
        average_decay: Decay rate per step of the moving average of the weights; 0 switches it off. The averaged weights
            are the ones that are validated and used in prediction.
        loss: The loss function.
        distillation: Training on the soft predictions of a teacher as well; left out, there is no teacher.
        micro_batch_size: Number of patches on the device at once; a step accumulates the gradients of its
            micro-batches. Left out, the whole batch, or as many as fit if the memory of the device runs out.
        recompute_activations: Whether feature maps are recomputed in the backward pass instead of being kept
            (activation checkpointing): equal weights for less memory and about a third more time.
        compile: Whether the network is compiled for the device; "auto" compiles on a CUDA GPU if the training is long.
            "graphs" compiles, and lets a single CUDA GPU repeat the kernels of a step as one graph, which may help with
            small patches and takes more memory; elsewhere it is "on".
        seed: Seed of all random numbers, together with the number of the fold.
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
    foreground_sampling: Literal["voxels", "components"] = "voxels"
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    loss: LossSettings = LossSettings()
    distillation: DistillationSettings | None = None
    micro_batch_size: PositiveInt | None = None
    recompute_activations: bool = False
    compile: Literal["auto", "on", "graphs", "off"] = "auto"
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


class MeasuredMemory(Section):
    """The memory of a patch in training, as it was measured when the memory of a device ran out.

    Attributes:
        factor: Ratio of the measured memory of a patch to the estimate of `planning.memory`.
        recomputed: Whether feature maps were recomputed in the backward pass when it was measured; the factor holds
            only for training of the same kind.
    """

    factor: PositiveFloat
    recomputed: bool = False
