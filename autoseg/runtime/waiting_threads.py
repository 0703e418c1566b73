"""How the threads of a calculation wait for each other; set before torch is loaded.

A convolution on a CPU is shared by several threads of OpenMP, and each waits for the others at its end. A thread that
waits can repeat a test, which keeps its core busy, or sleep, which gives its core to other threads and programs, but
takes some time to wake up. The libraries of OpenMP read their environment variables when they are loaded.
"""

import os
import sys
from collections.abc import MutableMapping

SPINS = 4000
"""Number of tests after which a thread that waits sleeps, with the library of OpenMP in torch's packages for Linux.

Decision: about 40 microseconds, which bridges the time between two layers of a network. By default it is 300,000, and a
training beside two busy programs on two cores takes seven times as long as alone, because a thread waits for another
one that has no core. Without any test a step takes a sixth longer on an idle machine. Measured with
`tests/benchmarks/busy_machine.py`.
"""

VARIABLES = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(SPINS)}
"""The environment variables that are set. The first is for the libraries that do not know the second."""

SETTINGS_OF_USERS = (*VARIABLES, "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables by which a user says how threads wait, of any library of OpenMP."""


def let_waiting_threads_sleep(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes threads of OpenMP that wait give their core away soon, in this process and in those that it starts.

    Nothing changes if torch is loaded already, or if the user has set one of `SETTINGS_OF_USERS`.

    Args:
        environment: The variables of this process.

    Example:
        >>> variables = {"GOMP_SPINCOUNT": "0"}
        >>> let_waiting_threads_sleep(variables)
        >>> variables
        {'GOMP_SPINCOUNT': '0'}
    """
    if "torch" not in sys.modules and not any(name in environment for name in SETTINGS_OF_USERS):
        environment.update(VARIABLES)
