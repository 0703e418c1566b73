"""The network with weights of the user: a slice is encoded once, and each prompt on it becomes a mask."""

from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoseg.models.foreign_weights import read_foreign_weights
from autoseg.networks.segment_anything.network import SegmentAnything, build_from_weights
from autoseg.networks.segment_anything.prompt_encoder import TokenKind
from autoseg.prompting.pictures import Image, PictureFrame
from autoseg.prompting.planes import SlicePrompt
from autoseg.runtime.device import autocast

MOST_ENCODED = 32
"""Slices that stay encoded. Decision: a published network takes 4 MiB for each."""

Mask = NDArray[np.bool_]


class SliceSegmenter(Protocol):
    """Segments what is prompted on the slices of a volume."""

    @property
    def margin(self) -> float:
        """How far a box may be from what it is meant for, as a share of the longer side of a slice."""

    def segment(self, number: int, prompt: SlicePrompt) -> Mask:
        """Returns the mask (rows, columns) of a prompt on a slice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptedSegmenter:
    """The slices of a volume, and a network that segments them.

    Attributes:
        network: The network.
        pictures: Intensities from 0 to 1, shape (1 or 3, slices, rows, columns).
        frame: Where slices lie in the image of the network.
        margin: See `SliceSegmenter`. Source: MedSAM learned boxes that were up to 20 of 1024 pixels too large; half of
            that is the mean.
    """

    network: SegmentAnything
    pictures: Image
    frame: PictureFrame
    margin: float = 10 / 1024
    _encoded: OrderedDict[int, Tensor] = field(default_factory=OrderedDict, repr=False)

    def segment(self, number: int, prompt: SlicePrompt) -> Mask:
        """Returns the mask (rows, columns) of a prompt on a slice.

        A single point may mean several things, such as an organ or a vessel in it. Then the network makes several
        masks, of which the one is taken that it expects to be best; except if it learned from boxes alone.
        """
        encoded = self._encode(number)
        points, kinds = (tensor.to(self.network.device) for tensor in self._arrange(prompt))
        with torch.inference_mode():
            logits, qualities = self.network.decode(encoded, points, kinds)
            best = 0
            if prompt.box is None and len(prompt.points) == 1 and self.frame.preparation == "sam":
                best = 1 + int(qualities[0, 1:].argmax()) if qualities.shape[1] > 1 else 0
            mask: Mask = (self.frame.restore(logits[0, best]) > 0).cpu().numpy()
        return mask

    def _encode(self, number: int) -> Tensor:
        """Encodes a slice, unless it is encoded already."""
        if number not in self._encoded:
            device = self.network.device
            image = self.frame.prepare(self.pictures[:, number]).to(device)
            with torch.inference_mode(), autocast(device):
                self._encoded[number] = self.network.encode(image).float()
            if len(self._encoded) > MOST_ENCODED:
                self._encoded.popitem(last=False)
        return self._encoded[number]

    def _arrange(self, prompt: SlicePrompt) -> tuple[Tensor, Tensor]:
        """Returns the points of a prompt in pixels of the image, and their kinds; see `PromptEncoder.encode_points`."""
        places = [self.frame.place(row, column) for row, column, _ in prompt.points]
        kinds = [TokenKind.FOREGROUND if inside else TokenKind.BACKGROUND for _, _, inside in prompt.points]
        if prompt.box is None:
            places, kinds = [*places, (0.0, 0.0)], [*kinds, TokenKind.PADDING]
        else:
            top, left, bottom, right = prompt.box
            places = [*places, self.frame.place(top, left), self.frame.place(bottom, right)]
            kinds = [*kinds, TokenKind.FIRST_CORNER, TokenKind.LAST_CORNER]
        return torch.tensor([places]), torch.tensor([[int(kind) for kind in kinds]])


def load_network(path: Path, device: torch.device) -> SegmentAnything:
    """Loads the weights of a user, and the network that they are of, to a device.

    Args:
        path: A file of Segment Anything, of MedSAM or of a network of the same architecture, of any size.
        device: The device.

    Raises:
        ModelError: The file is missing, damaged, holds more than tensors and plain values, or is of another network.
    """
    return build_from_weights(read_foreign_weights(path), str(path)).to(device)


def crop_to_mask(mask: Mask, margin: float) -> SlicePrompt | None:
    """Returns a box around a mask as a prompt, with a margin of at least a voxel; None if the mask is empty.

    Args:
        mask: Shape (rows, columns).
        margin: Share of the longer side of the slice by which the box is larger on each side.

    Example:
        >>> mask = np.zeros((8, 8), bool)
        >>> mask[2:4, 3] = True
        >>> crop_to_mask(mask, 0.01).box
        (0.5, 1.5, 4.5, 4.5)
    """
    if not mask.any():
        return None
    border = max(1.0, margin * max(mask.shape))
    rows, columns = np.nonzero(mask)
    top, bottom = _find_ends(rows, len(mask), border)
    left, right = _find_ends(columns, mask.shape[1], border)
    return SlicePrompt(box=(top, left, bottom, right))


def _find_ends(indices: NDArray[np.intp], length: int, border: float) -> tuple[float, float]:
    return max(int(indices.min()) - 0.5 - border, -0.5), min(int(indices.max()) + 0.5 + border, length - 0.5)
