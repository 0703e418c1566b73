"""Settings with which the networks of the literature are small enough for tests, beside the fewest features."""

NARROW: dict[str, dict[str, object]] = {}


def narrow(name: str, **given: object) -> dict[str, object]:
    """Settings of a small form of a network; those that are given count more."""
    return {"features": 4, **NARROW.get(name, {}), **given}
