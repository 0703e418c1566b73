"""Plans for networks with a fixed patch size, such as TransUNet."""

import pytest
from network_plans import SLICE, named, plan_of
from planning_cases import fingerprint_of

from autoseg.networks.literature.table import NETWORKS
from autoseg.planning.network_fit import patches_for
from autoseg.planning.plan import Configuration


@pytest.mark.parametrize(
    ("shape", "patch"), [((1, 400, 500), (224, 224)), ((1, 100, 500), (112, 224)), ((1, 16, 10), (32, 16))]
)
def test_patch_is_planned_once_and_for_all(shape, patch):
    """The patch is as large as the paper's, but no larger than the padded images; it is set in the network."""
    fingerprint = fingerprint_of([shape] * 5, [(999.0, 1.0, 1.0)] * 5)
    [one] = plan_of(fingerprint, named("transunet")).configurations.values()
    assert one.patch_size == patch
    assert one.network.settings == {**named("transunet").settings, "patch": list(patch)}
    assert one.weights == 105_277_081 - 6 * 145 - (196 - patch[0] * patch[1] // 256) * 768


def test_memory_decides_too():
    """The preset limits the patch too, and with too little memory there is no plan; a sentence names the limit."""
    plans = [plan_of(SLICE, named("transunet"), gigabytes=size) for size in (2.8, 3, 8)]
    patches = [plan.configurations["2d"].patch_size for plan in plans]
    assert patches[0] < patches[1] <= patches[2] == (224, 224)
    small = plan_of(SLICE, named("transunet"), preset="small", gigabytes=8)
    assert small.configurations["2d"].patch_voxels <= 192**2
    assert any("of 224 x 224 voxels in the paper" in sentence for sentence in small.why)


def test_patch_of_plan_and_network_must_agree():
    """An edit of one of the two fields is refused with the name of the other."""
    one = plan_of(SLICE, named("transunet")).configurations["2d"]
    content = one.model_dump(mode="json")
    edited = {**content, "patch_size": [160, 160]}
    with pytest.raises(ValueError, match=r"patch_size \(160, 160\) must be settings.patch .*, which is \(224, 224\)"):
        Configuration.model_validate(edited)
    edited["network"] = {"name": "transunet", "settings": {"patch": [160, 160]}}
    assert Configuration.model_validate(edited).weights == one.weights - 96 * 768
    edited["network"] = {"name": "transunet", "settings": {"patch": [160, 150]}}
    with pytest.raises(ValueError, match=r"settings.patch.1 of TransUNet: Input should be a multiple of 16"):
        Configuration.model_validate(edited)


def test_constraints_say_so():
    """This is the text that `autoseg networks` prints."""
    spec = NETWORKS["transunet"]
    assert spec.describe_constraints({}) == "one size, planned up to 224 x 224, edges divisible by 16"
    found = [one.patch_size for one in patches_for(named("transunet"), (1.0, 1.0), (40.0, 30.0))]
    assert found == [(48, 32), (32, 32), (32, 16)]
