"""The plan of a dataset: what its fingerprint decides, by fixed rules, with a sentence for every decision."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError, UsageError
from autoseg.networks.architecture import Axes
from autoseg.planning.budget import make_budget
from autoseg.planning.explanation import (
    Look,
    explain_full_resolution,
    explain_look,
    explain_preset,
    explain_refusal,
)
from autoseg.planning.low_resolution import choose_low_resolution
from autoseg.planning.memory import training_bytes
from autoseg.planning.mirroring import Mirroring, choose_mirroring, explain_mirroring, mirror_settings
from autoseg.planning.network_fit import adapt_training, find_obstacle, find_spec, fit_network
from autoseg.planning.normalization import choose_normalization, explain_normalization
from autoseg.planning.patch import Search, View, edges, fit_patch
from autoseg.planning.plan import Configuration, ConfigurationName, Normalization, Plan, PresetName, RulesName
from autoseg.planning.plugins import Plugin
from autoseg.planning.presets import LADDER, PRESETS, RULES, Rules
from autoseg.planning.schedule import choose_training, explain_training
from autoseg.planning.settings import AugmentationSettings
from autoseg.planning.spacing import TargetGrid, choose_grid, explain_grid
from autoseg.planning.topology import two_or_three

# Source: the reference method (nnU-Net v2.8.1, trainer).
THICK_PATCH_RATIO = 3
"""Longest edge to first edge, beyond which patches turn in-plane only."""
LONG_PLANE_RATIO = 1.5
"""Longest to shortest edge, beyond which planes turn a little only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningOptions:
    """What is decided before the data are looked at.

    Attributes:
        dataset: Name of the dataset's folder.
        memory_budget_bytes: Device memory that training may use.
        preset: The network's size; None lets the memory choose one of this project's.
        rules: This project's, or the reference method's, which needs one of its own presets.
        network: A network of the literature, instead of that of the preset; not with the reference method's rules.
    """

    dataset: str
    memory_budget_bytes: int
    preset: PresetName | None = None
    rules: RulesName = "autoseg"
    network: Plugin | None = None


def make_plan(fingerprint: Fingerprint, info: DatasetInfo, options: PlanningOptions) -> Plan:
    """Plans all configurations of a dataset.

    Without a preset, the memory chooses it: the deeper network of the larger presets is taken as soon as no
    configuration has to give up voxels of a training step for it, compared with the smaller network at the smallest
    memory of the larger preset. So more memory never buys less. Decision: see `presets`.

    Args:
        fingerprint: The facts of the training cases.
        info: The content of dataset.json.
        options: Memory, preset, rules.

    Raises:
        DatasetError: There is no case, the channels do not agree, or the images are too small for any network.
        UsageError: The budget does not hold the smallest batch of the smallest patches, or the network that was asked
            for cannot look at these images.
    """
    facts = _gather(fingerprint, info, RULES[options.rules])
    if options.preset is None:
        return _climb(facts, options)
    return _plan(facts, options.preset, options, budget_bytes=options.memory_budget_bytes)


