"""Taking the fingerprint: in threads, in one pass, and on from where an earlier run was stopped."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phantoms import SHAPE, Listener, blocks, noise, place, write_case, write_dataset, write_picture

from autoseg.datasets import fingerprinting as module
from autoseg.datasets.dataset import Dataset
from autoseg.datasets.fingerprint import CaseFacts, CaseSummary, Fingerprint
from autoseg.datasets.fingerprinting import FileState, FingerprintPart, compute_fingerprint
from autoseg.datasets.info import DatasetInfo
from autoseg.datasets.integrity import check_dataset, inspect_case
from autoseg.errors import ArtifactError, ProblemsError, WriteError
from autoseg.imaging.image_files import write_image, write_label_map
from autoseg.runtime.reporting import SILENT
from autoseg.workspace import DatasetFolders, Workspace

CASES = 6
NAMES = [f"case_{number}" for number in range(1, CASES + 1)]


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    """Draws thousands of voxels rather than millions."""
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 1000)


@pytest.fixture
def folders(tmp_path) -> DatasetFolders:
    """The places of a sound dataset of two channels."""
    folders = Workspace(root=tmp_path).folders("Dataset001_Tiny")
    write_dataset(folders.raw, cases=CASES, channels=2)
    return folders


@pytest.fixture
def reads(monkeypatch):
    """The names of the cases that were read, in a list that grows."""
    names = []

    def read(case, info):
        names.append(case.name)
        return inspect_case(case, info)

    monkeypatch.setattr(module, "inspect_case", read)
    return names


def take(folders, reporter=SILENT):
    """Takes the fingerprint of the dataset as it is on disk now."""
    return compute_fingerprint(Dataset.open(folders.raw), folders, reporter)


def stop_at(name):
    """Reads the cases before this one, then comes to Ctrl-C."""

    def read(case, info):
        if case.name >= name:
            raise KeyboardInterrupt
        return inspect_case(case, info)

    return read


def interrupt(folders, monkeypatch, name):
    """Runs in one thread until Ctrl-C at a case."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "inspect_case", stop_at(name))
        patch.setattr("autoseg.runtime.thread_map.count_cores", lambda: 1)
        with pytest.raises(KeyboardInterrupt):
            take(folders)


def parts(folders):
    """Names of the cases that have a part."""
    return sorted(path.stem for path in folders.fingerprint_parts.glob("*"))


def keep_parts(folders, monkeypatch):
    """Takes the fingerprint, and is killed before the parts are removed."""
    with monkeypatch.context() as patch:
        patch.setattr(module.shutil, "rmtree", lambda *_, **__: None)
        return take(folders)


# --- In one run -------------------------------------------------------------------------------------------------------


def test_each_case_is_read_once_and_measured(folders, reads):
    """The fingerprint holds the facts of all cases, and is what fingerprint.json holds."""
    listener = Listener()
    fingerprint = take(folders, listener)
    assert sorted(reads) == NAMES == [case.name for case in fingerprint.cases]
    assert list(listener.totals.values()) == list(listener.advanced.values()) == [CASES]
    assert listener.lines == []
    assert Fingerprint.load(folders.fingerprint) == fingerprint
    first = fingerprint.cases[0]
    image = np.stack([noise(10), noise(11)])
    assert (first.shape, first.orientation) == (SHAPE, "SPL")
    assert first.intensities == tuple((channel.min(), channel.max()) for channel in image)
    assert [facts.label for facts in first.labels] == [1, 2]
    images = [np.stack([noise(10 * number), noise(10 * number + 1)])[:, blocks() > 0] for number in range(1, CASES + 1)]
    for channel, facts in enumerate(fingerprint.channels):
        assert facts.mean == pytest.approx(np.mean([values[channel] for values in images]))
        assert facts.maximum == max(values[channel].max() for values in images)


