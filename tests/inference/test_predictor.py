"""Tests of the predictors and how they combine."""

import pytest
import torch
from torch import Tensor

from autoseg.inference.network_predictor import NetworkPredictor, count_at_once
from autoseg.inference.predictor import EnsemblePredictor, FunctionPredictor, MirroringPredictor
from autoseg.networks.architecture import Architecture, Stage
from autoseg.networks.default_unet import build_network
from autoseg.runtime import device
from autoseg.runtime.device import precision

CPU = torch.device("cpu")


def random(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that follow from the seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@FunctionPredictor
def voxelwise(patches: Tensor) -> Tensor:
    """Two classes from each voxel alone, so mirroring changes nothing."""
    return torch.cat([patches.sum(1, keepdim=True), patches.square().sum(1, keepdim=True)], dim=1)


@FunctionPredictor
def with_position(patches: Tensor) -> Tensor:
    """Logits that depend on where a voxel lies along the last axis."""
    return voxelwise(patches) * torch.arange(1.0, patches.shape[-1] + 1)


@pytest.fixture
def network():
    """A small 2D network in training mode."""
    stages = (
        Stage(features=4, kernel=(3, 3), stride=(1, 1), convolutions=1),
        Stage(features=8, kernel=(3, 3), stride=(2, 2), convolutions=2),
    )
    described = Architecture(residual="stage", in_channels=1, out_channels=3, stages=stages)
    return build_network(described, torch.Generator().manual_seed(0))


def test_network_predicts_full_resolution_without_gradients(network):
    """The predictor of a network returns its full logits in its precision, close to those of full precision."""
    patches = random(2, 1, 8, 8)
    logits = NetworkPredictor(network, CPU)(patches)
    assert logits.dtype == precision(CPU)
    assert not logits.requires_grad
    assert not network.training
    with torch.inference_mode():
        torch.testing.assert_close(logits.float(), network(patches), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("axes", [(), (0,), (2,), (0, 1), (0, 1, 2)])
def test_mirroring_leaves_an_equivariant_predictor_alone(axes):
    """If mirrored input gives mirrored output, the mean is the output."""
    patches = random(2, 1, 4, 5, 6)
    torch.testing.assert_close(MirroringPredictor(voxelwise, axes)(patches), voxelwise(patches))


@pytest.mark.parametrize(("axes", "calls"), [((), 1), ((1,), 2), ((0, 1), 4), ((0, 1, 2), 8)])
def test_every_combination_of_axes_is_seen_once(axes, calls):
    """Mirroring along n axes makes 2 ** n different images."""
    seen = []

    @FunctionPredictor
    def watch(patches: Tensor) -> Tensor:
        seen.append(patches.clone())
        return patches

    MirroringPredictor(watch, axes)(random(1, 1, 3, 3, 3))
    assert len(seen) == calls
    assert len({tuple(image.flatten().tolist()) for image in seen}) == calls


@pytest.mark.parametrize(("at_once", "batches"), [(1, [2] * 8), (5, [4] * 4), (6, [6, 6, 4]), (100, [16])])
def test_mirror_images_go_through_the_network_together(at_once, batches):
    """As many as are allowed, but always all patches at once; the mean stays the same."""
    seen = []

    @FunctionPredictor
    def watch(patches: Tensor) -> Tensor:
        seen.append(len(patches))
        return by_place(patches)

    patches = whole(2, 2, 4, 6, 8)
    sides = {"swap_axis": 2, "swapped_labels": ((2, 1),)}
    mirroring = MirroringPredictor(watch, (0, 1, 2), at_once=at_once, **sides)
    assert torch.equal(mirroring(patches), by_place(patches))
    assert seen == batches


def test_mirroring_is_the_mean_of_the_mirrored_back_logits():
    """A predictor that depends on the position gets the mean of both positions."""
    patches = random(2, 1, 3, 4)
    expected = voxelwise(patches) * (4 + 1) / 2
    torch.testing.assert_close(MirroringPredictor(with_position, (1,))(patches), expected)


@FunctionPredictor
def sided(patches: Tensor) -> Tensor:
    """Four classes: brightness, how much the image rises and falls along its last axis, and its square."""
    rise = (patches.roll(-1, -1) - patches.roll(1, -1)).sum(1, keepdim=True)
    brightness, square = voxelwise(patches).split(1, dim=1)
    return torch.cat([brightness, rise.clamp_min(0), square, (-rise).clamp_min(0)], dim=1)


@FunctionPredictor
def by_place(patches: Tensor) -> Tensor:
    """Three classes: the background, and what is bright before and behind the middle of the last axis."""
    brightness = patches.sum(1, keepdim=True)
    places = torch.arange(patches.shape[-1]) * 2 + 1 - patches.shape[-1]
    return torch.cat([-brightness, brightness * places.clamp_max(0).neg(), brightness * places.clamp_min(0)], dim=1)


def whole(*shape: int) -> Tensor:
    """Whole numbers from -8 to 8, which add up without rounding."""
    return torch.randint(-8, 9, shape, generator=torch.Generator().manual_seed(0)).float()


@pytest.mark.parametrize(("predictor", "pairs"), [(sided, ((1, 3),)), (by_place, ((2, 1),))])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2,), (2, 0)])
def test_mirrored_sides_come_back_to_their_own(predictor, pairs, axes):
    """A predictor that tells left from right, by shape or by place, gets its own logits; without the exchange not."""
    patches = whole(2, 2, 4, 6, 7)
    mirroring = MirroringPredictor(predictor, axes, swap_axis=2, swapped_labels=pairs)
    assert torch.equal(mirroring(patches), predictor(patches))
    assert not torch.equal(MirroringPredictor(predictor, axes)(patches), predictor(patches))


