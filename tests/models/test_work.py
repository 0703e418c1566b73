"""The work of networks that planning does not know."""

import pytest
from custom_parts import register_all
from planning_cases import golden_fingerprint, golden_info, plan_of

from autoseg.models.work import measure_patch_work
from autoseg.planning.machine_speed import count_patch_work
from autoseg.planning.plugin_settings import Plugin


@pytest.fixture(scope="module")
def configuration():
    """A configuration of the default network in 3D."""
    return plan_of(golden_fingerprint("Hippo"), golden_info("Hippo"), preset="small").configurations["3d_fullres"]


def with_network(configuration, **plugin):
    """The configuration with another network."""
    content = {**configuration.model_dump(by_alias=True), "patch_size": (48, 64, 48), "patch_growth": ()}
    return configuration.model_validate({**content, "network": Plugin(**plugin)})


def test_known_networks_are_counted_by_planning(configuration):
    """The default one and those of the literature, for any patch."""
    assert measure_patch_work(configuration) == count_patch_work(configuration)
    vnet = with_network(configuration, name="vnet")
    assert measure_patch_work(vnet, (16, 16, 16)) == count_patch_work(vnet, (16, 16, 16))


def test_networks_of_monai_are_counted_by_torch(configuration):
    """Without calculating; twice the voxels are about twice the work."""
    settings = {"channels": [4, 8], "strides": [2], "num_res_units": 0}
    network = with_network(configuration, name="monai:UNet", settings=settings)
    one, two = (measure_patch_work(network, size) for size in ((16, 16, 16), (16, 16, 32)))
    assert one > 0
    assert two == 2 * one


@pytest.mark.usefixtures("empty_registry")
def test_what_cannot_be_built_is_not_counted(configuration):
    """A network that is not installed has no work here, and no error: training will say what is missing."""
    register_all()
    assert measure_patch_work(with_network(configuration, name="nobody_has_it")) is None
