"""What torch lacks on an Apple GPU is calculated on the CPU."""

import subprocess
import sys

import pytest

from autoseg.runtime.apple_gpu import FALLBACK_VARIABLE, let_apple_gpus_fall_back


@pytest.mark.parametrize(
    ("system", "before", "after"),
    [("darwin", {}, "1"), ("darwin", {FALLBACK_VARIABLE: "0"}, "0"), ("linux", {}, None), ("win32", {}, None)],
)
def test_fallback_is_chosen_on_a_mac(system, before, after):
    """Unless the user has chosen."""
    environment = dict(before)
    let_apple_gpus_fall_back(environment, system)
    assert environment.get(FALLBACK_VARIABLE) == after


def test_fallback_is_chosen_before_torch_is_loaded():
    """Importing the package chooses it, and loads no torch, which would not see it any more."""
    code = (
        "import os, sys; sys.platform = 'darwin'; import autoseg; "
        f"print(os.environ['{FALLBACK_VARIABLE}'], 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["1", "False"]
