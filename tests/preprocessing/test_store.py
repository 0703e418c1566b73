"""Preprocessed cases on disk."""

import errno
import os
import pickle
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blosc2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoseg.errors import ArtifactError, WriteError
from autoseg.imaging.geometry import Box, Geometry, Shape
from autoseg.planning.channel_settings import Normalization
from autoseg.preprocessing.archive import read_part, write_archive
from autoseg.preprocessing.case import PreprocessedCase, PreprocessRecord
from autoseg.preprocessing.provenance import PreprocessingSettings, Provenance
from autoseg.preprocessing.store import StoredCase, is_stored, is_up_to_date, save_case

SHAPE: Shape = (9, 20, 17)
PATCH = (4, 8, 8)
PARTS = ["case.json", "image.b2nd", "label.b2nd", "foreground.b2nd"]
FILE = r"case\.zip"
PROVENANCE = Provenance(
    recipe=PreprocessingSettings(
        axis_order=(0, 1, 2),
        spacing_mm=(1.0, 1.0, 1.0),
        normalization=(Normalization(scheme="zscore"),) * 2,
        channels=2,
        structures=((1,), (2,)),
    ),
    program="1",
    files=(("a.nii", 1, 2),),
)
AGAIN = r"run 'autoseg preprocess' again"


def make_case(shape: Shape = SHAPE, channels: int = 2, dtype: type[np.integer] = np.int8) -> PreprocessedCase:
    """A case of noise with the labels -1 to 2."""
    random = np.random.default_rng(0)
    record = PreprocessRecord(
        geometry=Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0)),
        axis_order=(0, 1, 2),
        box=Box(start=(0, 0, 0), stop=shape),
        shape=shape,
        spacing_mm=(1.0, 1.0, 1.0),
    )
    image = random.normal(size=(channels, *shape)).astype(np.float32)
    return PreprocessedCase(image=image, label=random.integers(-1, 3, shape).astype(dtype), record=record)


def label_of(case: PreprocessedCase) -> NDArray[np.integer]:
    """The label map of a case that has one."""
    assert case.label is not None
    return case.label


def find_all(content: bytes, part: bytes) -> list[int]:
    """Where it occurs."""
    places, start = [], content.find(part)
    while start >= 0:
        places.append(start)
        start = content.find(part, start + 1)
    return places


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 40), st.integers(1, 40)),
    patch=st.sampled_from([(4, 8, 8), (16, 16), (64, 64, 64), (5, 1, 3)]),
    channels=st.integers(1, 3),
    dtype=st.sampled_from([np.int8, np.int16]),
    data=st.data(),
)
def test_what_was_saved_is_read(
    tmp_path: Path, shape: Shape, patch: tuple[int, ...], channels: int, dtype: type[np.integer], data: st.DataObject
) -> None:
    """Whole cases and any box of them, empty ones too, come back exactly."""
    case = make_case(shape, channels, dtype)
    save_case(tmp_path, "case", case, patch_size=patch)
    stored = StoredCase.open(tmp_path, "case")
    assert stored.shape == shape
    assert stored.record == case.record
    image, label = stored.load()
    np.testing.assert_array_equal(image, case.image)
    np.testing.assert_array_equal(label, label_of(case))
    assert (image.dtype, label.dtype) == (np.float32, dtype)
    assert stored.nbytes == image.nbytes + label.nbytes
    start = tuple(data.draw(st.integers(0, size)) for size in shape)
    stop = tuple(data.draw(st.integers(first, size)) for first, size in zip(start, shape, strict=True))
    box = Box(start=start, stop=stop)
    image, label = stored.read(box)
    np.testing.assert_array_equal(image, case.image[(slice(None), *box.slices)])
    np.testing.assert_array_equal(label, label_of(case)[box.slices])


def test_patches_may_be_written_to(tmp_path: Path) -> None:
    """A patch is the caller's own; the file stays as it is."""
    case = make_case()
    save_case(tmp_path, "case", case, patch_size=PATCH)
    stored = StoredCase.open(tmp_path, "case")
    for array in stored.load():
        array[...] = 0
    np.testing.assert_array_equal(stored.load()[0], case.image)


