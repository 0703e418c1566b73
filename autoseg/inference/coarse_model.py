"""The model that says where another one looks: which one a user means, and whether the two go together."""

import os
from collections.abc import Callable
from math import isfinite
from pathlib import Path

from autoseg.datasets.info import DatasetInfo
from autoseg.errors import UsageError
from autoseg.models.model_source import find_model
from autoseg.planning.plan import CONFIGURATION_NAMES

ModelPath = str | os.PathLike[str]


def find_coarse_model(crop_by: ModelPath | None, workspace: ModelPath | None = None) -> str | Path | None:
    """Returns the coarse model that a user means.

    Example:
        >>> find_coarse_model("3d_lowres"), find_coarse_model("Body.zip").name
        ('3d_lowres', 'Body.zip')

    Args:
        crop_by: The name of a configuration beside the model, such as "3d_lowres"; a model folder, a bundle, or the
            name of an installed model. None if there is none.
        workspace: Where models are installed; see `find_workspace`.
    """
    if crop_by is None or crop_by in CONFIGURATION_NAMES:
        return None if crop_by is None else str(crop_by)
    return find_model(crop_by, workspace=workspace)


def check_margin(crop_by: str | Path | None, margin_mm: float | None) -> float | None:
    """Returns the margin, if it is one.

    Raises:
        UsageError: It is negative or no number; or there is no coarse model around whose structures it could be.
    """
    if margin_mm is None:
        return None
    if crop_by is None:
        raise UsageError("--crop-margin is a margin around what --crop-by finds", "name a model with --crop-by as well")
    if not isfinite(margin_mm) or margin_mm < 0:
        raise UsageError(f"--crop-margin cannot be {margin_mm:g}", "give millimetres, 0 or more")
    return margin_mm


def check_coarse(info: DatasetInfo, coarse: DatasetInfo, say: Callable[[str], None]) -> None:
    """Makes sure that a coarse model takes the images of a model.

    Args:
        info: Channels of the model.
        coarse: Those of the coarse model.
        say: Called with a line if channels have other names, which need not mean that they are others.

    Raises:
        UsageError: The coarse model takes another number of channels.
    """
    names, coarse_names = (list(each.channel_names.values()) for each in (info, coarse))
    if len(names) != len(coarse_names):
        what = f"the model of --crop-by takes {len(coarse_names)} channels, and the images have {len(names)}"
        raise UsageError(what, "name a model that was trained on the same channels")
    if [name.casefold() for name in names] != [name.casefold() for name in coarse_names]:
        say(f"the model of --crop-by was trained on {', '.join(coarse_names)}; it gets {', '.join(names)}")
