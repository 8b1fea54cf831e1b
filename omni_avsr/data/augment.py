"""Noise at an exact signal-to-noise ratio, time masks, and the random crop. Everything takes its generator."""

import hashlib
from collections.abc import Sequence

import numpy as np

from omni_avsr.tasks import CROP_SIZE, SAMPLE_RATE

BABBLE_VOICES = 30
BABBLE_SECONDS = 60
PLACES = 20  # tried in a noise that is silent here and there


def generator(*key: object) -> np.random.Generator:
    """The generator of this key, the same on every machine."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:8], "little"))


def babble(speech: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A minute of 30 voices at once, each a chain of the given waveforms."""
    samples = BABBLE_SECONDS * SAMPLE_RATE
    track = np.zeros(samples, np.float32)
    for _ in range(BABBLE_VOICES):
        chain: list[np.ndarray] = []
        while sum(map(len, chain)) < 2 * samples:
            chain.append(speech[int(rng.integers(len(speech)))])
        start = int(rng.integers(samples))
        voice = np.concatenate(chain)[start : start + samples]
        track += voice / np.sqrt(np.mean(voice**2) + 1e-12)
    return track


def white(rng: np.random.Generator) -> np.ndarray:
    """A minute of white noise."""
    return rng.standard_normal(BABBLE_SECONDS * SAMPLE_RATE, np.float32)


def mix(speech: np.ndarray, noise: np.ndarray, snr: float, rng: np.random.Generator) -> np.ndarray:
    """Speech with a piece of the noise, from a random place, at exactly this ratio in dB over the whole clip.

    Where the noise is silent, another place is drawn.
    """
    for _ in range(PLACES):
        start = rng.integers(len(noise))
        piece = np.take(noise, np.arange(start, start + len(speech)), mode="wrap")
        loudness = np.mean(np.square(piece, dtype=np.float64))
        if loudness > 1e-12:
            break
    power = np.mean(np.square(speech, dtype=np.float64)) / max(loudness, 1e-12)
    return (speech + np.sqrt(power / 10 ** (snr / 10)) * piece).astype(np.float32)


def time_mask(frames: np.ndarray, rate: int, longest: float, rng: np.random.Generator) -> np.ndarray:
    """The sequence with one stretch a second, of up to `longest` seconds, set to its mean."""
    masked = frames.copy()
    fill = frames.mean(axis=0).astype(frames.dtype)
    for _ in range(round(len(frames) / rate) if longest else 0):
        width = int(rng.integers(int(longest * rate) + 1))
        start = int(rng.integers(max(1, len(frames) - width)))
        masked[start : start + width] = fill
    return masked


def random_crop(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A window of 88 x 88 pixels, the same in every frame."""
    top, left = (rng.integers(max(1, side - CROP_SIZE + 1)) for side in video.shape[1:])
    return video[:, top : top + CROP_SIZE, left : left + CROP_SIZE]
