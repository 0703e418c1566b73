"""Plans the configurations of a dataset: what its fingerprint decides, and patch, batch and network in 2D and 3D."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.planning.augmentation_choice import MISSING_CHANNELS, choose_augmentation, may_lack_channels
from autoseg.planning.channel_settings import Normalization
from autoseg.planning.explanation import ConfigurationDecisions, explain_full_resolution
from autoseg.planning.low_resolution import choose_low_resolution
from autoseg.planning.memory import training_bytes
from autoseg.planning.mirroring import Mirroring, choose_mirroring, explain_mirroring, mirror_settings
from autoseg.planning.network_fit import find_incompatibility, fit_network
from autoseg.planning.normalization import choose_normalization, explain_normalization
from autoseg.planning.patch_growth import grow_patches
from autoseg.planning.patch_size import PlanningConstraints, TypicalImage, fit_patch, format_size
from autoseg.planning.plan import Configuration, ConfigurationName
from autoseg.planning.presets import Rules
from autoseg.planning.scattered_labels import find_scattered_labels
from autoseg.planning.spacing import TargetGrid, choose_grid, explain_grid
from autoseg.planning.topology import two_or_three


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDecisions:
    """The decisions that follow from the fingerprint alone, independently of the memory budget.

    Attributes:
        info: The content of dataset.json.
        rules: The planning rules.
        grid: The grid of the resampled cases.
        normalization: The normalization of each channel.
        mirroring: The labels with sides; None if the rules ignore them.
        lacks_channels: Whether scans may lack channels, so that training lets some be missing.
        scattered: Names of structures that consist of many small parts; see `scattered_labels`.
    """

    info: DatasetInfo
    rules: Rules
    grid: TargetGrid
    normalization: tuple[Normalization, ...]
    mirroring: Mirroring | None
    lacks_channels: bool
    scattered: tuple[str, ...]

    def typical_image(self, name: ConfigurationName) -> TypicalImage:
        """Returns the typical image of a configuration at full resolution: a slice for "2d", else a volume."""
        grid, first = self.grid, 1 if name == "2d" else 0
        return TypicalImage(
            spacing_mm=two_or_three(grid.spacing_mm[first:]),
            median_shape=grid.median_shape[first:],
            dataset_voxels=grid.voxels,
        )

    def explain(self) -> Iterator[str]:
        """Yields a sentence per decision."""
        yield from explain_grid(self.grid)
        yield from self.explain_channels()

    def explain_channels(self) -> Iterator[str]:
        """Yields a sentence per decision that does not depend on the grid."""
        yield from explain_normalization(self.normalization, self.info)
        if self.mirroring is not None:
            yield from explain_mirroring(self.mirroring, self.info)
        if self.lacks_channels:
            says = "dataset.json says so" if self.info.missing_channels else "some training cases do"
            yield (
                f"Scans may lack channels, because {says}: in training, {MISSING_CHANNELS:.0%} of the patches lack "
                "some at random, so that the others suffice."
            )


def decide_dataset(fingerprint: Fingerprint, info: DatasetInfo, rules: Rules) -> DatasetDecisions:
    """Makes the decisions that follow from the fingerprint alone."""
    return DatasetDecisions(
        info=info,
        rules=rules,
        grid=choose_grid(fingerprint, rules),
        normalization=choose_normalization(fingerprint, info),
        mirroring=choose_mirroring(fingerprint, info) if rules.safe_mirroring else None,
        lacks_channels=rules.missing_channels and may_lack_channels(fingerprint, info),
        scattered=find_scattered_labels(fingerprint, info),
    )


def plan_2d(decisions: DatasetDecisions, constraints: PlanningConstraints) -> Iterator[ConfigurationDecisions | str]:
    """Yields the 2D configuration, or a sentence on why there is none."""
    image = decisions.typical_image("2d")
    too_thin = decisions.rules.flat_axis_first and min(image.median_shape) <= decisions.rules.flat_voxels
    if (reason := _find_incompatibility(constraints, 2)) is not None:
        yield f"There is no 2d: {reason}."
    elif image.is_trainable and not too_thin:
        yield ConfigurationDecisions(name="2d", image=image, fit=fit_patch(image, constraints), batch_dice=True)
    else:
        size = format_size(image.median_shape)
        yield f"There is no 2d: slices of {size} voxels are too small to halve the resolution."


def plan_3d(decisions: DatasetDecisions, constraints: PlanningConstraints) -> Iterator[ConfigurationDecisions | str]:
    """Yields the 3D configurations, and sentences on why some are missing.

    Source: the reference method, also for `batch_dice`: where a low-resolution configuration is worthwhile, a patch at
    full resolution often holds none of a structure.
    """
    image = decisions.typical_image("3d_fullres")
    if decisions.grid.is_flat:
        slices = max(1, round(image.median_shape[0]))
        yield f"There is no 3D configuration: {slices} slice{' makes' if slices == 1 else 's make'} no volume."
        return
    if not image.is_trainable:
        size = format_size(image.median_shape)
        yield f"There is no 3D configuration: {size} voxels are too few to halve the resolution."
        return
    if (reason := _find_incompatibility(constraints, 3)) is not None:
        yield f"There is no 3D configuration: {reason}."
        return
    full = fit_patch(image, constraints)
    low = choose_low_resolution(image, constraints, full)
    yield ConfigurationDecisions(name="3d_fullres", image=image, fit=full, batch_dice=low is not None)
    if low is None:
        yield explain_full_resolution(image, full)
        return
    yield ConfigurationDecisions(name="3d_lowres", image=low.image, fit=low.fit, batch_dice=False, finer=(image, full))
    if not decisions.info.targets.fits_cascade:
        yield "There is no cascade: it would need one label map of fewer than 180 numbers to look at."
        return
    cascade = replace(constraints, in_channels=constraints.in_channels + len(decisions.info.targets.structures))
    if (reason := _find_incompatibility(cascade, 3)) is not None:
        yield f"There is no cascade: {reason}."
        return
    # The reference method reuses patch and batch of 3d_fullres; the additional input channels take little memory.
    fit = fit_patch(image, cascade) if constraints.monotonic else full.with_network(cascade)
    yield ConfigurationDecisions(name="3d_cascade_fullres", image=image, fit=fit, batch_dice=True, previous="3d_lowres")


def _find_incompatibility(constraints: PlanningConstraints, dimensions: int) -> str | None:
    """Returns why the requested network does not take 2D or 3D images; None if it does, or none was requested."""
    if constraints.named_network is None:
        return None
    channels = {"in_channels": constraints.in_channels, "out_channels": constraints.out_channels}
    return find_incompatibility(constraints.named_network, dimensions, **channels)


def make_configuration(
    planned: ConfigurationDecisions, decisions: DatasetDecisions, constraints: PlanningConstraints
) -> Configuration:
    """Returns a planned configuration as it is written to the plan."""
    patch_size = planned.fit.topology.patch_size
    network = None if constraints.named_network is None else fit_network(constraints.named_network, patch_size)
    augmentation = choose_augmentation(patch_size)
    if decisions.mirroring is not None:
        augmentation = mirror_settings(decisions.mirroring, decisions.grid.axis_order, len(patch_size), augmentation)
    if decisions.lacks_channels:
        augmentation = augmentation.model_copy(update={"missing_channels_probability": MISSING_CHANNELS})
    configuration = Configuration(
        spacing_mm=planned.image.spacing_mm,
        patch_size=patch_size,
        batch_size=planned.fit.batch_size,
        median_shape=two_or_three([ceil(size) for size in planned.image.median_shape]),
        normalization=decisions.normalization,
        batch_dice=planned.batch_dice,
        architecture=planned.fit.architecture,
        network=network,
        estimated_bytes=training_bytes(planned.fit.architecture, patch_size, planned.fit.batch_size, network),
        previous=planned.previous,
        augmentation=augmentation,
    )
    if constraints.patches == "fixed" or not configuration.takes_other_patches:
        return configuration
    growth = grow_patches(patch_size, configuration.batch_size, configuration.patches)
    return configuration.model_copy(update={"patch_growth": growth})
