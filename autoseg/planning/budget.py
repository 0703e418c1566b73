"""The memory budget of a training step: in bytes, or in feature map elements as the reference method counts.

It also corrects the estimate in a plan by the memory that training measured.
"""

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
from autoseg.planning.plan import Configuration, ConfigurationName, Plan
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.presets import FeatureMapReference, Preset
from autoseg.planning.settings import MeasuredMemory
from autoseg.runtime.units import describe_memory

SMALLEST_BATCH = 2
"""Smallest number of patches of a training step. Source: the reference method."""

FREE_SHARE = 0.1
"""Fraction of a budget in bytes that stays free: gaps between allocations, workspace of convolutions, a display.
Decision: published peaks of the reference method's networks exceed our estimates by 0 to 45 %, more for the smaller
ones; a tenth is the least that seems safe until the estimate has been measured on GPUs."""

LEAST_MAPS = 6
"""Number of feature maps at full resolution that any network keeps: two of a convolution of the encoder, two of the
concatenated skip, two of a convolution of the decoder; see `memory`."""


class Budget(Protocol):
    """Gives the largest batch of a training step; the planner shrinks the patch until that is large enough.

    `network` is that of a `Configuration`.
    """

    def fits(self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None) -> bool:
        """Returns whether patches of this size may be used at all."""

    def largest_batch(
        self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None
    ) -> int:
        """Returns the largest batch of a training step within the budget; may be 0."""

    def max_voxels(self, features: int) -> float:
        """Returns an upper bound of the voxels of a patch for any network with `features` in its first stage."""

    def describe(self) -> str:
        """Returns the budget as text."""


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """A budget of device memory in bytes, of which `FREE_SHARE` stays free; see `memory.training_bytes`."""

    budget_bytes: int

    @property
    def usable_bytes(self) -> int:
        """Memory in bytes that a training step may take."""
        return int(self.budget_bytes * (1 - FREE_SHARE))

    def fits(self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None) -> bool:
        """Returns whether the smallest batch fits."""
        return training_bytes(architecture, patch_size, SMALLEST_BATCH, network) <= self.usable_bytes

    def largest_batch(
        self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None
    ) -> int:
        """Returns the largest batch of a training step within the budget; may be 0."""
        free = self.usable_bytes - training_bytes(architecture, patch_size, 0, network)
        return max(0, free // bytes_per_patch(architecture, patch_size, network))

    def max_voxels(self, features: int) -> float:
        """Returns a bound from the feature maps of the first stage alone, which any network keeps."""
        return (self.usable_bytes - CONTEXT_BYTES) / (SMALLEST_BATCH * LEAST_MAPS * ELEMENT_BYTES * features)

    def describe(self) -> str:
        """Returns the budget as text, such as "8.0 GB"."""
        return describe_memory(self.budget_bytes)


REFERENCE_BATCH = {2: 12, 3: 2}
"""Batch size, by the number of axes, for which a `FeatureMapReference` is meant. Source: nnU-Net v2.8.1."""


@dataclass(frozen=True, slots=True)
class FeatureMapBudget:
    """The reference method's budget: feature map elements, which have no unit. Source: nnU-Net v2.8.1.

    For the plain U-Net, 8 GB hold two 3D patches of 560 million elements each, or twelve 2D patches of 85 million.

    Attributes:
        reference: Numbers of elements to compare with.
        scale: Ratio of the memory budget to the memory for which `reference` is meant.
    """

    reference: FeatureMapReference
    scale: float

    def fits(self, architecture: Architecture, patch_size: Sequence[int], network: Plugin | None = None) -> bool:  # noqa: ARG002
        """Returns whether the budget holds the smallest batch, or the full reference batch if that is required."""
        required = REFERENCE_BATCH[architecture.dimensions] if self.reference.whole_batch else SMALLEST_BATCH
        return self._batch(architecture, patch_size) >= required

    def largest_batch(
        self,
        architecture: Architecture,
        patch_size: Sequence[int],
        network: Plugin | None = None,  # noqa: ARG002
    ) -> int:
        """Returns the batch size at which the budget is used up, rounded to the nearest integer."""
        return round(self._batch(architecture, patch_size))

    def max_voxels(self, features: int) -> float:  # noqa: ARG002
        """Returns infinity, since no bound is known."""
        return inf

    def describe(self) -> str:
        """Returns the budget as text, such as "85 million (2D) or 560 million (3D) feature map elements"."""
        plane, volume = (round(count * self.scale / 1e6) for count in (self.reference.plane, self.reference.volume))
        return f"{plane} million (2D) or {volume} million (3D) feature map elements"

    def _batch(self, architecture: Architecture, patch_size: Sequence[int]) -> float:
        dimensions = architecture.dimensions
        available = (self.reference.plane if dimensions == 2 else self.reference.volume) * self.scale
        return available / feature_map_elements(architecture, patch_size) * REFERENCE_BATCH[dimensions]


def make_budget(preset: Preset, budget_bytes: int) -> Budget:
    """Returns the budget of a preset: in bytes, unless the preset is one of the reference method's.

    >>> from autoseg.planning.presets import PRESETS
    >>> make_budget(PRESETS["plain"], 8 * 10**9).describe()
    '85 million (2D) or 560 million (3D) feature map elements'
    """
    if preset.reference is None:
        return ByteBudget(budget_bytes)
    return FeatureMapBudget(preset.reference, scale=budget_bytes / preset.memory_bytes)


TIGHT_SHARE = 0.05
"""Fraction of the available memory that a training step leaves free. Decision: room for gaps between tensors, and for
other programs. It is less than planning leaves, because the memory of a patch was measured, and a step that fails to
fit is split again."""

MEASURED = "measured when the memory of a device ran out"


def estimate_step_bytes(configuration: Configuration, *, recomputes: bool) -> int:
    """Estimates the device memory of a training step in bytes: as it was measured, else as it is counted.

    Args:
        configuration: The configuration that is trained; its patches and its batch may have been edited since they
            were planned.
        recomputes: Whether feature maps are recomputed in the backward pass. A measurement with recomputation says
            nothing about training without it, and vice versa.
    """
    fixed = training_bytes(configuration.architecture, configuration.patch_size, 0, configuration.network)
    factor = _measured_factor(configuration, recomputes) or 1
    return fixed + round(configuration.batch_size * factor * _patch_bytes(configuration))


def count_fitting_patches(available_bytes: int, configuration: Configuration, *, recomputes: bool) -> int | None:
    """Returns how many patches fit into the available memory, by what was measured; None if nothing was.

    Args:
        available_bytes: Available device memory in bytes.
        configuration: The configuration that is trained.
        recomputes: See `estimate_step_bytes`.
    """
    factor = _measured_factor(configuration, recomputes)
    if factor is None:
        return None
    usable_bytes = (1 - TIGHT_SHARE) * (available_bytes - _weight_bytes(configuration))
    return max(0, int(usable_bytes / (factor * _patch_bytes(configuration))))


def update_memory_estimate(
    plan: Plan, name: ConfigurationName, least_bytes: Mapping[int, int], *, recomputed: bool
) -> Plan:
    """Returns the plan with the measured memory of a configuration, and a sentence about it.

    An earlier measurement of the same kind is kept if it is larger: another device may take more for a patch.

    Args:
        plan: The present plan.
        name: Name of the configuration.
        least_bytes: Lower bounds of the memory of a training step in bytes, tensors with the weights only, by the
            number of patches on the device at once.
        recomputed: Whether feature maps were recomputed in the backward pass.
    """
    configuration = plan.configurations[name]
    fixed, patch_bytes = _weight_bytes(configuration), _patch_bytes(configuration)
    factors = [(step_bytes - fixed) / (patches * patch_bytes) for patches, step_bytes in least_bytes.items()]
    factor = max([*factors, _measured_factor(configuration, recomputed) or 0])
    if factor <= 0:
        return plan
    measured = MeasuredMemory(factor=factor, recomputed=recomputed)
    configuration = configuration.model_copy(update={"measured_memory": measured})
    estimate = estimate_step_bytes(configuration, recomputes=recomputed)
    configuration = configuration.model_copy(update={"estimated_bytes": estimate})
    counted = training_bytes(
        configuration.architecture, configuration.patch_size, configuration.batch_size, configuration.network
    )
    why = (
        f"{name}: {MEASURED}: a training step takes about {describe_memory(estimate)}, where "
        f"{describe_memory(counted)} were counted."
    )
    others = [sentence for sentence in plan.why if not sentence.startswith(f"{name}: {MEASURED}")]
    return plan.model_copy(
        update={"configurations": {**plan.configurations, name: configuration}, "why": (*others, why)}
    )


def _measured_factor(configuration: Configuration, recomputes: bool) -> float | None:
    measured = configuration.measured_memory
    return None if measured is None or measured.recomputed != recomputes else measured.factor


def _weight_bytes(configuration: Configuration) -> int:
    return weight_bytes(configuration.architecture, configuration.network)


def _patch_bytes(configuration: Configuration) -> int:
    return bytes_per_patch(configuration.architecture, configuration.patch_size, configuration.network)
