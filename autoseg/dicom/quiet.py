"""Silence of libraries that print or warn about what the headers of a source leave out or hold."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("pydicom", "highdicom", "pynetdicom", "dicomweb_client", "retrying")


@contextmanager
def quietly() -> Iterator[None]:
    """Hides warnings and log lines of pydicom and its relatives; what matters is checked, or raised as an error.

    Example:
        >>> with quietly():
        ...     logging.getLogger("pydicom").warning("Invalid value for VR UI")
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