@pytest.mark.parametrize("stop", [(10, 1, 1), (1, 21, 1)])
def test_a_box_beyond_the_case_is_refused(tmp_path: Path, stop: Shape) -> None:
    """Padding is the caller's business, and nothing is cut silently."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    with pytest.raises(ValueError, match=r"does not lie inside"):
        StoredCase.open(tmp_path, "case").read(Box(start=(0, 0, 0), stop=stop))


@pytest.mark.parametrize(
    ("patch", "chunks"), [((4, 8, 8), (1, 4, 8, 8)), ((8, 8), (1, 1, 8, 8)), ((64, 16, 64), (1, 9, 16, 17))]
)
def test_files_are_cut_into_chunks_of_the_size_of_a_patch(
    tmp_path: Path, patch: tuple[int, ...], chunks: tuple[int, ...]
) -> None:
    """A patch touches few chunks, and only these are read; channels and, for 2D, slices are apart."""
    save_case(tmp_path, "case", make_case(), patch_size=patch)
    with zipfile.ZipFile(tmp_path / "case.zip") as archive:
        archive.extractall(tmp_path)
    assert blosc2.open(str(tmp_path / "image.b2nd"), mode="r").chunks == chunks
    assert blosc2.open(str(tmp_path / "label.b2nd"), mode="r").chunks == chunks[1:]


def test_names_that_look_like_others_do_not_mix(tmp_path: Path) -> None:
    """Each case has a file of its own."""
    names = ["b", "a", "a.zip", "a_image", "a.b", "case.json"]
    for number, name in enumerate(names):
        save_case(tmp_path, name, make_case((2, 3, number + 1)), patch_size=PATCH)
    for number, name in enumerate(names):
        assert StoredCase.open(tmp_path, name).load()[1].shape == (2, 3, number + 1)
        assert StoredCase.open(tmp_path, name).name == name
    (tmp_path / "b.zip").unlink()
    with pytest.raises(ArtifactError, match=rf"b\.zip is missing, damaged or cut off; {AGAIN}"):
        StoredCase.open(tmp_path, "b")


def test_foreground_is_where_the_labels_are(tmp_path: Path) -> None:
    """All voxels of a small label are kept, each once; background and -1 have none."""
    case = make_case()
    save_case(tmp_path, "case", case, patch_size=PATCH)
    stored = StoredCase.open(tmp_path, "case")
    for foreground in (stored.foreground, stored.load_foreground()):
        places = np.asarray(foreground.voxels[:])
        assert sum(foreground.counts) == len(places)
        for value, group in zip((1, 2), np.split(places, [foreground.counts[0]]), strict=True):
            expected = np.argwhere(label_of(case) == value)
            assert sorted(map(tuple, group.tolist())) == sorted(map(tuple, expected.tolist()))


def test_places_are_drawn_from_the_file_as_from_memory(tmp_path: Path) -> None:
    """Training sees the same patches, whether its cases fit into the memory or not."""
    case = make_case()
    save_case(tmp_path, "case", case, patch_size=PATCH)
    stored = StoredCase.open(tmp_path, "case")
    on_disk, in_memory = np.random.default_rng(1), np.random.default_rng(1)
    foreground = stored.load_foreground()
    for _ in range(50):
        voxel = stored.foreground.draw(on_disk)
        assert voxel is not None
        assert voxel == foreground.draw(in_memory)
        assert label_of(case)[voxel] > 0


def test_a_case_without_foreground_has_no_places(tmp_path: Path) -> None:
    """Empty label maps are legal."""
    case = make_case()
    empty = PreprocessedCase(image=case.image, label=np.zeros(SHAPE, dtype=np.int8), record=case.record)
    save_case(tmp_path, "case", empty, patch_size=PATCH)
    stored = StoredCase.open(tmp_path, "case")
    assert not any(stored.foreground.counts)
    assert stored.foreground.draw(np.random.default_rng(0)) is None
    assert stored.load_foreground().voxels.shape == (0, 3)


def test_a_missing_part_is_an_error(tmp_path: Path) -> None:
    """An archive of something else is no case."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    path = tmp_path / "case.zip"
    parts = [(name, read_part(path, name)[0]) for name in PARTS]
    for missing in range(len(parts)):
        write_archive(path, parts[:missing] + parts[missing + 1 :])
        with pytest.raises(ArtifactError, match=rf"{FILE}.*{AGAIN}"):
            StoredCase.open(tmp_path, "case")
    write_archive(path, parts)
    StoredCase.open(tmp_path, "case").verify()


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    """A copy that was cut off anywhere is an error with a remedy, already when it is opened."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    path = tmp_path / "case.zip"
    whole = path.read_bytes()
    for length in (0, 1, 30, *range(100, len(whole), 997), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match=rf"{FILE} is missing, damaged or cut off; {AGAIN}"):
            StoredCase.open(tmp_path, "case")


def test_a_file_of_something_else_is_named(tmp_path: Path) -> None:
    """Text in place of an archive, or of an array in it, does not crash the reader."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    path = tmp_path / "case.zip"
    parts = {name: read_part(path, name)[0] for name in PARTS}
    path.write_text("not an archive " * 100)
    with pytest.raises(ArtifactError, match=rf"{FILE}.*{AGAIN}"):
        StoredCase.open(tmp_path, "case")
    for part in PARTS:
        write_archive(path, {**parts, part: b"not an array " * 100}.items())
        with pytest.raises(ArtifactError, match=rf"{FILE}.*{AGAIN}"):
            StoredCase.open(tmp_path, "case")