def test_nothing_but_the_fingerprint_is_left(folders):
    """The parts go when it is complete."""
    take(folders)
    assert [path.name for path in folders.preprocessed.iterdir()] == ["fingerprint.json"]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_change_nothing(folders, monkeypatch, threads):
    """The fingerprint is the same to the last bit, whichever case is done first."""
    expected = take(folders)
    slow = iter(range(CASES, 0, -1))

    def dawdle(case, info):
        time.sleep(0.01 * next(slow))  # the later a case is begun, the sooner it is done
        return inspect_case(case, info)

    monkeypatch.setattr(module, "inspect_case", dawdle)
    monkeypatch.setattr("autoseg.runtime.thread_map.count_cores", lambda: threads)
    folders.fingerprint.unlink()
    assert take(folders) == expected


def test_pictures_have_a_fingerprint(tmp_path):
    """Of a plane, all facts but its orientation are known."""
    folders = Workspace(root=tmp_path).folders("Dataset001_Tiny")
    info = DatasetInfo(channel_names=dict.fromkeys("012", "rgb"), labels={"background": 0, "a": 1}, file_ending=".png")
    info.save(folders.raw / "dataset.json")
    for number in range(2):
        picture = np.random.default_rng(number).integers(1, 255, (8, 7, 3), np.uint8)
        write_picture(folders.raw / "imagesTr" / f"{number}.png", picture)
        write_picture(folders.raw / "labelsTr" / f"{number}.png", np.tri(8, 7, dtype=np.uint8))
    fingerprint = take(folders)
    assert len(fingerprint.channels) == 3
    assert [case.orientation for case in fingerprint.cases] == [None, None]
    assert fingerprint.cases[0].labels[0].voxels == np.tri(8, 7).sum()


# --- On from an earlier run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [0, 1, 4])
def test_an_interrupted_run_is_continued(folders, monkeypatch, reads, done):
    """Finished cases are taken over, only the others are read, and the fingerprint is that of one run."""
    expected = take(folders)
    folders.fingerprint.unlink()
    interrupt(folders, monkeypatch, NAMES[done])
    assert parts(folders) == NAMES[:done]
    assert not folders.fingerprint.exists()
    reads.clear()
    listener = Listener()
    assert take(folders, listener) == expected
    assert sorted(reads) == NAMES[done:]
    told = [f"{done} of {CASES} cases were read by an earlier run and are taken over"] if done else []
    assert listener.lines == told
    assert not folders.fingerprint_parts.exists()


def test_nothing_is_lost_before_the_fingerprint_is_there(folders, monkeypatch, reads):
    """Ctrl-C while fingerprint.json is written leaves all parts; afterwards they are not needed."""

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Fingerprint, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            take(folders)
    assert parts(folders) == NAMES
    reads.clear()
    fingerprint = take(folders)
    assert reads == []
    assert Fingerprint.load(folders.fingerprint) == fingerprint


def test_a_changed_file_is_read_again(folders, monkeypatch, reads):
    """A new size or a new time of change is enough; the other cases are taken over."""
    before = keep_parts(folders, monkeypatch)
    write_image(folders.raw / "imagesTr" / "case_2_0000.nii.gz", place(noise(77)[np.newaxis] + 500))
    os.utime(folders.raw / "labelsTr" / "case_5.nii.gz", ns=(1, 1))
    reads.clear()
    after = take(folders)
    assert sorted(reads) == ["case_2", "case_5"]
    assert [old == new for old, new in zip(before.cases, after.cases, strict=True)] == [
        name != "case_2" for name in NAMES
    ]
    assert take(folders) == after


def test_another_dataset_json_makes_all_parts_stale(folders, monkeypatch, reads):
    """What counts as a problem follows from it."""
    keep_parts(folders, monkeypatch)
    info = Dataset.open(folders.raw).info
    info.model_copy(update={"labels": {"background": 0, "one": 1, "two": 2}}).save(folders.raw / "dataset.json")
    reads.clear()
    take(folders)
    assert sorted(reads) == NAMES


