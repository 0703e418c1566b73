"""The prompt encoder: points, the corners of boxes, and coarse masks become features."""

from enum import IntEnum
from math import pi

import torch
from torch import Tensor, nn

from autoseg.networks.convolutions import Conv2d
from autoseg.networks.segment_anything.layers import map_norm
from autoseg.networks.segment_anything.sizes import Sizes


class TokenKind(IntEnum):
    """What a point of a prompt means."""

    PADDING = -1
    BACKGROUND = 0
    FOREGROUND = 1
    FIRST_CORNER = 2
    LAST_CORNER = 3


class PromptEncoder(nn.Module):
    """Encodes prompts.

    Args:
        sizes: Sizes of the network.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.image, self.grid = sizes.image, sizes.grid
        self.pe_layer = _FourierFeatures(sizes.features)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, sizes.features) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, sizes.features)
        self.no_mask_embed = nn.Embedding(1, sizes.features)
        quarter = sizes.mask_features // 4
        self.mask_downscaling = nn.Sequential(
            Conv2d(1, quarter, 2, stride=2),
            map_norm(quarter),
            nn.GELU(),
            Conv2d(quarter, sizes.mask_features, 2, stride=2),
            map_norm(sizes.mask_features),
            nn.GELU(),
            Conv2d(sizes.mask_features, sizes.features, 1),
        )

    def encode_points(self, points: Tensor, kinds: Tensor) -> Tensor:
        """Encodes points and corners of boxes.

        A prompt without a box ends with a point that counts as padding, since the network learned it so.

        Args:
            points: Pixels (x, y), which may be fractional and count from the centre of the first; shape (n, points, 2).
            kinds: A `TokenKind` for each, shape (n, points).

        Returns:
            Tokens (n, points, features).
        """
        places: Tensor = self.pe_layer((points + 0.5) / self.image)
        tables = [self.not_a_point_embed, *self.point_embeddings]
        meanings = torch.cat([table.get_parameter("weight") for table in tables])
        return places * (kinds >= 0)[..., None] + meanings[kinds + 1]

    def encode_mask(self, mask: Tensor | None) -> Tensor:
        """Encodes a coarse mask.

        Args:
            mask: Logits (n, 1, 4 * grid, 4 * grid), as the mask decoder gives them; None if there is none.

        Returns:
            Features (n, features, grid, grid), or (1, features, 1, 1), which are the same everywhere.
        """
        if mask is None:
            return self.no_mask_embed.weight[:, :, None, None]
        encoded: Tensor = self.mask_downscaling(mask)
        return encoded

    def encode_grid(self) -> Tensor:
        """Returns the features of the places of all patches, shape (1, features, grid, grid)."""
        centres = (torch.arange(self.grid, device=self.no_mask_embed.weight.device) + 0.5) / self.grid
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        places: Tensor = self.pe_layer(torch.stack([columns, rows], dim=-1))
        return places.movedim(2, 0)[None]


class _FourierFeatures(nn.Module):
    """Sines and cosines of random combinations of the coordinates."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features // 2))

    def forward(self, places: Tensor) -> Tensor:
        """Maps places (..., 2), 0 to 1 from border to border, to (..., features)."""
        angles = 2 * pi * (2 * places - 1) @ self.positional_encoding_gaussian_matrix
        return torch.cat([angles.sin(), angles.cos()], dim=-1)
