"""nnFormer: alternating convolutions and attention, with skip attention instead of concatenation, for volumes.

Source: Zhou et al. 2023, "nnFormer: volumetric medical image segmentation via a 3D transformer"; its blocks
are those of the Swin transformer, in three dimensions; see `swin`.

    image 128 x 128 x 128
      | two convolutions, 48, the first of stride 2
    64^3    48
      | two convolutions, 96, the first of stride 2
    32^3    96   2 blocks, windows of 4, norm ------------------------------ skip, block, 96 -> logits 128^3
      v down                                                                   ^ up
    16^3   192   2 blocks, windows of 4, norm --------------- skip, block, 192 -> logits 64^3
      v down                                                    ^ up
     8^3   384   2 blocks, windows of 8, norm -- skip, block, 384 -> logits 32^3
      v down                                       ^ up
     4^3   768   2 blocks, windows of 4, norm -----'

    convolutions   3x3x3; each but the last followed by GELU and norm; the last one by a norm alone
    down           GELU, norm, convolution of stride 2 to twice the features
    up             norm, transposed convolution of stride 2 to half the features
    skip           a block whose queries come from the decoder, and whose keys and values are linear layers of the skip
    block          in shifted windows
    logits         transposed convolutions whose stride is the size of a token; only the finest predict

With the patches that it was made for, the windows of 8, and those of 4 below, cover their whole map. Any patch that the
strides divide is possible: windows are clipped to the map, and maps that windows do not divide are padded inside the
attention, where padding is masked.

The paper has three settings. Decision: the default is that for brain tumours, because its tokens and windows suit
isotropic volumes, and it has a quarter of the weights. The others, as settings of a plan:

    tumours   128 x 128 x 128 voxels, the default: 37,754,190 weights for four channels and four classes
    organs    64 x 128 x 128: {"features": 192, "token": [2, 4, 4], "decoder_head_features": 32}
              150,054,210 weights for one channel and 14 classes, 149,538,086 without deep supervision
    heart     14 x 160 x 160: {"token": [1, 4, 4], "reductions": [[1, 2, 2], [2, 2, 2], [2, 2, 2]],
              "windows": [[3, 5, 5], [3, 5, 5], [7, 10, 10], [3, 5, 5]], "decoder_head_features": 32}
              37,197,072 weights for one channel and four classes

These numbers determine all layers with weights. Among 32 combinations only this one gives the first two exactly: maps
leave the embedding, and each level of the encoder, through a norm; they are normalized before they are upsampled; skip
attention has a relative position bias of its own, and no linear layer for its queries. The third then leaves only
kernels that span three voxels of the axes that a stage strides, and one voxel of the others. The numbers do not
determine layers without weights.

Decision: the first convolution strides an axis by at most 2, the third by what is left. Decision: the shortcut around
the skip attention is the sum of the upsampled map and the skip. Decision: 16 slices instead of 14 for the heart, since
maps of 7 slices are not halved evenly. Decision: the coarsest logits do not count in the loss, and the two others count
2/3 and 1/3: the rule of all networks here. Decision: a block's rate of stochastic depth is the same in the decoder as
at its resolution in the encoder.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import Field

from autoseg.networks.architecture import PositiveInt, Section
from autoseg.networks.literature.swin import SwinStage, count_heads, drop_path_rates, swin_stage
from autoseg.networks.ops import Ops
from autoseg.networks.spec import NetworkSpec, adam

Value = TypeVar("Value")

DEPTH = 4
"""Number of resolutions at which there is attention."""
BLOCKS = 2
"""Number of blocks at each of them, in the encoder and in the decoder. Source: the paper."""

Edges = tuple[PositiveInt, PositiveInt, PositiveInt]
TokenEdge = Literal[1, 2, 4]
Step = Literal[1, 2]
Steps = tuple[Step, Step, Step]


class NnFormerSettings(Section):
    """The settings of nnFormer in a plan.

    Attributes:
        features: Number of features of the first blocks; it doubles at each coarser resolution. The first two
            convolutions have half of it, of which a norm needs more than one.
        token: Voxels of the image along each axis that become one token.
        reductions: Stride along each axis of each of the next resolutions.
        windows: Edges of the windows in voxels at each resolution, from the finest.
        head_features: Number of features per attention head in the encoder, or fewer if the features are fewer.
        decoder_head_features: Number of features per attention head in the decoder, or fewer if the features are fewer.
        deep_supervision: Whether the coarser resolutions of the decoder have logits, and are trained too.
        drop_path: Largest rate of stochastic depth: the fraction of samples that skip a residual branch in training.
    """

    features: Annotated[int, Field(ge=4)] = 96
    token: tuple[TokenEdge, TokenEdge, TokenEdge] = (4, 4, 4)
    reductions: tuple[Steps, Steps, Steps] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    windows: tuple[Edges, Edges, Edges, Edges] = ((4, 4, 4), (4, 4, 4), (8, 8, 8), (4, 4, 4))
    head_features: PositiveInt = 32
    decoder_head_features: PositiveInt = 16
    deep_supervision: bool = True
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.2

    @property
    def embedding(self) -> int:
        """Number of features of the first two convolutions."""
        return self.features // 2

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of features of the blocks at each of their resolutions."""
        return tuple(self.features * 2**level for level in range(DEPTH))

    @property
    def strides(self) -> tuple[tuple[int, ...], ...]:
        """Stride of all strided convolutions: the first and the third of the embedding, and the downsampling ones."""
        first = tuple(min(2, edge) for edge in self.token)
        second = tuple(edge // step for edge, step in zip(self.token, first, strict=True))
        return (first, second, *self.reductions)

    def stage(self, level: int, side: Literal["encoder", "decoder"]) -> SwinStage:
        """Returns the blocks at a resolution of the encoder or the decoder."""
        head_features = self.head_features if side == "encoder" else self.decoder_head_features
        return SwinStage(
            name=f"{side}.{level}",
            heads=count_heads(self.features, head_features) * 2**level,
            edges=self.windows[level],
            drop_path_rates=drop_path_rates(self.drop_path, (BLOCKS,) * DEPTH)[level],
        )


def forward(ops: Ops[Value], image: Value, classes: int, settings: NnFormerSettings) -> list[Value]:
    """Runs the forward pass of nnFormer; see `spec.ForwardFunction`."""
    *skips, x = _encode(ops, image, settings)
    logits: list[Value] = []
    for level in reversed(range(DEPTH - 1)):
        x = ops.layer_norm(x, f"up{level}.norm")
        x = ops.transposed_conv(x, settings.widths[level], settings.reductions[level], f"up{level}.conv")
        x = swin_stage(ops, x, settings.stage(level, "decoder"), skips[level])
        if level == 0 or (settings.deep_supervision and ops.training):
            logits.insert(0, ops.transposed_conv(x, classes, settings.token, f"heads.{level}"))
    return logits


def _encode(ops: Ops[Value], image: Value, settings: NnFormerSettings) -> list[Value]:
    """Returns the normalized maps of the encoder, from the finest to the coarsest."""
    x, maps = _embed(ops, image, settings), []
    for level, features in enumerate(settings.widths):
        if level > 0:
            steps = settings.reductions[level - 1]
            x = ops.layer_norm(ops.gelu(x), f"down{level}.norm")
            x = ops.conv(x, features, tuple(2 * step - 1 for step in steps), f"down{level}.conv", stride=steps)
        x = swin_stage(ops, x, settings.stage(level, "encoder"))
        maps.append(ops.layer_norm(x, f"skips.{level}"))
    return maps


def _embed(ops: Ops[Value], image: Value, settings: NnFormerSettings) -> Value:
    """Returns the tokens, by four convolutions, two of which stride."""
    x, widths = image, (settings.embedding, settings.features)
    for number in range(4):
        strides = settings.strides[number // 2] if number % 2 == 0 else 1
        x = ops.conv(x, widths[number // 2], 3, f"embedding.{number}.conv", stride=strides)
        x = ops.layer_norm(ops.gelu(x) if number < 3 else x, f"embedding.{number}.norm")
    return x


NNFORMER = NetworkSpec(
    title="nnFormer",
    summary="alternating convolutions and attention in windows, with skip attention",
    source="Zhou et al. 2023, IEEE TIP, arXiv 2109.03201",
    licence="official code: MIT; not used here",
    dimensions=(3,),
    settings=NnFormerSettings,
    levels=lambda settings: (settings.embedding, settings.embedding, *settings.widths),
    strides=lambda settings: settings.strides,
    forward=forward,
    supervises=lambda settings: settings.deep_supervision,
    training=lambda _: adam(1e-3),
    recipe="SGD at 0.01 with momentum 0.99",
)