def test_another_number_of_draws_makes_all_parts_stale(folders, monkeypatch, reads):
    """Each case must weigh the same."""
    keep_parts(folders, monkeypatch)
    monkeypatch.setattr("autoseg.datasets.fingerprint.FOREGROUND_SAMPLES", 2000)
    reads.clear()
    take(folders)
    assert sorted(reads) == NAMES


def test_another_program_makes_all_parts_stale(folders, monkeypatch, reads):
    """It may read or measure in another way."""
    keep_parts(folders, monkeypatch)
    monkeypatch.setattr(module, "__version__", "another")
    reads.clear()
    take(folders)
    assert sorted(reads) == NAMES


def test_leaving_a_case_out_keeps_the_parts_of_the_others(folders, reads):
    """A bad case is found, --skip leaves it out, and no other is read again."""
    (folders.raw / "imagesTr" / "case_3_0000.nii.gz").write_bytes(b"no image")
    with pytest.raises(ProblemsError):
        take(folders)
    reads.clear()
    fingerprint = compute_fingerprint(Dataset.open(folders.raw).without(["case_3"]), folders, SILENT)
    assert reads == []
    assert [case.name for case in fingerprint.cases] == [name for name in NAMES if name != "case_3"]
    assert not folders.fingerprint_parts.exists()


# --- Problems ---------------------------------------------------------------------------------------------------------


def problems_of(folders):
    """The lines that taking the fingerprint ends with."""
    with pytest.raises(ProblemsError) as caught:
        take(folders)
    return list(caught.value.lines)


def test_problems_are_those_of_check_also_after_taking_over(folders, reads):
    """Bad cases leave no part; the others are not read again to say the same."""
    write_label_map(folders.raw / "labelsTr" / "case_2.nii.gz", place(blocks((0, 1, 9))))
    for channel in (0, 1):
        write_image(folders.raw / "imagesTr" / f"case_4_000{channel}.nii.gz", place(np.full((1, *SHAPE), 5.0)))
    (folders.raw / "labelsTr" / "case_5.nii.gz").write_bytes(b"")
    lines = [str(problem) for problem in check_dataset(Dataset.open(folders.raw)).problems]
    assert len(lines) == 3
    assert problems_of(folders) == lines
    assert parts(folders) == ["case_1", "case_3", "case_6"]
    reads.clear()
    assert problems_of(folders) == lines
    assert sorted(reads) == ["case_2", "case_4", "case_5"]
    assert not folders.fingerprint.exists()
    for seed, name in enumerate(("case_2", "case_4", "case_5")):
        write_case(folders.raw, name, channels=2, seed=seed)
    reads.clear()
    assert len(take(folders).cases) == CASES
    assert sorted(reads) == ["case_2", "case_4", "case_5"]


def test_labels_that_never_occur_are_found_also_after_taking_over(folders, reads):
    """Parts know which labels were seen, the background included."""
    for name in NAMES:
        write_label_map(folders.raw / "labelsTr" / f"{name}.nii.gz", place(blocks((0, 1))))
    lines = [str(problem) for problem in check_dataset(Dataset.open(folders.raw)).problems]
    assert problems_of(folders) == lines
    reads.clear()
    assert problems_of(folders) == lines
    assert reads == []
    assert "no label map holds 'b'" in lines[0]


def test_a_file_that_vanishes_is_a_problem_of_its_case(folders, reads):
    """Whether there was a part of it or not."""
    dataset = Dataset.open(folders.raw)
    (folders.raw / "imagesTr" / "case_4_0000.nii.gz").unlink()
    with pytest.raises(ProblemsError, match=r"case 'case_4'.*does not exist") as caught:
        compute_fingerprint(dataset, folders, SILENT)
    assert len(caught.value.lines) == 1
    assert "case_4" not in parts(folders)


def test_parts_that_another_run_removed_are_told_in_one_line(folders, monkeypatch):
    """Two runs at once on one dataset get into each other's way."""

    def gather(cases, *, draws, read_draws):
        shutil.rmtree(folders.fingerprint_parts)
        return read_draws(cases[0].facts.name, 0)

    monkeypatch.setattr(module, "fingerprint_dataset", gather)
    with pytest.raises(ArtifactError, match=r"case_1\.npz was removed or changed .*; run the command again"):
        take(folders)


