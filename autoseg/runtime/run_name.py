"""The name of a run, by which locks and people tell who is at work: its process and its machine."""

import os
import platform

BEFORE_NUMBER, BEFORE_MACHINE = "process ", " on "


def name_run() -> str:
    """Returns the name of this run, as in "process 123 on node4"."""
    return f"{BEFORE_NUMBER}{os.getpid()}{BEFORE_MACHINE}{_machine()}"


def is_of_this_machine(name: str) -> bool:
    """Returns whether a name is that of a run on this machine.

    Example:
        >>> is_of_this_machine(name_run()), is_of_this_machine("process 1 on a machine that nobody has")
        (True, False)
    """
    return name.endswith(f"{BEFORE_MACHINE}{_machine()}")


def has_ended(name: str) -> bool:
    """Returns whether a run of this machine is there no more; False for runs of others, of which nothing is known.

    Example:
        >>> has_ended(name_run()), has_ended("process 1 on a machine that nobody has"), has_ended("")
        (False, False, False)
    """
    number = name.removeprefix(BEFORE_NUMBER).partition(BEFORE_MACHINE)[0]
    if not (is_of_this_machine(name) and number.isdecimal()):
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _machine() -> str:
    return platform.node() or "this machine"
