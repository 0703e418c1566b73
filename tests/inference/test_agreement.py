"""How far votes agree: beside a count over whole volumes, and without a trace in what is predicted."""

import math

import numpy as np
import pytest
import torch
from small_models import SMALL_INFO, small_checkpoint
from torch import Tensor

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.postprocessing import NO_RULES
from autoseg.imaging.targets import Targets
from autoseg.inference.agreement import Agreement, EnsembleAgreement
from autoseg.inference.ensemble import make_ensemble
from autoseg.inference.predictor import EnsemblePredictor, FunctionPredictor, MirroringPredictor, Predictor, average
from autoseg.inference.sliding_window import predict_volume
from autoseg.inference.torch_segmenter import make_segmenter

CPU = torch.device("cpu")
CLASSES = Targets(structures={"one": (1,), "two": (2,)})
MANY_MASKS = Targets(structures={f"mask {number}": (number,) for number in range(1, 12)}, exclusive=False)


class Painted(Predictor):
    """A predictor that says of every voxel what was painted there; it knows the place by the value of the voxel."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.flatten(1)  # (outputs, voxels)

    def __call__(self, patches: Tensor) -> Tensor:
        return self.logits[:, patches[:, 0].long()].transpose(0, 1)


def votes_of(outputs: int, shape: tuple[int, ...], count: int = 3) -> list[Tensor]:
    """Random logits of a whole image, alike enough to agree mostly."""
    generator = torch.Generator().manual_seed(outputs)
    shared = torch.randn(outputs, *shape, generator=generator)
    return [shared + 0.7 * torch.randn(outputs, *shape, generator=generator) for _ in range(count)]


def places(shape: tuple[int, ...]) -> np.ndarray:
    """An image whose voxels hold their own number."""
    return np.arange(math.prod(shape), dtype=np.float32).reshape(1, *shape)


def structures_in(logits: Tensor, targets: Targets) -> Tensor:
    """A mask for each structure."""
    if not targets.exclusive:
        return logits > 0
    return torch.stack([logits.argmax(dim=0) == number for number in range(1, len(logits))])


@pytest.mark.parametrize("targets", [CLASSES, MANY_MASKS])
@pytest.mark.parametrize("patch_size", [(4, 4, 4), (4, 4), (6, 9, 7)])
def test_scores_and_map_are_those_of_whole_volumes(targets, patch_size):
    """Tiles overlap, yet each voxel counts once: Dice and shares equal those of the votes on the whole image."""
    shape = (6, 9, 7)
    votes = votes_of(targets.outputs, shape)
    agreement = EnsembleAgreement(EnsemblePredictor(tuple(map(Painted, votes))), targets, with_map=True)
    predict_volume(places(shape), agreement, patch_size=patch_size, batch_size=3, device=CPU)
    found = agreement.result()

    masks = torch.stack([structures_in(logits, targets) for logits in votes]).double()
    mean = structures_in(average(votes), targets).double()
    axes = (-3, -2, -1)
    dice = 2 * (masks * mean).sum(axes) / (masks.sum(axes) + mean.sum(axes))
    assert found.votes == 3
    assert list(found.structures.values()) == pytest.approx(dice.mean(0).tolist(), abs=1e-5)
    assert found.score == pytest.approx(float(dice.mean()), abs=1e-5)
    differs = (masks != mean).any(dim=1).double().mean(0)
    assert 0 < differs.mean() < 1
    torch.testing.assert_close(torch.from_numpy(found.disagreement).double(), differs, atol=1e-5, rtol=0)


def test_the_example_of_the_module():
    """Votes of 1, 0.8 and 0.5 make 0.77, and the map is in thirds."""
    lines = torch.tensor([[0, 1, 1, 1, 0, 0], [0, 1, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0]])
    sure = torch.tensor([9.0, 1.0, 1.0])[:, None, None, None, None]  # the first is surer than both others
    logits = sure * torch.stack([1 - lines, lines], dim=1).float()[:, :, None, None]
    agreement = EnsembleAgreement(
        EnsemblePredictor(tuple(map(Painted, logits))), Targets(structures={"one": (1,)}), with_map=True
    )
    predict_volume(places((1, 1, 6)), agreement, patch_size=(1, 1, 6), batch_size=1, device=CPU)
    assert agreement.result().score == pytest.approx((1 + 0.8 + 0.5) / 3)
    torch.testing.assert_close(
        3 * torch.from_numpy(agreement.result().disagreement).flatten(), torch.tensor([0.0, 0, 2, 1, 0, 0])
    )


@pytest.mark.parametrize("mirrored", [False, True])
def test_logits_are_the_same_to_the_last_bit(mirrored):
    """A predictor inside an EnsembleAgreement predicts what it predicts alone."""
    shape = (6, 9, 7)
    inner = EnsemblePredictor(tuple(map(Painted, votes_of(3, shape))))
    predictor = MirroringPredictor(inner, (0, 2), at_once=2) if mirrored else inner
    options = {"patch_size": (4, 5, 4), "batch_size": 2, "device": CPU}
    plain = predict_volume(places(shape), predictor, **options)
    assert torch.equal(predict_volume(places(shape), EnsembleAgreement(predictor, CLASSES), **options), plain)
    assert predictor.votes == len(list(predictor.list_votes(torch.zeros(1, 1, 4, 5, 4))))


def test_what_was_padded_does_not_count():
    """Around a small image everything is a structure, about which votes differ; nobody hears of it."""

    @FunctionPredictor
    def loud(patches: Tensor) -> Tensor:
        outside = patches == 0
        return torch.cat([torch.ones_like(patches), 2.0 * outside, torch.zeros_like(patches)], dim=1)

    @FunctionPredictor
    def quiet(patches: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(patches), *[torch.zeros_like(patches)] * 2], dim=1)

    agreement = EnsembleAgreement(EnsemblePredictor((loud, quiet, loud)), CLASSES, with_map=True)
    predict_volume(1 + places((3, 3, 3)), agreement, patch_size=(8, 8, 8), batch_size=1, device=CPU)
    found = agreement.result()
    assert all(map(math.isnan, found.structures.values()))
    assert found.disagreement.shape == (3, 3, 3)
    assert not found.disagreement.any()


def test_alike_tiles_are_asked_about_once_and_count_all():
    """An image of one value: a single patch is predicted, and agreement is as of one large tile."""
    asked = []

    def half(share: float):
        @FunctionPredictor
        def predict(patches: Tensor) -> Tensor:
            asked.append(len(patches))
            here = torch.full_like(patches, share)
            return torch.cat([torch.full_like(patches, 0.5), here, torch.zeros_like(patches)], dim=1)

        return predict

    agreement = EnsembleAgreement(EnsemblePredictor((half(2.0), half(0.0), half(1.0))), CLASSES, with_map=True)
    predict_volume(np.ones((1, 9, 9, 9), np.float32), agreement, patch_size=(4, 4, 4), batch_size=8, device=CPU)
    assert asked == [1, 1, 1]
    assert agreement.result().structures["one"] == pytest.approx(2 / 3)
    torch.testing.assert_close(torch.from_numpy(agreement.result().disagreement), torch.full((9, 9, 9), 1 / 3))


def test_one_opinion_says_nothing():
    """Neither a score nor a map, even if something was found."""
    [logits] = votes_of(3, (4, 4, 4), count=1)
    agreement = EnsembleAgreement(Painted(logits), CLASSES, with_map=True)
    predict_volume(places((4, 4, 4)), agreement, patch_size=(4, 4, 4), batch_size=1, device=CPU)
    found = agreement.result()
    assert (found.votes, found.disagreement) == (1, None)
    assert math.isnan(found.score)
    assert all(map(math.isnan, found.structures.values()))


def test_members_of_a_joint_model_are_pooled_by_their_opinions():
    """A member that found nothing of a structure has no say about it."""
    many = Agreement(votes=6, structures={"one": 0.9, "two": 0.5})
    few = Agreement(votes=2, structures={"one": 0.5, "two": math.nan})
    pooled = Agreement.pool([many, few])
    assert pooled.votes == 8
    assert pooled.structures == pytest.approx({"one": 0.8, "two": 0.5})


def test_predictions_have_the_map_only_if_somebody_asked():
    """The map lies on the grid of the image, 0 to 1, 0 outside the region that is not zero; of joint models too."""
    array = np.zeros((1, 12, 14, 13), np.float32)
    array[0, 2:, 1:12, 3:] = np.random.default_rng(0).normal(size=(10, 11, 10))
    image = Volume(array=array, geometry=Geometry(shape=(12, 14, 13), spacing_mm=(1.5, 0.9, 1.0)))
    checkpoint = small_checkpoint()
    segmenter = make_segmenter([checkpoint], NO_RULES, CPU)
    assert segmenter.votes == 8
    plain = segmenter.predict(image)
    assert plain.disagreement() is None
    assert set(plain.agreement.structures) == set(SMALL_INFO.targets.names)
    asked = segmenter.with_disagreement().predict(image)
    found = asked.disagreement()
    assert found.geometry == image.geometry
    assert 0 < found.array.max() <= 1
    assert found.array.min() == 0
    assert not found.array[:, 12:].any()
    np.testing.assert_array_equal(asked.segmentation().array, plain.segmentation().array)

    joint = make_ensemble([segmenter, segmenter], NO_RULES).with_disagreement().predict(image)
    assert joint.agreement.structures == pytest.approx(plain.agreement.structures, nan_ok=True)
    assert joint.agreement.votes == 16
    np.testing.assert_allclose(joint.disagreement().array, found.array, atol=1e-6)
