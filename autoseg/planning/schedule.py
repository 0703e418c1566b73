"""Chooses the number of epochs by the size of the images.

Source: ten datasets of the Medical Segmentation Decathlon, each trained by the reference method for 1000 epochs of 250
steps, five folds of 3d_fullres (curves and plans published with AutoNNUnet, plain U-Net). "Needed" is the first epoch
at which the pseudo Dice, a running mean over 20 epochs, was within 0.005 of where it ended; fewest to most of the five
folds. Voxels are those of the typical image at the spacing of training.

    dataset          voxels   cases  classes   epochs needed   rule
    Hippocampus      0.06 M     260        2        20 to  26    100
    Prostate          2.0 M      32        2        38 to 403    410
    BrainTumour       3.2 M     484        3        41 to 338    410
    Heart             8.5 M      20        1        44 to 233    410
    Pancreas           25 M     281        2       396 to 855   1000
    HepaticVessel      39 M     303        2       730 to 936   1000
    Colon              39 M     126        1       339 to 927   1000
    Spleen             49 M      41        1       442 to 823   1000
    Lung               66 M      63        1       495 to 947   1000
    Liver             126 M     131        2       459 to 855   1000

The size of the images separates the quick from the slow datasets; the number of cases (20 to 484 among the quick, 41 to
303 among the slow) and of classes does not. Small structures coincide with large images here, so these figures cannot
separate the two causes; every fingerprint holds the size of the images, also those of nnU-Net, but not the size of the
structures.

Decision: as many epochs as the slowest fold of datasets of that size needed; between these sizes, linear interpolation
over the logarithm of the voxels.

Limits: the figures are upper bounds, since curves whose learning rate has still to fall reach their end late: a shorter
schedule that anneals completely may do as well, which has not been measured here; `--budget quick` tries it, and
`--extend` continues if it was too short. All ten datasets are volumes of at most three structures. 2D images were not
measured: they keep the number of their preset.
"""

from itertools import pairwise
from math import log10
from typing import NamedTuple

from autoseg.planning.presets import Preset
from autoseg.planning.settings import TrainingSettings
from autoseg.planning.spacing import TargetGrid

FEWEST_EPOCHS = 100
MOST_EPOCHS = 1000


class _NeededEpochs(NamedTuple):
    """The number of epochs that was enough for images of a number of voxels."""

    voxels: float
    epochs: int


NEEDED_EPOCHS = (
    _NeededEpochs(6e4, FEWEST_EPOCHS),
    _NeededEpochs(2e6, 410),
    _NeededEpochs(8.5e6, 410),
    _NeededEpochs(2.5e7, MOST_EPOCHS),
)


def choose_training(preset: Preset, grid: TargetGrid) -> TrainingSettings:
    """Returns the training settings of the preset, with epochs by the size of the images if the preset says so.

    Args:
        preset: The preset.
        grid: The grid of the resampled cases.
    """
    if not preset.epochs_by_size or grid.is_flat:
        return preset.training
    return preset.training.model_copy(update={"epochs": choose_epochs(grid.image_voxels)})


def choose_epochs(voxels: float) -> int:
    """Returns the number of epochs for typical images of so many voxels, in tens; see the module.

    >>> choose_epochs(64**3)
    230
    """
    if voxels <= NEEDED_EPOCHS[0].voxels:
        return NEEDED_EPOCHS[0].epochs
    for (fewer, low), (more, high) in pairwise(NEEDED_EPOCHS):
        if voxels <= more:
            fraction = log10(voxels / fewer) / log10(more / fewer)
            return round((low + fraction * (high - low)) / 10) * 10
    return NEEDED_EPOCHS[-1].epochs


def explain_training(training: TrainingSettings, preset: Preset, grid: TargetGrid) -> str:
    """Returns a sentence on how long training lasts, and why."""
    length = f"Training lasts {training.epochs} epochs of {training.steps_per_epoch} steps"
    if preset.reference is not None:
        return f"{length}, as in the reference method."
    if not preset.epochs_by_size:
        return f"{length}, few, because the preset is made for a CPU."
    if grid.is_flat:
        return f"{length}; how many pictures need was not measured."
    return (
        f"{length}, because a typical image has {_count(grid.image_voxels)} voxels: of ten public datasets, those with "
        "images of 0.06 million needed up to 26 epochs, of 2 to 9 million up to 403, and larger ones up to 947."
    )


def _count(voxels: float) -> str:
    return f"{voxels / 1e6:.2g} million" if voxels < 1e7 else f"{voxels / 1e6:.0f} million"
