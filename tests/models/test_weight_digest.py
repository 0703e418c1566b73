"""A digest tells trained weights apart, and those that older checkpoints hold are recognised."""

from hashlib import sha256

import torch

from autoseg.models.weight_digest import digest_weights, is_digest_of

WEIGHTS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(())}


def test_digest_follows_from_names_and_values():
    """The order of the weights does not matter."""
    digest = digest_weights(WEIGHTS)
    assert digest_weights(dict(reversed(WEIGHTS.items()))) == digest
    for other in ({**WEIGHTS, "a": WEIGHTS["a"] + 1}, {**WEIGHTS, "b": torch.zeros(())}, {"c": WEIGHTS["a"]}):
        assert digest_weights(other) != digest
        assert not is_digest_of(digest, other)
    assert is_digest_of(digest, WEIGHTS)


def test_digest_of_all_values_is_recognised():
    """As older checkpoints hold it of the weights that they began with; random weights have none."""
    whole = sha256()
    for name, value in WEIGHTS.items():
        whole.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode() + value.numpy().tobytes())
    assert is_digest_of(whole.hexdigest()[:16], WEIGHTS)
    assert not is_digest_of(whole.hexdigest()[:16], {**WEIGHTS, "b": torch.zeros(())})
    assert not is_digest_of("", WEIGHTS)