def test_parts_of_another_case_are_noticed(tmp_path: Path) -> None:
    """Their shapes tell, if whoever mixed them made a sound archive of them."""
    for name, shape in (("case", SHAPE), ("other", (9, 20, 18))):
        save_case(tmp_path, name, make_case(shape), patch_size=PATCH)
    parts, others = (
        {part: read_part(tmp_path / f"{name}.zip", part)[0] for part in PARTS} for name in ("case", "other")
    )
    for part, what in (("label.b2nd", r"\(9, 20, 18\)"), ("foreground.b2nd", r"\(\d+, 3\)")):
        write_archive(tmp_path / "case.zip", {**parts, part: others[part]}.items())
        with pytest.raises(ArtifactError, match=rf"{FILE} holds an array of shape {what}, its record says .*; {AGAIN}"):
            StoredCase.open(tmp_path, "case")


@pytest.mark.filterwarnings("ignore::UserWarning")  # zipfile's, about names that occur twice
def test_every_changed_bit_is_found(tmp_path: Path) -> None:
    """Whatever byte changes: the case is not sound, or no part of it is another."""
    case = make_case()
    save_case(tmp_path, "case", case, patch_size=PATCH, provenance=PROVENANCE)
    path = tmp_path / "case.zip"
    whole = path.read_bytes()
    assert is_up_to_date(tmp_path, "case", PROVENANCE)
    unseen = 0
    ends = [place for name in PARTS for place in find_all(whole, name.encode())]
    near_ends = {place for end in ends for place in range(max(0, end - 46), end + 40) if place < len(whole)}
    for place in sorted(near_ends | set(range(len(whole) - 22, len(whole))) | set(range(0, len(whole), 211))):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        if is_up_to_date(tmp_path, "case", PROVENANCE):
            unseen += 1
            image, label = StoredCase.open(tmp_path, "case").load()
            np.testing.assert_array_equal(image, case.image)
            np.testing.assert_array_equal(label, label_of(case))
    assert unseen < 200  # dates, versions and the like, of which there are two for each part


def test_a_damaged_part_is_found_when_it_is_verified(tmp_path: Path) -> None:
    """The file can be opened, but the checksum of a part is another."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH, provenance=PROVENANCE)
    path, stored = tmp_path / "case.zip", StoredCase.open(tmp_path, "case")
    stored.verify()
    whole = path.read_bytes()
    for part in PARTS:
        place = stored.parts[part].start + stored.parts[part].size - 1
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=rf"{FILE} is missing, damaged or cut off; {AGAIN}"):
            stored.verify()
        assert not is_up_to_date(tmp_path, "case", PROVENANCE)
    path.write_bytes(whole)
    stored.verify()
    assert is_up_to_date(tmp_path, "case", PROVENANCE)


def test_a_case_is_sound_if_it_is_of_the_same_origin(tmp_path: Path) -> None:
    """Another plan, another program or another file make it one of the past; without an origin it always is."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH, provenance=PROVENANCE)
    assert StoredCase.open(tmp_path, "case").content.origin == PROVENANCE
    assert is_up_to_date(tmp_path, "case", PROVENANCE)
    coarse = PROVENANCE.recipe.model_copy(update={"spacing_mm": (2.0, 1.0, 1.0)})
    changes: list[dict[str, object]] = [{"recipe": coarse}, {"program": "0"}, {"files": (("a.nii", 1, 3),)}]
    for change in changes:
        assert not is_up_to_date(tmp_path, "case", PROVENANCE.model_copy(update=change))
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    assert not is_up_to_date(tmp_path, "case", PROVENANCE)
    assert not is_up_to_date(tmp_path, "absent", PROVENANCE)