def test_a_folder_that_cannot_be_written_ends_the_work(folders):
    """It is one line, whatever the number of cases."""
    folders.preprocessed.parent.mkdir()
    folders.preprocessed.write_text("a file in the folder's place")
    with pytest.raises(WriteError, match=r"cannot write .*fingerprint_parts"):
        take(folders)


# --- Damaged parts ----------------------------------------------------------------------------------------------------


def part_of(name="a"):
    """A part of a made-up case, and its draws."""
    facts = CaseFacts(
        name=name, shape=(3, 4, 5), shape_after_crop=(3, 4, 4), spacing_mm=(1, 1, 0.1), intensities=((0, 1 / 3),)
    )
    origin = FileState(program="1.0", info="digest", files=(("a.nii.gz", 1, 2),), draws=16)
    summary = CaseSummary(facts=facts, foreground=((1 / 3, 2, 3, 4),))
    return FingerprintPart(origin=origin, labels_seen=frozenset({0, 7}), summary=summary), np.arange(
        16, dtype=np.float32
    )[None]


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x05\x06", b"no part at all", b"\x93NUMPY\x01\x00", b"\x80\x04K\x01.", "half", "zeros", "other"],
    ids=["empty", "cut off", "text", "array", "pickle", "half", "zeros", "another case's"],
)
def test_a_damaged_part_is_silently_made_anew(folders, monkeypatch, reads, content):
    """Whatever a crash or a person left in its place."""
    expected = keep_parts(folders, monkeypatch)
    path = folders.fingerprint_parts / "case_3.npz"
    whole = path.read_bytes()
    made = {
        "half": whole[: len(whole) // 2],
        "zeros": bytes(len(whole)),
        "other": path.with_stem("case_2").read_bytes(),
    }
    path.write_bytes(made.get(content, content))
    reads.clear()
    listener = Listener()
    assert take(folders, listener) == expected
    assert reads == ["case_3"]
    assert listener.lines == [f"{CASES - 1} of {CASES} cases were read by an earlier run and are taken over"]


def test_objects_in_a_part_are_never_run(folders, monkeypatch, reads, tmp_path):
    """A part is numbers and text; a pickle inside is damage."""
    expected = keep_parts(folders, monkeypatch)
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self):
            return (Path.touch, (trap,))

    np.savez(folders.fingerprint_parts / "case_1.npz", part=np.array([Trap()], dtype=object))
    reads.clear()
    assert take(folders) == expected
    assert reads == ["case_1"]
    assert not trap.exists()


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=150, deadline=None)
def test_changed_bytes_are_noticed_or_without_effect(tmp_path_factory, changes):
    """A part with flipped bytes is refused, or says what it said before."""
    part, drawn = part_of()
    path = tmp_path_factory.getbasetemp() / "part.npz"
    module._save_part(path, part, drawn)
    content = bytearray(path.read_bytes())
    for place_, value in changes:
        content[int(place_ * len(content))] = value
    path.write_bytes(content)
    loaded = module._load_part(path, part.origin)
    if loaded is not None:
        assert loaded == part
        np.testing.assert_array_equal(module._read_draws(path, 0), drawn[0])


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False, width=32))
@settings(max_examples=50, deadline=None)
def test_a_part_keeps_every_bit(tmp_path_factory, mean, drawn):
    """Facts that were taken over equal those that were just measured."""
    part, _ = part_of()
    part = part.model_copy(
        update={"summary": part.summary.model_copy(update={"foreground": ((mean, mean, mean, mean),)})}
    )
    path = tmp_path_factory.getbasetemp() / "part.npz"
    module._save_part(path, part, np.full((1, 16), drawn, np.float32))
    assert module._load_part(path, part.origin) == part
    assert module._read_draws(path, 0)[15] == np.float32(drawn)
