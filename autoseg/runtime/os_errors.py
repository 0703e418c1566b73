"""What errors of the operating system mean for people: the true reason, and what helps against it.

>>> import os
>>> advise_writing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
'free some space or choose another disk'
>>> advise_writing(PermissionError(errno.EACCES, "Permission denied"))
'choose a folder that you may write to'
"""

import errno

OTHER_DISK = "free some space or choose another disk"
OWN_FOLDER = "choose a folder that you may write to"
LOOSE_DISK = "see whether the disk is sound and still connected"
IN_THE_WAY = "remove or rename the file that is in the way, or choose another folder"

WRITING = {
    "ENOSPC": OTHER_DISK,
    "EDQUOT": "free some of the space that you may use, or choose another disk",
    "EFBIG": "choose a disk that takes files of this size, which FAT does not, or raise the limit (ulimit -f)",
    "EACCES": OWN_FOLDER,
    "EPERM": OWN_FOLDER,
    "EROFS": OWN_FOLDER,
    "ENOENT": "see whether the folder was removed meanwhile, or is a link that leads nowhere",
    "ENOTDIR": IN_THE_WAY,
    "EEXIST": IN_THE_WAY,
    "EISDIR": "remove or rename the folder that is in the way of the file",
    "ENOTEMPTY": "see which program writes into that folder, and run the command again",
    "ENAMETOOLONG": "choose shorter names",
    "EILSEQ": "choose names of letters that this disk takes",
    "EINVAL": "choose names of letters that this disk takes",
    "ELOOP": "see where the links of that path lead",
    "EXDEV": "choose a folder on a single disk",
    "EBUSY": "close the program that uses it",
    "ETXTBSY": "close the program that uses it",
    "EMFILE": "raise the number of files that may be open (ulimit -n)",
    "ENFILE": "close other programs, which have too many files open",
    "ENOMEM": "close other programs, since the memory is full",
    "EIO": LOOSE_DISK,
    "ENXIO": LOOSE_DISK,
    "ENODEV": LOOSE_DISK,
    "ESTALE": LOOSE_DISK,
    "ENOTCONN": LOOSE_DISK,
    "ETIMEDOUT": LOOSE_DISK,
    "EHOSTDOWN": LOOSE_DISK,
    "EHOSTUNREACH": LOOSE_DISK,
    "EREMOTEIO": LOOSE_DISK,
}
"""What to do if a file cannot be written, by the name of the error."""

READING = {
    **WRITING,
    "EACCES": "check that you may read it",
    "EPERM": "check that you may read it",
    "ENOENT": "check the path",
    "ENOTDIR": "check the path",
    "EISDIR": "give a file",
    "EINVAL": LOOSE_DISK,
}
"""What to do if a file cannot be read; the same where the error means the same."""


def advise_writing(error: BaseException) -> str:
    """Returns what to do about a file that cannot be written.

    Only a full disk wants space; everything else has another reason, of which the text says what helps.
    """
    return _look_up(error, WRITING, "check the path and the disk")


def advise_reading(error: BaseException) -> str:
    """Returns what to do about a file that cannot be read."""
    return _look_up(error, READING, "check the path and the disk")


def advise_access(error: BaseException) -> str:
    """Returns what to do about a file that cannot be read or written, if it is not known which of them failed."""
    may = "check that you may read and write there"
    return _look_up(error, WRITING | dict.fromkeys(("EACCES", "EPERM"), may), "check the path and the disk")


def reason_of(error: BaseException) -> str:
    """Returns the system's words for an error, without number and path."""
    return str(getattr(error, "strerror", None) or error)


def _look_up(error: BaseException, table: dict[str, str], otherwise: str) -> str:
    number = getattr(error, "errno", None)
    return table.get(errno.errorcode.get(number, ""), otherwise) if isinstance(number, int) else otherwise
