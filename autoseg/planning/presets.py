"""The presets, which limit network, patch and batch by the memory of a device, and the planning rules.

A preset gives upper bounds of networks, patches and batches and the length of training; the memory budget then decides
how much of that is used. The benefit of a preset was measured by its sources, on six datasets (mean Dice of BTCV, ACDC,
LiTS, BraTS 2021, KiTS 2023 and AMOS 2022; nnU-Net's benchmark of its own presets, all trained from scratch):

    network of the reference method                  memory    time    mean Dice
    plain U-Net                                      7.7 GB     9 h      86.77
    deeper encoder of residual blocks                9.1 GB    12 h      87.15
    the same, larger patches (3 times, for a CT)    22.7 GB    35 h      87.56
    the same, larger still                          36.6 GB    66 h      87.58

So memory is best spent first on a deeper network, which costs little, then on larger patches; above 24 GB there is
almost nothing to gain. No figure shows that more features help. Larger batches for small datasets lost Dice at 4 to 13
times the cost (hippocampus: 0.8904 with 9 patches, 0.8875 with 58, 0.8862 with 178; published with AutoNNUnet), so
every preset of this project limits the fraction of a dataset that one batch may hold.
"""

from dataclasses import dataclass, field
from typing import Literal

from autoseg.planning.patch_growth import PatchesName
from autoseg.planning.plan import PresetName, RulesName
from autoseg.planning.settings import TrainingSettings

BATCH_SHARE = 0.05
"""Largest fraction of the voxels of all training cases that one batch may hold. Source: the reference method."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds of a 2D or a 3D configuration.

    Attributes:
        features: Largest number of features of a stage.
        patch_voxels: Largest number of voxels of a patch with its padding; None if memory alone decides.
        batch_size: Largest number of patches of a training step; None if memory and the size of the dataset alone
            decide.
    """

    features: int
    patch_voxels: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureMapReference:
    """The feature map elements that the reference method compares a network with, calibrated for one amount of memory.

    Attributes:
        plane, volume: Number of elements of one patch in 2D and 3D.
        whole_batch: Whether the patch must be small enough for the full reference batch of twelve 2D or two 3D patches;
            otherwise a batch of two is enough.
    """

    plane: int
    volume: int
    whole_batch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """Upper bounds of networks, patches and batches, and the training settings.

    Attributes:
        memory_bytes: Device memory in bytes that the preset is made for.
        residual: See `Architecture`.
        base_features: Number of features of the first stage; it doubles from stage to stage.
        convolutions: Number of convolutions per block of each stage, from the first; the last number holds for all
            further stages.
        blocks: Number of blocks of each stage, in the same way.
        decoder_convolutions: See `Stage`.
        plane, volume: Limits in 2D and in 3D.
        batch_share: Largest fraction of the voxels of all training cases that one batch may hold.
        reference: Set for presets of the reference method only, which does not count bytes.
        training: The training settings.
        patches: Whether patches have one size during the training or grow to it; see `patch_growth`.
        epochs_by_size: Whether the number of epochs of the training settings is for 2D images only, and that for
            volumes follows from their size; see `schedule`.
    """

    memory_bytes: int
    residual: Literal["stage", "block", "none"] = "stage"
    base_features: int = 32
    convolutions: tuple[int, ...] = (1, 2, 3)
    blocks: tuple[int, ...] = (1,)
    decoder_convolutions: int | None = None
    plane: Limits = Limits(features=512)
    volume: Limits = Limits(features=320)
    batch_share: float = BATCH_SHARE
    reference: FeatureMapReference | None = None
    training: TrainingSettings = field(default_factory=TrainingSettings)
    patches: PatchesName = "fixed"
    epochs_by_size: bool = False

    def limits(self, dimensions: int) -> Limits:
        """Returns the limits of a 2D or a 3D configuration."""
        return self.plane if dimensions == 2 else self.volume


GB = 10**9


def _standard(gigabytes: int) -> Preset:
    """Returns a preset for a GPU of up to 10 GB.

    Source: features of the reference method, convolutions per stage of V-Net (Milletari et al. 2016, 1-2-3-3-3).
    """
    return Preset(memory_bytes=gigabytes * GB, epochs_by_size=True)


