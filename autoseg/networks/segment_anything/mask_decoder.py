"""The mask decoder: the encoded image and prompts become masks and estimates of their quality."""

import torch
from torch import Tensor, nn

from autoseg.networks.segment_anything.layers import Perceptrons, map_norm
from autoseg.networks.segment_anything.sizes import Sizes
from autoseg.networks.segment_anything.two_way_transformer import TwoWayTransformer


class MaskDecoder(nn.Module):
    """Decodes masks.

    Args:
        sizes: Sizes of the network.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        features, half, quarter = sizes.features, sizes.features // 4, sizes.features // 8
        self.transformer = TwoWayTransformer(sizes)
        self.iou_token = nn.Embedding(1, features)
        self.mask_tokens = nn.Embedding(sizes.masks, features)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(features, half, 2, stride=2),
            map_norm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptrons(features, features, quarter, 3) for _ in range(sizes.masks)
        )
        self.iou_prediction_head = Perceptrons(features, sizes.quality_hidden, sizes.masks, sizes.quality_layers)

    def forward(self, encoded: Tensor, places: Tensor, tokens: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """Decodes the masks of prompts.

        Args:
            encoded: The encoded image, shape (1, features, grid, grid), or one for each prompt.
            places: Features of the places of its patches, shape (1, features, grid, grid).
            tokens: Encoded points, shape (n, points, features).
            coarse: Encoded coarse masks, of a shape that is added to (n, features, grid, grid).

        Returns:
            Logits of all masks, shape (n, masks, 4 * grid, 4 * grid), the first for a prompt that is clear; and an
            estimate of the intersection over union of each with what is meant, shape (n, masks).
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        asked = torch.cat([own.expand(len(tokens), -1, -1), tokens], dim=1)
        image = (encoded + coarse).expand(len(tokens), -1, -1, -1)
        answers, pixels = self.transformer(asked, image.flatten(2).mT, places.flatten(2).mT)
        maps = self.output_upscaling(pixels.mT.unflatten(2, image.shape[2:]))
        weights = [network(answers[:, 1 + number]) for number, network in enumerate(self.output_hypernetworks_mlps)]
        logits = torch.einsum("nmf,nfyx->nmyx", torch.stack(weights, dim=1), maps)
        return logits, self.iou_prediction_head(answers[:, 0])
