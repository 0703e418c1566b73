"""Whole images on a pretended GPU: tiles, folds, mirror images and their agreement, and the way back to the image."""

import numpy as np
import pytest
import torch
from fake_cuda import CUDA, pretended_cuda, requires_pretended_cuda
from fake_gpu_runs import fake_architecture

from autoseg.imaging.geometry import Box, Geometry
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import EnsembleAgreement
from autoseg.inference.network_predictor import NetworkPredictor
from autoseg.inference.prediction import Prediction
from autoseg.inference.predictor import EnsemblePredictor, MirroringPredictor
from autoseg.inference.sliding_window import predict_volume
from autoseg.networks.default_unet import UNet
from autoseg.preprocessing.case import PreprocessRecord

pytestmark = [pytest.mark.slow, requires_pretended_cuda]

WAITS_PER_TILE = 1
"""Largest number of waits per tile, with agreement or without: for the tile before, whose logits must be finite."""

LABELS = Targets.of_labels({"one": 1, "two": 2, "three": 3})
REGIONS = Targets(structures={f"s{n}": (n,) for n in range(1, 4)}, exclusive=False, region_class_order=(1, 2, 3))
MASKS = Targets(structures={f"s{n}": (n,) for n in range(1, 11)}, exclusive=False)
TARGETS = {"labels": LABELS, "regions": REGIONS, "masks": MASKS}

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def make_predictor(targets, dimensions=3, *, folds=1, axes=()):
    """Makes networks without values on the pretended GPU, mirrored along some axes."""
    architecture = fake_architecture("small", dimensions, classes=targets.outputs, stages=2)
    networks = tuple(NetworkPredictor(UNet(architecture), CUDA) for _ in range(folds))
    predictor = networks[0] if folds == 1 else EnsemblePredictor(networks)
    if not axes:
        return predictor
    swapped = ((1, 2),) if targets.exclusive else ()
    return MirroringPredictor(predictor, axes, axes[-1] if swapped else None, swapped, at_once=2)


def make_image(dimensions=3):
    """Makes an image of several tiles, of which each has values of its own."""
    depth = 12 if dimensions == 3 else 2
    return np.random.default_rng(0).normal(size=(1, depth, 21, 19)).astype(np.float32)


def predict(image, predictor, dimensions=3):
    """Predicts an image tile by tile, each of 16 voxels along its axes; returns the logits and the number of tiles."""
    tiles = []
    logits = predict_volume(
        image, predictor, patch_size=(16,) * dimensions, batch_size=1, device=CUDA, on_progress=tiles.append
    )
    return logits, len(tiles)


@pytest.mark.parametrize(("folds", "axes"), [(1, ()), (2, (0, 2))])
@pytest.mark.parametrize("kind", ["labels", "regions", "masks"])
def test_images_are_predicted_on_the_gpu(kind, folds, axes):
    """Logits stay there, and the segmentation is chosen there."""
    image, targets = make_image(), TARGETS[kind]
    with pretended_cuda() as counts:
        agreement = EnsembleAgreement(make_predictor(targets, folds=folds, axes=axes), targets, with_map=True)
        counts.reset()
        logits, tiles = predict(image, agreement)
        assert logits.device == CUDA
        assert counts.total_waits <= WAITS_PER_TILE * tiles, counts.list_waits()
        counts.reset()
        restore(logits, agreement, targets, image)
    assert {kind for _, kind, _ in counts.waits} <= {"copy from cuda to cpu", "copy from cpu to cuda", "tolist"}


def restore(logits, agreement, targets, image):
    """Brings a prediction back to the grid of a larger image."""
    record = PreprocessRecord(
        geometry=Geometry(shape=(26, 28, 30), spacing_mm=(1.0, 1.0, 1.0)),
        axis_order=(1, 0, 2),
        box=Box(start=(2, 3, 4), stop=(22, 26, 27)),
        shape=image.shape[1:],
        spacing_mm=(2.0, 1.5, 1.5),
    )
    prediction = Prediction(logits=logits, record=record, targets=targets, rules=NO_RULES, agreement=agreement.result())
    assert prediction.segmentation().geometry == record.geometry
    prediction.disagreement()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_tile_waits_a_stated_number_of_times(dimensions):
    """Without agreement."""
    image = make_image(dimensions)
    with pretended_cuda() as counts:
        predictor = make_predictor(LABELS, dimensions, axes=tuple(range(dimensions)))
        counts.reset()
        logits, tiles = predict(image, predictor, dimensions)
    assert logits.device == CUDA
    assert counts.total_waits <= WAITS_PER_TILE * tiles


def test_logits_go_to_the_cpu_where_the_gpu_is_small():
    """Networks run on the GPU all the same."""
    image = make_image()
    with pretended_cuda(free_bytes=0) as counts:
        logits, _ = predict(image, make_predictor(LABELS, axes=(0,)))
    assert logits.device.type == "cpu"
    assert counts.flops["other"] > 0


def test_batch_that_does_not_fit_is_divided():
    """Down to single tiles, and for good."""

    def fail(_module, inputs):
        if len(inputs[0]) > 1:
            raise FULL

    with pretended_cuda():
        predictor = make_predictor(LABELS)
        predictor.network.register_forward_pre_hook(fail)
        assert len(predictor(torch.zeros(4, 1, 16, 16, 16))) == 4
    assert predictor.most_patches == 1
