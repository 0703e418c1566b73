"""Networks of MONAI in ONNX: all are exported but one, which is refused by its name."""

import pytest
from exported_networks import with_configuration
from monai_settings import NARROW
from small_models import small_configuration

from autoseg.errors import UsageError
from autoseg.models.onnx_export import export_fold
from autoseg.networks.monai import MonaiSpec
from autoseg.networks.monai_table import TABLE
from autoseg.planning.plan import Configuration

REFUSED = "SwinUNETR"


def fold_with(name, dimensions=3):
    """A fold of a small network of MONAI with fresh weights."""
    settings = {"psp_block_num": 1} if name == "AHNet" else NARROW.get(name, {})
    network = {"name": f"monai:{name}", "settings": settings}
    patch = tuple(2 * edge for edge in MonaiSpec(network["name"]).smallest_patch(settings, dimensions))
    known = small_configuration(dimensions).model_dump() | {"patch_size": patch, "network": network}
    return with_configuration(Configuration.model_validate(known))


def test_a_small_network_is_exported(tmp_path):
    """In 2D, and with free sizes."""
    assert export_fold(fold_with("UNet", 2), tmp_path / "network.onnx").any_size


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.parametrize("name", [name for name in TABLE if name != REFUSED])
def test_networks_are_exported(name, tmp_path):
    """Each calculates in ONNX what it does in torch."""
    described = export_fold(fold_with(name), tmp_path / "network.onnx")
    assert described.parity.relative_difference < 1e-4
    assert described.parity.voxels_otherwise <= 1e-4


@pytest.mark.slow
@pytest.mark.timeout(480)
def test_a_network_that_cannot_be_exported_is_refused_by_name(tmp_path):
    """Its windows are masked by an operator that writes into maps."""
    with pytest.raises(UsageError, match=f"the network 'monai:{REFUSED}' cannot be exported to ONNX: it holds the op"):
        export_fold(fold_with(REFUSED), tmp_path / "network.onnx")
