"""Transforms of batchgenerators, found by name, with the settings that a plan holds as plain values.

    {"name": "batchgenerators:RicianNoiseTransform", "settings": {"noise_variance": [0, 0.05]}, "probability": 0.2}

A plan of a stranger can run nothing but the constructor and the call of a class that a module of
`batchgenerators.transforms` itself defines.

These transforms draw from the generators of numpy and of Python that the whole process shares. Each call seeds both by
the random numbers of its patch and restores them afterwards, while a lock keeps other calls out. So a patch gets the
same changes in whatever thread it is made, and after a stop and a resume.
"""

import difflib
import inspect
import pkgutil
import random as python_random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from threading import Lock
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from autoseg.errors import UsageError
from autoseg.planning.plugin_settings import BATCHGENERATORS, CustomTransform
from autoseg.planning.plugins import PatchTransform, Settings, find_transform

IMAGE, LABEL = "data", "seg"

KEYS = ("data_key", "label_key", "seg_key", "output_key")
"""Settings that name the entries of a table of arrays, which are always `IMAGE` and `LABEL` here."""

ANY_SETTINGS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

_SHARED_GENERATORS = Lock()


def resolve_transform(custom: CustomTransform) -> PatchTransform:
    """Returns the transform that a plan names: of batchgenerators, of an installed package, or of this program.

    Raises:
        UsageError: There is no such transform, or it has no such settings.
    """
    if not custom.name.startswith(BATCHGENERATORS):
        return find_transform(custom.name)
    check_settings(custom)
    return _BatchgeneratorsTransform(custom.name)


def check_settings(custom: CustomTransform) -> None:
    """Makes sure that a transform of batchgenerators exists and has the settings of a plan.

    Raises:
        UsageError: There is no such transform; or a setting is unknown, missing, or not for a plan to choose.
    """
    arguments = _list_arguments(_find_class(custom.name))
    allowed = [key for key in arguments if key not in KEYS]
    for key in custom.settings:
        if key in KEYS:
            raise UsageError(f"settings.{key} of {custom.name} follows from the patch", "leave it out")
        if key not in allowed:
            known = f"choose from {', '.join(allowed)}" if allowed else "leave it out"
            raise UsageError(f"{custom.name} has no settings.{key}", known)
    for key in allowed:
        if arguments[key].default is inspect.Parameter.empty and key not in custom.settings:
            raise UsageError(f"{custom.name} needs settings.{key}", "give it in plan.json")


class _BatchgeneratorsTransform:
    """A transform of batchgenerators with the interface of `planning.plugins.PatchTransform`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(
        self, image: torch.Tensor, label: torch.Tensor, random: np.random.Generator, settings: Settings, /
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Changes one patch.

        Args:
            image: Shape (c, *patch), float32, on the CPU; may be changed in place.
            label: Shape (*patch), integers.
            random: Generator that the shared ones are seeded by.
            settings: Settings of the plan.

        Raises:
            UsageError: The transform takes other settings, or fails on this patch.
        """
        with _seeded(random):
            try:
                transform = _find_class(self.name)(**{key: _as_tuple(value) for key, value in settings.items()})
                changed = transform(**{IMAGE: image.numpy()[np.newaxis], LABEL: label.numpy()[np.newaxis, np.newaxis]})
                new_image = np.ascontiguousarray(changed[IMAGE][0], dtype=np.float32)
                new_label = np.rint(changed[LABEL][0][0])
            except Exception as error:
                reason = (str(error) or type(error).__name__).splitlines()[0]
                what = f"{self.name} cannot change a patch of {' x '.join(map(str, label.shape))} voxels: {reason}"
                raise UsageError(what, "change its settings in plan.json, or choose another transform") from error
        return torch.from_numpy(new_image), torch.from_numpy(np.ascontiguousarray(new_label)).to(label.dtype)


@contextmanager
def _seeded(random: np.random.Generator) -> Iterator[None]:
    """Seeds the generators that the process shares; they are as before when the context ends."""
    with _SHARED_GENERATORS:
        numpy_state, python_state = np.random.get_state(), python_random.getstate()  # noqa: NPY002 - as the transforms do
        try:
            np.random.seed(int(random.integers(2**32)))  # noqa: NPY002
            python_random.seed(int(random.integers(2**32)))
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            python_random.setstate(python_state)


def _find_class(name: str) -> Callable[..., Any]:
    """Returns the class of a transform.

    Raises:
        UsageError: batchgenerators has none of this name.
    """
    short, classes = name.removeprefix(BATCHGENERATORS), _list_classes()
    if short not in classes:
        near = difflib.get_close_matches(short, classes, n=1, cutoff=0.4) or ["RicianNoiseTransform"]
        raise UsageError(f"batchgenerators has no transform {short!r}", f"did you mean {BATCHGENERATORS}{near[0]}?")
    return classes[short]


@lru_cache(maxsize=1)
def _list_classes() -> dict[str, Callable[..., Any]]:
    """Lists the classes of transforms by name. The package is imported when a plan names one of them."""
    from batchgenerators import transforms  # noqa: PLC0415 - it takes a second

    classes: dict[str, Callable[..., Any]] = {}
    for module_info in pkgutil.iter_modules(transforms.__path__, f"{transforms.__name__}."):
        module = import_module(module_info.name)
        for name, value in inspect.getmembers(module, inspect.isclass):
            if value.__module__ == module.__name__ and "__call__" in dir(value) and not inspect.isabstract(value):
                classes[name] = value
    return {name: value for name, value in classes.items() if name != "AbstractTransform"}


def _list_arguments(transform_class: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Returns the arguments of the constructor by name."""
    parameters = inspect.signature(transform_class).parameters
    return {name: parameter for name, parameter in parameters.items() if parameter.kind not in ANY_SETTINGS}


def _as_tuple(value: JsonValue) -> object:
    """Returns a list as a tuple, as ranges are given to batchgenerators; other values as they are."""
    return tuple(_as_tuple(part) for part in value) if isinstance(value, list) else value
