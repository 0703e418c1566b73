"""Which configurations are trained if nobody names them."""

import pytest
from planning_cases import golden_fingerprint, golden_info, plan_of

from autoseg.planning.machine_speed import MachineSpeed
from autoseg.planning.worthwhile import choose_worthwhile


def speed_of(multiply_adds: float) -> MachineSpeed:
    """A machine of a speed."""
    return MachineSpeed(
        machine="any", device="cpu", precision="float32", training=multiply_adds, prediction=multiply_adds
    )


@pytest.mark.parametrize(
    ("preset", "multiply_adds", "expected"),
    [
        ("24gb", None, ["3d_fullres", "3d_lowres", "3d_cascade_fullres"]),
        ("small", None, ["3d_fullres"]),
        ("small", 1e14, ["3d_fullres"]),
        ("small", 1e9, ["3d_lowres"]),
    ],
)
def test_large_volumes(preset, multiply_adds, expected):
    """On a GPU all that show enough of the body; on a slow machine the one that can be predicted in time."""
    plan = plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"), preset=preset)
    speed = None if multiply_adds is None else speed_of(multiply_adds)
    assert choose_worthwhile(plan, speed) == expected


def test_pictures_and_small_volumes():
    """In 2D where there is nothing else, and else in 3D alone."""
    plan = plan_of(golden_fingerprint("LiverCT"), golden_info("LiverCT"))
    only = plan.model_copy(update={"configurations": {"2d": plan.configurations["2d"]}})
    assert choose_worthwhile(only, None) == ["2d"]
    both = {name: plan.configurations[name] for name in ("2d", "3d_fullres")}
    assert choose_worthwhile(plan.model_copy(update={"configurations": both}), None) == ["3d_fullres"]
