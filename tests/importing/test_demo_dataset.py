"""The synthetic dataset."""

from pathlib import Path

import numpy as np
import pytest

from autoseg.datasets.integrity import check_dataset, load_case
from autoseg.errors import UsageError
from autoseg.imaging.image_files import read_image
from autoseg.importing.demo_dataset import ORGANS, make_case, make_demo_dataset


@pytest.mark.parametrize("seed", range(6))
def test_every_patient_has_every_organ_inside_the_picture(seed: int) -> None:
    """All organs are there, of the usual order of size, and none touches the border."""
    image, label = make_case(np.random.default_rng(seed))
    counts = np.bincount(label.array.ravel(), minlength=len(ORGANS) + 1)
    assert (counts[1:] >= 100).all()
    assert counts[1] == counts[1:].max()
    assert 0.02 < counts[1:].sum() / counts.sum() < 0.2
    assert not label.array[[0, -1]].any()
    assert not label.array[:, [0, -1]].any()
    assert not label.array[:, :, [0, -1]].any()
    assert image.array.dtype == np.float32
    assert image.array.shape == (2, *label.array.shape)


def test_organs_differ_from_each_other_in_some_channel() -> None:
    """Two organs, or an organ and the body, are far apart in at least one channel, so that they can be learned."""
    image, label = make_case(np.random.default_rng(0))
    medians = np.array([np.median(image.array[:, label.array == number], axis=1) for number in range(1, 5)])
    apart = np.abs(medians[:, np.newaxis] - medians).max(axis=-1)
    assert apart[~np.eye(4, dtype=bool)].min() > 60


def test_patients_differ_in_grid() -> None:
    """Shape, spacing and direction vary, and slices are thicker than pixels."""
    grids = [make_case(np.random.default_rng(seed))[0].geometry for seed in range(4)]
    assert len({grid.shape for grid in grids}) > 1
    assert len({grid.spacing_mm for grid in grids}) == len({grid.direction for grid in grids}) == 4
    for grid in grids:
        matrix = np.asarray(grid.direction)
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
        assert grid.spacing_mm[0] > 2 * max(grid.spacing_mm[1:])


def test_dataset_is_sound_and_has_test_scans(tmp_path: Path) -> None:
    """The dataset passes its own check; the test scans have both channels and no label."""
    dataset = make_demo_dataset(tmp_path / "Dataset001_Demo", cases=2, seed=1)
    assert check_dataset(dataset).problems == ()
    assert [case.name for case in dataset.cases] == ["demo_001", "demo_002"]
    scans = sorted((dataset.folder / "imagesTs").iterdir())
    assert [path.name[:13] for path in scans] == [f"demo_{n:03d}_{c:04d}" for n in (3, 4) for c in (0, 1)]
    assert read_image(tuple(scans[:2])).array.shape[0] == 2


def test_seed_decides_everything(tmp_path: Path) -> None:
    """The same seed makes the same files, another one other files, and more cases change no earlier one."""
    first = make_demo_dataset(tmp_path / "first", cases=1, seed=3)
    longer = make_demo_dataset(tmp_path / "longer", cases=2, seed=3)
    other = make_demo_dataset(tmp_path / "other", cases=1, seed=4)
    for one, two in zip(load_case(first.cases[0], first.info), load_case(longer.cases[0], longer.info), strict=True):
        np.testing.assert_array_equal(one.array, two.array)
        assert one.geometry == two.geometry
    image, _ = load_case(other.cases[0], other.info)
    assert image.geometry != load_case(first.cases[0], first.info)[0].geometry


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder that exists is refused, and so is a dataset without cases."""
    with pytest.raises(UsageError, match="exists already"):
        make_demo_dataset(tmp_path)
    with pytest.raises(UsageError, match="at least 1"):
        make_demo_dataset(tmp_path / "new", cases=0)
    assert list(tmp_path.iterdir()) == []
