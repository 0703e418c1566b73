"""Settings with which the networks of the literature are small enough for tests, beside the fewest features."""

NARROW: dict[str, dict[str, object]] = {
    "unet_3plus": {"classification": True},
    "high_resolution": {"rounds": 1},
    "cotr": {"layers": 2},
    "transunet": {"features": 8, "blocks": [1, 1, 2], "layers": 2, "patch": [64, 64]},
    "nnformer": {
        "features": 8,
        "token": [2, 2, 2],
        "windows": [[2, 2, 2], [2, 2, 2], [4, 4, 4], [2, 2, 2]],
        "head_features": 4,
        "decoder_head_features": 2,
    },
    "swin_unet": {"head_features": 2},
}


def narrow(name: str, **given: object) -> dict[str, object]:
    """Settings of a small form of a network; those that are given count more."""
    return {"features": 4, **NARROW.get(name, {}), **given}
