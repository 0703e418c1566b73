"""Patches on foreground are drawn evenly from structures, cases and components."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from small_models import small_cases, small_configuration

from autoseg.dataloading.component_sampling import VOXELS_PER_COMPONENT, ComponentSampling, list_components
from autoseg.dataloading.loader import Batches
from autoseg.dataloading.sampling import InMemoryCase
from autoseg.imaging.label_encoding import code_base, encode_cascade
from autoseg.imaging.targets import Targets
from autoseg.preprocessing.foreground import sample_foreground

LABELS = Targets.of_labels({"lesion": 1, "rare": 2})


def case_of(label, targets=LABELS):
    """Returns a case whose image is empty."""
    image = np.zeros((1, *label.shape), dtype=np.float32)
    foreground = sample_foreground(label, list(targets.structures.values()), targets.ignore)
    return InMemoryCase(image=image, label=label, foreground=foreground)


def lesions():
    """Returns three cases: a large and a small lesion; one lesion and the rare structure; background alone."""
    labels = [np.zeros((8, 20, 20), dtype=np.int8) for _ in range(3)]
    labels[0][1:7, 1:11, 1:11], labels[0][4, 17, 17] = 1, 1
    labels[1][2:4, 2:4, 2:4], labels[1][6, 6, 6:9] = 1, 2
    return [case_of(label) for label in labels]


def test_small_and_rare_are_drawn_as_often_as_large_and_common():
    """Half of the draws are of each structure, then half of each case, then half of each lesion."""
    cases, random = lesions(), np.random.default_rng(0)
    sampling, counts = ComponentSampling(cases=cases, targets=LABELS), Counter()
    for _ in range(4000):
        number, voxel = sampling.draw(random)
        label = cases[number].label[voxel]
        counts[(number, int(label), voxel == (4, 17, 17))] += 1
    shares = {kind: count / 4000 for kind, count in counts.items()}
    expected = {(0, 1, False): 1 / 8, (0, 1, True): 1 / 8, (1, 1, False): 1 / 4, (1, 2, False): 1 / 2}
    assert shares == {kind: pytest.approx(share, abs=0.03) for kind, share in expected.items()}


def test_every_voxel_of_a_component_may_be_drawn():
    """Of a component with few voxels, all are drawn in time."""
    sampling, random = ComponentSampling(cases=lesions()[1:2], targets=LABELS), np.random.default_rng(0)
    voxels = {sampling.draw(random)[1] for _ in range(600)}
    assert voxels == set(map(tuple, np.argwhere(lesions()[1].label > 0).tolist()))


def test_regions_overlap():
    """The lesion of two numbers is one component of the region, and the core in it another structure."""
    targets = Targets(structures={"whole": (1, 2), "core": (2,)}, exclusive=False)
    label = np.zeros((1, 1, 9), dtype=np.int8)
    label[..., 1:4], label[..., 2], label[..., 7] = 1, 2, 2
    sampling, random = ComponentSampling(cases=[case_of(label, targets)], targets=targets), np.random.default_rng(0)
    counts = Counter(sampling.draw(random)[1][2] for _ in range(4000))
    expected = {1: 1 / 12, 2: 1 / 12 + 1 / 4, 3: 1 / 12, 7: 1 / 2}  # half of the draws are of the core
    assert {x: count / 4000 for x, count in counts.items()} == {
        x: pytest.approx(share, abs=0.03) for x, share in expected.items()
    }


def test_codes_of_a_cascade_are_read_as_labels():
    """The coarse segmentation adds no components."""
    cases, base = lesions(), code_base(LABELS)
    coded = [replace(case, label=encode_cascade(case.label, np.full_like(case.label, 2), base)) for case in cases]
    plain = ComponentSampling(cases=cases, targets=LABELS)
    cascade = ComponentSampling(cases=coded, targets=LABELS, is_cascade=True)
    draws = [[sampling.draw(np.random.default_rng(seed)) for seed in range(50)] for sampling in (plain, cascade)]
    assert draws[0] == draws[1]


def test_nothing_is_drawn_from_background():
    """Then patches are placed as ordinary ones."""
    empty = lesions()[2:]
    assert ComponentSampling(cases=empty, targets=LABELS).draw(np.random.default_rng(0)) is None
    batches = batches_of(empty, components=ComponentSampling(cases=empty, targets=LABELS))
    assert not batches.make(0).labels.any()


def test_voxels_of_a_large_component_are_a_fixed_sample():
    """They lie in the component, and each counts once."""
    mask = np.zeros((15, 20, 20), dtype=bool)
    mask[2:14, 3:19, 3:19], mask[0, 0, 0] = True, True
    small, large = list_components(mask)
    assert small.tolist() == [0]
    assert len(set(large.tolist())) == VOXELS_PER_COMPONENT
    assert mask.ravel()[large].all()
    assert np.array_equal(large, list_components(mask)[1])
    assert list_components(np.zeros((2, 3, 4), dtype=bool)) == []


def batches_of(cases, **changes):
    """Returns a supply of batches of two patches, of which the second is centred on foreground."""
    values = {"foreground_fraction": 0.5, "seed": (3,), "augmented": False, **changes}
    return Batches(cases=cases, configuration=small_configuration(), **values)


@pytest.mark.parametrize("workers", [0, 3])
def test_patches_are_centred_on_the_drawn_voxels(workers):
    """A lesion of one voxel beside one of 600 is in the middle of a quarter of the patches."""
    cases = lesions()[:1]
    sampling = ComponentSampling(cases=cases, targets=LABELS)
    ahead = batches_of(cases, components=sampling).ahead(range(100), workers=workers)
    labels = [batch.labels[1] for batch in ahead]
    assert all(label[4, 4, 4] == 1 for label in labels)
    alone = sum(int(label.sum()) == 1 for label in labels)
    assert 35 <= alone <= 65


def test_other_patches_are_drawn_as_ever():
    """Without the option nothing changes, and ordinary patches are placed as without it."""
    cases = small_cases()
    targets = Targets.of_labels({"a": 1, "b": 2})
    sampled = batches_of(cases, components=ComponentSampling(cases=cases, targets=targets))
    assert (sampled.make(5).images[0] == batches_of(cases).make(5).images[0]).all()
