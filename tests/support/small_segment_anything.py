"""Tiny networks of Segment Anything, with random weights or trained on pictures of discs, and their files."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from autoseg.networks.segment_anything.network import SegmentAnything
from autoseg.networks.segment_anything.prompt_encoder import TokenKind
from autoseg.networks.segment_anything.sizes import Sizes
from autoseg.prompting.pictures import PictureFrame

TINY = Sizes(
    grid=8, patch=8, width=64, head_width=16, hidden=128, windows=(3, 8), features=64, attention_width=32,
    token_hidden=128, quality_hidden=64,
)  # fmt: skip
"""For images of 64 x 64 pixels; windows of 3 do not divide its 8 patches, as 14 do not divide 64."""

BACKGROUND, INSIDE = 60.0, 160.0
SPREAD = 12.0
FRAME = PictureFrame.of((64, 64), (1.0, 1.0), TINY.image, "medsam")


def random_network(sizes: Sizes = TINY, seed: int = 0) -> SegmentAnything:
    """A network whose weights are all random, those that begin as zero too."""
    torch.manual_seed(seed)
    network = SegmentAnything(sizes)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(torch.randn_like(weight) * 0.05)
    return network.eval()


def save_weights(network: SegmentAnything, path: Path) -> Path:
    """Writes the weights as published checkpoints are: a dictionary of tensors."""
    torch.save(network.state_dict(), path)
    return path


def draw_discs(random: np.random.Generator, count: int = 3) -> tuple[NDArray[np.float32], list[NDArray[np.bool_]]]:
    """Draws a picture of 64 x 64 pixels with bright ellipses that do not touch; returns it, and the mask of each."""
    rows, columns = np.mgrid[:64, :64]
    masks: list[NDArray[np.bool_]] = []
    while len(masks) < count:
        y, x = random.uniform(8, 56, 2)
        height, width = random.uniform(4, 11, 2)
        distance = np.hypot((rows - y) / height, (columns - x) / width)
        if not any((other & (distance < 1.4)).any() for other in masks):
            masks.append(distance < 1)
    inside = np.logical_or.reduce(masks)
    picture = np.where(inside, INSIDE, BACKGROUND) + random.normal(0, SPREAD, inside.shape)
    return picture.astype(np.float32), masks


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Returns the box of a mask as a user would draw it: first and last row and column, (y, x, y, x)."""
    rows, columns = np.nonzero(mask)
    return int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max())


def train_on_discs(steps: int, seed: int = 0, batch: int = 8) -> SegmentAnything:
    """Trains a tiny network to segment the one of several alike ellipses that a box is around, as MedSAM was."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    network = SegmentAnything(TINY)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    kinds = torch.tensor([[TokenKind.FIRST_CORNER, TokenKind.LAST_CORNER]] * batch)
    for _ in range(steps):
        images, corners, truths = _draw_batch(random, batch)
        logits, _ = network.decode(network.encode(images), corners, kinds)
        loss = _loss(logits[:, 0], truths)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()


def _draw_batch(random: np.random.Generator, batch: int) -> tuple[Tensor, Tensor, Tensor]:
    images, corners, truths = [], [], []
    for _ in range(batch):
        picture, masks = draw_discs(random)
        top, left, bottom, right = box_of(masks[0])
        low, high = (np.array([top, left]) - 0.5, np.array([bottom, right]) + 0.5)
        low, high = low - random.uniform(0, 1.5, 2), high + random.uniform(0, 1.5, 2)
        images.append(FRAME.prepare(picture[None] / 255))
        corners.append([FRAME.place(*low), FRAME.place(*high)])
        truths.append(masks[0])
    return torch.cat(images), torch.tensor(np.array(corners), dtype=torch.float32), torch.from_numpy(np.array(truths))


def _loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Dice and cross entropy of masks on the voxels of the picture."""
    whole = F.interpolate(logits[:, None], truth.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    target, chance = truth.float(), whole.sigmoid()
    overlap = 2 * (chance * target).sum((1, 2)) / (chance.square().sum((1, 2)) + target.sum((1, 2)) + 1e-6)
    return 1 - overlap.mean() + F.binary_cross_entropy_with_logits(whole, target)
