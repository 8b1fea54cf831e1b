"""A stylised mouth that speaks: phonemes -> looks -> six lip parameters a frame -> polygons -> grey frames.

Reading these lips is meant to be harder than listening. Homophemes share a look, neighbours colour each other, every
speaker and every clip has its own way of making each look, the timing wavers, and the sensor is noisy.
"""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from omni_avsr.tasks import MOUTH_SIZE, VIDEO_FPS
from omni_avsr.toy.phones import LOOKS, SILENCE, VISEMES, Phoneme, phoneme_class

ANY = np.nan  # the look leaves this parameter to its neighbours
OPENING, WIDTH, ROUNDING, TEETH, TONGUE, TUCK = range(6)
SHAPES = {  # opening (below zero: pressed), width, rounding, upper teeth, tongue, tuck of the lower lip; dominance
    "rest": (-0.02, 0.50, 0.10, 0.00, 0.00, 0.00, 0.7),
    "closed": (-0.15, ANY, ANY, 0.00, 0.00, 0.00, 2.2),
    "bite": (0.12, 0.55, ANY, 0.95, 0.00, 1.00, 1.8),
    "dental": (0.26, 0.55, 0.10, 0.65, 0.95, 0.00, 1.2),
    "tip": (0.24, ANY, ANY, 0.60, 0.55, 0.00, 0.7),
    "hiss": (0.14, 0.65, 0.10, 0.95, 0.10, 0.00, 1.1),
    "hush": (0.26, 0.30, 0.70, 0.85, 0.10, 0.00, 1.4),
    "back": (0.32, ANY, ANY, 0.40, 0.25, 0.00, 0.6),
    "pucker": (0.14, 0.10, 0.95, 0.10, 0.00, 0.10, 1.5),
    "smile": (0.30, 0.95, 0.00, 0.70, 0.30, 0.00, 1.1),
    "mid": (0.52, 0.70, 0.05, 0.60, 0.35, 0.00, 1.1),
    "open": (0.92, 0.60, 0.10, 0.50, 0.30, 0.00, 1.3),
    "round": (0.66, 0.25, 0.70, 0.20, 0.20, 0.00, 1.3),
    "purse": (0.24, 0.10, 0.95, 0.10, 0.10, 0.00, 1.3),
    "neutral": (0.36, 0.50, 0.25, 0.40, 0.20, 0.00, 0.8),
}

_TABLE = np.array([SHAPES[look] for look in VISEMES])  # (looks, 7)
_NEUTRAL = _TABLE[list(VISEMES).index("neutral"), :6]
_TARGETS = np.where(np.isnan(_TABLE[:, :6]), _NEUTRAL, _TABLE[:, :6])
_DOMINANCE = np.where(np.isnan(_TABLE[:, :6]), 0.1, 1.0) * _TABLE[:, 6:]
_LOOK_INDEX = {look: i for i, look in enumerate(VISEMES)}

SPEAKER_STYLE, CLIP_STYLE, WOBBLE = 0.10, 0.08, 0.06  # deviations, in units of the parameters
OFFSET_S, JITTER_S = 0.02, 0.025  # of the lips against the sound: a clip's, and each look's own
SENSOR_NOISE = (2.0, 5.0)  # grey levels
_NOISE_BANK = 1 << 20  # samples; drawn once, as drawing fresh noise would cost more than all the rest


@dataclass(frozen=True)
class Face:
    """A speaker's mouth region: sizes in pixels of a mouth frame, brightness in grey levels, and a way of speaking."""

    half_width: float
    upper_lip: float
    lower_lip: float
    gape: float
    bow: float
    skin: float
    lips: float
    texture: np.ndarray  # (_TEXTURE, _TEXTURE) uint8
    gain: np.ndarray  # (6,)
    style: np.ndarray  # (looks, 6)


_TEXTURE = 144  # pixels, so that a moved or turned head still fills the frame


def make_face(rng: np.random.Generator) -> Face:
    """A face drawn from this generator; one generator state, one face."""
    skin = rng.uniform(115, 195)
    return Face(
        half_width=rng.uniform(22, 28),
        upper_lip=rng.uniform(4.5, 8),
        lower_lip=rng.uniform(6, 10.5),
        gape=rng.uniform(19, 26),
        bow=rng.uniform(0.1, 0.4),
        skin=skin,
        lips=skin - rng.uniform(28, 60),
        texture=_make_texture(skin, rng),
        gain=rng.uniform(0.85, 1.15, 6),
        style=rng.normal(0, SPEAKER_STYLE, _TARGETS.shape),
    )


