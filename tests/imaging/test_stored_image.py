"""NRRD, MetaImage and GIPL files are read as SimpleITK reads them where it reads them rightly."""

import bz2
import gzip
import zlib
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from tiny_workspaces import tilted

from autoseg.errors import ImageError
from autoseg.imaging.image_files import convert_image, read_image
from autoseg.imaging.image_headers import find_stored_image, read_image_header
from autoseg.imaging.sitk_conversion import from_sitk, geometry_of
from autoseg.imaging.volume_files.stored_image import open_stored

KINDS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
SHAPE = (4, 5, 6)
BLOCK = np.random.default_rng(3).integers(0, 120, SHAPE)


def make(kind: str = "i2", *, components: int = 1, dimensions: int = 3) -> sitk.Image:
    """An image of random numbers on an oblique grid."""
    array = np.stack([BLOCK + number for number in range(components)], axis=-1).astype(kind)
    array = array if components > 1 else array[..., 0]
    if dimensions == 4:
        array = np.stack([array, array + 1])
    image = sitk.GetImageFromArray(array[0] if dimensions == 2 else array, isVector=components > 1)
    image.SetSpacing((0.7, 0.9, 2.5, 0.035)[:dimensions])
    image.SetOrigin((-10.5, 20.25, 30.125, 0.0)[:dimensions])
    if dimensions == 3:
        image.SetDirection(np.asarray(tilted(20, -15, 30)).flatten().tolist())
    return image


def compare(path: Path) -> None:
    """The reader here and SimpleITK find the same voxels at the same place."""
    stored = find_stored_image(path)
    assert stored is not None
    theirs = sitk.ReadImage(str(path))
    mine, expected = open_stored(stored), from_sitk(theirs)
    np.testing.assert_array_equal(mine.array, expected.array)
    assert mine.array.dtype == expected.array.dtype
    for place in ("shape", "spacing_mm", "origin_mm", "dimensions"):
        assert getattr(mine.geometry, place) == pytest.approx(getattr(expected.geometry, place), abs=1e-9), place
    np.testing.assert_allclose(mine.geometry.direction, expected.geometry.direction, atol=1e-9)
    header = read_image_header(path)
    assert header.components == theirs.GetNumberOfComponentsPerPixel()
    assert header.volumes == (theirs.GetSize()[3] if theirs.GetDimension() == 4 else None)
    if theirs.GetDimension() < 4:
        geometry = geometry_of(theirs)
        assert (header.shape, header.spacing_mm) == (geometry.shape, pytest.approx(geometry.spacing_mm))


@pytest.mark.parametrize(
    ("ending", "kind", "is_packed"), [*product((".nrrd", ".mha", ".mhd"), KINDS, (False, True)), (".gipl", "f4", False)]
)
def test_every_number_type_is_read_as_simpleitk_reads_it(
    tmp_path: Path, ending: str, kind: str, is_packed: bool
) -> None:
    """Plain and packed."""
    image = make(kind)
    if ending == ".gipl":
        image.SetDirection(np.eye(3).flatten().tolist())
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"), useCompression=is_packed)
    compare(tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize(("components", "dimensions"), [(1, 2), (3, 2), (2, 3), (3, 3), (4, 3), (7, 3), (1, 4)])
def test_planes_vectors_and_series_are_read_as_simpleitk_reads_them(
    tmp_path: Path, ending: str, components: int, dimensions: int
) -> None:
    """With a component for each colour, and a volume for each time."""
    sitk.WriteImage(make(components=components, dimensions=dimensions), str(tmp_path / f"a{ending}"))
    compare(tmp_path / f"a{ending}")


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "f4", "f8"])
def test_gipl_is_read_as_simpleitk_reads_it(tmp_path: Path, kind: str) -> None:
    """It holds no direction."""
    image = make(kind)
    image.SetDirection(np.eye(3).flatten().tolist())
    sitk.WriteImage(image, str(tmp_path / "a.gipl"))
    compare(tmp_path / "a.gipl")


BASE = {"type": "short", "dimension": "3", "sizes": "6 5 4", "endian": "little", "encoding": "raw"}
DIRECTIONS = {"space directions": "(0.5,0,0) (0,0,-2) (0,3,0)", "space origin": "(1,2,3)"}
VOXELS = BLOCK.astype("<i2").tobytes()


