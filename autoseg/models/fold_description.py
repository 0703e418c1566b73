"""What a trained fold is, whatever file its weights are in: its plan, its dataset and its configuration.

Beside a network that was exported for runtimes other than torch, network.onnx, this is a file of its own, network.json.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autoseg.datasets.info import DatasetInfo
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.runtime.artifact import Artifact, Score
from autoseg.workspace import Fold

Edges = tuple[Annotated[int, Field(ge=1)], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldDescription:
    """The description of a trained fold.

    Attributes:
        plan: The plan that the fold was trained by.
        info: Channels and labels of the dataset.
        configuration_name: The configuration of the plan that was trained.
        fold: Number of the fold, or "all".
        cases: Digest of the cases of the fold; see `Split.digest`. A model that is passed on holds no names of cases.
        finished: Whether training came to its end.
    """

    plan: Plan
    info: DatasetInfo
    configuration_name: ConfigurationName
    fold: Fold
    cases: str
    finished: bool

    @property
    def configuration(self) -> Configuration:
        """The configuration that was trained."""
        return self.plan.configurations[self.configuration_name]


class Parity(BaseModel):
    """How far the logits of an exported network are from those that torch calculates in float32 for the same patches.

    Attributes:
        patches: Shape (n, c, *size) of each batch that was compared. No two have the same number of patches, and where
            the network takes several sizes, they differ as well.
        largest_difference: Largest absolute difference of two logits.
        largest_logit: Largest absolute value of a logit of torch.
        voxels_otherwise: Share of voxels, 0 to 1, for which the networks choose otherwise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    patches: Annotated[tuple[Edges, ...], Field(min_length=1)]
    largest_difference: Annotated[float, Field(ge=0)]
    largest_logit: Annotated[float, Field(ge=0)]
    voxels_otherwise: Annotated[float, Field(ge=0, le=1)]

    @property
    def relative_difference(self) -> float:
        """The largest difference as a part of the largest logit."""
        return self.largest_difference / max(self.largest_logit, 1e-6)


class Int8Runtime(BaseModel):
    """What int8 is worth in one runtime.

    Attributes:
        runtime: Name of the runtime.
        dice: Name of each label to its mean Dice over the held-out cases in int8; NaN where no case has the label.
        seconds_before, seconds_after: Time that a patch takes in float32 and in int8.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: Literal["onnx", "openvino"]
    dice: dict[str, Score]
    seconds_before: Annotated[float, Field(gt=0)]
    seconds_after: Annotated[float, Field(gt=0)]


class Int8Comparison(BaseModel):
    """How a network whose convolutions calculate in int8 was made, and what that changed.

    Attributes:
        int8_convolutions, float32_convolutions: Number of convolutions in integers, and of the others.
        weight_bits: Number of bits of a weight, sign included.
        calibration_patches: Number of training patches on which the ranges of feature maps were found.
        bytes_before, bytes_after: Size of the network in float32 and in int8.
        cases: Number of whole cases that were segmented by both; the fold held them out.
        dice: Name of each label to its mean Dice over these cases in float32.
        runtimes: What int8 is worth in each runtime that was installed.
        machine: Processor on which the time was taken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    int8_convolutions: Annotated[int, Field(ge=1)]
    float32_convolutions: Annotated[int, Field(ge=0)]
    weight_bits: Annotated[int, Field(ge=2, le=8)]
    calibration_patches: Annotated[int, Field(ge=1)]
    bytes_before: Annotated[int, Field(ge=1)]
    bytes_after: Annotated[int, Field(ge=1)]
    cases: Annotated[int, Field(ge=1)]
    dice: dict[str, Score]
    runtimes: Annotated[tuple[Int8Runtime, ...], Field(min_length=1)]
    machine: str


class ExportedFold(Artifact):
    """The description of an exported fold; network.json.

    Attributes:
        plan, dataset, configuration, fold, cases: See `FoldDescription`.
        weights: Digest of the weights; see `weight_digest.digest_weights`.
        any_size: Whether the network takes patches of other sizes than the plan's.
        parity: How far it is from torch's, in float32.
        int8: What changed when its convolutions were brought to int8; None if it calculates in float32.
    """

    plan: Plan
    dataset: DatasetInfo
    configuration: ConfigurationName
    fold: Annotated[int, Field(ge=0)] | Literal["all"]
    cases: str
    weights: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    any_size: bool
    parity: Parity
    int8: Int8Comparison | None = None

    @model_validator(mode="after")
    def _plan_has_configuration(self) -> "ExportedFold":
        if self.configuration not in self.plan.configurations:
            raise ValueError(f"the plan has no configuration {self.configuration}")
        return self

    @property
    def description(self) -> FoldDescription:
        """The fold, as its checkpoint would describe it."""
        return FoldDescription(
            plan=self.plan,
            info=self.dataset,
            configuration_name=self.configuration,
            fold=self.fold,
            cases=self.cases,
            finished=True,
        )