def lip_track(phonemes: list[Phoneme], frames: int, face: Face, rng: np.random.Generator) -> np.ndarray:
    """The six lip parameters (frames, 6) of a face that says these phonemes."""
    looks, start, end = _look_segments(phonemes)
    centre = (start + end) / 2 + rng.normal(0, OFFSET_S) + rng.normal(0, JITTER_S, len(looks))
    sigma = 0.3 * (end - start) + 0.025
    targets = _TARGETS * face.gain + face.style + rng.normal(0, CLIP_STYLE, _TARGETS.shape)
    times = (np.arange(frames)[:, None] + 0.5) / VIDEO_FPS  # (T, 1)
    weight = np.exp(-0.5 * ((times - centre) / sigma) ** 2)  # (T, segments)
    dominance = _DOMINANCE[looks]
    resting = 1e-4  # holds the mouth where no segment reaches
    track = weight @ (dominance * targets[looks]) + resting * targets[_LOOK_INDEX["rest"]]
    return track / (weight @ dominance + resting) + WOBBLE * _slow_noise(frames, 6, rng)


def draw_mouth(track: np.ndarray, face: Face, rng: np.random.Generator) -> np.ndarray:
    """Lip parameters (T, 6) -> grey frames (T, 96, 96) uint8, with a moving head, changing light and sensor noise."""
    frames = len(track)
    pose = head_motion(frames, MOUTH_SIZE / 2, rng)
    polygons = mouth_polygons(track, face)
    placed = {name: to_canvas(points, pose) for name, points in polygons.items()}
    colours = grey_palette(face)
    canvas = np.empty((frames, MOUTH_SIZE, MOUTH_SIZE), np.uint8)
    skin_pose = pose.copy()
    skin_pose[:, :, 2] -= pose[:, :, :2].sum(2) * (_TEXTURE / 2)  # the texture's middle is the mouth's
    for t in range(frames):
        cv2.warpAffine(face.texture, skin_pose[t], (MOUTH_SIZE, MOUTH_SIZE), canvas[t], borderMode=cv2.BORDER_REFLECT)
        paint(canvas[t], {name: points[t] for name, points in placed.items()}, colours)
        cv2.GaussianBlur(canvas[t], (3, 3), 0.7, canvas[t])
    return _photographed(canvas, rng)


def speaker_seed(name: str) -> int:
    """A seed for a speaker's face that no corpus seed changes."""
    return int.from_bytes(name.encode(), "big")


def head_motion(frames: int, centre: float | np.ndarray, rng: np.random.Generator, scale: float = 1.0) -> np.ndarray:
    """Affine maps (T, 2, 3) from pixels around the mouth to a canvas whose mouth rests about `centre`."""
    drift = _slow_noise(frames, 4, rng)
    angle = np.deg2rad(rng.normal(0, 3) + 1.5 * drift[:, 0])
    size = scale * (rng.uniform(0.93, 1.07) + 0.015 * drift[:, 1])
    shift = centre + rng.normal(0, 1.8, 2) + 1.2 * drift[:, 2:] + rng.normal(0, 0.15, (frames, 2))
    cos, sin = size * np.cos(angle), size * np.sin(angle)
    return np.stack([np.stack([cos, -sin, shift[:, 0]], 1), np.stack([sin, cos, shift[:, 1]], 1)], 1)


def mouth_polygons(track: np.ndarray, face: Face) -> dict[str, np.ndarray]:
    """The parts of the mouth, back to front, each (T, points, 2) in pixels around its middle."""
    opening, width, rounding, teeth, tongue, tuck = np.split(track, 6, 1)  # each (T, 1)
    teeth, tongue, tuck = np.clip(teeth, 0, 1), np.clip(tongue, 0, 1), np.clip(tuck, 0, 1.2)
    u = np.linspace(-1, 1, 15)[None]
    arch = (1 - u**2) ** (0.8 - 0.25 * np.clip(rounding, 0, 1))  # (T, points)
    half = face.half_width * (0.80 + 0.28 * width - 0.36 * rounding)
    gap = face.gape * np.clip(opening, 0.03, None)
    corner = -2.5 * (width - 0.5) * u**2
    pressed = 1 - 1.6 * np.clip(-opening, 0, 0.3)
    full = pressed * (1 + 0.35 * rounding)
    x = half * u
    upper_in = corner - 0.3 * gap * arch
    lower_in = corner + 0.7 * gap * arch - 1.5 * tuck * arch
    bow = 1 - face.bow * np.exp(-((u / 0.16) ** 2))
    upper_out = upper_in - face.upper_lip * full * arch * bow
    lower_lip = face.lower_lip * full * (1 - 0.4 * tuck) * arch
    teeth_end = np.minimum(upper_in + teeth * 8 * arch**0.5, lower_in)
    tongue_end = np.maximum(lower_in - tongue * (0.65 * gap - 1.2 * u**2), upper_in)
    crease = corner + 0.7 * gap + face.lower_lip + 3 - 4 * u**2
    return {
        "crease": _between(0.6 * x, crease, crease + 4 * arch),
        "cavity": _between(x, upper_in, lower_in),
        "tongue": _between(x, tongue_end, lower_in, ends=3),
        "teeth": _between(x, upper_in, teeth_end),
        "upper lip": _between(x, upper_out, upper_in),
        "lower lip": _between(x, lower_in, lower_in + lower_lip),
        "shine": _between(x, lower_in + 0.35 * lower_lip, lower_in + 0.6 * lower_lip, ends=3),
    }


