"""The best-known networks of MONAI, from its documentation: their resolutions, features, and approximate memory.

Decision: memory is estimated from that of a plain U-Net with the same features at each resolution. Its weights are
multiplied by `weight_factors`, and the feature maps that it keeps for the backward pass by `saved_factor`. Both were
measured with MONAI 1.6.1 and the settings of the table, the latter as the larger of 2D patches of 256 x 256 and 3D
patches of 64 x 64 x 64 voxels (for AHNet 128 x 128 x 64). They are rough: other settings, such as residual units,
change them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from pydantic import JsonValue

from autoseg.networks.ops import Edges, per_axis
from autoseg.networks.spec import adam

Settings = Mapping[str, JsonValue]

HALVINGS = 5
"""Times that an unknown network is assumed to halve a patch. Decision: no network in the table halves more often,
except AHNet."""
USUAL_FEATURES = 32
"""Number of features that an unknown network is assumed to have at full resolution; it doubles at each coarser one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonaiFacts:
    """A network of MONAI as its documentation describes it.

    Attributes:
        settings: The settings that its resolutions depend on, and those without defaults in MONAI, with usual values.
        features: Returns the number of features at each resolution, from the settings and the number of axes.
        strides: Returns the stride of each resolution after the first, from the same; left out, all strides are 2.
        saved_factor: Memory for the backward pass, as a multiple of that of a plain U-Net with these features.
        weight_factors: Number of weights, as a multiple of that of the plain U-Net, in 2D and in 3D.
        predicts_last: Whether the last one of several outputs predicts.
        training: See `spec.NetworkSpec`.
    """

    features: Callable[[Settings, int], Sequence[int]]
    settings: Settings = field(default_factory=dict)
    strides: Callable[[Settings, int], Sequence[Edges]] | None = None
    saved_factor: float = 1.0
    weight_factors: tuple[float, float] = (1.0, 1.0)
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
    """Returns strides, each a whole number or one number per axis."""
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
    """Returns the features of DynUNet, by its own rule where the settings state none."""
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
    """Returns the strides of AHNet, which pools the coarsest map once more along all axes but the last."""
    blocks = settings["psp_block_num"]
    if type(blocks) is not int or not 0 <= blocks <= 4:
        raise ValueError(f"psp_block_num is {blocks!r}, not 0 to 4")
    pooling = 2 ** max(0, blocks - 2)
    return [2] * 5 if pooling == 1 else [2, 2, 2, 2, 2, (*[pooling] * (dimensions - 1), 1)]


TRANSFORMER_TRAINING: Settings = adam(3e-4)
"""Decision: trained as Swin-Unet is here, because they consist of the same parts; not measured with MONAI's own."""

UNKNOWN = MonaiFacts(features=lambda _, dimensions: _doubling(USUAL_FEATURES, HALVINGS + 1, 320))  # noqa: ARG005

_CHANNELS: Settings = {"channels": [16, 32, 64, 128, 256], "strides": [2, 2, 2, 2]}
_SIX: Settings = {"features": [32, 32, 64, 128, 256, 32]}
_BLOCKS: Settings = {"init_filters": 32, "blocks_down": [1, 2, 2, 4]}


def _with_channels(settings: Settings, *, saved_factor: float, weight_factors: tuple[float, float]) -> MonaiFacts:
    return MonaiFacts(
        settings=settings,
        features=lambda values, _: _numbers(values, "channels"),
        strides=lambda values, _: _strides(values),
        saved_factor=saved_factor,
        weight_factors=weight_factors,
    )


def _with_features(
    *, saved_factor: float, weight_factors: tuple[float, float], predicts_last: bool = False
) -> MonaiFacts:
    return MonaiFacts(
        settings=_SIX,
        features=lambda settings, _: _numbers(settings, "features")[:5],
        saved_factor=saved_factor,
        weight_factors=weight_factors,
        predicts_last=predicts_last,
    )


def _with_blocks(
    settings: Settings, *, saved_factor: float, weight_factors: tuple[float, float], extra_levels: int = 0
) -> MonaiFacts:
    return MonaiFacts(
        settings=settings,
        features=lambda values, _: _doubling(
            _number(values, "init_filters"), len(_numbers(values, "blocks_down")) + extra_levels
        ),
        saved_factor=saved_factor,
        weight_factors=weight_factors,
    )


TABLE: dict[str, MonaiFacts] = {
    "UNet": _with_channels({**_CHANNELS, "num_res_units": 2}, saved_factor=0.4, weight_factors=(0.9, 0.9)),
    "AttentionUnet": _with_channels(_CHANNELS, saved_factor=1.3, weight_factors=(1.1, 1.1)),
    "BasicUNet": _with_features(saved_factor=1.2, weight_factors=(1.0, 1.0)),
    "BasicUNetPlusPlus": _with_features(saved_factor=3.7, weight_factors=(1.3, 1.3), predicts_last=True),
    "DynUNet": MonaiFacts(
        settings={
            "kernel_size": [3] * 6,
            "strides": [1, 2, 2, 2, 2, 2],
            "upsample_kernel_size": [2] * 5,
            "filters": None,
        },
        features=_dyn_unet_features,
        strides=_dyn_unet_strides,
        saved_factor=1.1,
    ),
    "SegResNet": _with_blocks({**_BLOCKS, "init_filters": 8}, saved_factor=1.4, weight_factors=(3.3, 3.4)),
    "SegResNetDS": _with_blocks(_BLOCKS, saved_factor=1.3, weight_factors=(3.5, 3.6)),
    "SegResNetDS2": _with_blocks(_BLOCKS, saved_factor=1.8, weight_factors=(3.9, 4.0)),
    "MedNeXt": _with_blocks(
        {"init_filters": 32, "blocks_down": [2, 2, 2, 2]}, saved_factor=4.4, weight_factors=(0.7, 0.3), extra_levels=1
    ),
    "VNet": MonaiFacts(features=lambda *_: _doubling(16, 5), saved_factor=1.6, weight_factors=(4.9, 8.1)),
    "HighResNet": MonaiFacts(
        features=lambda *_: [16, 64], strides=lambda *_: [4], saved_factor=9.2, weight_factors=(3.8, 3.5)
    ),
    "AHNet": MonaiFacts(
        settings={"psp_block_num": 4},
        features=_ahnet_features,
        strides=_ahnet_strides,
        saved_factor=1.3,
        weight_factors=(0.08, 0.04),
    ),
    "FlexibleUNet": MonaiFacts(
        settings={"backbone": "efficientnet-b0"},
        features=lambda *_: [16, 32, 24, 40, 112, 320],
        saved_factor=2.5,
        weight_factors=(3.5, 1.9),
    ),
    "UNETR": MonaiFacts(
        training=TRANSFORMER_TRAINING,
        settings={"feature_size": 16, "hidden_size": 768},
        features=lambda settings, _: [
            *_doubling(_number(settings, "feature_size"), 4),
            _number(settings, "hidden_size"),
        ],
        saved_factor=3.5,
        weight_factors=(11.7, 4.3),
    ),
    "SwinUNETR": MonaiFacts(
        training=TRANSFORMER_TRAINING,
        settings={"feature_size": 24, "patch_size": 2},
        features=lambda settings, _: [
            _number(settings, "feature_size"),
            *_doubling(_number(settings, "feature_size"), 5),
        ],
        strides=_swin_strides,
        saved_factor=3.9,
        weight_factors=(1.5, 1.3),
    ),
}
"""The networks by the names of their classes. Source: the documentation of MONAI 1.6.1."""
