"""Graphs of jobs that could not run are refused."""

from pathlib import Path

import pytest

from autoseg.cluster.graph import Job, JobGraph


def job(name: str, *after: str, parts: int | None = None) -> Job:
    """A job that does nothing."""
    return Job(name=name, kind="train", command=("true",), after=after, parts=parts)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "1", "a\n", "-a", "a" * 200])
def test_names_that_are_no_words_are_refused(name):
    """They become names of files and of rules."""
    with pytest.raises(ValueError, match="cannot be the name"):
        job(name)


@pytest.mark.parametrize(
    "jobs", [(job("a"), job("a")), (job("b", "a"), job("a")), (job("a", "a"),), (job("a", "missing"),)]
)
def test_jobs_come_after_those_that_they_wait_for(jobs):
    """And each has a name of its own."""
    with pytest.raises(ValueError, match="occurs twice or comes before"):
        JobGraph(title="test", folder=Path("jobs"), jobs=jobs)


def test_an_array_has_a_part():
    """Nobody would wait for it otherwise."""
    with pytest.raises(ValueError, match="0 parts"):
        job("a", parts=0)
