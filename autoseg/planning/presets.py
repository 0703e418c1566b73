"""What the planner may spend: one table per preset."""

from dataclasses import dataclass
from typing import Literal

from autoseg.plan import PresetName, TrainingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Upper bounds of a 2D or a 3D configuration.

    Attributes:
        features: Channels of the feature maps.
        patch_voxels: Voxels of a patch, padding included; None if memory alone decides.
        batch_size: Patches of a training step; None if memory and the size of the dataset alone decide.
    """

    features: int
    patch_voxels: int | None = None
    batch_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """How large networks, patches and batches may be, and how long they train.

    Attributes:
        residual: See `Architecture`.
        base_features: Of the first stage; they double from stage to stage.
        convolutions: Per stage, from the first; the last number holds for all further stages.
        plane, volume: Limits in 2D and in 3D.
        training: The schedule.
    """

    residual: Literal["stage", "none"]
    base_features: int
    convolutions: tuple[int, ...]
    plane: Limits
    volume: Limits
    training: TrainingSettings

    def limits(self, dimensions: int) -> Limits:
        """Those of a 2D or a 3D configuration."""
        return self.plane if dimensions == 2 else self.volume


PRESETS: dict[PresetName, Preset] = {
    # For a GPU. Source: features of the reference method, convolutions per stage of V-Net (Milletari et al. 2016).
    "standard": Preset(
        residual="stage",
        base_features=32,
        convolutions=(1, 2, 3),
        plane=Limits(features=512),
        volume=Limits(features=320),
        training=TrainingSettings(),
    ),
    # For two CPU cores or a laptop. Decision: half the features and patches of 64 voxels along each edge, a tenth of
    # what 8 GB hold. Momentum 0.99 looks back 100 steps, too slow for a schedule of minutes; 0.9 with a larger learning
    # rate and the average of the weights learn several times faster (figures: tests/benchmarks/RESULTS.md).
    "small": Preset(
        residual="stage",
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
    ),
}
