"""From lip parameters to grey frames of a stylised mouth, drawn as polygons."""

import functools
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from omni_avsr.tasks import MOUTH_SIZE
from omni_avsr.toy.face import TEXTURE_SIZE, Face
from omni_avsr.toy.looks import PARAMETERS
from omni_avsr.toy.motion import head_motion

SENSOR_NOISE = (2.0, 5.0)  # grey levels, from the best to the worst camera
_NOISE_BANK_SIZE = 1 << 20  # samples; fresh noise would take longer than everything else
_FRACTION_BITS = 4  # of the fixed-point coordinates that OpenCV draws with
_CURVE_POINTS = 15

Colour = float | Sequence[float]  # grey level, or three of a colour


def draw_mouth(track: np.ndarray, face: Face, rng: np.random.Generator) -> np.ndarray:
    """Returns the frames (T, 96, 96) uint8 of a lip track (T, 6).

    The head moves, the light changes, and the camera is noisy.
    """
    pose = head_motion(len(track), MOUTH_SIZE / 2, rng)
    polygons = place(mouth_polygons(track, face), pose)
    frames = _moving_skin(face, pose)
    colours = _grey_palette(face)
    for index, frame in enumerate(frames):
        paint(frame, polygons, index, colours)
        cv2.GaussianBlur(frame, (3, 3), 0.7, frame)
    return _photographed(frames, rng)


def mouth_polygons(track: np.ndarray, face: Face) -> dict[str, np.ndarray]:
    """Returns the parts of the mouth in drawing order.

    Each is (T, points, 2) in pixels around the middle of the mouth.
    """
    opening, width, rounding, teeth, tongue, tuck = np.split(track, PARAMETERS, 1)  # (T, 1) each
    teeth = np.clip(teeth, 0, 1)
    tongue = np.clip(tongue, 0, 1)
    tuck = np.clip(tuck, 0, 1.2)

    u = np.linspace(-1, 1, _CURVE_POINTS)[None]  # (1, points), from corner to corner
    x = face.half_width * (0.80 + 0.28 * width - 0.36 * rounding) * u  # (T, points)
    arch = (1 - u**2) ** (0.8 - 0.25 * np.clip(rounding, 0, 1))  # (T, points)
    bow = 1 - face.bow * np.exp(-((u / 0.16) ** 2))
    gap = face.gape * np.clip(opening, 0.03, None)
    pressed = 1 - 1.6 * np.clip(-opening, 0, 0.3)
    fullness = pressed * (1 + 0.35 * rounding)
    corner = -2.5 * (width - 0.5) * u**2
    lip_height = face.lower_lip * fullness * (1 - 0.4 * tuck) * arch

    upper_inner = corner - 0.3 * gap * arch
    upper_outer = upper_inner - face.upper_lip * fullness * arch * bow
    lower_inner = corner + 0.7 * gap * arch - 1.5 * tuck * arch
    lower_outer = lower_inner + lip_height
    shine_top = lower_inner + 0.35 * lip_height
    shine_bottom = lower_inner + 0.6 * lip_height
    teeth_end = np.minimum(upper_inner + teeth * 8 * arch**0.5, lower_inner)
    tongue_tip = np.maximum(lower_inner - tongue * (0.65 * gap - 1.2 * u**2), upper_inner)
    crease = corner + 0.7 * gap + face.lower_lip + 3 - 4 * u**2
    return {
        "crease": _between(0.6 * x, crease, crease + 4 * arch),
        "cavity": _between(x, upper_inner, lower_inner),
        "tongue": _between(x, tongue_tip, lower_inner, omit=3),
        "teeth": _between(x, upper_inner, teeth_end),
        "upper lip": _between(x, upper_outer, upper_inner),
        "lower lip": _between(x, lower_inner, lower_outer),
        "shine": _between(x, shine_top, shine_bottom, omit=3),
    }


def place(polygons: Mapping[str, np.ndarray], pose: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the polygons (T, points, 2) under the maps (T, 2, 3), in OpenCV's fixed point."""
    turn = pose[:, :, :2].transpose(0, 2, 1)
    shift = pose[:, None, :, 2]
    placed = {}
    for name, points in polygons.items():
        moved = points @ turn + shift
        placed[name] = np.rint(moved * (1 << _FRACTION_BITS)).astype(np.int32)
    return placed


def paint(
    canvas: np.ndarray,
    polygons: Mapping[str, np.ndarray],
    index: int,
    colours: Mapping[str, Colour],
) -> None:
    """Fills the polygons of one frame into the canvas, one over the other."""
    for name, points in polygons.items():
        cv2.fillPoly(canvas, [points[index]], colours[name], cv2.LINE_AA, _FRACTION_BITS)


def _between(x: np.ndarray, upper: np.ndarray, lower: np.ndarray, omit: int = 0) -> np.ndarray:
    """Returns the polygons between two curves (T, points), without some points at both ends."""
    kept = slice(omit, x.shape[1] - omit)
    forth = np.stack([x[:, kept], upper[:, kept]], 2)  # (T, kept, 2)
    back = np.stack([x[:, kept], lower[:, kept]], 2)[:, ::-1]
    return np.concatenate([forth, back], 1)


def _grey_palette(face: Face) -> dict[str, float]:
    """Returns the grey level of each part."""
    light = face.skin / 170
    return {
        "crease": face.skin * 0.88,
        "cavity": 28,
        "tongue": 95 * light,
        "teeth": 205 * min(light, 1.1),
        "upper lip": face.lips - 8,
        "lower lip": face.lips + 4,
        "shine": face.lips + 18,
    }


def _moving_skin(face: Face, pose: np.ndarray) -> np.ndarray:
    """Returns frames (T, 96, 96) that show only the skin."""
    texture_pose = pose.copy()
    texture_pose[:, :, 2] -= pose[:, :, :2].sum(2) * (TEXTURE_SIZE / 2)  # its middle is the mouth's
    frames = np.empty((len(pose), MOUTH_SIZE, MOUTH_SIZE), np.uint8)
    size = (MOUTH_SIZE, MOUTH_SIZE)
    for frame, own in zip(frames, texture_pose, strict=True):
        cv2.warpAffine(face.texture, own, size, frame, borderMode=cv2.BORDER_REFLECT)
    return frames


@functools.cache
def _noise_bank() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(_NOISE_BANK_SIZE, np.float32)


def _photographed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the frames as a cheap camera sees them: brightness, contrast, flicker and noise."""
    noise = _sensor_noise(frames.shape, rng)
    contrast = rng.uniform(0.8, 1.1)
    flicker = 1 + rng.normal(0, 0.012, (len(frames), 1, 1))
    brightness = rng.uniform(-15, 20)
    seen = frames * (contrast * flicker).astype(np.float32) + np.float32(brightness)
    seen += noise * np.float32(rng.uniform(*SENSOR_NOISE))
    return np.clip(seen, 0, 255, out=seen).astype(np.uint8)


def _sensor_noise(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns a random stretch of the noise bank for each frame."""
    count, height, width = shape
    pixels = height * width
    starts = rng.integers(0, _NOISE_BANK_SIZE - pixels, count)
    noise = np.empty(shape, np.float32)
    for frame, start in zip(noise, starts, strict=True):
        stretch = _noise_bank()[start : start + pixels]
        frame[:] = stretch.reshape(height, width)
    return noise
