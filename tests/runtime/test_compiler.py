"""Torch's compiler, and what it says to users."""

import warnings
from pathlib import Path

import pytest
import torch

from autoseg.runtime.compiler import TF32_ADVICE, compile_quietly


def test_advice_about_tf32_is_not_for_users(monkeypatch):
    """The compiler gives it in the first call; other warnings are heard."""

    def compile_with_advice(function, **_options):
        def call(value):
            warnings.warn(f"{TF32_ADVICE}. Consider setting something else.", stacklevel=1)
            return function(value)

        return call

    monkeypatch.setattr(torch, "compile", compile_with_advice)
    assert compile_quietly(abs)(-3) == 3  # the tests turn warnings into errors
    with pytest.raises(UserWarning, match="something else"):
        compile_quietly(lambda _: warnings.warn("something else", stacklevel=1))(0)


def test_the_advice_is_that_of_this_torch():
    """Its text may change with the version of torch."""
    source = Path(torch.__file__).parent / "_inductor" / "compile_fx.py"
    assert TF32_ADVICE in source.read_text(encoding="utf-8")
