"""Whole training steps on a pretended GPU, with gradients, in programs of their own."""

import pytest
from fake_cuda_backward import requires_backward, run_apart

pytestmark = [pytest.mark.slow, requires_backward]

STEPS = [
    '"plain", (32, 32, 32)',
    '"plain", (32, 32, 32), bfloat16=False',
    '"small", (32, 32, 32), micro_batch_size=1',
    '"resenc_l", (32, 32, 32)',
    '"24gb", (32, 32, 32), average_decay=0.99',
    '"24gb", (32, 32, 32), recompute_activations=True',
    '"plain", (64, 64), optimizer="adamw", learning_rate=1e-3',
    '"resenc_l", (64, 64), schedule="plateau"',
]


@pytest.mark.parametrize("step", STEPS)
def test_gradients_are_on_the_gpu(step):
    """In the order of the weights, float32, and without a wait; in float16 the scaler waits once, as torch has it."""
    run_apart(f"from fake_gpu_steps import check_step; check_step({step})")


def test_memory_of_a_step_is_near_the_estimate():
    """The tensors that live at once take less than the estimate, which knows of copies that cuDNN makes."""
    rows = [row.split("\t") for row in run_apart("from fake_gpu_steps import write_peaks; write_peaks()").splitlines()]
    assert len(rows) == 12
    for name, estimate, peak in rows:
        assert 1.0 < int(estimate) / int(peak) < 1.25, (name, estimate, peak)
