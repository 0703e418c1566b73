"""What the documentation of MONAI says of its best-known networks: at how many resolutions they look, and how wide.

Decision: memory is counted for a plain U-Net with as many features at each resolution, of which the weights are taken
`weights` times, and what it keeps for the backward pass `kept` times: measured with MONAI 1.6.1, with the settings of
the table, the latter as the larger of planes of 256 x 256 and volumes of 64 x 64 x 64 voxels (of AHNet 128 x 128 x 64).
That is rough: other settings, such as residual units, change it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from pydantic import JsonValue

from autoseg.networks.ops import Edges, per_axis
from autoseg.networks.spec import adam

Settings = Mapping[str, JsonValue]

HALVINGS = 5
"""Of a patch, where nothing is known. Decision: no network in the table that halves needs more, but AHNet."""
USUAL_FEATURES = 32
"""At full resolution, where nothing is known; they double at each resolution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonaiFacts:
    """A network of MONAI as its documentation describes it.

    Attributes:
        settings: Those that its resolutions depend on, and those that it has no defaults for, with what is usual.
        features: At each resolution, by the settings and the number of axes.
        strides: How much each resolution after the first reduces the axes, likewise; left out, all are halved.
        kept: How many times what a plain U-Net of these resolutions keeps for the backward pass.
        weights: How many times as many weights as that has, in planes and in volumes.
        predicts_last: Whether of several outputs the last one is the best.
        training: See `spec.NetworkSpec`.
    """

    features: Callable[[Settings, int], Sequence[int]]
    settings: Settings = field(default_factory=dict)
    strides: Callable[[Settings, int], Sequence[Edges]] | None = None
    kept: float = 1.0
    weights: tuple[float, float] = (1.0, 1.0)
    predicts_last: bool = False
    training: Settings = field(default_factory=dict)


def _number(settings: Settings, key: str) -> int:
    value = settings[key]
    if type(value) is not int or value < 1:
        raise ValueError(f"{key} is {value!r}, no whole number above 0")
    return value


def _numbers(settings: Settings, key: str) -> list[int]:
    values = settings[key]
    if not isinstance(values, list | tuple) or any(type(value) is not int or value < 1 for value in values):
        raise ValueError(f"{key} is {values!r}, no list of whole numbers above 0")
    return [cast(int, value) for value in values]


def _strides(settings: Settings, key: str = "strides") -> list[Edges]:
    """Whole numbers, or lists of one for each axis."""
    values = settings[key]
    if not isinstance(values, list | tuple):
        raise TypeError(f"{key} is {values!r}, no list")
    return [
        tuple(_numbers({key: value}, key)) if isinstance(value, list | tuple) else _number({key: value}, key)
        for value in values
    ]


def _doubling(first: int, count: int, limit: int | None = None) -> list[int]:
    widths = [first * 2**level for level in range(count)]
    return widths if limit is None else [min(limit, width) for width in widths]


def _dyn_unet_features(settings: Settings, dimensions: int) -> list[int]:
    """Its own rule, where none are stated."""
    count = len(_strides(settings))
    if settings["filters"] is not None:
        return _numbers(settings, "filters")[:count]
    return _doubling(32, count, 320 if dimensions == 3 else 512)


def _dyn_unet_strides(settings: Settings, dimensions: int) -> list[Edges]:
    first, *others = _strides(settings)
    if set(per_axis(first, dimensions)) != {1}:
        raise ValueError("the first of strides must be 1, or the logits are smaller than the image")
    return others


def _swin_strides(settings: Settings, dimensions: int) -> list[Edges]:  # noqa: ARG001 - see MonaiFacts
    return [_number(settings, "patch_size")] * 5


def _ahnet_features(settings: Settings, dimensions: int) -> list[int]:
    return [64, 64, 256, 512, 1024, 2048][: len(_ahnet_strides(settings, dimensions)) + 1] + [2048] * (
        len(_ahnet_strides(settings, dimensions)) - 5
    )


def _ahnet_strides(settings: Settings, dimensions: int) -> list[Edges]:
    """It pools the coarsest map once more along all axes but the last."""
    blocks = settings["psp_block_num"]
    if type(blocks) is not int or not 0 <= blocks <= 4:
        raise ValueError(f"psp_block_num is {blocks!r}, not 0 to 4")
    further = 2 ** max(0, blocks - 2)
    return [2] * 5 if further == 1 else [2, 2, 2, 2, 2, (*[further] * (dimensions - 1), 1)]


TRANSFORMER_TRAINING: Settings = adam(3e-4)
"""Decision: as Swin-Unet is trained here, because they consist of the same parts; not measured with MONAI's own."""

