"""Losses equal the golden values of the reference method, also where structures are missing, overlap or are unknown."""

import pytest
import torch
import torch.nn.functional as F

from autoseg.imaging.targets import Targets
from autoseg.planning.loss_settings import LossSettings
from autoseg.planning.plugin_settings import Plugin
from autoseg.planning.plugins import register_loss
from autoseg.training.ground_truth import GroundTruth, merge_unknown
from autoseg.training.losses import Loss, coarsen, deep_supervision_weights
from autoseg.training.overlap_loss import overlap_loss
from autoseg.training.voxelwise_loss import _mean_of_highest, voxelwise_loss

LABELS = Targets(structures={"first": (1,), "second": (2,)})
SPARSE = Targets(structures={"first": (1,), "second": (2,)}, ignore=3)
REGIONS = Targets(structures={"whole": (1, 2), "core": (2,), "small": (2,)}, exclusive=False)
USUAL = LossSettings()


@pytest.fixture
def golden():
    """Returns logits and labels of the golden values, which stand in the facts about the reference."""
    logits = torch.sin(7 * torch.linspace(-1, 1, 48)).reshape(2, 3, 2, 2, 2)
    labels = (torch.arange(16) % 3).reshape(2, 2, 2, 2)
    return logits, labels


def loss_of(logits, labels, targets=LABELS, *, batch_dice=True, unknown=None, **settings):
    """Returns the loss of one resolution."""
    loss = Loss(targets=targets, settings=LossSettings(**settings), batch_dice=batch_dice)
    return loss((logits,), labels, unknown)


def certain(labels, outputs):
    """Returns logits of a network that predicts the labels with certainty."""
    return 100.0 * F.one_hot(labels, outputs).movedim(-1, 1)


# --- Golden values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_dice", "expected"), [(True, 1.0616557598), (False, 1.0778412819)])
def test_sum_of_dice_and_cross_entropy_is_golden(golden, batch_dice, expected):
    """The loss is Dice plus cross entropy of nnU-Net v2.8.1 on the same tensors."""
    assert loss_of(*golden, batch_dice=batch_dice).item() == pytest.approx(expected, abs=1e-6)


def test_both_terms_are_golden(golden):
    """Each term alone has its golden value."""
    assert loss_of(*golden, voxelwise="none").item() == pytest.approx(-0.2671042383, abs=1e-6)
    assert loss_of(*golden, overlap="none").item() == pytest.approx(1.3287600279, abs=1e-6)


def test_voxels_that_nobody_labelled_are_golden(golden):
    """They count in neither term."""
    logits, labels = golden
    labels[0, 0] = 3
    assert loss_of(logits, labels, SPARSE).item() == pytest.approx(1.0538949966, abs=1e-6)


def test_regions_are_golden(golden):
    """The loss is Dice over sigmoids plus binary cross entropy."""
    logits, labels = golden
    assert loss_of(logits, labels, REGIONS).item() == pytest.approx(0.2436202466, abs=1e-6)


def test_regions_with_unlabelled_voxels_are_golden_in_both_terms(golden):
    """The reference divides its binary cross entropy by voxels alone, so there it weighs more by the number of regions.

    Here it weighs the same with and without such voxels; a deliberate difference.
    """
    logits, labels = golden
    sparse = Targets(structures=REGIONS.structures, exclusive=False, ignore=3)
    labels[0, 0] = 3
    dice = loss_of(logits, labels, sparse, voxelwise="none").item()
    entropy = loss_of(logits, labels, sparse, overlap="none").item()
    assert dice + 3 * entropy == pytest.approx(1.5399993658, abs=1e-6)
    assert loss_of(logits, labels, sparse).item() == pytest.approx(dice + entropy)


