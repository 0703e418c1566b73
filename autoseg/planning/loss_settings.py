"""The type of the section of plan.json on the loss."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from autoseg.networks.architecture import PositiveFloat, Section
from autoseg.planning.plugin_settings import CUSTOM, Plugin

Factor = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LossSettings(Section):
    """The loss function: the sum of an overlap term, a voxelwise term and others. Formulas: `training.losses`.

    Attributes:
        overlap: The overlap term: "dice", "squared_dice" with squares in the denominator as in V-Net, "tversky", or
            "none".
        voxelwise: The voxelwise term: "cross_entropy", which is binary for structures that may overlap, "focal",
            "top_k", or "none".
        overlap_weight, voxelwise_weight: Factors of the two terms in the sum.
        component_weight: Factor of a third term, for small lesions: both terms in the region around each connected
            component of the labels, averaged over the components, so that a small one counts as much as a large one. 0
            leaves it out.
        skeleton_weight: Factor of a further term, for vessels and other thin structures: the share of the skeleton of
            each structure that is found. 0 leaves it out.
        similarity_weight: Factor of a further term, for outlines: the structural similarity of each structure and its
            mask at five scales (MS-SSIM), as in UNet 3+. 0 leaves it out.
        border_weight: How much more a voxel between neighbouring components counts in the voxelwise term, for objects
            that touch, as in U-Net, which takes 10. With the distances d1 and d2 to the nearest and second nearest
            component its weight is 1 + border_weight exp(-(d1 + d2)^2 / (2 border_sigma_voxels^2)). 0 leaves it out.
        border_sigma_voxels: How far that reaches, in voxels of the patch.
        false_positives, false_negatives: Weights of false positives and false negatives in "tversky".
        focal_exponent: Exponent of "focal"; 0 gives the cross entropy.
        top_k_share: Fraction of the voxels, those with the largest loss, over which "top_k" averages.
        class_weights: Weight of each output of the network in the voxelwise term, the background first if it is an
            output; left out, all weights are equal.
        custom: A loss of an installed package, instead of both terms; see `plugins`.
    """

    overlap: Literal["dice", "squared_dice", "tversky", "none"] = "dice"
    voxelwise: Literal["cross_entropy", "focal", "top_k", "none"] = "cross_entropy"
    overlap_weight: PositiveFloat = 1.0
    voxelwise_weight: PositiveFloat = 1.0
    component_weight: Factor = 0.0
    skeleton_weight: Factor = 0.0
    similarity_weight: Factor = 0.0
    border_weight: Factor = 0.0
    border_sigma_voxels: PositiveFloat = 5.0
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
        if self.border_weight and self.voxelwise in ("top_k", "none"):
            raise ValueError(f"border_weight has no effect with voxelwise {self.voxelwise!r}; set it back to 0")
        if self.component_weight and self.voxelwise == "top_k":
            raise ValueError("component_weight cannot be combined with 'top_k', which picks voxels of the whole patch")
        return self
