"""Surfaces of masks: closed, outside out, of the right size at the right place, and as independent readers see them."""

import json
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.imaging.geometry import Geometry, Volume
from autoseg.imaging.mesh_files import write_glb, write_stl
from autoseg.imaging.meshes import Mesh, make_mesh, make_meshes
from autoseg.imaging.targets import Targets

SPACING = (3.0, 0.8, 1.1)
C, S = np.cos(0.4), np.sin(0.4)
TILTED = ((C, -S, 0.0), (S, C, 0.0), (0.0, 0.0, 1.0))
MIRRORED = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0))


def grid(shape, *, direction=TILTED, spacing_mm=SPACING) -> Geometry:
    """A grid somewhere in the patient."""
    return Geometry(shape=shape, spacing_mm=spacing_mm, origin_mm=(-40.0, 12.5, 70.0), direction=direction)


def ball(radius_mm=15.0, spacing_mm=SPACING):
    """A ball, and its centre as an index."""
    shape = tuple(int(2 * radius_mm / spacing) + 9 for spacing in spacing_mm)
    centre = (np.array(shape) - 1) / 2 + 0.2
    offsets = np.indices(shape) - centre[:, None, None, None]
    return (np.einsum("i...,i->...", offsets**2, np.square(spacing_mm)) <= radius_mm**2), centre


def assert_closed(mesh: Mesh) -> None:
    """Each edge is of two triangles, which run along it in opposite directions; no corner is unused."""
    edges = Counter(
        (int(a), int(b)) for triangle in mesh.triangles for a, b in zip(triangle, np.roll(triangle, -1), strict=True)
    )
    assert set(edges.values()) == {1}
    assert all((b, a) in edges for a, b in edges)
    assert set(np.unique(mesh.triangles)) == set(range(len(mesh.points_mm)))


@pytest.mark.parametrize("direction", [TILTED, MIRRORED])
def test_a_ball_has_its_volume_and_its_place(direction):
    """On thick slices, tilted or mirrored: as the voxels say, and as the formula says."""
    mask, centre = ball()
    geometry = grid(mask.shape, direction=direction)
    mesh = make_mesh("ball", mask, geometry)
    assert_closed(mesh)
    assert mesh.volume_mm3 == pytest.approx(mask.sum() * geometry.voxel_size, rel=0.03)
    assert mesh.volume_mm3 == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.03)
    middle = (np.asarray(geometry.origin_mm) + np.asarray(direction) @ (centre * SPACING))[::-1]
    distances = np.linalg.norm(mesh.points_mm - middle, axis=1)
    assert distances.min() > 15 - 2
    assert distances.max() < 15 + 2


def test_smoothing_takes_the_stairs_away():
    """The radius of a ball differs less from point to point than that of the voxels' own surface."""
    mask, centre = ball(10.0, (1.0, 1.0, 1.0))
    geometry = grid(mask.shape, spacing_mm=(1.0, 1.0, 1.0))
    middle = (np.asarray(geometry.origin_mm) + np.asarray(TILTED) @ centre)[::-1]
    smooth_points = make_mesh("ball", mask, geometry).points_mm
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autoseg.imaging.meshes.SMOOTHING_STEPS", 0)
        plain_points = make_mesh("ball", mask, geometry).points_mm
    smooth_std, plain_std = (np.linalg.norm(points - middle, axis=1).std() for points in (smooth_points, plain_points))
    assert smooth_std < 0.6 * plain_std


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7)),
    share=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    seed=st.integers(0, 999),
)
def test_every_mask_has_a_closed_surface(shape, share, seed):
    """Single voxels, corners that touch, holes, and structures that fill the image to its border."""
    mask = np.random.default_rng(seed).random(shape) < share
    mask.flat[0] = True
    mesh = make_mesh("noise", mask, grid(shape))
    assert_closed(mesh)
    assert mesh.volume_mm3 > 0


def test_each_structure_of_a_label_map_has_its_mesh():
    """A region has those of all its numbers, and what is missing has none."""
    array = np.zeros((8, 9, 10), np.int16)
    array[1:4, 2:6, 2:8], array[4:7, 2:6, 2:8] = 1, 2
    targets = Targets(structures={"whole": (1, 2), "core": (2,), "missing": (3,)}, exclusive=False)
    meshes = list(make_meshes(Volume(array=array, geometry=grid(array.shape)), targets))
    assert [mesh.name for mesh in meshes] == ["whole", "core"]
    assert meshes[0].volume_mm3 > 1.8 * meshes[1].volume_mm3


