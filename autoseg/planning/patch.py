"""How large patches and batches are: as large as the budget, the preset and the dataset allow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import ceil, inf, prod

from autoseg.errors import UsageError
from autoseg.networks.architecture import Architecture
from autoseg.planning.budget import FREE_SHARE, SMALLEST_BATCH, Budget
from autoseg.planning.memory import training_bytes
from autoseg.planning.network_fit import bytes_per_voxel, outline, patches_for
from autoseg.planning.plan import Spacing
from autoseg.planning.plugins import Plugin
from autoseg.planning.presets import Preset
from autoseg.planning.topology import Topology, choose_topology, design_network, initial_patch, smaller_topologies


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a configuration sees of the dataset.

    Attributes:
        spacing_mm: Of two or three axes.
        median_shape: Of the resampled cases, along the same axes.
        dataset_voxels: Of all training cases.
    """

    spacing_mm: Spacing
    median_shape: tuple[float, ...]
    dataset_voxels: float

    @property
    def voxels(self) -> float:
        """Of the typical image, or of a slice of it."""
        return prod(self.median_shape)

    @property
    def is_trainable(self) -> bool:
        """Whether it is large enough for a network that halves the resolution at least once."""
        first = choose_topology(self.spacing_mm, initial_patch(self.spacing_mm, self.median_shape))
        return first.is_trainable


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What patches and batches must respect.

    Attributes:
        preset_name: For the sentences.
        preset: Limits of the network.
        budget: Limit of a training step.
        budget_bytes: The memory that the user stated, for errors.
        in_channels, out_channels: Of the network.
        monotonic: Whether a larger budget must never buy fewer voxels per step.
        named: A network of the literature, instead of that of the preset.
    """

    preset_name: str
    preset: Preset
    budget: Budget
    budget_bytes: int
    in_channels: int
    out_channels: int
    monotonic: bool
    named: Plugin | None = None

    @property
    def most_voxels(self) -> float:
        """More than this no patch of volumes can have."""
        limit = self.preset.volume.patch_voxels or inf
        if self.named is not None:
            each = bytes_per_voxel(self.named, in_channels=self.in_channels, out_channels=self.out_channels)
            return min(limit, self.budget_bytes / (SMALLEST_BATCH * each))
        return min(limit, self.budget.most_voxels(self.preset.base_features))

    def network(self, topology: Topology) -> Architecture:
        """The network of this preset with the skeleton of `topology`, or that of the literature."""
        if self.named is not None:
            dimensions = len(topology.patch_size)
            return outline(self.named, dimensions, in_channels=self.in_channels, out_channels=self.out_channels)
        return design_network(
            topology.strides,
            topology.kernels,
            self.preset,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
        )

    def allows(self, topology: Topology) -> bool:
        """Whether patches are within the preset's limit, whatever the budget."""
        limit = self.preset.limits(len(topology.patch_size)).patch_voxels
        return limit is None or topology.voxels <= limit

    def holds(self, topology: Topology) -> bool:
        """Whether patches are within the budget."""
        return self.budget.holds(self.network(topology), topology.patch_size, self.named)

    def patches(self, view: View) -> Iterator[Topology]:
        """From the largest patch for a view on to ever smaller ones, whatever the budget."""
        if self.named is not None:
            return patches_for(self.named, view.spacing_mm, view.median_shape)
        first = choose_topology(view.spacing_mm, initial_patch(view.spacing_mm, view.median_shape))
        return chain([first], smaller_topologies(first, view.spacing_mm, view.median_shape))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The largest patch and batch within all limits, with what limited them."""

    topology: Topology
    architecture: Architecture
    batch_size: int
    patch_because: str
    batch_because: str

    def with_network(self, search: Search) -> "Fit":
        """The same patch and batch, for the network of another search."""
        return replace(self, architecture=search.network(self.topology))


def fit_patch(view: View, search: Search) -> Fit:
    """Shrinks the patch until preset and budget allow a batch of two, then fills the budget with a larger batch.

    A network of the literature may take none of the patches that the preset allows, since a preset is meant for the
    usual one. Decision: it then gets the smallest that it takes.

    Raises:
        UsageError: Not even the smallest patch fits.
    """
    because = "the largest that planning begins with"
    too_large: Topology | None = None
    for topology in search.patches(view):
        if not search.allows(topology):
            limit = search.preset.limits(len(topology.patch_size)).patch_voxels
            because = f"the largest that the preset {search.preset_name!r} allows, at most {limit} voxels"
        elif search.holds(topology):
            ceiling = SMALLEST_BATCH * too_large.voxels if too_large is not None and search.monotonic else None
            return fit_batch(view, topology, search, because=because, most_voxels=ceiling)
        else:
            because, too_large = "the largest of which two fit into the memory budget", topology
    architecture = search.network(topology)
    if search.named is not None and search.holds(topology):
        because = f"the smallest that the network takes, although the preset {search.preset_name!r} allows less"
        return fit_batch(view, topology, search, because=because, most_voxels=None)
    if search.preset.reference is not None:
        raise UsageError(
            f"a memory budget of {search.budget_bytes / 1e9:g} GB does not hold even patches of "
            f"{edges(topology.patch_size)} voxels, the smallest for these images, by the reference method's count",
            "raise the memory budget",
        )
    needed = training_bytes(architecture, topology.patch_size, SMALLEST_BATCH, search.named)
    raise UsageError(
        f"a memory budget of {search.budget.describe()} does not hold a training step with two patches of "
        f"{edges(topology.patch_size)} voxels, the smallest for these images",
        f"raise the memory budget to at least {ceil(needed / (1 - FREE_SHARE) / 1e6)} MB",
    )


def fit_batch(view: View, topology: Topology, search: Search, *, because: str, most_voxels: int | None) -> Fit:
    """Fills the budget with as many patches of one size as all limits allow.

    Args:
        view: What the configuration sees.
        topology: The patch.
        search: The limits.
        because: Why the patch has this size.
        most_voxels: Of a step. Decision: a step holds no more voxels than it will when a larger budget holds the next
            larger patch, so that a larger budget never buys fewer.
    """
    architecture = search.network(topology)
    share = search.preset.batch_share
    limits = [
        (
            search.budget.largest_batch(architecture, topology.patch_size, search.named),
            "as many as the memory budget holds",
        ),
        (
            round(view.dataset_voxels * share / topology.voxels),
            f"which see {share:.0%} of all training voxels, the most that a batch may",
        ),
    ]
    preset_limit = search.preset.limits(len(topology.patch_size)).batch_size
    if preset_limit is not None:
        limits.append((preset_limit, f"the most that the preset {search.preset_name!r} allows"))
    if most_voxels is not None:
        limits.append((most_voxels // topology.voxels, "as many as the memory budget holds"))
    size, limited_by = min(limits, key=lambda limit: limit[0])
    if size < SMALLEST_BATCH:
        size, limited_by = SMALLEST_BATCH, "the fewest that training uses"
    return Fit(
        topology=topology,
        architecture=architecture,
        batch_size=size,
        patch_because=because,
        batch_because=limited_by,
    )


def edges(sizes: Sequence[float]) -> str:
    """Sizes for people: "40 x 56 x 40"."""
    return " x ".join(f"{size:.6g}" for size in sizes)