def test_the_same_case_gives_the_same_file(tmp_path: Path) -> None:
    """Byte by byte, so that a run that was stopped and continued ends like one that was not."""
    for name in ("one", "other"):
        save_case(tmp_path / name, "case", make_case(), patch_size=PATCH, provenance=PROVENANCE)
    assert (tmp_path / "one" / "case.zip").read_bytes() == (tmp_path / "other" / "case.zip").read_bytes()


def test_a_case_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file cannot take its place there is none, and the next attempt succeeds."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH, provenance=PROVENANCE)

    def fail(path: Path, target: Path) -> Path:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(WriteError, match=rf"{FILE}: Input/output error; see whether the disk is sound"):
            save_case(tmp_path, "case", make_case((9, 20, 18)), patch_size=PATCH, provenance=PROVENANCE)
    assert not is_stored(tmp_path, "case")
    assert not list(tmp_path.glob(".*"))
    save_case(tmp_path, "case", make_case((9, 20, 18)), patch_size=PATCH, provenance=PROVENANCE)
    assert StoredCase.open(tmp_path, "case").shape == (9, 20, 18)


def test_threads_of_the_compressor_stay_at_home() -> None:
    """blosc2 would begin some for every chunk, which takes far longer than the compression."""
    assert os.environ["BLOSC_NTHREADS"] == "1"


@pytest.mark.skipif(sys.platform != "linux", reason="only there files can be limited in size")
@pytest.mark.parametrize("limit", [0, 100, 3000, 20_000])
def test_a_full_disk_is_an_error_of_the_user(tmp_path: Path, limit: int) -> None:
    """Wherever the space ends: one line, and nothing half-written stays."""
    script = f"""
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_store import PATCH, make_case, save_case, WriteError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    save_case(Path({str(tmp_path / "cases")!r}), "case", make_case(), patch_size=PATCH)
except WriteError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert "case.zip: File too large; choose a disk that takes files of this size" in ended.stdout
    assert list((tmp_path / "cases").iterdir()) == []


def test_a_file_in_place_of_the_folder_is_an_error_of_the_user(tmp_path: Path) -> None:
    """The folder is named."""
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(ArtifactError, match=r"cannot write .*folder"):
        save_case(tmp_path / "folder", "case", make_case(), patch_size=PATCH)


def test_only_labelled_cases_are_stored(tmp_path: Path) -> None:
    """A case to train on needs its label map."""
    case = make_case()
    with pytest.raises(ValueError, match=r"no label map"):
        save_case(tmp_path, "c", PreprocessedCase(image=case.image, label=None, record=case.record), patch_size=PATCH)


def test_threads_write_and_read_together(tmp_path: Path) -> None:
    """Cases are prepared, and patches read, by several threads at once."""
    case = make_case((12, 40, 40))

    def write_and_read(number: int) -> bool:
        save_case(tmp_path, f"case_{number}", case, patch_size=PATCH)
        image, label = StoredCase.open(tmp_path, f"case_{number}").load()
        return np.array_equal(image, case.image) and np.array_equal(label, label_of(case))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(write_and_read, range(24)))


def test_a_stored_case_crosses_processes(tmp_path: Path) -> None:
    """It holds no open file."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    stored = StoredCase.open(tmp_path, "case")
    assert pickle.loads(pickle.dumps(stored)) == stored  # noqa: S301 - made a line ago


def test_training_needs_no_image_reader() -> None:
    """The store loads without SimpleITK and torch."""
    script = (
        "import sys, autoseg.preprocessing.store; sys.exit(any(name in sys.modules for name in ('SimpleITK', 'torch')))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
