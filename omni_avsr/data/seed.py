"""Random numbers and generators that are named by what they are for."""

import hashlib

import numpy as np


def number(*key: object) -> int:
    """A number that is drawn by this key; it is the same on every machine."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little")


def generator(*key: object) -> np.random.Generator:
    """The generator of this key."""
    return np.random.default_rng(number(*key))
