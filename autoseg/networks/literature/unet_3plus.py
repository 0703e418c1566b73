"""UNet 3+: every level of the decoder sees all resolutions.

Source: Huang et al. 2020, "UNet 3+: a full-scale connected UNet for medical image segmentation", section 2.

    encoder                                   decoder (each: five branches of 64 features, concatenated, 320)
    E1   64   1        D1: E1               + up D2 x2 + up D3 x4 + up D4 x8 + up E5 x16  -> head -> logits
    E2  128   1/2      D2: pool E1 /2       + E2       + up D3 x2 + up D4 x4 + up E5 x8   -> head, enlarged
    E3  256   1/4      D3: pool E1 /4       + pool E2 /2    + E3  + up D4 x2 + up E5 x4   -> head, enlarged
    E4  512   1/8      D4: pool E1 /8       + pool E2 /4    + pool E3 /2 + E4 + up E5 x2  -> head, enlarged
    E5 1024   1/16                                                                  E5    -> head, enlarged
               '--> dropout -> 1 x 1 convolutions -> largest of all voxels -> present? absent?  (classification)

Each branch is a 3 x 3 convolution to 64 features, batch norm and ReLU, after max pooling or linear interpolation; the
concatenation of the five goes through such a convolution of 320 features. Encoder levels are two such convolutions.
Heads are 3 x 3 convolutions. With three channels and one output it has 26,971,777 weights; with heads for all levels
(deep supervision) 26,989,637.

The setting `classification` adds the paper's module that predicts from the coarsest map whether the image holds the
organ at all, with two outputs, presence and absence: 2,050 weights more, 26,991,687. They are trained by binary cross
entropy (`auxiliary_outputs`); where absence exceeds presence, the organ gets a probability of 0.

Decision: each output of the network has a presence and an absence of its own, the background too where it is one, since
a patch may lie completely within an organ. If all are absent, the softmax is that of the logits alone.
Decision: the classification affects prediction alone; in training the loss takes the logits unmasked. The released code
multiplies them by 0 or 1 in training too: then a false absence keeps the decoder from learning about what is there.
Decision: it multiplies logits, of which 0 is a probability of 1/2; here the odds go to 0, as the paper means.
Decision: absence holds for a patch, so the module is off by default: it is meant for slices that are seen whole.
"""

from typing import TypeVar

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.auxiliary_outputs import AuxiliaryOutput
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec

Value = TypeVar("Value")

DEPTH = 5
"""Number of resolutions, and so of branches of each level of the decoder."""
DROPOUT = 0.5
"""Dropout rate before the classification."""
CLASSIFIED = (AuxiliaryOutput(target="presence", weight=0.5), AuxiliaryOutput(target="absence", weight=0.5))
"""The outputs of the classification: the mean of both losses counts as much as the loss of the labels."""


class UNet3PlusSettings(Section):
    """The settings of UNet 3+ in a plan.

    Attributes:
        features: Number of features at full resolution and of each branch; in the encoder it doubles at each coarser
            resolution.
        deep_supervision: Whether every level has a head, whose logits are upsampled to full resolution and trained too.
        classification: Whether the network also predicts which structures are in a patch at all, and suppresses the
            others there.
    """

    features: PositiveInt = 64
    deep_supervision: bool = True
    classification: bool = False

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of features at each resolution of the encoder."""
        return tuple(self.features * 2**level for level in range(DEPTH))


def forward(ops: Ops[Value], image: Value, classes: int, settings: UNet3PlusSettings) -> list[Value]:
    """Runs the forward pass of UNet 3+; see `spec.ForwardFunction`."""
    maps: list[Value] = []
    for level, features in enumerate(settings.levels):
        x = ops.max_pool(maps[-1], 2) if maps else image
        for number in (0, 1):
            x = _conv_norm_relu(ops, x, features, f"encoder{level}.{number}")
        maps.append(x)
    encoder = maps.copy()
    for level in reversed(range(DEPTH - 1)):  # replaces the maps of the encoder by those of the decoder
        maps[level] = _fuse(ops, encoder[: level + 1], maps[level + 1 :], settings)
    logits = [ops.conv(maps[0], classes, 3, "heads.0")]
    if settings.deep_supervision and ops.training:
        logits += [
            ops.upsample(ops.conv(maps[level], classes, 3, f"heads.{level}"), 2**level) for level in range(1, DEPTH)
        ]
    if settings.classification:
        x = ops.dropout(encoder[-1], DROPOUT)
        scores = [ops.global_max_pool(ops.conv(x, classes, 1, f"heads.{name}")) for name in ("presence", "absence")]
        logits = logits + scores if ops.training else [ops.mask_absent(logits[0], *scores)]
    return logits


def _fuse(ops: Ops[Value], finer: list[Value], coarser: list[Value], settings: UNet3PlusSettings) -> Value:
    """Returns a level of the decoder from the encoder's maps down to its resolution and all coarser maps."""
    level, branches = len(finer) - 1, []
    for source, feature_map in enumerate([*finer, *coarser]):
        x = feature_map
        if source < level:
            x = ops.max_pool(x, 2 ** (level - source))
        elif source > level:
            x = ops.upsample(x, 2 ** (source - level))
        branches.append(_conv_norm_relu(ops, x, settings.features, f"decoder{level}.from{source}"))
    return _conv_norm_relu(ops, ops.concat(branches), DEPTH * settings.features, f"decoder{level}.fused")


def _conv_norm_relu(ops: Ops[Value], x: Value, features: int, name: str) -> Value:
    return ops.relu(ops.batch_norm(ops.conv(x, features, 3, f"{name}.conv"), f"{name}.norm"))


UNET_3PLUS = NetworkSpec(
    title="UNet 3+",
    summary="every level of the decoder sees all resolutions of the encoder",
    source="Huang et al. 2020, ICASSP, arXiv 2004.08790",
    licence="official code: no licence; not used here",
    dimensions=(2,),
    settings=UNet3PlusSettings,
    levels=lambda settings: settings.levels,
    forward=forward,
    supervises=lambda settings: settings.deep_supervision,
    auxiliary_outputs=lambda settings: CLASSIFIED if settings.classification else (),
    recipe="a sum of focal, multi-scale structural similarity and overlap losses, which are settings of training.loss",
)
