"""What a training step asks of its run, for benchmarks that take steps of one batch, without a dataset or a plan."""

from math import prod
from types import SimpleNamespace

import torch

from autoseg.networks.architecture import Architecture, Axes
from autoseg.planning.patch_growth import PatchStage
from autoseg.planning.settings import TrainingSettings
from autoseg.training.losses import Loss
from autoseg.training.ranks import ALONE
from autoseg.training.stopping import NEVER


def make_single_batch_run(
    architecture: Architecture,
    loss: Loss,
    *,
    patch: Axes,
    batch_size: int,
    device: torch.device,
    settings: TrainingSettings,
) -> SimpleNamespace:
    """Returns a stand-in of `Run` whose patches keep their size."""
    stage = PatchStage(patch_size=patch, batch_size=batch_size)
    configuration = SimpleNamespace(
        architecture=architecture,
        batch_size=batch_size,
        patch_voxels=prod(patch),
        patch_growth=(),
        stage_at=lambda _progress, **_options: stage,
    )
    return SimpleNamespace(
        settings=settings,
        loss=loss,
        device=device,
        training=SimpleNamespace(configuration=configuration, seed=(0, 0)),
        ranks=ALONE,
        stop=NEVER,
    )
