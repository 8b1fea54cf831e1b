"""A moving head as four points per frame, and the same face as more landmarks."""

import numpy as np

from omni_avsr.media.mouth import EYES_AND_NOSE

FRAME_SIZE = (288, 360)  # height and width in pixels


def moving_head(frames: int = 75, degrees: float = 20.0, zoom: float = 0.25) -> np.ndarray:
    """Points (T, 4, 2) of a head that wanders, tilts and comes closer, all within 3 seconds."""
    time = np.arange(frames) / 25
    angle = np.radians(degrees) * np.sin(2 * np.pi * 0.4 * time)
    size = 0.8 * (1 + zoom * np.sin(2 * np.pi * 0.3 * time + 1))
    x = 180 + 50 * np.sin(2 * np.pi * 0.35 * time)
    y = 200 + 25 * np.cos(2 * np.pi * 0.3 * time)
    centre = np.stack([x, y], 1)  # (T, 2)
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation = np.stack([cosine, -sine, sine, cosine], 1).reshape(frames, 2, 2)
    turned = np.einsum("tij,pj->tpi", rotation, still_head())  # (T, 4, 2)
    return size[:, None, None] * turned + centre[:, None]


def still_head() -> np.ndarray:
    """Points (4, 2) of an upright head whose mouth is at the origin."""
    mouth = np.zeros((1, 2))
    return np.concatenate([EYES_AND_NOSE, mouth])


def as_landmarks(points: np.ndarray, count: int) -> np.ndarray:
    """The four points of a face as 4, 5 or 68 landmarks (count, 2)."""
    left_eye, right_eye, nose, mouth = points
    if count == 4:
        return points
    if count == 5:
        across = (right_eye - left_eye) / 4
        return np.stack([left_eye, right_eye, nose, mouth - across, mouth + across])
    landmarks = np.zeros((68, 2))
    landmarks[30] = nose
    landmarks[36:42] = left_eye
    landmarks[42:48] = right_eye
    landmarks[48:68] = mouth
    return landmarks