def write_nrrd(path: Path, fields: dict[str, str | None], body: bytes = VOXELS) -> Path:
    """Writes a file by its fields."""
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    path.write_bytes("\n".join(["NRRD0005", "# a comment", *lines, "key:=anything: at all", "", ""]).encode() + body)
    return path


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"space": "right-anterior-superior", **DIRECTIONS}, VOXELS),
        ({"space": "RAS", **DIRECTIONS}, VOXELS),
        ({"space": "left-anterior-superior", **DIRECTIONS}, VOXELS),
        ({"space": "left-posterior-superior", **DIRECTIONS}, VOXELS),
        ({"space dimension": "3", **DIRECTIONS}, VOXELS),
        ({"space": "scanner-xyz", **DIRECTIONS}, VOXELS),
        ({"space": "left-posterior-superior", "space directions": DIRECTIONS["space directions"]}, VOXELS),
        ({"space": "LPS", **DIRECTIONS, "kinds": "domain domain domain", "measurement frame": None}, VOXELS),
        ({"spacings": "0.5 0.75 3"}, VOXELS),
        ({"spacings": "0.5 0.75 3", "axis mins": "1 2 3", "centerings": "node node node"}, VOXELS),
        ({"spacings": "0.5 0.75 3", "encoding": "gzip"}, gzip.compress(VOXELS)),
        ({"spacings": "0.5 0.75 3", "encoding": "ascii"}, " ".join(map(str, BLOCK.flat)).encode()),
        ({"spacings": "0.5 0.75 3", "encoding": "hex"}, VOXELS.hex().encode()),
        ({"spacings": "0.5 0.75 3", "endian": "big"}, BLOCK.astype(">i2").tobytes()),
        ({"spacings": "0.5 0.75 3", "byte skip": "10"}, b"0123456789" + VOXELS),
        ({"spacings": "0.5 0.75 3", "byte skip": "-1"}, b"0123456789" + VOXELS),
        ({"spacings": "0.5 0.75 3", "line skip": "2"}, b"one line\nanother\n" + VOXELS),
        ({"spacings": "0.5 0.75 3", "data file": "voxels.raw"}, b""),
    ],
)
def test_headers_of_other_programs_are_read_as_simpleitk_reads_them(
    tmp_path: Path, fields: dict[str, str | None], body: bytes
) -> None:
    """Frames, encodings, byte orders, and voxels in a file beside the header."""
    (tmp_path / "voxels.raw").write_bytes(VOXELS)
    compare(write_nrrd(tmp_path / "a.nrrd", {**BASE, **fields}, body))


def test_vectors_of_nrrd_may_be_its_fastest_or_slowest_axis(tmp_path: Path) -> None:
    """By their kind, or because the axis has no direction."""
    directions = {"space": "left-posterior-superior", **DIRECTIONS, "dimension": "4"}
    array = np.stack([BLOCK, BLOCK + 1, BLOCK + 2]).astype("<i2")  # slowest
    slowest = {**BASE, **directions, "sizes": "6 5 4 3", "kinds": "domain domain domain vector"}
    slowest["space directions"] += " none"
    compare(write_nrrd(tmp_path / "slow.nrrd", slowest, array.tobytes()))
    fastest = {**BASE, **directions, "sizes": "3 6 5 4", "space directions": f"none {DIRECTIONS['space directions']}"}
    path = write_nrrd(tmp_path / "fast.nrrd", fastest, np.moveaxis(array, 0, -1).tobytes())
    np.testing.assert_array_equal(read_image((path,)).array, array)
    series = write_nrrd(
        tmp_path / "list.nrrd", {**fastest, "kinds": "list domain domain domain"}, path.read_bytes()[-720:]
    )
    assert read_image_header(series).volumes == 3
    np.testing.assert_array_equal(read_image((series,)).array, array)


def test_bzip2_is_read(tmp_path: Path) -> None:
    """Which SimpleITK was built without."""
    fields = {**BASE, "spacings": "0.5 0.75 3", "encoding": "bzip2"}
    path = write_nrrd(tmp_path / "a.nrrd", fields, bz2.compress(VOXELS))
    np.testing.assert_array_equal(read_image((path,)).array[0], BLOCK)


HEADER = {
    "NDims": "3",
    "DimSize": "6 5 4",
    "ElementSpacing": "0.5 0.75 3",
    "ElementType": "MET_SHORT",
    "ElementDataFile": "LOCAL",
}


