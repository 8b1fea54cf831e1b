"""A drawn face in colour, whose mouth centres are known: raw video for recordings and tests."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from omni_avsr.toy.face import Face, make_face
from omni_avsr.toy.motion import head_motion
from omni_avsr.toy.mouth import mouth_polygons, paint, place

FRAME_SIZE = (288, 360)  # height and width in pixels
BLINK_FRAMES = 4
BLINKS_PER_FRAME = 1 / 75  # one in three seconds

_STRETCH = 250  # frames that are prepared at once, so that long videos need little memory
_SKINS = ((232, 190, 160), (205, 155, 120), (150, 105, 78), (100, 70, 52))  # RGB
_HAIRS = ((40, 28, 20), (95, 65, 40), (190, 160, 100), (120, 120, 120))
_EYES = ((70, 110, 150), (90, 60, 35), (80, 120, 80))

# Parts of the head in drawing order, as ellipses: x, y, and both radii, in pixels from the middle
# of the mouth.
_HEAD = {
    "hair": (0, -72, 86, 104),
    "shirt": (0, 150, 150, 75),
    "neck": (0, 60, 38, 60),
    "left ear": (-77, -58, 11, 20),
    "right ear": (77, -58, 11, 20),
    "jaw": (0, -46, 76, 96),
    "fringe": (0, -140, 62, 22),
    "nose side": (7, -44, 5, 20),
    "nose": (0, -34, 12, 8),
    "left nostril": (-7, -29, 3.5, 2),
    "right nostril": (7, -29, 3.5, 2),
    "left brow": (-33, -94, 18, 3.5),
    "right brow": (33, -94, 18, 3.5),
}
_EYE_X = {"left": -33, "right": 33}
_EYE_Y = -76
_EYE_RADII = {"eye": (14, 7), "iris": (6, 6), "pupil": (2.8, 2.8)}

Colour = tuple[float, ...]


@dataclass(frozen=True)
class Portrait:
    """A person in front of a wall, and how the head moves and the eyes blink."""

    face: Face
    colours: dict[str, Colour]
    pose: np.ndarray  # (T, 2, 3); from pixels around the mouth to the picture
    openness: np.ndarray  # (T,); of the eyes
    background: np.ndarray  # (H, W, 3)

    @property
    def centres(self) -> np.ndarray:
        """The mouth centre in each frame, x before y, in pixels: (T, 2)."""
        return self.pose[:, :, 2]


def make_portrait(
    frames: int,
    rng: np.random.Generator,
    face: Face | None = None,
    size: tuple[int, int] = FRAME_SIZE,
) -> Portrait:
    """Returns a random person for so many frames, with this face or a random one."""
    height, width = size
    face = face or make_face(rng)
    colours = _palette(rng)
    middle = np.array([width * 0.5, height * 0.68])
    pose = head_motion(frames, middle, rng, scale=0.95)
    openness = np.where(_is_blinking(frames, rng), 0.12, 1.0)
    background = _backdrop(height, width, rng)
    return Portrait(face, colours, pose, openness, background)


def drawn(portrait: Portrait, track: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the RGB frames (H, W, 3) of a lip track (T, 6), one after the other."""
    for first in range(0, len(track), _STRETCH):
        stretch = slice(first, first + _STRETCH)
        head = _head_polygons(portrait.openness[stretch])
        mouth = mouth_polygons(track[stretch], portrait.face)
        polygons = place(head | mouth, portrait.pose[stretch])
        for index in range(len(track[stretch])):
            frame = portrait.background.copy()
            paint(frame, polygons, index, portrait.colours)
            cv2.GaussianBlur(frame, (3, 3), 0.8, frame)
            yield frame


def render_face(track: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the RGB frames (T, 288, 360, 3) of a lip track (T, 6), and each mouth centre (T, 2).

    A centre is x before y, in pixels.
    """
    rng = np.random.default_rng(seed)
    portrait = make_portrait(len(track), rng)
    frames = np.stack(list(drawn(portrait, track)))
    noise = rng.integers(-4, 5, frames.shape, np.int8)
    noisy = np.clip(frames.astype(np.int16) + noise, 0, 255)
    return noisy.astype(np.uint8), portrait.centres


def _head_polygons(openness: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the parts of the head without the mouth, in drawing order: each (T, points, 2).

    The eyes are as open as told: (T,).
    """
    frames = len(openness)
    polygons = {name: _in_every_frame(_ellipse(*sizes), frames) for name, sizes in _HEAD.items()}
    for side, x in _EYE_X.items():
        for part, radii in _EYE_RADII.items():
            points = _in_every_frame(_ellipse(x, 0, *radii), frames)
            points[:, :, 1] = points[:, :, 1] * openness[:, None] + _EYE_Y
            polygons[f"{side} {part}"] = points
    return polygons


def _in_every_frame(points: np.ndarray, frames: int) -> np.ndarray:
    return np.repeat(points[None], frames, 0)  # (points, 2) -> (T, points, 2)


def _is_blinking(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Returns whether the eyes are shut in each frame: (T,)."""
    starts = rng.random(frames) < BLINKS_PER_FRAME
    return np.convolve(starts, np.ones(BLINK_FRAMES), "full")[:frames] > 0


def _palette(rng: np.random.Generator) -> dict[str, Colour]:
    """Returns the colour of each part."""
    skin = np.array(_SKINS[rng.integers(len(_SKINS))]) * rng.uniform(0.9, 1.05)
    hair = np.array(_HAIRS[rng.integers(len(_HAIRS))])
    iris = np.array(_EYES[rng.integers(len(_EYES))])
    lips = skin * (0.82, 0.62, 0.66)
    colours = {
        "shirt": rng.uniform(30, 220, 3),
        "upper lip": lips * 0.93,
        "lower lip": lips,
        "shine": lips * 1.12,
        "cavity": np.array((40, 14, 14)),
        "tongue": np.array((165, 85, 85)),
        "teeth": np.array((235, 230, 220)),
    }
    colours |= dict.fromkeys(("hair", "fringe", "left brow", "right brow"), hair)
    colours |= dict.fromkeys(("jaw", "nose", "left ear", "right ear"), skin)
    colours |= dict.fromkeys(("neck", "crease", "nose side"), skin * 0.88)
    colours |= dict.fromkeys(("left nostril", "right nostril"), skin * 0.5)
    for side in _EYE_X:
        colours[f"{side} eye"] = np.array((240, 240, 238))
        colours[f"{side} iris"] = iris
        colours[f"{side} pupil"] = np.zeros(3)
    return {name: tuple(map(float, np.minimum(rgb, 255))) for name, rgb in colours.items()}


def _backdrop(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a wall: one colour, lighter on one side, with soft blotches."""
    noise = rng.normal(0, 1, (height, width, 1))
    blotches = cv2.GaussianBlur(noise, (0, 0), 25)[:, :, None] * 200
    slope = np.linspace(-20, 20, width)[None, :, None] * rng.choice((-1, 1))
    colour = rng.uniform(70, 200, 3)
    return np.clip(colour + blotches + slope, 0, 255).astype(np.uint8)


def _ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """Returns the outline of an ellipse: (40, 2)."""
    angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + across * np.cos(angle), y + down * np.sin(angle)], 1)
