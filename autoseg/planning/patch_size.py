"""Chooses the patch size and batch size: as large as the memory budget, the preset and the dataset allow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil, inf, prod

from autoseg.errors import UsageError
from autoseg.networks.architecture import Architecture
from autoseg.planning.budget import FREE_SHARE, SMALLEST_BATCH, Budget
from autoseg.planning.memory import training_bytes
from autoseg.planning.network_fit import bytes_per_voxel, make_architecture, patches_for
from autoseg.planning.patch_growth import PatchesName
from autoseg.planning.plan import Spacing
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.presets import Preset
from autoseg.planning.topology import Topology, choose_topology, design_network, initial_patch, smaller_topologies


@dataclass(frozen=True, slots=True, kw_only=True)
class TypicalImage:
    """The typical image of a configuration after resampling.

    Attributes:
        spacing_mm: Voxel spacing along two or three axes.
        median_shape: Median shape of the resampled cases in voxels along the same axes.
        dataset_voxels: Number of voxels of all training cases together.
    """

    spacing_mm: Spacing
    median_shape: tuple[float, ...]
    dataset_voxels: float

    @property
    def voxels(self) -> float:
        """Number of voxels of the typical volume or slice."""
        return prod(self.median_shape)

    @property
    def is_trainable(self) -> bool:
        """Whether it is large enough for a network that halves the resolution at least once."""
        first = choose_topology(self.spacing_mm, initial_patch(self.spacing_mm, self.median_shape))
        return first.is_trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningConstraints:
    """The constraints on network, patch size and batch size.

    Attributes:
        preset_name: Name of the preset, for the explanations.
        preset: Limits of network, patch and batch.
        budget: Limit of the memory of a training step.
        budget_bytes: The memory budget in bytes, for error messages.
        in_channels, out_channels: Numbers of input and output channels of the network.
        monotonic: Whether a larger budget must never give fewer voxels per training step.
        named_network: A network of the literature, instead of that of the preset.
        patches: Whether patches have one size during the training or grow to it.
    """

    preset_name: str
    preset: Preset
    budget: Budget
    budget_bytes: int
    in_channels: int
    out_channels: int
    monotonic: bool
    named_network: Plugin | None = None
    patches: PatchesName = "fixed"

    @property
    def max_voxels(self) -> float:
        """Upper bound of the voxels of a 3D patch."""
        limit = self.preset.volume.patch_voxels or inf
        if self.named_network is not None:
            voxel_bytes = bytes_per_voxel(
                self.named_network, in_channels=self.in_channels, out_channels=self.out_channels
            )
            return min(limit, self.budget_bytes / (SMALLEST_BATCH * voxel_bytes))
        return min(limit, self.budget.max_voxels(self.preset.base_features))

    def network(self, topology: Topology) -> Architecture:
        """Returns the network of the preset with the strides and kernels of `topology`, or the named network."""
        if self.named_network is not None:
            dimensions = len(topology.patch_size)
            return make_architecture(
                self.named_network, dimensions, in_channels=self.in_channels, out_channels=self.out_channels
            )
        return design_network(
            topology.strides,
            topology.kernels,
            self.preset,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
        )

    def preset_allows(self, topology: Topology) -> bool:
        """Returns whether the patch is within the preset's limit, regardless of the budget."""
        limit = self.preset.limits(len(topology.patch_size)).patch_voxels
        return limit is None or topology.voxels <= limit

    def fits(self, topology: Topology) -> bool:
        """Returns whether the smallest batch of the patch is within the memory budget."""
        return self.budget.fits(self.network(topology), topology.patch_size, self.named_network)

    def candidate_patches(self, image: TypicalImage) -> Iterator[Topology]:
        """Yields patches from the largest for a typical image to ever smaller ones, regardless of the budget."""
        if self.named_network is not None:
            return patches_for(self.named_network, image.spacing_mm, image.median_shape)
        first = choose_topology(image.spacing_mm, initial_patch(image.spacing_mm, image.median_shape))
        return chain([first], smaller_topologies(first, image.spacing_mm, image.median_shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPatch:
    """The largest patch and batch within all constraints, with the reasons for their sizes.

    Attributes:
        topology: Patch size, strides and kernels.
        architecture: The network for them.
        batch_size: Number of patches of a training step.
        patch_reason, batch_reason: Clauses on what limited patch and batch, for the explanations.
    """

    topology: Topology
    architecture: Architecture
    batch_size: int
    patch_reason: str
    batch_reason: str

    def with_network(self, constraints: PlanningConstraints) -> "FittedPatch":
        """Returns the same patch and batch with the network of other constraints."""
        return replace(self, architecture=constraints.network(self.topology))


def fit_patch(image: TypicalImage, constraints: PlanningConstraints) -> FittedPatch:
    """Shrinks the patch until preset and budget allow a batch of two, then fills the budget with a larger batch.

    A network of the literature may take none of the patches that the preset allows, since presets are meant for the
    default network. Decision: it then gets the smallest patch that it takes.

    Args:
        image: The typical image of the configuration.
        constraints: The constraints on patch and batch.

    Raises:
        UsageError: Not even the smallest patch fits.
    """
    reason = "the largest that planning begins with"
    too_large: Topology | None = None
    for topology in constraints.candidate_patches(image):
        if not constraints.preset_allows(topology):
            limit = constraints.preset.limits(len(topology.patch_size)).patch_voxels
            reason = f"the largest that the preset {constraints.preset_name!r} allows, at most {limit} voxels"
        elif constraints.fits(topology):
            ceiling = SMALLEST_BATCH * too_large.voxels if too_large is not None and constraints.monotonic else None
            return fit_batch(image, topology, constraints, reason=reason, max_voxels=ceiling)
        else:
            reason, too_large = "the largest of which two fit into the memory budget", topology
    architecture = constraints.network(topology)
    if constraints.named_network is not None and constraints.fits(topology):
        reason = f"the smallest that the network takes, although the preset {constraints.preset_name!r} allows less"
        return fit_batch(image, topology, constraints, reason=reason, max_voxels=None)
    if constraints.preset.reference is not None:
        raise UsageError(
            f"a memory budget of {constraints.budget_bytes / 1e9:g} GB does not hold even patches of "
            f"{format_size(topology.patch_size)} voxels, the smallest for these images, by the reference method's "
            "count",
            "raise the memory budget",
        )
    needed = training_bytes(architecture, topology.patch_size, SMALLEST_BATCH, constraints.named_network)
    raise UsageError(
        f"a memory budget of {constraints.budget.describe()} does not hold a training step with two patches of "
        f"{format_size(topology.patch_size)} voxels, the smallest for these images",
        f"raise the memory budget to at least {ceil(needed / (1 - FREE_SHARE) / 1e6)} MB",
    )


def fit_batch(
    image: TypicalImage, topology: Topology, constraints: PlanningConstraints, *, reason: str, max_voxels: int | None
) -> FittedPatch:
    """Chooses the largest batch of patches of one size that all constraints allow.

    Args:
        image: The typical image of the configuration.
        topology: The patch size with its strides and kernels.
        constraints: The constraints on the batch.
        reason: Why the patch has this size.
        max_voxels: Largest number of voxels of a training step; None if there is no such limit. Decision: a step holds
            no more voxels than it will when a larger budget holds the next larger patch, so that a larger budget never
            gives fewer.
    """
    architecture = constraints.network(topology)
    share = constraints.preset.batch_share
    limits = [
        (
            constraints.budget.largest_batch(architecture, topology.patch_size, constraints.named_network),
            "as many as the memory budget holds",
        ),
        (
            round(image.dataset_voxels * share / topology.voxels),
            f"which see {share:.0%} of all training voxels, the most that a batch may",
        ),
    ]
    preset_limit = constraints.preset.limits(len(topology.patch_size)).batch_size
    if preset_limit is not None:
        limits.append((preset_limit, f"the most that the preset {constraints.preset_name!r} allows"))
    if max_voxels is not None:
        limits.append((max_voxels // topology.voxels, "as many as the memory budget holds"))
    size, limited_by = min(limits, key=lambda limit: limit[0])
    if size < SMALLEST_BATCH:
        size, limited_by = SMALLEST_BATCH, "the fewest that training uses"
    return FittedPatch(
        topology=topology,
        architecture=architecture,
        batch_size=size,
        patch_reason=reason,
        batch_reason=limited_by,
    )


def format_size(sizes: Sequence[float]) -> str:
    """Formats sizes for people.

    >>> format_size((40, 56, 40))
    '40 x 56 x 40'
    """
    return " x ".join(f"{size:.6g}" for size in sizes)