def write_metaimage(path: Path, fields: dict[str, str], body: bytes = VOXELS) -> Path:
    """Writes a file by its fields, of which the name of the voxels' file is the last."""
    ordered = {**fields, "ElementDataFile": fields["ElementDataFile"]}
    last = ordered.pop("ElementDataFile")
    lines = [f"{name} = {value}" for name, value in ordered.items()]
    path.write_bytes("\n".join([*lines, f"ElementDataFile = {last}", ""]).encode() + body)
    return path


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"Offset": "1 2 3", "TransformMatrix": "0 1 0 0 0 1 1 0 0"}, VOXELS),
        ({"Position": "1 2 3", "Orientation": "0 1 0 0 0 -1 -1 0 0"}, VOXELS),
        ({"Origin": "1 2 3", "Rotation": "0 1 0 0 0 -1 -1 0 0", "AnatomicalOrientation": "RAI"}, VOXELS),
        ({"BinaryData": "True", "BinaryDataByteOrderMSB": "True"}, BLOCK.astype(">i2").tobytes()),
        ({"BinaryData": "True", "ElementByteOrderMSB": "True"}, BLOCK.astype(">i2").tobytes()),
        ({"CompressedData": "True", "CompressedDataSize": str(len(zlib.compress(VOXELS)))}, zlib.compress(VOXELS)),
        ({"ElementDataFile": "voxels.raw"}, b""),
        ({"HeaderSize": "-1", "ElementDataFile": "longer.raw"}, b""),
        ({"HeaderSize": "10", "ElementDataFile": "longer.raw"}, b""),
        ({"Comment": "any = thing", "ObjectType": "Image"}, VOXELS),
        ({"ElementType": "MET_LONG"}, BLOCK.astype("<i4").tobytes()),
        ({"ElementType": "MET_ULONG"}, BLOCK.astype("<i4").tobytes()),
    ],
)
def test_metaimage_headers_are_read_as_simpleitk_reads_them(
    tmp_path: Path, fields: dict[str, str], body: bytes
) -> None:
    """All names of a field, byte orders, encodings, and voxels in a file beside the header."""
    (tmp_path / "voxels.raw").write_bytes(VOXELS)
    (tmp_path / "longer.raw").write_bytes(b"0123456789" + VOXELS)
    compare(write_metaimage(tmp_path / "a.mhd", {**HEADER, **fields}, body))


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"BinaryData": "False"}, " ".join(map(str, BLOCK.flat)).encode()),
        ({"CompressedData": "True"}, zlib.compress(VOXELS)),
        ({"CompressedData": "True"}, gzip.compress(VOXELS)),
    ],
)
def test_metaimage_files_that_simpleitk_does_not_read_right(
    tmp_path: Path, fields: dict[str, str], body: bytes
) -> None:
    """It gives memory that nobody wrote for packed voxels whose number of bytes the header does not say."""
    path = write_metaimage(tmp_path / "a.mha", {**HEADER, **fields}, body)
    np.testing.assert_array_equal(read_image((path,)).array[0], BLOCK)


@given(
    degrees=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.01, 50)] * 3),
    origin=st.tuples(*[st.floats(-1000, 1000)] * 3),
    ending=st.sampled_from([".nrrd", ".mha"]),
)
def test_any_place_is_read_as_simpleitk_reads_it(
    tmp_path_factory: pytest.TempPathFactory,
    degrees: tuple[float, float, float],
    spacing: tuple[float, float, float],
    origin: tuple[float, float, float],
    ending: str,
) -> None:
    """Any rotation, spacing and origin."""
    image = make("u1")
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.asarray(tilted(*degrees)).flatten().tolist())
    path = tmp_path_factory.mktemp("place") / f"a{ending}"
    sitk.WriteImage(image, str(path))
    compare(path)


def test_what_is_read_is_converted_with_its_place(tmp_path: Path) -> None:
    """Also the volumes of a series."""
    sitk.WriteImage(make(dimensions=4), str(tmp_path / "a.nrrd"))
    convert_image(tmp_path / "a.nrrd", (tmp_path / "0.mha", tmp_path / "1.mha"))
    first = sitk.ReadImage(str(tmp_path / "1.mha"))
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(first), BLOCK + 1)
    assert first.GetOrigin() == (-10.5, 20.25, 30.125)


