"""Trainer classes of nnU-Net, whose names are stored in checkpoints.

They differ in the loss, the optimizer, the learning rate schedule, the number of epochs, the augmentation or the axes
of mirroring. A model of any of them predicts according to its plans, its weights and its axes of mirroring. A custom
trainer may also change the preprocessing or the prediction, which its checkpoint does not tell.

Source: nnU-Net v2.8.1, training/nnUNetTrainer and its variants. Trainers whose networks do not exist here (batch
normalization, Primus) are left out; their models are refused because of their weights or their plans.
"""

import re

USUAL_TRAINER = "nnUNetTrainer"

_VARIANTS = (
    *("Adam", "Adam1en3", "Adam3en4", "VanillaAdam", "VanillaAdam1en3", "VanillaAdam3en4"),
    *("Adan", "Adan1en1", "Adan1en3", "Adan3en4", "AdanCosAnneal", "CosAnneal", "_warmup"),
    *("CELoss", "CELoss_5epochs", "DiceLoss", "DiceCELoss_noSmooth", "NoDeepSupervision"),
    *("DiceTopK10Loss", "Topk10Loss", "Topk10LossLS01"),
    *("NoDA", "DA5", "DA5ord0", "DA5Segord0", "DA5_10epochs", "_DASegOrd0", "_DASegOrd0_NoMirroring"),
    *("NoMirroring", "_onlyMirror01", "_onlyMirror01_1500ep", "_onlyMirror01_DA5", "_onlyMirror01_DASegOrd0"),
    *("_noDummy2DDA", "Benchmark_5epochs", "Benchmark_5epochs_noDataLoading"),
    *("_probabilisticOversampling", "_probabilisticOversampling_010", "_probabilisticOversampling_033"),
)

_WITH_EPOCHS = re.compile(rf"{USUAL_TRAINER}_[1-9]\d{{0,4}}epochs?(_NoMirroring)?", re.ASCII)
"""Trainers that differ in the number of epochs: from 1 to 8000 in nnU-Net, and users add more of them."""


def is_known(trainer: str) -> bool:
    """Tells whether a trainer is part of nnU-Net.

    >>> is_known("nnUNetTrainer_250epochs"), is_known("nnUNetTrainerMine")
    (True, False)
    """
    variant = trainer.removeprefix(USUAL_TRAINER)
    usual = trainer == USUAL_TRAINER or _WITH_EPOCHS.fullmatch(trainer) is not None
    return usual or (variant != trainer and variant in _VARIANTS)
