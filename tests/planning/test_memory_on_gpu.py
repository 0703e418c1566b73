"""The estimate of memory, compared with that of a CUDA GPU."""

import pytest
import torch
from memory_cases import CASES, peak_bytes

from autoseg.planning.memory import CONTEXT_BYTES, training_bytes

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_estimate_is_the_peak_of_training(case):
    """The peak of three training steps is within a tenth of the estimate, without its allowance for the context."""
    estimate = training_bytes(case.architecture(), case.patch_size, case.batch_size) - CONTEXT_BYTES
    assert peak_bytes(case, torch.device("cuda")) == pytest.approx(estimate, rel=0.1)
