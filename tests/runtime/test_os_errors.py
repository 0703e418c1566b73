"""What is advised about an error of the system helps against that error, and not against another one."""

import errno
import os

import pytest

from autoseg.errors import WriteError
from autoseg.runtime.artifact import atomic_file
from autoseg.runtime.os_errors import READING, WRITING, advise_access, advise_reading, advise_writing, reason_of


@pytest.mark.parametrize("name", sorted(WRITING))
def test_only_a_full_disk_wants_space(name):
    """Space is freed in vain for any other reason."""
    number = getattr(errno, name, None)
    if number is None:
        pytest.skip("this system does not know the error")
    error = OSError(number, os.strerror(number))
    for advise in (advise_writing, advise_access):
        assert ("free some" in advise(error)) == (name in ("ENOSPC", "EDQUOT")), name
    assert reason_of(error) == os.strerror(number)


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "may read"),
        (errno.ENOENT, "check the path"),
        (errno.EIO, "disk is sound"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EDOM, "check the path and the disk"),
    ],
)
def test_reading(number, said):
    """A file that may not be read is no damaged one."""
    assert said in advise_reading(OSError(number, os.strerror(number)))


def test_every_name_is_one_of_the_system():
    """A name that is spelt wrong would never be found."""
    assert all(hasattr(errno, name) or name in ("EREMOTEIO", "EHOSTDOWN", "EDQUOT") for name in {*WRITING, *READING})


def test_an_error_without_a_number_has_its_own_words():
    """As libraries raise them."""
    assert reason_of(OSError("the drive was pulled")) == "the drive was pulled"
    assert advise_writing(OSError("the drive was pulled")) == "check the path and the disk"
    assert advise_writing(ValueError("odd")) == "check the path and the disk"


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_folder_that_may_not_be_made_is_not_said_to_be_missing(tmp_path, monkeypatch, depth):
    """The reason is that of the first folder that could not be made, whatever follows from it."""

    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    path = tmp_path.joinpath(*"abc"[:depth], "mask.nii.gz")
    with pytest.raises(WriteError, match="Permission denied; choose a folder that you may write to"), atomic_file(path):
        pass
