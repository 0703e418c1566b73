"""A segmenter of networks that torch calculates, from their checkpoints."""

import torch

from autoseg.imaging.postprocessing import PostprocessingRules
from autoseg.inference.averaged_networks import Networks, check_folds
from autoseg.inference.network_predictor import NetworkPredictor, count_at_once
from autoseg.inference.prediction_quality import BEST, PredictionQuality
from autoseg.inference.segmenter import Segmenter, assemble_segmenter
from autoseg.models.build import place_network, restore_network
from autoseg.models.checkpoint import Checkpoint
from autoseg.models.weight_digest import digest_weights


def make_segmenter(
    checkpoints: list[Checkpoint],
    rules: PostprocessingRules,
    device: torch.device,
    *,
    quality: PredictionQuality = BEST,
    exact: bool = False,
    previous: Segmenter | None = None,
) -> Segmenter:
    """Builds the ensemble of some folds of one configuration.

    Args:
        checkpoints: Checkpoints of at least one fold.
        rules: Postprocessing of each segmentation.
        device: Device of the networks.
        quality: Mirror images along the axes that training mirrored, distance of tiles, resampling of images.
        exact: Whether to calculate in float32, even where a lower precision is faster.
        previous: For a cascade, the coarser configuration; left out if the cases bring its segmentation with them.

    Raises:
        ModelError: The folds are of different configurations or plans, or the weights do not fit the plan; or the
            network is not built in, and no installed package offers it.
    """
    check_folds(checkpoints)
    first = checkpoints[0]
    networks = Networks(
        folds=checkpoints,
        predictors=[
            NetworkPredictor(place_network(restore_network(fold), device, exact=exact), device, exact=exact)
            for fold in checkpoints
        ],
        digests=[digest_weights(fold.weights) for fold in checkpoints],
        device=device,
        at_once=count_at_once(first.configuration.patch_size, first.configuration.batch_size, device),
    )
    return assemble_segmenter(networks, rules, quality=quality, exact=exact, previous=previous)
