"""Makes the plan of a dataset from its fingerprint, by fixed rules, with a sentence for every decision."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from autoseg.datasets.fingerprint import Fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.errors import DatasetError, UsageError
from autoseg.planning.budget import make_budget
from autoseg.planning.configurations import DatasetDecisions, decide_dataset, make_configuration, plan_2d, plan_3d
from autoseg.planning.cpu_preset import CPU_PRESET, explain_speed, list_cpu_presets, suits_speed
from autoseg.planning.explanation import (
    ConfigurationDecisions,
    explain_configuration,
    explain_preset,
    explain_refusal,
)
from autoseg.planning.machine_speed import MachineSpeed
from autoseg.planning.network_fit import adapt_training, find_spec
from autoseg.planning.patch_growth import PatchesName
from autoseg.planning.patch_size import PlanningConstraints, format_size
from autoseg.planning.plan import Plan, PresetName, RulesName
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.presets import LADDER, PRESETS, RULES, Preset
from autoseg.planning.scattered_labels import (
    adapt_to_scattered_labels,
    explain_scattered_labels,
    explain_scattered_training,
)
from autoseg.planning.schedule import choose_training, explain_training


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningOptions:
    """The options of planning that do not depend on the data.

    Attributes:
        dataset: Name of the dataset's folder, such as "Dataset004_Hippocampus".
        memory_budget_bytes: Device memory in bytes that training may use.
        preset: Preset that sets the size of the network; None chooses one of this project's by the memory budget.
        rules: "autoseg", the rules of this project, or "nnunet", those of the reference method, which need one of its
            own presets.
        network: A network of the literature instead of that of the preset; not with the rules "nnunet".
        patches: Whether patches have one size during the training or grow to it; None leaves it to preset and labels.
        speed: The measured speed of a machine without a CUDA GPU, for which the preset `small` is planned; a slow one
            gets a smaller network. None if memory or preset were chosen.
    """

    dataset: str
    memory_budget_bytes: int
    preset: PresetName | None = None
    rules: RulesName = "autoseg"
    network: Plugin | None = None
    patches: PatchesName | None = None
    speed: MachineSpeed | None = None


def make_plan(fingerprint: Fingerprint, info: DatasetInfo, options: PlanningOptions) -> Plan:
    """Plans all configurations of a dataset.

    Without a preset, the memory budget chooses it: the deeper network of a larger preset is taken if every
    configuration then has at least as many voxels per training step as the smaller network has at the memory of the
    larger preset. So more memory never reduces a plan. Decision: see `presets`.

    >>> from autoseg.datasets.fingerprint import CaseFacts, ChannelFacts, Fingerprint
    >>> from autoseg.datasets.info import DatasetInfo
    >>> channel = ChannelFacts(
    ...     mean=40, median=42, std=15, minimum=-1000, maximum=3000, percentile_00_5=-90, percentile_99_5=210
    ... )
    >>> cases = tuple(
    ...     CaseFacts(name=f"case_{n}", shape=(36, 50, 35), shape_after_crop=(36, 50, 35), spacing_mm=(1, 1, 1))
    ...     for n in range(200)
    ... )
    >>> fingerprint = Fingerprint(cases=cases, channels=(channel,), median_relative_size_after_crop=1)
    >>> info = DatasetInfo(
    ...     channel_names={"0": "MR"}, labels={"background": 0, "hippocampus": 1}, file_ending=".nii.gz"
    ... )
    >>> options = PlanningOptions(dataset="Dataset004_Hippocampus", memory_budget_bytes=8 * 10**9)
    >>> plan = make_plan(fingerprint, info, options)
    >>> plan.preset, plan.configurations["3d_fullres"].patch_size
    ('8gb', (40, 56, 40))

    Args:
        fingerprint: Measurements of the training cases.
        info: The content of dataset.json.
        options: Memory budget, preset, rules, network and speed.

    Returns:
        The plan, with the reasons in `Plan.why`.

    Raises:
        DatasetError: There is no case, the channels do not agree, or the images are too small for any network.
        UsageError: The budget does not hold the smallest batch of the smallest patches, or the requested network does
            not take these images.
    """
    decisions = decide_dataset(fingerprint, info, RULES[options.rules])
    if options.speed is not None:
        return _plan_by_speed(decisions, options, options.speed)
    if options.preset is None:
        return _plan_by_memory(decisions, options)
    return _plan(decisions, options.preset, options, budget_bytes=options.memory_budget_bytes)


def _plan_by_memory(decisions: DatasetDecisions, options: PlanningOptions) -> Plan:
    """Chooses the preset by the memory budget and plans with it; see `make_plan`."""
    reached = [name for name in LADDER if PRESETS[name].memory_bytes <= options.memory_budget_bytes] or [LADDER[0]]
    if options.network is not None:  # it does not depend on the preset
        return _plan(decisions, reached[-1], options, budget_bytes=options.memory_budget_bytes)
    larger = [*reached[1:], None]
    steps = [
        (name, next_name)
        for name, next_name in zip(reached, larger, strict=True)
        if _have_different_networks(name, next_name)
    ]
    plan: Plan | None = None
    for name, next_name in steps:
        limit = options.memory_budget_bytes if next_name is None else PRESETS[next_name].memory_bytes
        attempt = _plan(decisions, name, options, budget_bytes=min(limit, options.memory_budget_bytes))
        if plan is None or _keeps_step_voxels(attempt, plan):
            plan = attempt
        else:
            refusal = explain_refusal(name, plan.preset, options.memory_budget_bytes)
            plan = plan.model_copy(update={"why": (*plan.why, refusal)})
    if plan is None:
        raise ValueError("the list of presets is empty")
    return plan


def _plan_by_speed(decisions: DatasetDecisions, options: PlanningOptions, speed: MachineSpeed) -> Plan:
    """Plans for a machine without a CUDA GPU: the largest of its presets of which a fold is trained in time."""
    plan, used = None, PRESETS[CPU_PRESET]
    for preset in list_cpu_presets():
        plan = _plan(decisions, CPU_PRESET, options, budget_bytes=options.memory_budget_bytes, preset=preset)
        used = preset
        if options.network is not None or suits_speed(plan, speed):
            break
    if plan is None:
        raise ValueError("the list of presets is empty")
    return plan.model_copy(update={"why": (*plan.why, *explain_speed(plan, used, speed))})


def _have_different_networks(smaller: PresetName, larger: PresetName | None) -> bool:
    """Returns whether two presets have different networks; if not, only the larger one is planned."""
    return larger is None or replace(PRESETS[smaller], memory_bytes=0) != replace(PRESETS[larger], memory_bytes=0)


def _keeps_step_voxels(attempt: Plan, plan: Plan) -> bool:
    """Returns whether no configuration of `plan` has fewer voxels per training step in `attempt`, if it is there."""
    both = attempt.configurations.keys() & plan.configurations.keys()
    return all(attempt.configurations[name].step_voxels >= plan.configurations[name].step_voxels for name in both)


def _plan(
    decisions: DatasetDecisions,
    preset_name: PresetName,
    options: PlanningOptions,
    *,
    budget_bytes: int,
    preset: Preset | None = None,
) -> Plan:
    """Makes the plan for one preset, which may differ from the one of its name, and budget."""
    preset = PRESETS[preset_name] if preset is None else preset
    constraints = PlanningConstraints(
        preset_name=preset_name,
        preset=preset,
        budget=make_budget(preset, budget_bytes),
        budget_bytes=budget_bytes,
        in_channels=sum(channel.channels for channel in decisions.normalization),
        out_channels=decisions.info.targets.outputs,
        monotonic=decisions.rules.monotonic,
        named_network=options.network,
        patches=options.patches or ("fixed" if decisions.scattered else preset.patches),
    )
    results = [*plan_2d(decisions, constraints), *plan_3d(decisions, constraints)]
    configurations = {
        planned.name: make_configuration(planned, decisions, constraints)
        for planned in results
        if isinstance(planned, ConfigurationDecisions)
    }
    if not configurations:
        raise _no_configuration(decisions, options, [result for result in results if isinstance(result, str)])
    training = choose_training(preset, decisions.grid)
    if options.network is not None:
        training = adapt_training(training, options.network)
    counts_parts = bool(decisions.scattered) and preset_name == CPU_PRESET and options.network is None
    if counts_parts:
        training = adapt_to_scattered_labels(training)
    why = [*explain_preset(constraints), explain_training(training, preset, decisions.grid), *decisions.explain()]
    if options.patches is None and preset.patches == "growing" and decisions.scattered:
        why.append(explain_scattered_labels(decisions.scattered))
    if counts_parts:
        why.append(explain_scattered_training(decisions.scattered))
    for result in results:
        if isinstance(result, str):
            why.append(result)
        else:
            why.extend(explain_configuration(result, configurations[result.name], constraints))
    return Plan(
        dataset=options.dataset,
        rules=options.rules,
        preset=preset_name,
        memory_budget_bytes=options.memory_budget_bytes,
        axis_order=decisions.grid.axis_order,
        configurations=configurations,
        training=training,
        why=tuple(why),
    )


def _no_configuration(
    decisions: DatasetDecisions, options: PlanningOptions, reasons: Sequence[str]
) -> UsageError | DatasetError:
    """Returns the error for a dataset that no configuration is possible for."""
    if options.network is not None:
        problem = f"{find_spec(options.network).title} cannot look at the images of {options.dataset}."
        return UsageError(f"{problem} {' '.join(reasons)}", "choose another network")
    return DatasetError(
        f"the training images of {options.dataset} have a median shape of "
        f"{format_size(decisions.grid.median_shape)} voxels after resampling, too few for any network",
        "use images of at least 8 voxels along two axes",
    )
