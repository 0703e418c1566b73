"""Errors say what is wrong and what to do, and survive a process border."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from autoseg import errors
from autoseg.errors import AutosegError, DatasetError, ProblemsError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, AutosegError) and kind is not ProblemsError
]


def raise_dataset_error():
    """Fails as a worker would."""
    raise DatasetError("case 'a': label missing", "add it")


@pytest.mark.parametrize("kind", KINDS)
def test_the_text_is_one_line_of_what_and_fix(kind):
    """What is wrong comes first, then what to do."""
    error = kind("case 'a': label missing", "add it")
    assert str(error) == "case 'a': label missing; add it"
    assert (error.what, error.fix) == ("case 'a': label missing", "add it")
    assert isinstance(error, AutosegError)


@pytest.mark.parametrize("kind", KINDS)
def test_errors_pickle_whole(kind):
    """The copy is of the same kind and has both parts."""
    copy = pickle.loads(pickle.dumps(kind("a; b", "c; d")))  # noqa: S301 - made on the spot
    assert type(copy) is kind
    assert (copy.what, copy.fix, str(copy)) == ("a; b", "c; d", "a; b; c; d")


def test_errors_of_a_worker_arrive_whole():
    """A process pool hands on the error itself, not a broken shell of it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        future = pool.submit(raise_dataset_error)
        with pytest.raises(DatasetError) as caught:
            future.result()
    assert (caught.value.what, caught.value.fix) == ("case 'a': label missing", "add it")


def test_several_errors_are_one_line_each_and_pickle_whole():
    """One bad case does not hide the others."""
    error = ProblemsError(["case 'a': label missing; add it", "case 'b': damaged; replace it"])
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made on the spot
    assert isinstance(copy, AutosegError)
    assert str(copy).splitlines() == ["case 'a': label missing; add it", "case 'b': damaged; replace it"]
    assert copy.lines == error.lines
