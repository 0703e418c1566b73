"""Prediction on a pretended Apple GPU: without float64, and with the logits on the CPU."""

import numpy as np
import pytest
import torch
from fake_cuda import MPS, pretended_mps, requires_pretended_cuda
from fake_gpu_runs import fake_architecture

from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.network_predictor import NetworkPredictor
from autoseg.inference.predictor import EnsemblePredictor, MirroringPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.networks.default_unet import UNet

pytestmark = [pytest.mark.slow, requires_pretended_cuda]

LABELS = Targets.of_labels({"one": 1, "two": 2, "three": 3})
MASKS = Targets(structures={f"s{number}": (number,) for number in range(1, 11)}, exclusive=False)


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("targets", [LABELS, MASKS], ids=["labels", "masks"])
def test_images_are_predicted(targets, exact):
    """Folds and mirror images, with the agreement of their votes, whose sums are float64 and on the CPU."""
    image = np.random.default_rng(0).normal(size=(1, 12, 21, 19)).astype(np.float32)
    with pretended_mps():
        architecture = fake_architecture("small", classes=targets.outputs, stages=2)
        folds = tuple(NetworkPredictor(UNet(architecture), MPS, exact=exact) for _ in range(2))
        swapped = ((1, 2),) if targets.exclusive else ()
        predictor = MirroringPredictor(EnsemblePredictor(folds), (0, 2), 2 if swapped else None, swapped, at_once=2)
        agreement = EnsembleAgreement(predictor, targets, with_map=True)
        logits = predict_volume(image, agreement, patch_size=(16, 16, 16), batch_size=2, device=MPS)
        result = agreement.result()
    assert (logits.device.type, logits.dtype) == ("cpu", torch.float32)
    assert result.disagreement is not None
    assert isinstance(result.disagreement, np.ndarray)
