"""The networks of the literature on a pretended GPU, in a program of its own, because they keep constants there."""

import pytest
from fake_cuda import requires_pretended_cuda
from fake_cuda_backward import run_apart

pytestmark = [pytest.mark.slow, requires_pretended_cuda]


def test_no_network_waits_for_the_gpu():
    """Masks, positions and window indices are made once for each size, not in each pass."""
    run_apart("from fake_gpu_steps import check_literature; check_literature()")
