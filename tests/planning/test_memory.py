"""Bytes of a training step, against golden counts and against what autograd really keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoseg.plan import Architecture, Stage
from autoseg.planning.memory import (
    BYTES_PER_WEIGHT,
    CONTEXT_BYTES,
    ByteBudget,
    FeatureMapBudget,
    count_weights,
    feature_map_elements,
    saved_bytes,
    training_bytes,
)


def plain(dimensions, stages, largest, *, channels=1, classes=2, convolutions=2, residual="none"):
    """A U-Net whose stages halve every axis."""
    return Architecture(
        residual=residual,
        in_channels=channels,
        out_channels=classes,
        stages=tuple(
            Stage(
                features=min(largest, 32 * 2**number),
                kernel=(3,) * dimensions,
                stride=(1 if number == 0 else 2,) * dimensions,
                convolutions=convolutions,
            )
            for number in range(stages)
        ),
    )


@pytest.mark.parametrize(
    ("architecture", "patch", "elements"),
    [
        (plain(3, 6, 320), (128, 128, 128), 450_699_264),
        (plain(3, 6, 320, classes=3), (128, 128, 128), 452_796_416),
        (plain(2, 8, 512), (512, 512), 82_624_512),
    ],
)
def test_golden_feature_map_elements(architecture, patch, elements):
    """The count of feature map elements equals the reference method's."""
    assert feature_map_elements(architecture, patch) == elements


@pytest.mark.parametrize(
    ("architecture", "weights"),
    [
        (plain(3, 6, 320), 31_195_594),
        (plain(3, 6, 320, classes=3), 31_196_399),
        (plain(3, 6, 320, channels=4, classes=4), 31_199_796),
        (plain(3, 5, 320), 16_547_592),
        (plain(2, 7, 512), 33_471_820),
    ],
)
def test_golden_weights(architecture, weights):
    """The count of weights equals that of the published plain U-Nets."""
    assert count_weights(architecture) == weights


class Convolutions(nn.Module):
    """The convolutions of a stage, as the module under test describes them."""

    def __init__(self, channels, stage, stride, residual):
        super().__init__()
        blocks = []
        for number in range(stage.convolutions):
            blocks.append(
                nn.Sequential(
                    nn.Conv3d(
                        channels if number == 0 else stage.features,
                        stage.features,
                        stage.kernel,
                        stride if number == 0 else 1,
                        padding=[size // 2 for size in stage.kernel],
                    ),
                    nn.InstanceNorm3d(stage.features, affine=True),
                    nn.LeakyReLU(inplace=True),
                )
            )
        self.first, self.rest = blocks[0], nn.Sequential(*blocks[1:])
        self.adds = residual == "stage" and stage.convolutions > 1

    def forward(self, maps):
        maps = self.first(maps)
        return maps + self.rest(maps) if self.adds else self.rest(maps)


class Network(nn.Module):
    """A network of an architecture, small enough to run in a test."""

    def __init__(self, architecture):
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels = architecture.in_channels
        for stage in architecture.stages:
            self.down.append(Convolutions(channels, stage, stage.stride, architecture.residual))
            channels = stage.features
        for coarse, fine in zip(architecture.stages[:0:-1], architecture.stages[-2::-1], strict=True):
            self.up.append(
                nn.ModuleList(
                    [
                        nn.ConvTranspose3d(coarse.features, fine.features, coarse.stride, coarse.stride),
                        Convolutions(2 * fine.features, fine, 1, architecture.residual),
                        nn.Conv3d(fine.features, architecture.out_channels, 1),
                    ]
                )
            )

    def forward(self, maps):
        skips, logits = [], []
        for stage in self.down:
            maps = stage(maps)
            skips.append(maps)
        skips.pop()
        for upsample, convolutions, head in self.up:
            maps = convolutions(torch.cat([skips.pop(), upsample(maps)], dim=1))
            logits.append(head(maps))
        return logits


@pytest.mark.parametrize("residual", ["none", "stage"])
def test_saved_bytes_are_what_autograd_keeps(residual):
    """Under 16-bit autocast, autograd keeps exactly the counted bytes of feature maps; the weights agree too."""
    shapes = [(4, (1, 3, 3), (1, 1, 1), 1), (6, (3, 3, 3), (1, 2, 2), 2), (10, (3, 3, 3), (2, 2, 2), 3)]
    architecture = Architecture(
        residual=residual,
        in_channels=2,
        out_channels=3,
        stages=tuple(Stage(features=f, kernel=k, stride=s, convolutions=n) for f, k, s, n in shapes),
    )
    patch, batch = (8, 16, 16), 2
    maps_of = {voxels * batch for voxels in (8 * 16 * 16, 8 * 8 * 8, 4 * 4 * 4)}
    network = Network(architecture)
    kept = {}

    def keep(tensor):
        """Notes feature maps: the norm's view holds batch and channels in one axis, the input has two channels."""
        voxels = tensor.numel() // (tensor.shape[0] * tensor.shape[1]) if tensor.ndim == 5 else 0
        if voxels * batch in maps_of and tensor.shape[1] != architecture.in_channels:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        logits = network(torch.zeros(batch, 2, *patch))
    assert [tuple(output.shape) for output in logits] == [(2, 3, 8, 8, 8), (2, 3, 8, 16, 16)]
    assert sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) == batch * saved_bytes(
        architecture, patch
    )
    assert sum(weight.numel() for weight in network.parameters()) == count_weights(architecture)


