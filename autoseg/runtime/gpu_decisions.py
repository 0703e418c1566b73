"""What is decided by the CUDA GPU: the memory order of networks, compiling, and where batches are augmented.

The decisions are rows of `gpu_decisions.json`, which is a part of the package: beliefs, each with its source, until
`python tests/benchmarks/gpu_overview.py --update` adds what it has measured. The first row that applies decides. The
last row of each decision has no condition, so a GPU that nobody has measured gets it.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from autoseg.runtime.artifact import Artifact

FILE = Path(__file__).with_name("gpu_decisions.json")
"""The table of this installation."""

Capability = tuple[int, int]
"""Compute capability of a CUDA GPU, such as (9, 0); GPUs of one compute capability run the same kernels."""


class DecisionRow(BaseModel):
    """A decision for some GPUs.

    Attributes:
        least_capability: The smallest compute capability that the row is for; None if there is no smallest.
        most_capability: The largest compute capability that the row is for; None if there is no largest.
        choice: What is decided.
        source: The benchmark or the publication that the choice rests on; or why it is believed.
        measured_on: GPU and versions that it was measured on; None if nobody has measured it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    least_capability: Capability | None = None
    most_capability: Capability | None = None
    choice: bool
    source: str = Field(min_length=1)
    measured_on: str | None = None

    @property
    def is_unconditional(self) -> bool:
        """Whether the row applies to everything."""
        return self.least_capability is None and self.most_capability is None

    def suits(self, find_capability: Callable[[], Capability]) -> bool:
        """Returns whether the row is for a GPU.

        Args:
            find_capability: Returns the compute capability of the GPU; called only if the row asks for it.
        """
        if self.least_capability is not None and find_capability() < self.least_capability:
            return False
        return self.most_capability is None or find_capability() <= self.most_capability


class AugmentationRow(DecisionRow):
    """A decision about where batches are augmented, for some GPUs, batches and numbers of cores.

    Attributes:
        most_voxels: The largest number of voxels of a batch that the row is for; None if there is no largest.
        least_cores: The smallest number of cores beside each GPU that the row is for; None if there is no smallest.
    """

    most_voxels: int | None = Field(default=None, ge=1)
    least_cores: int | None = Field(default=None, ge=1)

    @property
    def is_unconditional(self) -> bool:
        """Whether the row applies to everything."""
        return super().is_unconditional and self.most_voxels is None and self.least_cores is None

    def suits_batch(self, voxels: int, cores: int) -> bool:
        """Returns whether the row is for batches of a number of voxels, and for a number of cores beside each GPU."""
        return (self.most_voxels is None or voxels <= self.most_voxels) and (
            self.least_cores is None or cores >= self.least_cores
        )


class GpuDecisions(Artifact):
    """The table of decisions.

    Attributes:
        channels_last: Whether weights and batches are stored with the channels last.
        compile: Whether a network that is trained for long is compiled.
        augment_on_device: Whether batches are augmented on the GPU instead of by threads of the CPU.

    Example:
        >>> [row.choice for row in GpuDecisions.load(FILE).channels_last][-1]
        False
    """

    channels_last: tuple[DecisionRow, ...]
    compile: tuple[DecisionRow, ...]
    augment_on_device: tuple[AugmentationRow, ...]

    @model_validator(mode="after")
    def _check_last_rows(self) -> Self:
        for name in ("channels_last", "compile", "augment_on_device"):
            rows: tuple[DecisionRow, ...] = getattr(self, name)
            if not rows or not rows[-1].is_unconditional:
                raise ValueError(f"the last row of {name} must be without conditions")
        return self


def stores_channels_last(device: torch.device) -> bool:
    """Returns whether weights and batches are stored with the channels last on a CUDA GPU."""
    return _decide(read_decisions().channels_last, device).choice


def gains_from_compiling(device: torch.device) -> bool:
    """Returns whether a network that is trained for long on a CUDA GPU is compiled."""
    return _decide(read_decisions().compile, device).choice


def augments_faster(device: torch.device, voxels: int, cores: int) -> bool:
    """Returns whether a CUDA GPU augments batches faster than the cores beside it.

    Args:
        device: The CUDA GPU.
        voxels: Number of voxels of a batch.
        cores: Number of cores beside each GPU.
    """
    rows = [row for row in read_decisions().augment_on_device if row.suits_batch(voxels, cores)]
    return _decide(rows, device).choice


@cache
def read_decisions() -> GpuDecisions:
    """Returns the table of this installation, which is read once."""
    return GpuDecisions.load(FILE)


Row = TypeVar("Row", bound=DecisionRow)


def _decide(rows: Iterable[Row], device: torch.device) -> Row:
    """Returns the first row that is for a CUDA GPU."""
    find_capability = cache(partial(torch.cuda.get_device_capability, device))
    return next(row for row in rows if row.suits(find_capability))
