"""States of jobs, from their records and from what a queue says."""

from pathlib import Path

import pytest
from job_graphs import states_of

from autoseg.cluster.graph import log_file, record_file
from autoseg.cluster.job_state import find_job_states
from autoseg.cluster.queue import find_local, make_local_id
from autoseg.cluster.records import last_line, read_submission

BEGUN, REQUEUED, DONE, FAILED, STOPPED = "begun 7 node4", "requeued 7", "ended 7 0", "ended 7 1", "ended 7 75"


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """A squeue that answers with lines, and a function that sets them; None takes it away."""

    def set_answer(lines: str | None, code: int = 0, errors: str = "") -> None:
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        program = folder / "squeue"
        program.unlink(missing_ok=True)
        if lines is not None:
            (folder / "answer").write_text(lines)
            (folder / "errors").write_text(errors)
            program.write_text(f'#!/bin/sh\ncat "{folder}/answer"; cat "{folder}/errors" >&2; exit {code}\n')
            program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin" if lines is not None else str(tmp_path / "nothing"))

    return set_answer


def write_record(folder: Path, *lines: str, name: str = "job", log: str = "") -> None:
    """Writes the record of a job, and its log."""
    folder.mkdir(exist_ok=True)
    record_file(folder, name).write_text("".join(f"{line}\n" for line in lines))
    log_file(folder, name).write_text(log)


@pytest.mark.parametrize(
    ("events", "queue", "state", "detail"),
    [
        ([], "7|PENDING|Dependency|", "waiting", "for the jobs before it"),
        ([], "7|PENDING|QOSMaxJobs|", "waiting", "QOSMaxJobs"),
        ([], "7|RUNNING|None|node4", "running", ""),
        ([], "", "failed", "left the queue without having begun"),
        ([], "7|CANCELLED|Dependency|", "failed", "left the queue without having begun (cancelled)"),
        ([], None, "waiting", ""),
        ([BEGUN], "7|RUNNING|None|node4", "running", ""),
        ([BEGUN], "7|PENDING|BeginTime|", "waiting", "for a moment, because it was requeued"),
        (
            [BEGUN],
            "7|OUT_OF_MEMORY|OutOfMemory|node4",
            "failed",
            "ended without a word (out of memory), after: epoch 3",
        ),
        ([BEGUN], "", "failed", "ended without a word, after: epoch 3"),
        ([BEGUN], None, "running", ""),
        ([BEGUN, REQUEUED], "7|PENDING|BeginTime|", "waiting", "for a moment, because it was requeued"),
        ([BEGUN, REQUEUED], "", "failed", "left the queue after it was requeued"),
        ([BEGUN, REQUEUED, BEGUN], "7|RUNNING|None|node4", "running", ""),
        ([BEGUN, REQUEUED, BEGUN, DONE], "", "done", ""),
        ([BEGUN, DONE], "7|COMPLETING|None|node4", "running", ""),
        ([BEGUN, DONE], "7|COMPLETED|None|node4", "done", ""),
        ([BEGUN, FAILED], "7|FAILED|NonZeroExitCode|node4", "failed", "exit code 1: epoch 3"),
        ([BEGUN, STOPPED], "", "stopped", "ended by a request to stop; submit it again to go on"),
    ],
)
def test_a_job_of_slurm(tmp_path, answer, events, queue, state, detail):
    """Its record counts, and the queue where the record is open; without a queue the record counts alone."""
    answer(queue)
    write_record(tmp_path / "jobs", "submitted slurm 7 0", *events, log="epoch 3\n\n")
    [job] = find_job_states(tmp_path / "jobs").values()
    expected = (state, detail) if not (events and events[-1] == DONE) else ("done", "")
    assert (job.state, job.detail) == expected
    assert job.job == "slurm job 7"
    assert job.host == ("node4" if job.state == "running" else "")


def test_slurm_that_knows_a_job_no_more_differs_from_slurm_that_is_away(tmp_path, answer):
    """Only the first says that the job is gone."""
    write_record(tmp_path / "jobs", "submitted slurm 7 0", BEGUN)
    answer("", code=1, errors="slurm_load_jobs error: Invalid job id specified\n")
    assert states_of(tmp_path / "jobs")["job"][0] == "failed"
    answer("", code=1, errors="slurm_load_jobs error: Unable to contact slurm controller\n")
    assert states_of(tmp_path / "jobs")["job"][0] == "running"


def test_only_the_last_submission_counts(tmp_path, answer):
    """And events that came before its line, because a job may begin at once; lines of others are no matter."""
    answer("")
    lines = ("submitted slurm 6 0", "begun 6 n", "ended 6 2", "begun 7 n", "submitted slurm 7 0", "ended 7 0")
    write_record(tmp_path / "jobs", *lines, "ended 71 1", "ended 7", "submitted slurm x", "\x00\xff nonsense")
    assert states_of(tmp_path / "jobs") == {"job": ("done", "")}


def test_a_file_that_holds_no_submission_is_no_job(tmp_path):
    """Nor is one that cannot be read."""
    write_record(tmp_path, "begun 7 n", "submitted slurm 7 many")
    (tmp_path / "folder.record").mkdir()
    assert read_submission(tmp_path / "folder.record") is None
    assert find_job_states(tmp_path) == find_job_states(tmp_path / "missing") == {}


def test_parts_of_an_array_are_counted(tmp_path, answer):
    """The array runs as long as a part does, and the first failure is told."""
    answer("7_3|RUNNING|None|node2\n7_4|PENDING|Resources|\n")
    folder = tmp_path / "jobs"
    write_record(
        folder, "submitted slurm 7 4", "begun 7_1 node1", "ended 7_1 0", "begun 7_2 node1", "ended 7_2 1", "begun 7_3 x"
    )
    log_file(folder, "job", 2).write_text("error: no room\n")
    [job] = find_job_states(folder).values()
    assert (job.state, job.host) == ("running", "x")
    assert job.detail == "1 of 4 parts done, 1 running, 1 waiting, 1 failed; part 2: exit code 1: error: no room"


def test_a_local_job_ends_with_the_program_that_runs_it():
    """On another machine nobody can tell."""
    assert find_local(make_local_id(2**22 - 1, 5)).state == "gone"
    assert find_local("12.5@another").state == "unknown"
    assert find_local("no number@" + make_local_id(1, 1).split("@")[1]).state == "gone"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"", ""),
        (b"\n \n", ""),
        (b"one\ntwo\n\n", "two"),
        (b"error: it broke\nand more\n", "error: it broke"),
        (b"error: a\nerror: b\n", "error: b"),
        (b"\x1b[31mred\x1b[0m \xff\r\n", "[31mred [0m \N{REPLACEMENT CHARACTER}"),
        (b"cut\n" + b"x" * 70000 + b"\nlast", "last"),
    ],
)
def test_the_last_line_of_a_log_tells_most(tmp_path, text, line):
    """An error, wherever it stands; without what a terminal would obey."""
    (tmp_path / "log").write_bytes(text)
    assert last_line(tmp_path / "log") == line
    assert last_line(tmp_path / "missing") == ""
