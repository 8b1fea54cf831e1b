"""How the head and the lips of a clip move of their own accord."""

import numpy as np

from omni_avsr.tasks import VIDEO_FPS

_SINES = 4


def slow_noise(frames: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """Returns noise of 0.2 to 3 Hz and about unit deviation: (frames, columns)."""
    times = np.arange(frames)[:, None, None] / VIDEO_FPS  # (T, 1, 1)
    rate = rng.uniform(0.2, 3, (_SINES, columns))  # Hz
    phase = rng.uniform(0, 2 * np.pi, (_SINES, columns))
    sines = np.sin(2 * np.pi * rate * times + phase)  # (T, sines, columns)
    return sines.sum(1) / np.sqrt(_SINES / 2)


def head_motion(
    frames: int, centre: float | np.ndarray, rng: np.random.Generator, scale: float = 1.0
) -> np.ndarray:
    """Returns one affine map per frame, from pixels around the mouth to the canvas: (T, 2, 3).

    The mouth stays near `centre` while the head turns, moves and comes closer.
    """
    drift = slow_noise(frames, 4, rng)
    angle = np.deg2rad(rng.normal(0, 3) + 1.5 * drift[:, 0])
    size = scale * (rng.uniform(0.93, 1.07) + 0.015 * drift[:, 1])
    offset = rng.normal(0, 1.8, 2)
    tremor = rng.normal(0, 0.15, (frames, 2))
    shift = centre + offset + 1.2 * drift[:, 2:] + tremor
    cos = size * np.cos(angle)
    sin = size * np.sin(angle)
    upper_row = np.stack([cos, -sin, shift[:, 0]], 1)  # (T, 3)
    lower_row = np.stack([sin, cos, shift[:, 1]], 1)
    return np.stack([upper_row, lower_row], 1)
