"""How much a training step may cost: a budget in bytes, or the reference method's in feature map elements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from autoseg.networks.architecture import Architecture
from autoseg.planning.memory import (
    CONTEXT_BYTES,
    ELEMENT_BYTES,
    bytes_per_patch,
    feature_map_elements,
    training_bytes,
    weight_bytes,
)
from autoseg.planning.plan import Configuration, ConfigurationName, MeasuredMemory, Plan
from autoseg.planning.plugins import Plugin
from autoseg.planning.presets import FeatureMapReference, Preset
from autoseg.runtime.units import describe_memory

SMALLEST_BATCH = 2
"""Patches of a training step. Source: the reference method."""

FREE_SHARE = 0.1
"""Of a budget in bytes, what stays free: gaps between allocations, workspace of convolutions, a display. Decision:
published peaks of the reference method's networks exceed our estimates by 0 to 45 %, more for the smaller ones; a tenth
is the least that seems safe until the estimate has been measured on GPUs."""

LEAST_MAPS = 6
"""Feature maps at full resolution that any network keeps: two of a convolution on the way down, two of the concatenated
skip, two of a convolution on the way up; see `memory`."""


class Budget(Protocol):
    """Says how large a batch a step may have; the planner shrinks the patch until that is enough.

    `network` is that of a `Configuration`.
    """

    def holds(self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None) -> bool:
        """Whether patches of this size may be used at all."""

    def largest_batch(
        self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None
    ) -> int:
        """The largest batch of a training step within the budget; may be 0."""

    def most_voxels(self, features: int) -> float:
        """More voxels no patch can have, whatever the network; `features` are those of its first stage."""

    def describe(self) -> str:
        """The budget, for people."""


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """Bytes of device memory, of which `FREE_SHARE` stays free, for `training_bytes`."""

    budget_bytes: int

    @property
    def usable_bytes(self) -> int:
        """What a training step may take."""
        return int(self.budget_bytes * (1 - FREE_SHARE))

    def holds(self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None) -> bool:
        """Whether the smallest batch fits."""
        return training_bytes(architecture, patch_size, SMALLEST_BATCH, network) <= self.usable_bytes

    def largest_batch(
        self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None
    ) -> int:
        """The largest batch of a training step within the budget; may be 0."""
        free = self.usable_bytes - training_bytes(architecture, patch_size, 0, network)
        return max(0, free // bytes_per_patch(architecture, patch_size, network))

    def most_voxels(self, features: int) -> float:
        """A bound from what any network keeps of its first stage alone."""
        return (self.usable_bytes - CONTEXT_BYTES) / (SMALLEST_BATCH * LEAST_MAPS * ELEMENT_BYTES * features)

    def describe(self) -> str:
        """Such as "8.0 GB"."""
        return describe_memory(self.budget_bytes)


REFERENCE_BATCH = {2: 12, 3: 2}
"""Patches, by the number of axes, to which a `FeatureMapReference` refers. Source: nnU-Net v2.8.1."""


@dataclass(frozen=True, slots=True)
class FeatureMapBudget:
    """The reference method's budget: feature map elements, which have no unit. Source: nnU-Net v2.8.1.

    For the plain U-Net, 8 GB hold two 3D patches of 560 million elements each, or twelve 2D patches of 85 million.

    Attributes:
        reference: Elements to compare with.
        scale: Of the memory to that for which `reference` is meant.
    """

    reference: FeatureMapReference
    scale: float

    def holds(self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None) -> bool:  # noqa: ARG002
        """Whether the budget holds the smallest batch, or the full reference batch if that is asked for."""
        wanted = REFERENCE_BATCH[architecture.dimensions] if self.reference.whole_batch else SMALLEST_BATCH
        return self._batch(architecture, patch_size) >= wanted

    def largest_batch(
        self,
        architecture: Architecture,
        patch_size: Sequence[int],
        network: Plugin | None = None,  # noqa: ARG002
    ) -> int:
        """The batch size at which the budget is used up, rounded to the nearest."""
        return round(self._batch(architecture, patch_size))

    def most_voxels(self, features: int) -> float:  # noqa: ARG002
        """No bound is known."""
        return inf

    def describe(self) -> str:
        """Such as "85 million (2D) or 560 million (3D) feature map elements"."""
        plane, volume = (round(count * self.scale / 1e6) for count in (self.reference.plane, self.reference.volume))
        return f"{plane} million (2D) or {volume} million (3D) feature map elements"

    def _batch(self, architecture: Architecture, patch_size: Sequence[int]) -> float:
        dimensions = architecture.dimensions
        available = (self.reference.plane if dimensions == 2 else self.reference.volume) * self.scale
        return available / feature_map_elements(architecture, patch_size) * REFERENCE_BATCH[dimensions]


def make_budget(preset: Preset, budget_bytes: int) -> Budget:
    """The budget of a preset: bytes, unless it is one of the reference method's."""
    if preset.reference is None:
        return ByteBudget(budget_bytes)
    return FeatureMapBudget(preset.reference, scale=budget_bytes / preset.memory_bytes)