def test_classes_change_places_only_where_sides_do():
    """Flips along other axes leave the classes alone, and no flip along the axis, no exchange."""
    patches = whole(1, 2, 5, 6)
    for axes in ((), (0,)):
        mirroring = MirroringPredictor(sided, axes, swap_axis=1, swapped_labels=((1, 3),))
        assert torch.equal(mirroring(patches), sided(patches))


def test_ensemble_is_the_mean_of_its_predictors():
    """Logits are averaged, not changed in place."""
    patches = random(2, 2, 3, 4)
    kept = random(2, 2, 3, 4, seed=1)
    untouched = kept.clone()
    ensemble = EnsemblePredictor((voxelwise, FunctionPredictor(lambda _: kept), FunctionPredictor(lambda x: 3 * x)))
    torch.testing.assert_close(ensemble(patches), (voxelwise(patches) + kept + 3 * patches) / 3)
    assert torch.equal(kept, untouched)


def test_opinions_are_those_of_every_fold_and_mirror_image():
    """Three folds and four mirror images have twelve votes, whose mean is the prediction."""
    patches = random(2, 1, 4, 5)
    ensemble = EnsemblePredictor((voxelwise, with_position, FunctionPredictor(lambda x: 2 * voxelwise(x))))
    predictor = MirroringPredictor(ensemble, (0, 1), at_once=3)
    votes = list(predictor.list_votes(patches))
    assert len(votes) == 12
    torch.testing.assert_close(torch.stack(votes).mean(0), predictor(patches))


def test_one_predictor_has_one_opinion():
    """Its logits."""
    patches = random(2, 1, 4, 5)
    assert voxelwise.votes == 1
    [vote] = voxelwise.list_votes(patches)
    assert torch.equal(vote, voxelwise(patches))


class Narrow(torch.nn.Module):
    """A network whose device holds so many patches at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.seen: list[int] = []

    def forward(self, patches: Tensor) -> Tensor:
        self.seen.append(len(patches))
        if len(patches) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return 2 * patches


def test_batches_are_halved_when_the_memory_is_full():
    """What fits is remembered, and the logits are those of all patches, in their order."""
    network = Narrow(2)
    predictor = NetworkPredictor(network, CPU)
    patches = random(7, 1, 4, 4)
    assert torch.equal(predictor(patches), 2 * patches)
    assert network.seen == [7, 4, 2, 2, 2, 1]
    predictor(patches)
    assert network.seen[6:] == [2, 2, 2, 1]


def test_memory_too_small_for_one_patch_is_not_hidden():
    """Nothing is left to halve."""
    with pytest.raises(RuntimeError, match="out of memory"):
        NetworkPredictor(Narrow(0), CPU)(random(3, 1, 4, 4))


@pytest.mark.parametrize("exact", [False, True])
def test_exact_networks_calculate_in_float32(monkeypatch, exact):
    """Though the CPU has bfloat16."""
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: True)
    network = torch.nn.Conv2d(1, 2, 3)
    patches = random(2, 1, 6, 6)
    logits = NetworkPredictor(network, CPU, exact=exact)(patches)
    assert logits.dtype == (torch.float32 if exact else torch.bfloat16)
    assert torch.equal(logits, network(patches)) == exact


def test_other_errors_are_not_taken_for_a_full_memory():
    """They go on at once."""
    network = Narrow(2)
    network.forward = lambda _: torch.zeros(2, 3) @ torch.zeros(2, 3)
    with pytest.raises(RuntimeError, match="shapes"):
        NetworkPredictor(network, CPU)(random(3, 1, 4, 4))


@pytest.mark.parametrize(
    ("patch", "cores", "expected"),
    [((40, 56, 40), 2, 11), ((96, 96, 96), 2, 2), ((96, 96, 96), 16, 4), ((192, 192, 192), 16, 1), ((256, 256), 2, 16)],
)
def test_patches_at_once_on_a_cpu(monkeypatch, patch, cores, expected):
    """Small ones in batches, large ones one for each core as far as memory should go."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: cores)
    assert count_at_once(patch, 9, CPU) == expected
    assert count_at_once(patch, 9, torch.device("cuda")) == 9


def test_ensemble_and_mirroring_commute():
    """Mirroring an ensemble is the ensemble of mirrored predictors."""
    patches = random(1, 1, 4, 4)
    members = (voxelwise, with_position)
    outside = MirroringPredictor(EnsemblePredictor(members), (0, 1))(patches)
    inside = EnsemblePredictor(tuple(MirroringPredictor(member, (0, 1)) for member in members))(patches)
    torch.testing.assert_close(outside, inside)


def test_empty_ensemble_is_refused():
    """There is no mean of nothing."""
    with pytest.raises(ValueError, match="at least one"):
        EnsemblePredictor(())