def test_stl_holds_each_triangle(tmp_path):
    """Read byte by byte: a header that names the frame, and normals that point outwards."""
    mask, _ = ball()
    mesh = make_mesh("ball", mask, grid(mask.shape))
    write_stl(tmp_path / "ball.stl", mesh)
    content = (tmp_path / "ball.stl").read_bytes()
    assert b"SPACE=LPS" in content[:80]
    assert not content.startswith(b"solid")
    [count] = struct.unpack("<I", content[80:84])
    assert count == len(mesh.triangles)
    assert len(content) == 84 + 50 * count
    middle = mesh.points_mm.mean(axis=0)
    for number in range(0, count, 97):
        values = np.array(struct.unpack("<12f", content[84 + 50 * number : 84 + 50 * number + 48])).reshape(4, 3)
        np.testing.assert_array_equal(values[1:], mesh.points_mm[mesh.triangles[number]])
        assert np.linalg.norm(values[0]) == pytest.approx(1, abs=1e-5)
        assert values[0] @ (values[1] - middle) > 0


def read_glb(path: Path):
    """The description and the buffer of a GLB, by the layout of its specification."""
    content = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", content[:12])
    assert (magic, version, length) == (b"glTF", 2, len(content))
    chunks, at = [], 12
    while at < length:
        size, kind = struct.unpack("<I4s", content[at : at + 8])
        assert size % 4 == 0
        chunks.append((kind, content[at + 8 : at + 8 + size]))
        at += 8 + size
    return json.loads(chunks[0][1]), [chunk for kind, chunk in chunks if kind == b"BIN\0"]


def test_glb_holds_all_structures(tmp_path):
    """Points in LPS below a node that stands the patient up: head upwards, face towards the viewer, in metres."""
    array = np.zeros((8, 9, 10), np.int16)
    array[1:4, 2:6, 2:8], array[4:7, 2:6, 2:8] = 1, 2
    targets = Targets.of_labels({"liver": 1, "kidney, left": 2})
    meshes = list(make_meshes(Volume(array=array, geometry=grid(array.shape)), targets))
    write_glb(tmp_path / "a.glb", meshes)
    scene, [buffer] = read_glb(tmp_path / "a.glb")
    assert scene["buffers"] == [{"byteLength": len(buffer)}]
    assert [node["name"] for node in scene["nodes"]] == ["patient", "liver", "kidney, left"]
    for mesh, described in zip(meshes, scene["meshes"], strict=True):
        [primitive] = described["primitives"]
        for key, array_of_mesh, dtype in (
            (primitive["attributes"]["POSITION"], mesh.points_mm, "<f4"),
            (primitive["indices"], mesh.triangles, "<u4"),
        ):
            accessor = scene["accessors"][key]
            view = scene["bufferViews"][accessor["bufferView"]]
            part = buffer[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
            np.testing.assert_array_equal(np.frombuffer(part, dtype), array_of_mesh.ravel())
            assert accessor["count"] * (3 if accessor["type"] == "VEC3" else 1) == array_of_mesh.size
    matrix = np.array(scene["nodes"][0]["matrix"]).reshape(4, 4).T
    left, front, head = (matrix[:3, :3] @ np.array(axis) for axis in ([1, 0, 0], [0, -1, 0], [0, 0, 1]))
    np.testing.assert_allclose([left, head, front], 0.001 * np.eye(3))
    assert np.linalg.det(matrix[:3, :3]) > 0


def test_a_scene_without_structures_is_a_scene(tmp_path):
    """Nothing was found: the file says so."""
    write_glb(tmp_path / "empty.glb", [])
    scene, buffers = read_glb(tmp_path / "empty.glb")
    assert buffers == []
    assert "meshes" not in scene


def test_trimesh_reads_what_was_written(tmp_path):
    """An independent reader: watertight, outside out, the volume of the voxels, and the place in the patient."""
    trimesh = pytest.importorskip("trimesh")
    mask, centre = ball()
    geometry = grid(mask.shape)
    mesh = make_mesh("ball", mask, geometry)
    write_stl(tmp_path / "ball.stl", mesh)
    write_glb(tmp_path / "ball.glb", [mesh])
    middle = (np.asarray(geometry.origin_mm) + np.asarray(TILTED) @ (centre * SPACING))[::-1]
    stl = trimesh.load(tmp_path / "ball.stl")
    scene = trimesh.load(tmp_path / "ball.glb")
    [glb] = scene.dump()
    for read, factor, place in ((stl, 1.0, middle), (glb, 0.001, middle[[0, 2, 1]] * (1, 1, -1))):
        assert read.is_watertight
        assert read.is_winding_consistent
        assert read.volume == pytest.approx(mask.sum() * geometry.voxel_size * factor**3, rel=0.03)
        np.testing.assert_allclose(read.center_mass / factor, place, atol=0.3)
    assert list(scene.geometry) == ["ball"]
