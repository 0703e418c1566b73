"""Preprocessed cases on disk."""

import errno
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blosc2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from autoseg.data.casefiles import CaseContent, CasePaths
from autoseg.data.origin import Origin, Recipe
from autoseg.data.store import StoredCase, is_sound, is_stored, save_case
from autoseg.errors import ArtifactError, WriteError
from autoseg.geometry import Box, Geometry, Shape
from autoseg.plan import Normalization
from autoseg.preprocessing.case import PreprocessedCase, PreprocessRecord

SHAPE: Shape = (9, 20, 17)
PATCH = (4, 8, 8)
FILES = ["case_image.b2nd", "case_label.b2nd", "case_foreground.npz", "case.json"]
ORIGIN = Origin(
    recipe=Recipe(
        axis_order=(0, 1, 2),
        spacing_mm=(1.0, 1.0, 1.0),
        normalization=(Normalization(scheme="zscore"),) * 2,
        channels=2,
        classes=3,
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
    assert blosc2.open(str(tmp_path / "case_image.b2nd"), mode="r").chunks == chunks
    assert blosc2.open(str(tmp_path / "case_label.b2nd"), mode="r").chunks == chunks[1:]


def test_names_that_look_like_kinds_of_files_do_not_mix(tmp_path: Path) -> None:
    """Each case has files of its own; one without a record is not complete."""
    names = ["b", "a", "a_label", "a_image", "a.b", "a_foreground"]
    for number, name in enumerate(names):
        save_case(tmp_path, name, make_case((2, 3, number + 1)), patch_size=PATCH)
    for number, name in enumerate(names):
        assert StoredCase.open(tmp_path, name).load()[1].shape == (2, 3, number + 1)
    (tmp_path / "b.json").unlink()
    with pytest.raises(ArtifactError, match=r"b\.json is missing"):
        StoredCase.open(tmp_path, "b")


def test_foreground_is_where_the_labels_are(tmp_path: Path) -> None:
    """All voxels of a small label are kept, each once; background and -1 have none."""
    case = make_case()
    save_case(tmp_path, "case", case, patch_size=PATCH)
    foreground = StoredCase.open(tmp_path, "case").foreground
    assert sorted(foreground) == [1, 2]
    for value, places in foreground.items():
        assert sorted(map(tuple, places.tolist())) == sorted(map(tuple, np.argwhere(label_of(case) == value).tolist()))


def test_a_case_without_foreground_has_no_places(tmp_path: Path) -> None:
    """Empty label maps are legal."""
    case = make_case()
    empty = PreprocessedCase(image=case.image, label=np.zeros(SHAPE, dtype=np.int8), record=case.record)
    save_case(tmp_path, "case", empty, patch_size=PATCH)
    assert StoredCase.open(tmp_path, "case").foreground == {}


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    """Opening says which file is missing and what to do."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    (tmp_path / file).unlink()
    with pytest.raises(ArtifactError, match=rf"{file}.*{AGAIN}"):
        StoredCase.open(tmp_path, "case")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99, 0.9999])
def test_a_truncated_file_is_named(tmp_path: Path, file: str, share: float) -> None:
    """A copy that was cut off anywhere is an error with a remedy, at the latest when it is read."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    path = tmp_path / file
    content = path.read_bytes()
    path.write_bytes(content[: min(int(share * len(content)), len(content) - 2)])

    def use() -> None:
        stored = StoredCase.open(tmp_path, "case")
        stored.load()
        stored.foreground  # noqa: B018 - read for its error

    with pytest.raises(ArtifactError, match=rf"{file}.*{AGAIN}"):
        use()


@pytest.mark.parametrize("file", FILES[:3])
def test_a_file_of_something_else_is_named(tmp_path: Path, file: str) -> None:
    """Text in place of an array does not crash the reader."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    (tmp_path / file).write_text("not an array " * 100)
    stored = None
    with pytest.raises(ArtifactError, match=rf"{file}.*{AGAIN}"):
        stored = StoredCase.open(tmp_path, "case").foreground
    assert stored is None


def test_files_of_another_case_are_noticed(tmp_path: Path) -> None:
    """Files that were mixed up have another size, else another checksum, else another shape."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    save_case(tmp_path, "other", make_case((9, 20, 18)), patch_size=PATCH)
    for source, target in (("other_label.b2nd", "case_label.b2nd"), ("case_image.b2nd", "other_image.b2nd")):
        shutil.copy(tmp_path / source, tmp_path / target)
    with pytest.raises(ArtifactError, match=rf"case_label\.b2nd is missing, damaged or cut off; {AGAIN}"):
        StoredCase.open(tmp_path, "case")
    record = CaseContent.load(tmp_path / "case.json").record
    CaseContent.seal(CasePaths.of(tmp_path, "case"), ORIGIN, record).save(tmp_path / "case.json")
    with pytest.raises(ArtifactError, match=r"case_label\.b2nd has shape \(9, 20, 18\)"):
        StoredCase.open(tmp_path, "case")


@pytest.mark.parametrize("file", FILES[:3])
def test_every_changed_bit_is_found(tmp_path: Path, file: str) -> None:
    """The size is right and the file can be opened, but its checksum is another."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH, origin=ORIGIN)
    path, stored = tmp_path / file, StoredCase.open(tmp_path, "case")
    stored.verify()
    whole = path.read_bytes()
    for place in (len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ArtifactError, match=rf"{file}.*{AGAIN}"):
            stored.verify()
        assert not is_sound(tmp_path, "case", ORIGIN)
    path.write_bytes(whole)
    stored.verify()
    assert is_sound(tmp_path, "case", ORIGIN)


def test_a_case_is_sound_if_it_is_of_the_same_origin(tmp_path: Path) -> None:
    """Another plan, another program or another file make it one of the past; without an origin it always is."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH, origin=ORIGIN)
    assert StoredCase.open(tmp_path, "case").origin == ORIGIN
    assert is_sound(tmp_path, "case", ORIGIN)
    coarse = ORIGIN.recipe.model_copy(update={"spacing_mm": (2.0, 1.0, 1.0)})
    changes: list[dict[str, object]] = [{"recipe": coarse}, {"program": "0"}, {"files": (("a.nii", 1, 3),)}]
    for change in changes:
        assert not is_sound(tmp_path, "case", ORIGIN.model_copy(update=change))
    save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    assert not is_sound(tmp_path, "case", ORIGIN)
    assert not is_sound(tmp_path, "absent", ORIGIN)


def test_the_same_case_gives_the_same_files(tmp_path: Path) -> None:
    """Byte by byte, so that a run that was stopped and continued ends like one that was not."""
    for name in ("one", "other"):
        save_case(tmp_path / name, "case", make_case(), patch_size=PATCH, origin=ORIGIN)
    for file in FILES:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


@pytest.mark.parametrize("failing", range(4))
def test_a_case_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    """Whichever file cannot take its place, there is no half of an old and half of a new case."""
    save_case(tmp_path, "case", make_case(), patch_size=PATCH, origin=ORIGIN)
    replace, calls = Path.replace, iter(range(4))

    def fail(path: Path, target: Path) -> Path:
        if next(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(WriteError, match=r"case\.json: Input/output error; free"):
            save_case(tmp_path, "case", make_case((9, 20, 18)), patch_size=PATCH, origin=ORIGIN)
    assert not is_stored(tmp_path, "case")
    assert not list(tmp_path.glob(".*"))
    save_case(tmp_path, "case", make_case((9, 20, 18)), patch_size=PATCH, origin=ORIGIN)
    assert StoredCase.open(tmp_path, "case").shape == (9, 20, 18)


def test_threads_of_the_compressor_stay_at_home() -> None:
    """blosc2 would begin some for every chunk, which takes far longer than the compression."""
    assert os.environ["BLOSC_NTHREADS"] == "1"


def test_a_full_disk_is_an_error_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The case is not listed, and nothing half-written stays."""

    def refuse(path: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(ArtifactError, match=r"No space left on device.*free some space"):
        save_case(tmp_path, "case", make_case(), patch_size=PATCH)
    assert list(tmp_path.iterdir()) == []


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
    script = "import sys, autoseg.data.store; sys.exit(any(name in sys.modules for name in ('SimpleITK', 'torch')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