architectures = st.builds(
    plain,
    st.sampled_from((2, 3)),
    st.integers(2, 6),
    st.integers(32, 400),
    channels=st.integers(1, 4),
    classes=st.integers(2, 30),
    convolutions=st.integers(1, 4),
    residual=st.sampled_from(("none", "stage")),
)


@given(architectures, st.integers(1, 4), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_more_of_anything_takes_more(architecture, blocks, batch):
    """The estimate never falls when patch, batch, features or convolutions grow."""
    divisor = architecture.divisor
    patch = tuple(size * blocks for size in divisor)
    cost = training_bytes(architecture, patch, batch)
    assert training_bytes(architecture, patch, batch + 1) > cost
    for axis in range(len(patch)):
        longer = tuple(size + divisor[axis] * (number == axis) for number, size in enumerate(patch))
        assert training_bytes(architecture, longer, batch) > cost
    for number, stage in enumerate(architecture.stages):
        for more in ({"features": stage.features + 1}, {"convolutions": stage.convolutions + 1}):
            stages = list(architecture.stages)
            stages[number] = stage.model_copy(update=more)
            assert training_bytes(architecture.model_copy(update={"stages": tuple(stages)}), patch, batch) > cost


@given(architectures, st.integers(1, 6), st.integers(10**8, 4 * 10**10))
@settings(max_examples=60, deadline=None)
def test_the_largest_batch_is_the_largest(architecture, blocks, budget):
    """The largest batch fits, and one more patch does not."""
    patch = tuple(size * blocks for size in architecture.divisor)
    memory = ByteBudget(budget)
    largest = memory.largest_batch(architecture, patch)
    assert largest == 0 or memory.fits(architecture, patch, largest)
    assert not memory.fits(architecture, patch, largest + 1)


def test_a_step_by_hand():
    """The estimate of a tiny network equals the formula worked out by hand."""
    stages = (
        Stage(features=2, kernel=(3, 3), stride=(1, 1), convolutions=1),
        Stage(features=4, kernel=(3, 3), stride=(2, 2), convolutions=2),
    )
    network = Architecture(residual="stage", in_channels=1, out_channels=2, stages=stages, deep_supervision=False)
    weights = (9 * 2 + 6) + (2 * 9 * 4 + 12 + 4 * 9 * 4 + 12) + (4 * 4 * 2 + 2) + (4 * 9 * 2 + 6) + (2 * 2 + 2)
    fine, coarse = 64, 16  # voxels of a patch of 8 x 8
    entering = 6 * fine
    saved = 2 * (2 * 2 * fine) + 2 * (2 * 2 * 4 * coarse + 4 * coarse) + 2 * (2 * 2 * fine + 2 * 2 * fine)
    losses = (14 * 2 + 8) * fine
    moving = 2 * (3 * 2 * 2 * fine)
    assert count_weights(network) == weights
    assert training_bytes(network, (8, 8), 3) == (
        CONTEXT_BYTES + BYTES_PER_WEIGHT * weights + 3 * (entering + saved + losses + moving)
    )


def test_the_reference_budget_holds_two_volumes_or_twelve_planes():
    """At 8 GB, a network of 450.7 of 560 million elements gets a batch of 2.49, rounded; half the memory gets none."""
    network = plain(3, 6, 320)
    assert FeatureMapBudget(8).largest_batch(network, (128, 128, 128)) == 2
    assert FeatureMapBudget(8).fits(network, (128, 128, 128), 2)
    assert not FeatureMapBudget(6).fits(network, (128, 128, 128), 2)
    assert FeatureMapBudget(8).largest_batch(plain(2, 8, 512), (512, 512)) == 12
