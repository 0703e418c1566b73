"""Structural similarity at several scales: its formula, its limits, and that it can be learned from."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from autoseg.imaging.label_encoding import TargetLabels
from autoseg.imaging.targets import Targets
from autoseg.planning.loss_settings import LossSettings
from autoseg.training.ground_truth import GroundTruth
from autoseg.training.losses import Loss
from autoseg.training.similarity_loss import EXPONENTS, LEAST, _compare, similarity_loss

TARGETS = Targets(structures={"a": (1,), "b": (2,)}, exclusive=True)


def truth_of(labels: torch.Tensor, targets: Targets = TARGETS, unknown: torch.Tensor | None = None) -> GroundTruth:
    """The ground truth of a batch of labels."""
    return GroundTruth.of(TargetLabels(labels), targets, unknown)


def draw(*size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits of three outputs, and labels with a box of each structure, of two patches."""
    torch.manual_seed(seed)
    labels = torch.zeros(2, *size, dtype=torch.long)
    labels[..., size[-2] // 4 : size[-2] // 2, 3 : size[-1] // 2] = 1
    labels[..., size[-2] // 2 :, 3 : size[-1] // 3] = 2
    return torch.randn(2, 3, *size), labels


def test_one_scale_is_that_of_scikit_image() -> None:
    """Away from the border, beyond which it continues the image in another way."""
    random = np.random.default_rng(0)
    first, second = (gaussian_filter(random.random((40, 48)), 1.0) for _ in range(2))
    _, expected = structural_similarity(
        first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
    )
    means, shapes = _compare(*(torch.from_numpy(image).float()[None, None] for image in (first, second)))
    found = (means * shapes)[0, 0].numpy()
    assert np.abs(found - expected)[8:-8, 8:-8].max() < 1e-4


@pytest.mark.parametrize("size", [(48, 40), (16, 32, 24)])
def test_all_scales_are_the_product_of_the_paper(size: tuple[int, ...]) -> None:
    """Deviations at each scale and means at the coarsest, each to its power, calculated in double precision."""
    logits, labels = draw(*size)
    probabilities = logits.softmax(1)[:, 1:].double().numpy()
    similarities = []
    for patch, label in zip(probabilities, labels.numpy(), strict=True):
        for structure in (0, 1):
            found, wanted, product = patch[structure], (label == structure + 1).astype(float), 1.0

            def blur(image: np.ndarray) -> np.ndarray:
                return gaussian_filter(image, 1.5, mode="nearest", truncate=3.5)

            for scale, exponent in enumerate(EXPONENTS):
                x, y = blur(found), blur(wanted)
                local = (2 * (blur(found * wanted) - x * y) + 9e-4) / (
                    blur(found**2) - x**2 + blur(wanted**2) - y**2 + 9e-4
                )
                if scale == 4:
                    local = local * (2 * x * y + 1e-4) / (x**2 + y**2 + 1e-4)
                product *= max(local.mean(), LEAST) ** exponent
                for axis in range(found.ndim):
                    if found.shape[axis] > 1:
                        found, wanted = (
                            (np.take(image, range(0, image.shape[axis] // 2 * 2, 2), axis)
                             + np.take(image, range(1, image.shape[axis] // 2 * 2, 2), axis)) / 2
                            for image in (found, wanted)
                        )  # fmt: skip
            similarities.append(product)
    assert float(similarity_loss(logits, truth_of(labels))) == pytest.approx(-np.mean(similarities), abs=2e-4)


def test_it_is_learned_from() -> None:
    """Alone, it leads random logits to the outline; no gradient is NaN on the way."""
    logits, labels = draw(32, 32)
    logits.requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.3)
    losses = []
    for _ in range(150):
        loss = similarity_loss(logits, truth_of(labels))
        optimizer.zero_grad()
        loss.backward()
        assert logits.grad.isfinite().all()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > -0.6
    assert losses[-1] < -0.97
    assert (logits.argmax(1) == labels).float().mean() > 0.98


def test_limits() -> None:
    """The mask itself is -1, so is an absent structure that is not predicted; and the reverse of a mask is near 0."""
    _, labels = draw(32, 32)
    perfect = 60 * (torch.nn.functional.one_hot(labels, 3).movedim(3, 1).float() - 0.5)
    assert float(similarity_loss(perfect, truth_of(labels))) == pytest.approx(-1, abs=1e-4)
    assert float(similarity_loss(-perfect, truth_of(labels))) > -0.15
    empty = torch.zeros_like(labels)
    background = torch.tensor([40.0, 0.0, 0.0])[None, :, None, None].expand(2, 3, 32, 32)
    assert float(similarity_loss(background, truth_of(empty))) == pytest.approx(-1, abs=1e-4)
    thin = torch.zeros(1, 3, 1, 9, 7, requires_grad=True)
    similarity_loss(thin, truth_of(torch.zeros(1, 1, 9, 7, dtype=torch.long))).backward()
    assert thin.grad.isfinite().all()


def test_what_nobody_labelled_does_not_count() -> None:
    """Neither voxels to ignore nor structures that nobody looked for have a gradient."""
    logits, labels = draw(32, 32)
    ignoring = Targets(structures={"a": (1,), "b": (2,)}, exclusive=True, ignore=3)
    labels[:, :, 16:] = 3
    logits.requires_grad_()
    similarity_loss(logits, truth_of(labels, ignoring)).backward()
    assert (logits.grad[..., 16:] == 0).all()
    assert logits.grad[..., :16].abs().max() > 0
    overlapping = Targets(structures={"a": (1,), "b": (2,)}, exclusive=False)
    masks = torch.zeros(2, 2, 32, 32, dtype=torch.bool)
    masks[:, :, 5:20, 5:20] = True
    separate = torch.randn(2, 2, 32, 32, requires_grad=True)
    unknown = torch.tensor([[False, True], [False, False]])
    similarity_loss(separate, truth_of(masks, overlapping, unknown)).backward()
    assert (separate.grad[0, 1] == 0).all()
    assert separate.grad[1, 1].abs().max() > 0


def test_it_is_a_term_of_the_loss() -> None:
    """Weighted, beside the others; off by default, and calculated in float32 under autocast."""
    logits, labels = draw(32, 32)
    losses = [
        Loss(targets=TARGETS, settings=LossSettings(**settings), batch_dice=False)
        for settings in ({}, {"similarity_weight": 0.5})
    ]
    usual, further = (loss([logits], labels) for loss in losses)
    alone = similarity_loss(logits, truth_of(labels))
    assert float(further - usual) == pytest.approx(0.5 * float(alone), abs=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(similarity_loss(logits, truth_of(labels)), alone)
    with pytest.raises(ValidationError):
        LossSettings(similarity_weight=-1)
    with pytest.raises(ValidationError, match="similarity_weight has no effect with a loss of your own"):
        LossSettings(similarity_weight=1.0, custom={"name": "mine"})
