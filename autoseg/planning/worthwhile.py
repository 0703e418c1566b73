"""Which configurations of a plan are worth their training on the machine that it was made for."""

from autoseg.planning.cpu_preset import COARSE, CPU_PRESET, LONG_SCAN_SECONDS
from autoseg.planning.machine_speed import MachineSpeed, count_patch_work, validation_seconds
from autoseg.planning.plan import ConfigurationName, Plan

FULL: ConfigurationName = "3d_fullres"
CASCADE: ConfigurationName = "3d_cascade_fullres"
PLANE: ConfigurationName = "2d"


def choose_worthwhile(plan: Plan, speed: MachineSpeed | None) -> list[ConfigurationName]:
    """Returns the configurations to train if the user names none, a cascade after its coarser network.

    Decision: volumes are segmented at full resolution, and pictures in 2D. A plan has a coarser configuration and a
    cascade only where a patch at full resolution shows too little of the body; on a GPU both are tried as well, and
    `find_best` compares them. Without a GPU there is time for one: the coarser one if a typical image takes longer to
    predict at full resolution than `LONG_SCAN_SECONDS`, as the plan advises. 2D is left out for volumes, since it
    seldom wins and takes as long.

    Args:
        plan: The plan.
        speed: The measured speed of a machine without a GPU; None if it is unknown.
    """
    if FULL not in plan.configurations:
        return [PLANE] if PLANE in plan.configurations else plan.trainable[:1]
    if plan.preset != CPU_PRESET:
        return [FULL, *(name for name in (COARSE, CASCADE) if name in plan.configurations)]
    work = count_patch_work(plan.configurations[FULL])
    if speed is None or work is None or COARSE not in plan.configurations:
        return [FULL]
    is_slow = validation_seconds(plan, FULL, speed, work) > LONG_SCAN_SECONDS
    return [COARSE] if is_slow else [FULL]
