"""Sizes and points are printed in the order and frame that viewers show."""

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.image_files import read_image
from autoseg.imaging.spatial_words import describe_point, describe_shape, describe_spacing

EDGE = st.integers(1, 5)


@given(shape=st.tuples(EDGE, EDGE, EDGE))
def test_sizes_are_in_the_order_of_nibabel(shape):
    """Which is that of viewers: x first."""
    image = nibabel.Nifti1Image(np.zeros(shape), np.eye(4))
    assert describe_shape(shape[::-1]) == f"{' x '.join(map(str, image.shape))} voxels (x, y, z)"


def test_a_point_is_that_of_nibabel(tmp_path):
    """Right, anterior and superior, whatever the axes of the array do."""
    affine = np.array([[0, -2.0, 0, 12.5], [3.0, 0, 0, -7.25], [0, 0, 1.5, 30], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine), tmp_path / "a.nii.gz")
    geometry = read_image((tmp_path / "a.nii.gz",)).geometry
    x, y, z = affine[:3, 3]
    assert describe_point(geometry.origin_mm) == f"({x:g}, {y:g}, {z:g}) mm (right, anterior, superior)"
    assert describe_spacing(geometry.spacing_mm) == "3 x 2 x 1.5 mm (x, y, z)"
    itk = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert describe_spacing(geometry.spacing_mm) == f"{' x '.join(f'{s:g}' for s in itk.GetSpacing())} mm (x, y, z)"


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shape": (3, 4, 6)}, "shape 5 x 4 x 3 differs from 6 x 4 x 3 voxels (x, y, z)"),
        ({"spacing_mm": (3.0, 1.0, 1.5)}, "spacing 1 x 1 x 2 differs from 1.5 x 1 x 3 mm (x, y, z)"),
        (
            {"origin_mm": (0.0, 7.0, -4.0)},
            "first voxel at (0, 0, 0) mm (right, anterior, superior), not (4, -7, 0) mm (right, anterior, superior)",
        ),
    ],
)
def test_grids_are_compared_in_that_order(changes, text):
    """Sizes, steps and points."""
    grid = {"shape": (3, 4, 5), "spacing_mm": (2.0, 1.0, 1.0), "origin_mm": (0.0, 0.0, 0.0)}
    assert Geometry(**grid).difference(Geometry(**{**grid, **changes})) == text


def test_rounding_leaves_no_minus_before_zero():
    """As -0.0 would be."""
    assert describe_point((-0.0, 0.0, 0.0)) == "(0, 0, 0) mm (right, anterior, superior)"
