"""Operations that torch lacks on an Apple GPU; set before torch is loaded."""

import os
import sys
from collections.abc import MutableMapping

FALLBACK_VARIABLE = "PYTORCH_ENABLE_MPS_FALLBACK"
"""Lets torch calculate on the CPU what it cannot calculate on an Apple GPU, with a warning for each such operation.
Without it such an operation ends the program. Torch reads it when it is loaded."""


def let_apple_gpus_fall_back(environment: MutableMapping[str, str] = os.environ, system: str = sys.platform) -> None:
    """Lets networks whose layers torch lacks on an Apple GPU run nevertheless, in part on the CPU.

    Nothing changes on another system, or if the user has set the variable.

    Args:
        environment: The variables of this process.
        system: The operating system, as `sys.platform` names it.

    Example:
        >>> variables = {}
        >>> let_apple_gpus_fall_back(variables, "darwin")
        >>> variables
        {'PYTORCH_ENABLE_MPS_FALLBACK': '1'}
    """
    if system == "darwin":
        environment.setdefault(FALLBACK_VARIABLE, "1")
