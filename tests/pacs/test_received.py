"""The queue keeps every file, and each study is in one place."""

import os
import time

import pytest

from autoseg.pacs.received import StudyQueue


def age(path, seconds):
    """Makes a study older."""
    for entry in (path, *path.rglob("*")):
        os.utime(entry, (time.time() - seconds,) * 2)


def test_a_study_waits_until_no_further_file_comes(tmp_path):
    """Then it is worked on; files that come meanwhile make it wait again."""
    queue = StudyQueue(tmp_path)
    queue.add("1.2", "1.2.3", "1.2.3.4", b"content")
    assert list(queue.waiting(60)) == []
    age(queue.received / "1.2", 100)
    [study] = queue.waiting(60)
    assert (study / "images" / "1.2.3" / "1.2.3.4.dcm").read_bytes() == b"content"
    queue.add("1.2", "1.2.3", "1.2.3.5", b"later")
    age(queue.received / "1.2", 100)
    assert list(queue.waiting(60)) == [study]
    queue.finish(study)
    [study] = queue.waiting(60)
    assert [path.name for path in (study / "images").rglob("*.dcm")] == ["1.2.3.5.dcm"]
    assert list(queue.received.iterdir()) == []


def test_a_new_process_goes_on_with_studies_in_work(tmp_path):
    """Half-received files of the old process are removed: their senders were not told that they are stored."""
    queue = StudyQueue(tmp_path)
    queue.add("1.2", "1.2.3", "1.2.3.4", b"content")
    [study] = queue.waiting(0)
    (tmp_path / "incoming" / "half").write_bytes(b"con")
    again = StudyQueue(tmp_path)
    assert list(again.waiting(60)) == [study]
    assert list((tmp_path / "incoming").iterdir()) == []
    aside = again.fail(study)
    assert [path.name for path in aside.rglob("*.dcm")] == ["1.2.3.4.dcm"]
    assert list(again.waiting(0)) == []


def test_a_full_disk_is_told_to_the_sender(tmp_path, monkeypatch):
    """And nothing half-written stays."""
    queue = StudyQueue(tmp_path)

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("autoseg.pacs.received.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        queue.add("1.2", "1.2.3", "1.2.3.4", b"content")
    assert list((tmp_path / "incoming").iterdir()) == []
    assert list(queue.received.iterdir()) == []