def test_padding_passes_and_more_voxels_do_not(tmp_path: Path) -> None:
    """A header whose sizes are too small would give a part of the image, or a garbled one."""
    fields = {**BASE, "spacings": "1 1 1"}
    np.testing.assert_array_equal(
        read_image((write_nrrd(tmp_path / "a.nrrd", fields, VOXELS + b"\n"),)).array[0], BLOCK
    )
    for packing, pack in (("raw", bytes), ("gzip", gzip.compress), ("bzip2", bz2.compress)):
        path = write_nrrd(tmp_path / "a.nrrd", {**fields, "encoding": packing}, pack(VOXELS + bytes(1000)))
        with pytest.raises(ImageError, match="holds more voxels than the sizes in its header say"):
            read_image((path,))
    with pytest.raises(ImageError, match="holds more voxels than the sizes in its header say"):
        read_image((write_metaimage(tmp_path / "a.mha", HEADER, VOXELS + bytes(1000)),))


def test_links_of_voxels_may_not_leave_the_folder(tmp_path: Path) -> None:
    """A link inside an archive may lead to any file of the machine."""
    (tmp_path / "secret.raw").write_bytes(VOXELS)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "voxels.raw").symlink_to(tmp_path / "secret.raw")
    paths = [
        write_nrrd(tmp_path / "scans" / "a.nrrd", {**BASE, "spacings": "1 1 1", "data file": "voxels.raw"}, b""),
        write_metaimage(tmp_path / "scans" / "a.mhd", {**HEADER, "ElementDataFile": "voxels.raw"}, b""),
    ]
    for path in paths:
        with pytest.raises(ImageError, match="a link that leads out of its folder; put the file itself in its place"):
            read_image((path,))
    (tmp_path / "scans" / "voxels.raw").unlink()
    for path in paths:
        with pytest.raises(ImageError, match=r"a header whose voxels, voxels\.raw, are missing; copy that"):
            read_image((path,))
    (tmp_path / "scans" / "inner.raw").write_bytes(VOXELS)
    (tmp_path / "scans" / "voxels.raw").symlink_to("inner.raw")
    for path in paths:
        np.testing.assert_array_equal(read_image((path,)).array[0], BLOCK)


@pytest.mark.parametrize("unit", ["m", "cm", "um", "\u00b5m", "\u03bcm", "UM", "nm", "inch"])
@pytest.mark.parametrize("name", ["space units", "units", "DistanceUnits"])
def test_other_units_than_millimetres_are_refused(tmp_path: Path, name: str, unit: str) -> None:
    """Which ITK takes for millimetres; other words, and millimetres themselves, are read."""
    for word in (unit, "mm", "", "pixel"):
        if name == "DistanceUnits":
            path = tmp_path / "a.mha"
            lines = ["NDims = 3", "DimSize = 2 2 2", "ElementSpacing = 1 2 3", "ElementType = MET_UCHAR"]
            content = "\n".join([*lines, f"{name} = {word}", "ElementDataFile = LOCAL\n"])
        else:
            path = tmp_path / "a.nrrd"
            grid = ["space: LPS", "space directions: (1,0,0) (0,2,0) (0,0,3)"]
            lines = ["NRRD0004", "type: uchar", "dimension: 3", "sizes: 2 2 2", "encoding: raw"]
            lines += grid if name == "space units" else ["spacings: 1 2 3"]
            content = "\n".join([*lines, f'{name}: "mm" "{word}" "mm"', "\n"])
        path.write_bytes(content.encode() + bytes(8))
        if word == unit:
            with pytest.raises(ImageError, match=rf"measures space in '{unit}', which other .*; write its spacing"):
                read_image((path,))
        else:
            assert read_image((path,)).geometry.spacing_mm == (3.0, 2.0, 1.0)


def test_the_unit_of_an_axis_without_space_does_not_count(tmp_path: Path) -> None:
    """Time may be in anything."""
    lines = ["NRRD0004", "type: uchar", "dimension: 4", "sizes: 2 2 2 2", "kinds: domain domain domain time"]
    lines += ["spacings: 1 2 3 4", 'units: "mm" "mm" "mm" "m"', "encoding: raw", "\n"]
    (tmp_path / "a.nrrd").write_bytes("\n".join(lines).encode() + bytes(16))
    assert read_image((tmp_path / "a.nrrd",)).geometry.spacing_mm == (3.0, 2.0, 1.0)
