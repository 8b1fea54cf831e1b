"""Noise that clients let the server mix into what they send, and that the page plays."""

import io
import wave
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from omni_avsr.data.noise import babble_track, mix_at_snr, white_track
from omni_avsr.decode.windows import Window
from omni_avsr.media import streams
from omni_avsr.tasks import SAMPLE_RATE

VOICES = sorted((Path(__file__).parent / "clips").iterdir())  # of which the babble is
PLAYED = 10  # seconds of a noise that the page plays again and again
LOUDNESS = 0.1  # of what it plays


def _babble(rng: np.random.Generator) -> np.ndarray:
    return babble_track([streams.read_audio(file) for file in VOICES], rng)


MAKERS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "white": white_track,
    "babble": _babble,
}
NOISES = tuple(MAKERS)


@cache
def track(kind: str) -> np.ndarray:
    """A minute of a noise, the same one every time."""
    return MAKERS[kind](np.random.default_rng(0))


def in_noise(window: Window, kind: str, snr: float) -> Window:
    """A window with noise in its sound, the same every time."""
    if window.audio is None:
        return window
    rng = np.random.default_rng(round(window.start * SAMPLE_RATE))
    return replace(window, audio=mix_at_snr(window.audio, track(kind), snr, rng))


def as_wav(kind: str) -> bytes:
    """Some seconds of a noise, all of one loudness."""
    samples = track(kind)[: PLAYED * SAMPLE_RATE]
    samples = samples * LOUDNESS / np.sqrt(np.mean(samples**2))
    content = io.BytesIO()
    with wave.open(content, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((samples.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return content.getvalue()