TIGHT_SHARE = 0.05
"""Of the memory that can be had, what a step leaves free. Decision: room for gaps between tensors, and for what other
programs take. Less than planning leaves, because this was measured, and a step that fails to fit is split again."""

BECAUSE = "measured when the memory of a device ran out"


def step_bytes(one: Configuration, *, recomputes: bool) -> int:
    """Device memory of a step of training: as it was measured, else as it is counted.

    Args:
        one: What is trained; its patches and its batch may have been edited since they were planned.
        recomputes: Whether feature maps are calculated again on the way back. What was measured with one and what was
            measured without have nothing to do with each other.
    """
    counted = training_bytes(one.architecture, one.patch_size, 0, one.network)
    return counted + round(one.batch_size * (_factor(one, recomputes) or 1) * _each(one))


def patches_within(most_bytes: int, one: Configuration, *, recomputes: bool) -> int | None:
    """How many patches fit at once, by what was measured; None if nothing was. See `step_bytes`."""
    factor = _factor(one, recomputes)
    if factor is None:
        return None
    return max(0, int((1 - TIGHT_SHARE) * (most_bytes - _weights(one)) / (factor * _each(one))))


def correct_plan(plan: Plan, name: ConfigurationName, least_bytes: Mapping[int, int], *, recomputed: bool) -> Plan:
    """The plan with the estimate of a configuration as it was measured, and a sentence that says so.

    What was measured before, in the same way, is kept where it is more: another device may take more for a patch.

    Args:
        plan: As it stands.
        name: Of the configuration.
        least_bytes: Number of patches at once to the least bytes that a step with them takes: tensors and weights only.
        recomputed: Whether feature maps were calculated again on the way back.
    """
    one = plan.configurations[name]
    factors = [(taken - _weights(one)) / (patches * _each(one)) for patches, taken in least_bytes.items()]
    factor = max([*factors, _factor(one, recomputed) or 0])
    if factor <= 0:
        return plan
    one = one.model_copy(update={"measured_memory": MeasuredMemory(factor=factor, recomputed=recomputed)})
    one = one.model_copy(update={"estimated_bytes": step_bytes(one, recomputes=recomputed)})
    counted = training_bytes(one.architecture, one.patch_size, one.batch_size, one.network)
    why = (
        f"{name}: {BECAUSE}: a training step takes about {describe_memory(one.estimated_bytes)}, where "
        f"{describe_memory(counted)} were counted."
    )
    kept = [sentence for sentence in plan.why if not sentence.startswith(f"{name}: {BECAUSE}")]
    return plan.model_copy(update={"configurations": {**plan.configurations, name: one}, "why": (*kept, why)})


def _factor(one: Configuration, recomputes: bool) -> float | None:
    measured = one.measured_memory
    return None if measured is None or measured.recomputed != recomputes else measured.factor


def _weights(one: Configuration) -> int:
    return weight_bytes(one.architecture, one.network)


def _each(one: Configuration) -> int:
    return bytes_per_patch(one.architecture, one.patch_size, one.network)
