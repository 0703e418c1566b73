"""Scans that occur twice are found under other names, in other orders of the axes and with noise; others are not."""

from dataclasses import replace

import numpy as np
import pytest

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.report.case_measures import CaseMeasures, sign
from autoseg.report.duplicates import Duplicate, find_duplicates

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def make_scan(seed: int, shape=(60, 84, 96)) -> np.ndarray:
    """Returns a smooth random scan."""
    random = np.random.default_rng(seed)
    coarse = random.normal(size=(4, 4, 4))
    axes = [np.linspace(0, 3, size) for size in shape]
    scan = coarse
    for axis, positions in enumerate(axes):
        below = np.minimum(positions.astype(int), 2)
        share = (positions - below).reshape([-1 if other == axis else 1 for other in range(3)])
        scan = (1 - share) * scan.take(below, axis=axis) + share * scan.take(below + 1, axis=axis)
    return scan.astype(np.float32)


def make_volume(array: np.ndarray, direction=IDENTITY) -> Volume:
    """Returns a volume of one channel."""
    geometry = Geometry(shape=array.shape, spacing_mm=(1.0, 1.0, 1.0), direction=direction)
    return Volume(array=array[np.newaxis], geometry=geometry)


def make_case(name: str, array: np.ndarray, digest: bytes | None = None) -> CaseMeasures:
    """Returns a case of a scan."""
    return CaseMeasures(name=name, structures={}, digest=digest or name.encode(), signature=sign(make_volume(array)))


SCAN = make_scan(0)


@pytest.mark.parametrize(
    "changed",
    [
        3 * SCAN + 100,
        SCAN + np.random.default_rng(1).normal(0, 0.1 * np.ptp(SCAN), SCAN.shape).astype(np.float32),
        SCAN.reshape(30, 2, 42, 2, 48, 2).mean(axis=(1, 3, 5)),
    ],
    ids=["other intensities", "noise", "coarser"],
)
def test_changed_copies_are_found(changed):
    """The same scan, processed."""
    [pair] = find_duplicates([make_case("a", SCAN), make_case("b", changed), make_case("c", make_scan(2))], {})
    assert (pair.first, pair.second, pair.same_voxels, pair.split) == ("a", "b", False, True)
    assert 0.995 < pair.correlation <= 1.0001


def test_order_of_axes_does_not_matter():
    """The same scan in sagittal slices, upside down."""
    turned = np.ascontiguousarray(SCAN.transpose(2, 0, 1)[:, ::-1])
    direction = ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    assert sign(make_volume(SCAN)) @ sign(make_volume(turned, direction)) == pytest.approx(1, abs=1e-5)


def test_equal_voxels_are_said_once_each():
    """A scan that occurs three times makes two pairs; cases of one group are on one side of every fold."""
    cases = [make_case(name, SCAN, digest=b"same") for name in "abc"]
    assert find_duplicates(cases, {"a": "patient", "b": "patient"}) == [
        Duplicate(first="a", second="b", correlation=1.0, same_voxels=True, split=False),
        Duplicate(first="a", second="c", correlation=1.0, same_voxels=True, split=True),
    ]


def test_different_scans_and_constant_ones_are_no_duplicates():
    """More cases than are compared at a time; empty signatures are equal but say nothing."""
    cases = [make_case(f"case_{seed}", make_scan(seed, (12, 12, 12))) for seed in range(600)]
    constant = make_case("constant", np.ones((12, 12, 12), np.float32), digest=b"constant")
    unread = replace(constant, name="unread", signature=None)
    assert find_duplicates([*cases, constant, replace(constant, name="twin"), unread], {}) == []
    copy = replace(cases[3], name="copy", digest=b"other")
    assert [(pair.first, pair.second) for pair in find_duplicates([*cases, copy], {})] == [("case_3", "copy")]


def test_signature_has_mean_0_and_length_1():
    """Of thin and tiny volumes too."""
    for shape in [(1, 40, 50), (3, 4, 5), (1, 1, 2), (100, 7, 13)]:
        signature = sign(make_volume(np.random.default_rng(3).normal(size=shape).astype(np.float32)))
        assert signature.shape == (12**3,)
        assert signature.mean() == pytest.approx(0, abs=1e-6)
        assert np.linalg.norm(signature) == pytest.approx(1, abs=1e-5)