def grey_palette(face: Face) -> dict[str, float]:
    """The grey level of each part."""
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


_SHIFT = 4  # bits of a pixel's fraction that OpenCV's polygons take


def to_canvas(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (T, points, 2) under maps (T, 2, 3), in the fixed-point numbers that `paint` takes."""
    moved = points @ pose[:, :, :2].transpose(0, 2, 1) + pose[:, None, :, 2]
    return np.rint(moved * (1 << _SHIFT)).astype(np.int32)


def paint(canvas: np.ndarray, polygons: dict[str, np.ndarray], colours: dict) -> None:
    """Fills the polygons (points, 2) into the canvas in their order."""
    for name, points in polygons.items():
        cv2.fillPoly(canvas, [points], colours[name], cv2.LINE_AA, _SHIFT)


def _look_segments(phonemes: list[Phoneme]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices, starts and ends of the looks; a diphthong's two share its time, and a clip begins in silence."""
    lead = [(0.0, phonemes[0][0], SILENCE)] if phonemes else []
    rows = []
    for start, end, name in lead + phonemes:
        looks = LOOKS[phoneme_class(name)]
        edges = np.linspace(start, end, len(looks) + 1)
        rows += [(_LOOK_INDEX[look], edges[i], edges[i + 1]) for i, look in enumerate(looks)]
    table = np.array(rows).reshape(-1, 3)
    return table[:, 0].astype(int), table[:, 1], table[:, 2]


def _slow_noise(frames: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """(frames, columns) of about unit deviation: four random sines of 0.2 to 3 Hz each."""
    times = np.arange(frames)[:, None, None] / VIDEO_FPS
    rate, phase = rng.uniform(0.2, 3, (4, columns)), rng.uniform(0, 2 * np.pi, (4, columns))
    return np.sin(2 * np.pi * rate * times + phase).sum(1) / np.sqrt(2)


def _between(x: np.ndarray, upper: np.ndarray, lower: np.ndarray, ends: int = 0) -> np.ndarray:
    """The polygon between two curves (T, points) over the same x, less some points at both ends: (T, 2 * left, 2)."""
    x, upper, lower = (curve[:, ends : curve.shape[1] - ends] for curve in (x, upper, lower))
    return np.stack([np.concatenate([x, x[:, ::-1]], 1), np.concatenate([upper, lower[:, ::-1]], 1)], 2)


def _make_texture(skin: float, rng: np.random.Generator) -> np.ndarray:
    """Skin around a mouth: light from one side, blotches, pores, perhaps a beard, folds beside and nostrils above."""
    y, x = np.mgrid[:_TEXTURE, :_TEXTURE] - _TEXTURE / 2
    angle, noise = rng.uniform(0, 2 * np.pi), rng.normal(0, 1, (2, _TEXTURE, _TEXTURE))
    light = rng.uniform(0, 0.25) * (np.cos(angle) * x + np.sin(angle) * y)
    blotches = cv2.GaussianBlur(noise[0], (0, 0), 7) * rng.uniform(15, 45)
    pores = cv2.GaussianBlur(noise[1], (0, 0), 0.8)
    bearded = rng.choice([0.0, 0.0, 0.5, 1.0])
    around = np.clip(
        (x / 34) ** 2 + ((y - 6) / 26) ** 2 - 0.5, 0, 1
    )  # beard grows around the lips, not on the cheeks' top
    beard = bearded * around * np.clip((y + 30 - 0.004 * x**2) / 22, 0, 1)
    folds = 9 * np.exp(-(((np.abs(x) - 31 - 0.35 * y) / 2.2) ** 2)) * (y < 8) * rng.uniform(0, 1)
    nostrils = 60 * np.exp(-(((np.abs(x) - 8) / 4.5) ** 2) - ((y + 37) / 3.5) ** 2)
    philtrum = 7 * np.exp(-((x / 2.5) ** 2)) * (y < -8) * (y > -30)
    image = skin + light + blotches + pores * (6 + 14 * beard) - 40 * beard - folds - nostrils - philtrum
    return np.clip(image, 0, 255).astype(np.uint8)


@functools.cache
def _noise_bank() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(_NOISE_BANK, np.float32)


def _photographed(frames: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frames as a cheap camera sees them: brightness, contrast, flicker and noise."""
    size = frames[0].size
    starts = rng.integers(0, _NOISE_BANK - size, len(frames))
    noise = np.stack([_noise_bank()[start : start + size] for start in starts]).reshape(frames.shape)
    contrast = rng.uniform(0.8, 1.1) * (1 + rng.normal(0, 0.012, (len(frames), 1, 1)))
    seen = frames * contrast.astype(np.float32) + np.float32(rng.uniform(-15, 20))
    seen += noise * np.float32(rng.uniform(*SENSOR_NOISE))
    return np.clip(seen, 0, 255, out=seen).astype(np.uint8)
