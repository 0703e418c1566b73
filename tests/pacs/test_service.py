"""Which series of a received study are segmented, and what becomes of a study."""

from pathlib import Path

import pytest
from dicom_files import make_series, random_voxels, write_series

from autoseg.errors import ImageError, UsageError
from autoseg.pacs.received import StudyQueue
from autoseg.pacs.service import MOST_TRIES, Destination, Rule, Segment, StudyWorker
from autoseg.pipeline import listen_dicom

pytest.importorskip("pynetdicom")


def write_study(folder: Path, descriptions: list[str]) -> Path:
    """Writes a study as the queue has it: a folder for each series."""
    first = None
    for number, description in enumerate(descriptions, start=1):
        slices = make_series(random_voxels((2, 4, 4)), description=description, number=number, study=first)
        first = first or slices[0]
        write_series(folder / str(number), slices)
    return folder


@pytest.mark.parametrize(
    ("rule", "chosen"),
    [
        (Rule(), ["1", "2", "3"]),
        (Rule(modality="CT"), []),
        (Rule(modality="MR", description="t2*"), ["1"]),
        (Rule(channels=("T2*", "dwi*")), ["images"]),
        (Rule(channels=("T2*", "flair")), ["images"]),
        (Rule(channels=("flair", "t1")), []),
    ],
)
def test_rules_choose_series_or_the_study(tmp_path, rule, chosen):
    """One channel: each series that fits. Several: the study, if it has the series of any channel."""
    images = write_study(tmp_path / "images", ["T2 axial", "DWI b800", "survey"])
    assert [path.name for path in rule.choose(images)] == chosen


def test_a_study_that_lacks_a_channel_is_put_aside(tmp_path):
    """With the reason; one that has nothing to do with the model is not."""
    queue, lines = StudyQueue(tmp_path / "queue"), []

    def segment(images: Path, output: Path) -> list[Path]:
        raise ImageError(f"{images.name} holds no series 'dwi*'", "send it as well")

    worker = StudyWorker(
        queue, Rule(channels=("t2*", "dwi*")), segment, Destination(target="http://127.0.0.1:1/x"), lines.append
    )
    for study, description in (("1.1", "T2 axial"), ("1.2", "survey")):
        write_study(queue.received / study, [description])
    worker.work(0.0)
    assert "failed, and lies in" in lines[0]
    assert "holds no series 'dwi*'" in lines[0]
    assert "no series to segment" in lines[1]
    assert len(list(queue.failed.iterdir())) == 1


def test_a_fault_of_the_program_puts_a_study_aside(tmp_path):
    """Else it would stop the service again at each restart, and keep all others waiting."""
    queue, lines = StudyQueue(tmp_path / "queue"), []

    def segment(images: Path, output: Path) -> list[Path]:
        raise ZeroDivisionError("division\nby zero")

    write_study(queue.received / "1.1", ["T2 axial"])
    StudyWorker(queue, Rule(), segment, Destination(target="http://127.0.0.1:1/x"), lines.append).work(0.0)
    [line] = lines
    assert "failed by a fault of the program" in line
    assert line.split(": ", 2)[2].startswith("ZeroDivisionError: division by zero")
    [folder, report] = sorted(queue.failed.iterdir())
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2
    assert "in segment" in report.read_text()


def test_a_study_that_ends_the_program_again_and_again_is_put_aside(tmp_path):
    """As one that does not fit into the memory; those behind it are segmented then."""
    lines, segmented = [], []

    def segment(images: Path, output: Path) -> list[Path]:
        segmented.append(images.parent.parent.name)
        if segmented[-1] == "1.1":
            raise SystemExit  # as if it were killed
        return []

    for study in ("1.1", "1.2"):
        write_study(StudyQueue(tmp_path / "queue").received / study, ["T2 axial"])
    for _ in range(MOST_TRIES):
        with pytest.raises(SystemExit):
            work(tmp_path, segment, lines)
    work(tmp_path, segment, lines)
    assert segmented == ["1.1"] * MOST_TRIES + ["1.2"]
    assert "1.1: failed, and lies in" in lines[0]
    assert f"the program ended {MOST_TRIES} times while the study was segmented" in lines[0]
    assert "1.2: no series to segment" in lines[1]


def work(folder: Path, segment: Segment, lines: list[str]) -> None:
    """Works on the studies of a queue as a service does that was started anew."""
    queue = StudyQueue(folder / "queue")
    StudyWorker(queue, Rule(), segment, Destination(target="http://127.0.0.1:1/x"), lines.append).work(0.0)


def test_channels_that_do_not_fit_are_refused_before_the_service_begins(trained_oblique, tmp_path):
    """More or fewer than the model has, or beside a rule for one channel."""
    from tiny_workspaces import folders_of

    model = folders_of(trained_oblique).model("3d_fullres").path
    for options, message in (
        ({}, "choose a series for each with --channels"),
        ({"channels": ["t2*"]}, "the model has 2 channels"),
        ({"channels": ["t2*", "dwi*"], "modality": "MR"}, "--channels says which series are meant"),
    ):
        with pytest.raises(UsageError, match=message):
            listen_dicom(tmp_path / "queue", "http://127.0.0.1:1/x", model=model, port=0, device="cpu", **options)