@pytest.mark.parametrize(
    ("outputs", "weights"),
    [
        (1, [1]),
        (2, [1, 0]),
        (4, [0.571429, 0.285714, 0.142857, 0]),
        (5, [0.533333, 0.266667, 0.133333, 0.066667, 0]),
        (6, [0.516129, 0.258065, 0.129032, 0.064516, 0.032258, 0]),
    ],
)
def test_weights_of_the_resolutions_are_golden(outputs, weights):
    """They are halved at each level, the coarsest is 0, and the sum is 1."""
    sizes = [(64 // 2**level, 64) for level in range(outputs)]
    assert deep_supervision_weights(sizes) == pytest.approx(weights, abs=1e-6)


def test_outputs_of_the_same_size_count_alike():
    """They do so beside coarser ones too; with a single size, no output is left out."""
    assert deep_supervision_weights([(8, 8)] * 4) == pytest.approx([0.25] * 4)
    assert deep_supervision_weights([(8, 8), (8, 8), (4, 8), (4, 4)]) == pytest.approx([0.4, 0.4, 0.2, 0])


# --- The forms of the terms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["dice", "squared_dice", "tversky"])
@pytest.mark.parametrize("voxelwise", ["cross_entropy", "focal", "top_k"])
@pytest.mark.parametrize("targets", [LABELS, REGIONS])
def test_perfect_prediction_has_the_lowest_loss(overlap, voxelwise, targets):
    """A certain and right prediction has overlap -1 and cross entropy 0."""
    labels = torch.randint(0, 3, (2, 4, 6, 8), generator=torch.Generator().manual_seed(0))
    logits = certain(labels, 3)
    if not targets.exclusive:
        logits = 200.0 * (GroundTruth.of(labels, targets).present.float() - 0.5)
    lowest = loss_of(logits, labels, targets, overlap=overlap, voxelwise=voxelwise)
    assert lowest.item() == pytest.approx(-1, abs=1e-4)


def test_overlaps_follow_their_formulas(golden):
    """They are calculated by hand for the second structure of one patch."""
    logits, labels = (values[:1] for values in golden)
    p, g = logits.softmax(dim=1)[:, 2], (labels == 2).float()
    alone = Targets(structures={"any": (1,), "second": (2,)})

    def second(**settings):
        ground_truth = GroundTruth.of(labels, alone)
        both = overlap_loss(logits, ground_truth, LossSettings(**settings))
        first = logits.softmax(dim=1)[:, 1], (labels == 1).float()
        return -2 * both - by_hand(*first, **settings)

    def by_hand(p, g, overlap, false_positives=0.3, false_negatives=0.7):
        hits = (p * g).sum()
        if overlap == "tversky":
            return hits / (hits + false_positives * (p * (1 - g)).sum() + false_negatives * ((1 - p) * g).sum())
        return 2 * hits / ((p * p).sum() + (g * g).sum())

    for settings in (
        {"overlap": "squared_dice"},
        {"overlap": "tversky"},
        {"overlap": "tversky", "false_positives": 2.0, "false_negatives": 0.1},
    ):
        assert second(**settings).item() == pytest.approx(by_hand(p, g, **settings).item(), abs=1e-4)


def test_tversky_of_equal_weights_is_dice(golden):
    """With weights of one half it is the plain overlap."""
    even = loss_of(*golden, overlap="tversky", false_positives=0.5, false_negatives=0.5, voxelwise="none")
    assert even.item() == pytest.approx(loss_of(*golden, voxelwise="none").item(), abs=1e-4)


def test_voxelwise_forms_follow_their_formulas(golden):
    """Focal loss, the worst quarter of the voxels, and class weights are calculated by hand."""
    logits, labels = golden
    each = F.cross_entropy(logits, labels, reduction="none").flatten()
    focal = ((1 - torch.exp(-each)) ** 3 * each).mean()
    weights = (0.5, 1.0, 4.0)
    for settings, expected in (
        ({"voxelwise": "focal", "focal_exponent": 3.0}, focal),
        ({"voxelwise": "focal", "focal_exponent": 0.0}, each.mean()),
        ({"voxelwise": "top_k", "top_k_share": 0.25}, each.sort().values[-4:].mean()),
        ({"voxelwise": "top_k", "top_k_share": 1e-6}, each.max()),
        ({"class_weights": weights}, F.cross_entropy(logits, labels, weight=torch.tensor(weights))),
    ):
        assert loss_of(logits, labels, overlap="none", **settings).item() == pytest.approx(expected.item(), abs=1e-6)


def test_weights_of_classes_reach_regions_and_sparse_labels(golden):
    """They apply to binary cross entropy, and where voxels are left out."""
    logits, labels = golden
    weights = torch.tensor([1.0, 2.0, 5.0])
    present = GroundTruth.of(labels, REGIONS).present.float()
    each = F.binary_cross_entropy_with_logits(logits, present, reduction="none").mean((0, 2, 3, 4))
    of_regions = loss_of(logits, labels, REGIONS, overlap="none", class_weights=tuple(weights.tolist()))
    assert of_regions.item() == pytest.approx(((each * weights).sum() / weights.sum()).item(), abs=1e-6)
    labels[0, 0] = 3
    expected = F.cross_entropy(logits, labels, weight=weights, ignore_index=3)
    sparse = loss_of(logits, labels, SPARSE, overlap="none", class_weights=tuple(weights.tolist()))
    assert sparse.item() == pytest.approx(expected.item(), abs=1e-6)


def test_terms_have_their_weights(golden):
    """The loss is the weighted sum of both terms."""
    dice, entropy = loss_of(*golden, voxelwise="none"), loss_of(*golden, overlap="none")
    both = loss_of(*golden, overlap_weight=3.0, voxelwise_weight=0.5)
    assert both.item() == pytest.approx((3 * dice + 0.5 * entropy).item(), abs=1e-6)


def test_absent_class_that_is_not_predicted_counts_as_perfect():
    """Dice of two empty masks is 1, by the smoothing term."""
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = 200.0
    assert overlap_loss(logits, GroundTruth.of(labels, LABELS), USUAL).item() == pytest.approx(-1)


# --- What nobody labelled ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", [SPARSE, Targets(structures=REGIONS.structures, exclusive=False, ignore=3)])
@pytest.mark.parametrize("voxelwise", ["cross_entropy", "focal", "top_k"])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_unlabelled_voxels_change_nothing(golden, targets, voxelwise, batch_dice):
    """Neither loss nor gradient depends on them; a patch without any label has the gradient zero."""
    logits, labels = golden
    labels[:, 0] = 3
    losses, gradients = [], []
    for change in (0.0, 5.0):
        changed = logits.clone()
        changed[:, :, 0] += change * torch.randn(changed[:, :, 0].shape, generator=torch.Generator().manual_seed(3))
        changed.requires_grad_()
        loss = loss_of(changed, labels, targets, batch_dice=batch_dice, voxelwise=voxelwise)
        loss.backward()
        losses.append(loss.item())
        gradients.append(changed.grad)
    assert losses[0] == losses[1]
    assert torch.equal(*gradients)
    assert gradients[0][:, :, 0].abs().max() == 0
    assert gradients[0][:, :, 1].abs().max() > 0
    empty = logits.clone().requires_grad_()
    loss = loss_of(empty, torch.full_like(labels, 3), targets, batch_dice=batch_dice, voxelwise=voxelwise)
    loss.backward()
    assert torch.isfinite(loss)
    assert empty.grad.abs().max() == 0


def test_a_structure_that_nobody_looked_for_is_as_good_as_background(golden):
    """Probability may move between them without a change of the loss, but not in other patches."""
    logits, labels = golden
    labels = labels * (labels != 2)
    unknown = torch.tensor([[False, True], [False, True]])
    losses = []
    for share in (0.1, 0.9):
        probabilities = logits.softmax(dim=1)
        both = probabilities[:, [0, 2]].sum(1)
        moved = torch.stack([both * share, probabilities[:, 1], both * (1 - share)], dim=1)
        losses.append(loss_of(moved.log(), labels, unknown=unknown).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    two = Targets(structures={"first": (1,)})
    merged = torch.stack([logits[:, [0, 2]].logsumexp(1), logits[:, 1]], dim=1)
    assert losses[0] == pytest.approx(loss_of(merged, labels, two).item(), abs=1e-6)


def test_regions_that_nobody_looked_for_do_not_count(golden):
    """The loss is that of the other regions, and no gradient reaches their output."""
    logits, labels = golden
    logits.requires_grad_()
    unknown = torch.tensor([[False, True, True], [False, True, True]])
    loss = loss_of(logits, labels, REGIONS, unknown=unknown)
    loss.backward()
    alone = Targets(structures={"whole": (1, 2)}, exclusive=False)
    assert loss.item() == pytest.approx(loss_of(logits[:, :1], labels, alone).item(), abs=1e-6)
    assert logits.grad[:, 1:].abs().max() == 0


@pytest.mark.parametrize("targets", [LABELS, REGIONS])
@pytest.mark.parametrize("batch_dice", [True, False])
def test_one_patch_of_two_may_know_more(golden, targets, batch_dice):
    """A structure that is unknown in one patch is learned from the other; gradients are finite."""
    logits, labels = golden
    logits.requires_grad_()
    count = len(targets.structures)
    unknown = torch.zeros(2, count, dtype=torch.bool)
    unknown[0, 1] = True
    labels[0] *= labels[0] != 2
    loss_of(logits, labels, targets, unknown=unknown, batch_dice=batch_dice).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1, -count + 1].abs().max() > 0


def test_merged_probabilities_are_a_distribution(golden):
    """They sum to one, and unknown structures have the probability zero."""
    logits, _ = golden
    unknown = torch.tensor([[True, False], [True, True]])
    merged = merge_unknown(logits, unknown).softmax(dim=1)
    assert torch.allclose(merged.sum(1), torch.ones_like(merged[:, 0]))
    assert merged[:, 1].max() == 0
    assert torch.allclose(merged[0, 2], logits.softmax(dim=1)[0, 2])
    assert torch.allclose(merged[1, 0], torch.ones_like(merged[1, 0]))


# --- Masks and resolutions --------------------------------------------------------------------------------------------


def test_masks_are_as_good_as_a_label_map(golden):
    """Where structures do not overlap, masks and label map give the same loss."""
    logits, labels = golden
    masks = GroundTruth.of(labels, REGIONS).present
    assert masks.dtype == torch.bool
    outputs = [logits, logits[:, :, ::2, ::2, ::2], logits[:, :, :1, :1, :1]]
    loss = Loss(targets=REGIONS, settings=USUAL, batch_dice=False)
    assert loss(outputs, masks).item() == loss(outputs, labels).item()


def test_coarse_outputs_are_compared_with_the_coarsened_target():
    """A prediction that equals the target at every resolution reaches the lowest loss."""
    labels = torch.zeros(1, 8, 12, dtype=torch.int64)
    labels[:, :4, 4:] = 1
    outputs = [certain(level, 2) for level in (labels, labels[:, ::2, ::2], labels[:, ::4, ::4])]
    loss = Loss(targets=Targets(structures={"first": (1,)}), settings=USUAL, batch_dice=True)
    assert loss(outputs, labels).item() == pytest.approx(-1, abs=1e-4)


def test_the_middle_of_each_coarse_voxel_is_taken():
    """Of 10 voxels along an axis that is coarsened to 5, every second one is taken."""
    labels = torch.arange(10).reshape(1, 1, 10).expand(1, 4, 10)
    assert coarsen(labels, torch.zeros(1, 2, 4, 5))[0, 0].tolist() == [1, 3, 5, 7, 9]
    assert coarsen(labels[None], torch.zeros(1, 2, 2, 5)).shape == (1, 1, 2, 5)


def test_gradient_reaches_all_but_the_coarsest_output():
    """The coarsest output has weight zero, the others have gradients."""
    labels = torch.randint(0, 3, (1, 8, 8), generator=torch.Generator().manual_seed(1))
    outputs = [torch.zeros(1, 3, size, size, requires_grad=True) for size in (8, 4, 2)]
    Loss(targets=LABELS, settings=USUAL, batch_dice=True)(outputs, labels).backward()
    assert outputs[0].grad.abs().sum() > 0
    assert outputs[1].grad.abs().sum() > 0
    assert outputs[2].grad is None


def test_settings_that_make_no_loss_are_refused():
    """There must be at least one term; class weights belong to the voxelwise one."""
    with pytest.raises(ValueError, match="cannot both be 'none'"):
        LossSettings(overlap="none", voxelwise="none")
    with pytest.raises(ValueError, match="class_weights belong to the voxelwise term"):
        LossSettings(voxelwise="none", class_weights=(1.0, 2.0))


def test_forms_of_cross_entropy_agree(golden):
    """The fused form and the one that looks at each voxel give the same loss."""
    logits, labels = golden
    quick = voxelwise_loss(logits, GroundTruth.of(labels, LABELS), USUAL)
    slow = voxelwise_loss(logits, GroundTruth.of(labels, SPARSE), USUAL)
    assert quick.item() == pytest.approx(slow.item(), abs=1e-6)


# --- A loss that is not built in --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("empty_registry")
def test_own_loss_is_weighed_at_each_resolution_as_the_built_in_one():
    """Of three resolutions the coarsest is left out; the ground truth is on the grid of the logits."""
    seen = []

    def note(logits, ground_truth, settings):
        seen.append((tuple(logits.shape), tuple(ground_truth.present.shape), logits.dtype, dict(settings)))
        return logits.mean() * settings["factor"]

    register_loss("noted", note)
    settings = LossSettings(custom=Plugin(name="noted", settings={"factor": 5.0}))
    loss = Loss(targets=LABELS, settings=settings, batch_dice=False)
    outputs = [torch.full((2, 3, size, size), value, dtype=torch.bfloat16) for size, value in ((8, 1), (4, 2), (2, 64))]
    total = loss(outputs, torch.zeros(2, 8, 8, dtype=torch.int64))
    assert total.item() == pytest.approx(5 * (2 / 3 * 1 + 1 / 3 * 2), rel=1e-6)
    assert [shape for shape, *_ in seen] == [(2, 3, 8, 8), (2, 3, 4, 4)]
    assert [shape for _, shape, *_ in seen] == [(2, 2, 8, 8), (2, 2, 4, 4)]
    assert seen[0][2:] == (torch.float32, {"factor": 5.0})


@pytest.mark.usefixtures("empty_registry")
def test_own_loss_sees_the_background_stand_for_what_nobody_looked_for():
    """So a plain cross entropy as custom loss equals the built-in one."""
    register_loss("plain", lambda logits, ground_truth, _: F.cross_entropy(logits, ground_truth.classes))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    labels, unknown = torch.zeros(2, 4, 4, dtype=torch.int64), torch.tensor([[False, True], [False, False]])
    expected = loss_of(logits, labels, unknown=unknown, overlap="none")
    assert loss_of(logits, labels, unknown=unknown, custom=Plugin(name="plain")).item() == pytest.approx(
        expected.item()
    )
    assert loss_of(logits, labels, custom=Plugin(name="plain")).item() != pytest.approx(expected.item())


@pytest.mark.parametrize("share", [1e-6, 0.1, 0.25, 1.0])
@pytest.mark.parametrize("kept", [0.0, 0.3, 1.0])
def test_highest_losses_are_those_of_a_plain_choice(share, kept):
    """The mean over the highest of the losses that count, and its gradient, without asking how many these are."""
    random = torch.Generator().manual_seed(0)
    losses = torch.rand(2, 1, 6, 7, generator=random, requires_grad=True)
    counted = torch.rand(losses.shape, generator=random) < kept
    mean = _mean_of_highest(losses, counted, share)
    chosen = losses[counted]
    plain = chosen.topk(max(1, round(share * len(chosen)))).values.mean() if len(chosen) else 0 * losses.sum()
    assert mean.item() == pytest.approx(plain.item(), rel=1e-6)
    gradients = [torch.autograd.grad(value, losses)[0] for value in (mean, plain)]
    assert torch.allclose(*gradients)
    if kept == 1.0:
        assert _mean_of_highest(losses, None, share).item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("targets", [LABELS, SPARSE, REGIONS])
@pytest.mark.parametrize(
    "settings", [{}, {"class_weights": (1.0, 2.0, 3.0)}, {"voxelwise": "focal"}, {"voxelwise": "top_k"}]
)
def test_labels_of_16_bits_give_the_same_loss(targets, settings):
    """Patches come with 16 bits; cross entropy and indices get 64."""
    logits = torch.sin(7 * torch.linspace(-1, 1, 2 * 3 * 64)).reshape(2, 3, 4, 4, 4)
    labels = (torch.arange(128) % (3 if targets.ignore is None else 4)).reshape(2, 4, 4, 4)
    assert torch.equal(
        loss_of(logits, labels.short(), targets, **settings), loss_of(logits, labels, targets, **settings)
    )
    assert not targets.exclusive or GroundTruth.of(labels.short(), targets).classes.dtype == torch.int64
