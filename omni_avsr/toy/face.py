"""What the mouth region of a speaker looks like, and how the speaker moves the lips."""

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from omni_avsr.toy.looks import PARAMETERS
from omni_avsr.toy.phones import VISEMES

TEXTURE_SIZE = 144  # pixels; a mouth frame is filled even when the head is moved or turned
SPEAKER_STYLE = 0.10  # deviation of a speaker's looks, in units of the lip parameters


@dataclass(frozen=True)
class Face:
    """Sizes are in pixels of a mouth frame, brightness is in grey levels."""

    half_width: float
    upper_lip: float
    lower_lip: float
    gape: float
    bow: float
    skin: float
    lips: float
    texture: np.ndarray  # (TEXTURE_SIZE, TEXTURE_SIZE) uint8
    gain: np.ndarray  # (6,); how far the speaker moves each lip parameter
    style: np.ndarray  # (looks, 6); the speaker's own deviation from each look


def make_face(rng: np.random.Generator) -> Face:
    """Returns a random face; the same generator state gives the same face."""
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
        gain=rng.uniform(0.85, 1.15, PARAMETERS),
        style=rng.normal(0, SPEAKER_STYLE, (len(VISEMES), PARAMETERS)),
    )


@functools.cache
def face_of(speaker: str) -> Face:
    """Returns the face of a speaker, which is the same in every corpus."""
    seed = int.from_bytes(speaker.encode(), "big")
    return make_face(np.random.default_rng(seed))


def _make_texture(skin: float, rng: np.random.Generator) -> np.ndarray:
    """Returns an image of the skin around the mouth, perhaps with a beard."""
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE] - TEXTURE_SIZE / 2
    angle = rng.uniform(0, 2 * np.pi)  # from which the light falls
    noise = rng.normal(0, 1, (2, TEXTURE_SIZE, TEXTURE_SIZE))
    light = rng.uniform(0, 0.25) * (np.cos(angle) * x + np.sin(angle) * y)
    blotches = cv2.GaussianBlur(noise[0], (0, 0), 7) * rng.uniform(15, 45)
    pores = cv2.GaussianBlur(noise[1], (0, 0), 0.8)
    beard = rng.choice([0.0, 0.0, 0.5, 1.0]) * _beard_density(x, y)
    folds = _folds_beside_the_mouth(x, y) * rng.uniform(0, 1)
    stubble = pores * (6 + 14 * beard)
    image = skin + light + blotches + stubble - 40 * beard
    image = image - folds - _nostrils(x, y) - _philtrum(x, y)
    return np.clip(image, 0, 255).astype(np.uint8)


def _beard_density(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the density of a beard, 0 to 1: around the lips, but not high on the cheeks."""
    off_the_lips = np.clip((x / 34) ** 2 + ((y - 6) / 26) ** 2 - 0.5, 0, 1)
    below_the_cheeks = np.clip((y + 30 - 0.004 * x**2) / 22, 0, 1)
    return off_the_lips * below_the_cheeks


def _folds_beside_the_mouth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    distance = np.abs(x) - 31 - 0.35 * y
    darkness = 9 * np.exp(-((distance / 2.2) ** 2))
    return np.where(y < 8, darkness, 0)


def _nostrils(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    across = (np.abs(x) - 8) / 4.5
    down = (y + 37) / 3.5
    return 60 * np.exp(-(across**2) - down**2)


def _philtrum(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    darkness = 7 * np.exp(-((x / 2.5) ** 2))
    return np.where((y > -30) & (y < -8), darkness, 0)