UNKNOWN = MonaiFacts(features=lambda _, dimensions: _doubling(USUAL_FEATURES, HALVINGS + 1, 320))  # noqa: ARG005

_CHANNELS: Settings = {"channels": [16, 32, 64, 128, 256], "strides": [2, 2, 2, 2]}
_SIX: Settings = {"features": [32, 32, 64, 128, 256, 32]}
_BLOCKS: Settings = {"init_filters": 32, "blocks_down": [1, 2, 2, 4]}


def _of_channels(settings: Settings, *, kept: float, weights: tuple[float, float]) -> MonaiFacts:
    return MonaiFacts(
        settings=settings,
        features=lambda given, _: _numbers(given, "channels"),
        strides=lambda given, _: _strides(given),
        kept=kept,
        weights=weights,
    )


def _of_features(*, kept: float, weights: tuple[float, float], predicts_last: bool = False) -> MonaiFacts:
    return MonaiFacts(
        settings=_SIX,
        features=lambda settings, _: _numbers(settings, "features")[:5],
        kept=kept,
        weights=weights,
        predicts_last=predicts_last,
    )


def _of_blocks(settings: Settings, *, kept: float, weights: tuple[float, float], further: int = 0) -> MonaiFacts:
    return MonaiFacts(
        settings=settings,
        features=lambda given, _: _doubling(
            _number(given, "init_filters"), len(_numbers(given, "blocks_down")) + further
        ),
        kept=kept,
        weights=weights,
    )


TABLE: dict[str, MonaiFacts] = {
    "UNet": _of_channels({**_CHANNELS, "num_res_units": 2}, kept=0.4, weights=(0.9, 0.9)),
    "AttentionUnet": _of_channels(_CHANNELS, kept=1.3, weights=(1.1, 1.1)),
    "BasicUNet": _of_features(kept=1.2, weights=(1.0, 1.0)),
    "BasicUNetPlusPlus": _of_features(kept=3.7, weights=(1.3, 1.3), predicts_last=True),
    "DynUNet": MonaiFacts(
        settings={
            "kernel_size": [3] * 6,
            "strides": [1, 2, 2, 2, 2, 2],
            "upsample_kernel_size": [2] * 5,
            "filters": None,
        },
        features=_dyn_unet_features,
        strides=_dyn_unet_strides,
        kept=1.1,
    ),
    "SegResNet": _of_blocks({**_BLOCKS, "init_filters": 8}, kept=1.4, weights=(3.3, 3.4)),
    "SegResNetDS": _of_blocks(_BLOCKS, kept=1.3, weights=(3.5, 3.6)),
    "SegResNetDS2": _of_blocks(_BLOCKS, kept=1.8, weights=(3.9, 4.0)),
    "MedNeXt": _of_blocks({"init_filters": 32, "blocks_down": [2, 2, 2, 2]}, kept=4.4, weights=(0.7, 0.3), further=1),
    "VNet": MonaiFacts(features=lambda *_: _doubling(16, 5), kept=1.6, weights=(4.9, 8.1)),
    "HighResNet": MonaiFacts(features=lambda *_: [16, 64], strides=lambda *_: [4], kept=9.2, weights=(3.8, 3.5)),
    "AHNet": MonaiFacts(
        settings={"psp_block_num": 4}, features=_ahnet_features, strides=_ahnet_strides, kept=1.3, weights=(0.08, 0.04)
    ),
    "FlexibleUNet": MonaiFacts(
        settings={"backbone": "efficientnet-b0"},
        features=lambda *_: [16, 32, 24, 40, 112, 320],
        kept=2.5,
        weights=(3.5, 1.9),
    ),
    "UNETR": MonaiFacts(
        training=TRANSFORMER_TRAINING,
        settings={"feature_size": 16, "hidden_size": 768},
        features=lambda settings, _: [
            *_doubling(_number(settings, "feature_size"), 4),
            _number(settings, "hidden_size"),
        ],
        kept=3.5,
        weights=(11.7, 4.3),
    ),
    "SwinUNETR": MonaiFacts(
        training=TRANSFORMER_TRAINING,
        settings={"feature_size": 24, "patch_size": 2},
        features=lambda settings, _: [
            _number(settings, "feature_size"),
            *_doubling(_number(settings, "feature_size"), 5),
        ],
        strides=_swin_strides,
        kept=3.9,
        weights=(1.5, 1.3),
    ),
}
"""By the names of the classes. Source: the documentation of MONAI 1.6.1."""
