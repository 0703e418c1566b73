"""What a scan takes beside the network is measured, and grows with the scan."""

import pytest
from small_models import small_configuration

from autoseg.models import handling_speed
from autoseg.models.handling_speed import measure_handling


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_larger_scan_takes_longer(dimensions, monkeypatch):
    """As many times as it has more voxels, though a small one is handled."""
    monkeypatch.setattr(handling_speed, "PROBE_VOXELS", 16**3)
    configuration = small_configuration(dimensions)
    handled = []

    def count(paths, *rest):
        handled.append(paths)
        return read(paths, *rest)

    read = handling_speed.read_image
    monkeypatch.setattr(handling_speed, "read_image", count)
    seconds = [measure_handling(configuration, shape, (2.0, 1.0, 1.0)) for shape in ((16, 16, 16), (160, 160, 160))]
    assert len(handled) == 2
    assert seconds[0] > 0
    assert seconds[1] > 50 * seconds[0]
