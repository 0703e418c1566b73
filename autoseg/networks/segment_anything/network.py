"""The whole network of Segment Anything, and the loading of its weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from autoseg.errors import ModelError
from autoseg.networks.segment_anything.image_encoder import ImageEncoder
from autoseg.networks.segment_anything.mask_decoder import MaskDecoder
from autoseg.networks.segment_anything.prompt_encoder import PromptEncoder
from autoseg.networks.segment_anything.sizes import ANOTHER_NETWORK, Sizes, read_sizes


class SegmentAnything(nn.Module):
    """Segments what is prompted in an image.

    Args:
        sizes: Sizes of the network.

    Example:
        >>> from autoseg.networks.segment_anything.sizes import VIT_B
        >>> with torch.device("meta"):
        ...     network = SegmentAnything(VIT_B)
        >>> sum(weight.numel() for weight in network.parameters())
        93735472
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.image_encoder = ImageEncoder(sizes)
        self.prompt_encoder = PromptEncoder(sizes)
        self.mask_decoder = MaskDecoder(sizes)

    @property
    def device(self) -> torch.device:
        """The device of the weights, where the network calculates."""
        return self.image_encoder.pos_embed.device

    def encode(self, image: Tensor) -> Tensor:
        """Maps images (n, 3, image, image) to (n, features, grid, grid); all prompts of an image share the result."""
        encoded: Tensor = self.image_encoder(image)
        return encoded

    def decode(
        self, encoded: Tensor, points: Tensor, kinds: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the masks of prompts.

        Args:
            encoded: An encoded image, shape (1, features, grid, grid), or one for each prompt.
            points: Points and corners of boxes in pixels; see `PromptEncoder.encode_points`.
            kinds: What each of them means.
            mask: Logits of a coarse mask for each prompt, (n, 1, 4 * grid, 4 * grid); None without.

        Returns:
            Logits (n, masks, 4 * grid, 4 * grid) and estimates of their intersection over union (n, masks); see
            `MaskDecoder.forward`.
        """
        tokens = self.prompt_encoder.encode_points(points, kinds)
        coarse = self.prompt_encoder.encode_mask(mask)
        masks: tuple[Tensor, Tensor] = self.mask_decoder(encoded, self.prompt_encoder.encode_grid(), tokens, coarse)
        return masks


def build_from_weights(weights: Mapping[str, Tensor], source: str) -> SegmentAnything:
    """Builds the network that weights are of, in float32, ready to predict.

    Args:
        weights: All weights of the network, by their published names.
        source: Where they came from, for errors.

    Raises:
        ModelError: They are of another network, or not finite.
    """
    with torch.device("meta"):
        network = SegmentAnything(read_sizes(weights, source)).requires_grad_(requires_grad=False)
    expected = network.state_dict()
    for name, weight in expected.items():
        if name not in weights:
            raise ModelError(f"{source} lacks the weights {name!r} of Segment Anything", ANOTHER_NETWORK)
        if weights[name].shape != weight.shape:
            shapes = f"{_describe(weights[name])} instead of {_describe(weight)}"
            raise ModelError(f"{source}: the weights {name!r} have the shape {shapes}", ANOTHER_NETWORK)
        if not weights[name].isfinite().all():
            raise ModelError(f"{source}: the weights {name!r} are not all finite", "get a sound copy")
    surplus = sorted(weights.keys() - expected.keys())
    if surplus:
        raise ModelError(f"{source} holds the weights {surplus[0]!r}, which this network has not", ANOTHER_NETWORK)
    network.load_state_dict({name: weights[name].float() for name in expected}, assign=True)
    return network.eval()


def _describe(weight: Tensor) -> str:
    return " x ".join(map(str, weight.shape)) or "a number"
