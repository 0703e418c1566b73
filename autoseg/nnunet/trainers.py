"""The trainers that come with nnU-Net: classes by whose names a checkpoint says how it was trained.

They change the loss, the optimizer, the schedule, the length, the random changes of patches or what is mirrored. A
model of any of them predicts as its plans, its weights and its axes of mirroring say. What a class of somebody's own
does, nobody knows here; it may well prepare images or gather predictions in another way.

Source: nnU-Net v2.8.1, training/nnUNetTrainer and its variants. Left out are those whose networks are none of ours
(batch normalization, Primus): they are refused by their weights or their plans.
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

_OF_A_LENGTH = re.compile(rf"{USUAL_TRAINER}_[1-9]\d{{0,4}}epochs?(_NoMirroring)?", re.ASCII)
"""Those that differ in the number of epochs: from 1 to 8000 there, and people add more of them."""


def is_known(trainer: str) -> bool:
    """Whether a trainer is one of nnU-Net's."""
    variant = trainer.removeprefix(USUAL_TRAINER)
    usual = trainer == USUAL_TRAINER or _OF_A_LENGTH.fullmatch(trainer) is not None
    return usual or (variant != trainer and variant in _VARIANTS)
