"""How large the parts of a network of Segment Anything are."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from autoseg.errors import ModelError

ANOTHER_NETWORK = "give the weights of Segment Anything or MedSAM, or of a network of the same architecture"

DECODER_HEADS = 8
"""Heads of all attention in the mask decoder, which no weight shows. Source: the published implementation."""

LARGEST_IMAGE = 2048
"""Largest image, in pixels along an edge. Decision: twice the published one, so that no file can ask for more memory
than a machine has."""

GRID = "image_encoder.pos_embed"
PATCHES = "image_encoder.patch_embed.proj.weight"
POINTS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Sizes of a network.

    Attributes:
        grid: Patches along an edge of the image.
        patch: Pixels along an edge of a patch.
        width: Features of a patch in the image encoder.
        head_width: Features of each head of its attention.
        hidden: Features between the two layers of its perceptrons.
        windows: For each block of the image encoder, the patches along an edge of the windows in which it attends;
            `grid` for attention over the whole image.
        features: Features of the encoded image, and of the tokens of prompts.
        mask_features: Features of a coarse mask, before it gets `features`.
        layers: Layers of the transformer of the mask decoder.
        attention_width: Features of its attention between tokens and image.
        token_hidden: Features between the two layers of its perceptrons.
        masks: Masks that the decoder makes: one for a clear prompt, and the others for one that may mean several.
        quality_hidden: Features of the perceptron that estimates the quality of masks.
        quality_layers: Its layers.
    """

    grid: int = 64
    patch: int = 16
    width: int = 768
    head_width: int = 64
    hidden: int = 3072
    windows: tuple[int, ...] = (14, 14, 64) * 4
    features: int = 256
    mask_features: int = 16
    layers: int = 2
    attention_width: int = 128
    token_hidden: int = 2048
    masks: int = 4
    quality_hidden: int = 256
    quality_layers: int = 3

    @property
    def image(self) -> int:
        """Pixels along an edge of the image."""
        return self.grid * self.patch


def published(width: int, head_width: int, depth: int) -> Sizes:
    """Returns sizes of the published kind: every quarter of the image encoder ends with attention over the image.

    Example:
        >>> published(768, 64, 12) == Sizes()
        True
    """
    windows = (*(14,) * (depth // 4 - 1), 64) * 4
    return Sizes(width=width, head_width=head_width, hidden=4 * width, windows=windows)


VIT_B, VIT_L, VIT_H = published(768, 64, 12), published(1024, 64, 24), published(1280, 80, 32)
"""The published sizes: 93,735,472, 312,342,832 and 641,090,608 parameters. MedSAM has the first."""


def read_sizes(weights: Mapping[str, Tensor], source: str) -> Sizes:
    """Reads from the shapes of weights how large their network is.

    Args:
        weights: Weights by their published names.
        source: Where they came from, for errors.

    Raises:
        ModelError: They are of another network, or of one for larger images than `LARGEST_IMAGE`.
    """
    shapes = _Shapes(weights, source)
    width, _, patch, _ = shapes.of(PATCHES, 4)
    _, grid, columns, _ = shapes.of(GRID, 4)
    if grid != columns or not 0 < grid * patch <= LARGEST_IMAGE:
        what = f"{source} is for images of {grid * patch} x {columns * patch} pixels"
        raise ModelError(what, f"give a network for square images of up to {LARGEST_IMAGE} pixels")
    windows: list[int] = []
    while (name := f"image_encoder.blocks.{len(windows)}.attn.rel_pos_h") in weights:
        length, head_width = shapes.of(name, 2)
        windows.append(min((length + 1) // 2, grid))
    if not windows or min(windows) < 1 or width % max(head_width, 1):
        raise shapes.differ(f"image_encoder.blocks.{max(len(windows) - 1, 0)}.attn.rel_pos_h")
    decoder = "mask_decoder"
    masks, features = shapes.of(f"{decoder}.mask_tokens.weight", 2)
    return Sizes(
        grid=grid,
        patch=patch,
        width=width,
        head_width=head_width,
        hidden=shapes.of("image_encoder.blocks.0.mlp.lin1.weight", 2)[0],
        windows=tuple(windows),
        features=features,
        mask_features=shapes.of("prompt_encoder.mask_downscaling.3.weight", 4)[0],
        layers=shapes.count(f"{decoder}.transformer.layers.{{}}.norm1.weight"),
        attention_width=shapes.of(f"{decoder}.transformer.final_attn_token_to_image.q_proj.weight", 2)[0],
        token_hidden=shapes.of(f"{decoder}.transformer.layers.0.mlp.lin1.weight", 2)[0],
        masks=masks,
        quality_hidden=shapes.of(f"{decoder}.iou_prediction_head.layers.0.weight", 2)[0],
        quality_layers=shapes.count(f"{decoder}.iou_prediction_head.layers.{{}}.weight"),
    )


@dataclass(frozen=True, slots=True)
class _Shapes:
    """The shapes of weights, and the error if there is no such weight."""

    weights: Mapping[str, Tensor]
    source: str

    def of(self, name: str, dimensions: int) -> tuple[int, ...]:
        """Returns the shape of a weight."""
        if name not in self.weights:
            raise ModelError(f"{self.source} lacks the weights {name!r} of Segment Anything", ANOTHER_NETWORK)
        shape = tuple(self.weights[name].shape)
        if len(shape) != dimensions or 0 in shape:
            raise self.differ(name)
        return shape

    def count(self, pattern: str) -> int:
        """Returns how many weights a pattern names, counted from 0."""
        number = 0
        while pattern.format(number) in self.weights:
            number += 1
        return number

    def differ(self, name: str) -> ModelError:
        """Returns the error of a weight whose shape none of these networks has."""
        if name not in self.weights:
            return ModelError(f"{self.source} lacks the weights {name!r} of Segment Anything", ANOTHER_NETWORK)
        shape = " x ".join(map(str, self.weights[name].shape))
        return ModelError(f"{self.source}: the weights {name!r} have the shape {shape}", ANOTHER_NETWORK)