def choose_augmentation(patch_size: Axes) -> AugmentationSettings:
    """Chooses how patches may rotate, and mirrors them along all their axes.

    A rotated patch reaches beyond its own borders, so long planes turn little, and patches that are flat along the
    first axis turn within their slices only. Source: the reference method (nnU-Net v2.8.1, trainer).
    """
    longest = max(patch_size)
    if len(patch_size) == 2:
        degrees = 15 if longest / min(patch_size) > LONG_PLANE_RATIO else 180
        return AugmentationSettings(rotation_degrees=degrees, rotation_axes=(0,), mirror_axes=(0, 1))
    if longest / patch_size[0] > THICK_PATCH_RATIO:
        return AugmentationSettings(rotation_degrees=180, rotation_axes=(0,))
    return AugmentationSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What the fingerprint decides alone, whatever the memory."""

    info: DatasetInfo
    rules: Rules
    grid: TargetGrid
    normalization: tuple[Normalization, ...]
    mirroring: Mirroring | None

    def view(self, name: ConfigurationName) -> View:
        """What a configuration at full resolution sees: planes, or volumes."""
        grid, first = self.grid, 1 if name == "2d" else 0
        return View(
            spacing_mm=two_or_three(grid.spacing_mm[first:]),
            median_shape=grid.median_shape[first:],
            dataset_voxels=grid.voxels,
        )

    def explain(self) -> Iterator[str]:
        """A sentence per decision."""
        yield from explain_grid(self.grid)
        yield from explain_normalization(self.normalization, self.info)
        if self.mirroring is not None:
            yield from explain_mirroring(self.mirroring, self.info)


def _gather(fingerprint: Fingerprint, info: DatasetInfo, rules: Rules) -> _Facts:
    return _Facts(
        info=info,
        rules=rules,
        grid=choose_grid(fingerprint, rules),
        normalization=choose_normalization(fingerprint, info),
        mirroring=choose_mirroring(fingerprint, info) if rules.safe_mirroring else None,
    )


def _climb(facts: _Facts, options: PlanningOptions) -> Plan:
    """Goes up the presets as far as the memory reaches; see `make_plan`."""
    reached = [name for name in LADDER if PRESETS[name].memory_bytes <= options.memory_budget_bytes] or [LADDER[0]]
    if options.network is not None:  # the same whatever the preset
        return _plan(facts, reached[-1], options, budget_bytes=options.memory_budget_bytes)
    larger = [*reached[1:], None]
    steps = [(name, next_one) for name, next_one in zip(reached, larger, strict=True) if _differ(name, next_one)]
    plan: Plan | None = None
    for name, next_one in steps:
        limit = options.memory_budget_bytes if next_one is None else PRESETS[next_one].memory_bytes
        attempt = _plan(facts, name, options, budget_bytes=min(limit, options.memory_budget_bytes))
        if plan is None or _gives_up_nothing(attempt, plan):
            plan = attempt
        else:
            refusal = explain_refusal(name, plan.preset, options.memory_budget_bytes)
            plan = plan.model_copy(update={"why": (*plan.why, refusal)})
    if plan is None:
        raise ValueError("the list of presets is empty")
    return plan


def _differ(one: PresetName, other: PresetName | None) -> bool:
    """Whether two presets have different networks; if not, the larger one stands for both."""
    return other is None or replace(PRESETS[one], memory_bytes=0) != replace(PRESETS[other], memory_bytes=0)


def _gives_up_nothing(attempt: Plan, plan: Plan) -> bool:
    """Whether every configuration of `plan` that `attempt` has too sees at least as many voxels per step."""
    both = attempt.configurations.keys() & plan.configurations.keys()
    return all(attempt.configurations[name].step_voxels >= plan.configurations[name].step_voxels for name in both)


def _plan(facts: _Facts, preset_name: PresetName, options: PlanningOptions, *, budget_bytes: int) -> Plan:
    """Plans for one preset and budget."""
    preset = PRESETS[preset_name]
    search = Search(
        preset_name=preset_name,
        preset=preset,
        budget=make_budget(preset, budget_bytes),
        budget_bytes=budget_bytes,
        in_channels=facts.info.channels,
        out_channels=facts.info.targets.outputs,
        monotonic=facts.rules.monotonic,
        named=options.network,
    )
    looks = [*_look_at_planes(facts, search), *_look_at_volumes(facts, search)]
    found = {look.name: _configuration(look, facts, search) for look in looks if isinstance(look, Look)}
    if not found and options.network is not None:
        reasons = " ".join(look for look in looks if isinstance(look, str))
        title = find_spec(options.network).title
        raise UsageError(f"{title} cannot look at the images of {options.dataset}. {reasons}", "choose another network")
    if not found:
        raise DatasetError(
            f"the training images of {options.dataset} have a median shape of {edges(facts.grid.median_shape)} voxels "
            "after resampling, too few for any network",
            "use images of at least 8 voxels along two axes",
        )
    training = choose_training(preset, facts.grid)
    if options.network is not None:
        training = adapt_training(training, options.network)
    why = [*explain_preset(search), explain_training(training, preset, facts.grid), *facts.explain()]
    for look in looks:
        why.extend([look] if isinstance(look, str) else explain_look(look, found[look.name], search))
    return Plan(
        dataset=options.dataset,
        rules=options.rules,
        preset=preset_name,
        memory_budget_bytes=options.memory_budget_bytes,
        axis_order=facts.grid.axis_order,
        configurations=found,
        training=training,
        why=tuple(why),
    )


def _look_at_planes(facts: _Facts, search: Search) -> Iterator[Look | str]:
    """The 2D configuration, or why there is none."""
    view = facts.view("2d")
    too_thin = facts.rules.flat_axis_first and min(view.median_shape) <= facts.rules.flat_voxels
    if (obstacle := _find_obstacle(search, 2)) is not None:
        yield f"There is no 2d: {obstacle}."
    elif view.is_trainable and not too_thin:
        yield Look(name="2d", view=view, fit=fit_patch(view, search), batch_dice=True)
    else:
        yield f"There is no 2d: slices of {edges(view.median_shape)} voxels are too small to halve the resolution."


def _look_at_volumes(facts: _Facts, search: Search) -> Iterator[Look | str]:
    """The 3D configurations, or why there are none.

    Source: the reference method, also of the rule when the Dice loss pools a batch: where a low resolution is worth
    having, a patch at full resolution often holds none of a structure.
    """
    view = facts.view("3d_fullres")
    if facts.grid.is_flat:
        slices = max(1, round(view.median_shape[0]))
        yield f"There is no 3D configuration: {slices} slice{' makes' if slices == 1 else 's make'} no volume."
        return
    if not view.is_trainable:
        yield f"There is no 3D configuration: {edges(view.median_shape)} voxels are too few to halve the resolution."
        return
    if (obstacle := _find_obstacle(search, 3)) is not None:
        yield f"There is no 3D configuration: {obstacle}."
        return
    full = fit_patch(view, search)
    low = choose_low_resolution(view, search, full)
    yield Look(name="3d_fullres", view=view, fit=full, batch_dice=low is not None)
    if low is None:
        yield explain_full_resolution(view, full)
        return
    yield Look(name="3d_lowres", view=low.view, fit=low.fit, batch_dice=False, finer=(view, full))
    if not facts.info.targets.fits_cascade:
        yield "There is no cascade: it would need one label map of fewer than 180 numbers to look at."
        return
    informed = replace(search, in_channels=search.in_channels + len(facts.info.targets.structures))
    if (obstacle := _find_obstacle(informed, 3)) is not None:
        yield f"There is no cascade: {obstacle}."
        return
    # The reference method takes over patch and batch as they are; the further input hardly takes memory.
    after = fit_patch(view, informed) if search.monotonic else full.with_network(informed)
    yield Look(name="3d_cascade_fullres", view=view, fit=after, batch_dice=True, previous="3d_lowres")


def _find_obstacle(search: Search, dimensions: int) -> str | None:
    """Why the network that was asked for cannot look at planes or volumes; None if it can, or none was."""
    if search.named is None:
        return None
    channels = {"in_channels": search.in_channels, "out_channels": search.out_channels}
    return find_obstacle(search.named, dimensions, **channels)


def _configuration(look: Look, facts: _Facts, search: Search) -> Configuration:
    patch_size = look.fit.topology.patch_size
    network = None if search.named is None else fit_network(search.named, patch_size)
    augmentation = choose_augmentation(patch_size)
    if facts.mirroring is not None:
        augmentation = mirror_settings(facts.mirroring, facts.grid.axis_order, len(patch_size), augmentation)
    return Configuration(
        spacing_mm=look.view.spacing_mm,
        patch_size=patch_size,
        batch_size=look.fit.batch_size,
        median_shape=two_or_three([ceil(size) for size in look.view.median_shape]),
        normalization=facts.normalization,
        batch_dice=look.batch_dice,
        architecture=look.fit.architecture,
        network=network,
        estimated_bytes=training_bytes(look.fit.architecture, patch_size, look.fit.batch_size, network),
        previous=look.previous,
        augmentation=augmentation,
    )