def _deep(gigabytes: int) -> Preset:
    """Returns a preset for a larger GPU: every encoder stage but the first repeats its residual block.

    Decision: the encoder then has 1, 4, 6, 6, ... convolutions, as deep as is worthwhile by the table above.
    """
    return Preset(memory_bytes=gigabytes * GB, blocks=(1, 2), epochs_by_size=True)


def _residual_encoder(gigabytes: int, *, plane: int, volume: int) -> Preset:
    """Returns a residual-encoder preset of the reference method. Source: nnU-Net v2.8.1."""
    return Preset(
        memory_bytes=gigabytes * GB,
        residual="block",
        convolutions=(2,),
        blocks=(1, 3, 4, 6),
        decoder_convolutions=1,
        batch_share=1,
        reference=FeatureMapReference(plane=plane, volume=volume, whole_batch=True),
        training=REFERENCE_TRAINING,
    )


REFERENCE_TRAINING = TrainingSettings(epochs=1000, steps_per_epoch=250, validation_steps=50)
"""Source: the reference method's trainer."""

PRESETS: dict[PresetName, Preset] = {
    # For two CPU cores or a laptop. Decision: half the features and patches of 64 voxels along each edge, a tenth of
    # what 8 GB hold. Momentum 0.99 averages over 100 steps, too slow for a schedule of minutes; 0.9 with a larger
    # learning rate and averaged weights learn several times faster (figures: tests/benchmarks/RESULTS.md).
    "small": Preset(
        memory_bytes=4 * GB,
        base_features=16,
        convolutions=(1, 2),
        plane=Limits(features=128, patch_voxels=192**2, batch_size=4),
        volume=Limits(features=128, patch_voxels=64**3, batch_size=2),
        training=TrainingSettings(
            epochs=100,
            steps_per_epoch=50,
            validation_steps=10,
            learning_rate=0.2,
            momentum=0.9,
            average_decay=0.99,
        ),
        patches="growing",
    ),
    "4gb": _standard(4),
    "8gb": _standard(8),
    "11gb": _deep(11),
    "16gb": _deep(16),
    "24gb": _deep(24),
    "40gb": _deep(40),
    "80gb": _deep(80),
    "plain": Preset(
        memory_bytes=8 * GB,
        residual="none",
        convolutions=(2,),
        reference=FeatureMapReference(plane=85_000_000, volume=560_000_000, whole_batch=False),
        training=REFERENCE_TRAINING,
    ),
    "resenc_m": _residual_encoder(8, plane=135_000_000, volume=680_000_000),
    "resenc_l": _residual_encoder(24, plane=380_000_000, volume=2_100_000_000),
    "resenc_xl": _residual_encoder(40, plane=560_000_000, volume=3_600_000_000),
}

LADDER: tuple[PresetName, ...] = ("4gb", "8gb", "11gb", "16gb", "24gb", "40gb", "80gb")
"""The presets that the memory budget chooses from, in the order of their memory."""

USEFUL_BYTES = PRESETS["24gb"].memory_bytes
"""The largest default memory budget: by the table above, more memory costs hours and gains nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The planning rules in which this project and the reference method differ.

    Attributes:
        flat_voxels: Largest number of slices for which there is no 3D configuration.
        flat_axis_first: Whether the axis across such slices comes first, regardless of its spacing.
        monotonic: Whether a larger budget must never give fewer voxels per training step.
        safe_mirroring: Whether labels of the left and the right keep their sides when patches are flipped.
        missing_channels: Whether training lets channels be missing if scans may lack some.
        presets: The presets that may be chosen.
    """

    flat_voxels: int
    flat_axis_first: bool
    monotonic: bool
    safe_mirroring: bool
    missing_channels: bool
    presets: tuple[PresetName, ...]


RULES: dict[RulesName, Rules] = {
    # Decision: a bottleneck has at least four voxels along each axis, so three slices are no volume. The reference
    # method has no rule for the sides of the body, nor for the effect of more memory.
    "autoseg": Rules(
        flat_voxels=3,
        flat_axis_first=True,
        monotonic=True,
        safe_mirroring=True,
        missing_channels=True,
        presets=("small", *LADDER),
    ),
    # Source: nnU-Net v2.8.1.
    "nnunet": Rules(
        flat_voxels=1,
        flat_axis_first=False,
        monotonic=False,
        safe_mirroring=False,
        missing_channels=False,
        presets=("plain", "resenc_m", "resenc_l", "resenc_xl"),
    ),
}
