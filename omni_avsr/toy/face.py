"""A whole synthetic face around the mouth, in colour, with known mouth centres: for testing the way of raw video."""

import cv2
import numpy as np

from omni_avsr.toy.mouth import head_motion, make_face, mouth_polygons, paint, to_canvas

FRAME_SIZE = (288, 360)  # height and width in pixels
_SKINS = ((232, 190, 160), (205, 155, 120), (150, 105, 78), (100, 70, 52))  # RGB
_HAIRS = ((40, 28, 20), (95, 65, 40), (190, 160, 100), (120, 120, 120))
_EYES = ((70, 110, 150), (90, 60, 35), (80, 120, 80))

Colour = tuple[float, ...]


def render_face(mouth_track: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lip parameters (T, 6) -> RGB frames (T, 288, 360, 3) uint8 and the mouth's centre (T, 2) in each, x before y."""
    rng = np.random.default_rng(seed)
    height, width = FRAME_SIZE
    frames = len(mouth_track)
    face, colours = make_face(rng), _palette(rng)
    pose = head_motion(frames, np.array([width * 0.5, height * 0.68]), rng, scale=0.95)
    shapes = _head_polygons(frames, rng) | mouth_polygons(mouth_track, face)
    placed = {name: to_canvas(points, pose) for name, points in shapes.items()}
    background = _backdrop(height, width, rng)
    canvas = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        canvas[t] = background
        paint(canvas[t], {name: points[t] for name, points in placed.items()}, colours)
        cv2.GaussianBlur(canvas[t], (3, 3), 0.8, canvas[t])
    noise = rng.integers(-4, 5, canvas.shape, np.int8)
    return np.clip(canvas.astype(np.int16) + noise, 0, 255).astype(np.uint8), pose[:, :, 2]


def _head_polygons(frames: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The parts of the head without the mouth, back to front, each (T, points, 2) around the mouth's middle."""
    parts = {
        "hair": _ellipse(0, -72, 86, 104),
        "shirt": _ellipse(0, 150, 150, 75),
        "neck": _ellipse(0, 60, 38, 60),
        "left ear": _ellipse(-77, -58, 11, 20),
        "right ear": _ellipse(77, -58, 11, 20),
        "jaw": _ellipse(0, -46, 76, 96),
        "fringe": _ellipse(0, -140, 62, 22),
        "nose side": _ellipse(7, -44, 5, 20),
        "nose": _ellipse(0, -34, 12, 8),
        "left nostril": _ellipse(-7, -29, 3.5, 2),
        "right nostril": _ellipse(7, -29, 3.5, 2),
        "left brow": _ellipse(-33, -94, 18, 3.5),
        "right brow": _ellipse(33, -94, 18, 3.5),
    }
    shapes = {name: np.repeat(points[None], frames, 0) for name, points in parts.items()}
    open_eyes = np.where(_blinks(frames, rng), 0.12, 1.0)[:, None]
    for side, x in (("left", -33), ("right", 33)):
        for part, radii in (("eye", (14, 7)), ("iris", (6, 6)), ("pupil", (2.8, 2.8))):
            points = np.repeat(_ellipse(x, 0, *radii)[None], frames, 0)
            points[:, :, 1] = points[:, :, 1] * open_eyes - 76
            shapes[f"{side} {part}"] = points
    return shapes


def _blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Whether the eyes are shut (T,): for four frames about every third second."""
    starts = rng.random(frames) < 1 / 75
    return np.convolve(starts, np.ones(4), "full")[:frames] > 0


def _palette(rng: np.random.Generator) -> dict[str, Colour]:
    skin = np.array(_SKINS[rng.integers(len(_SKINS))]) * rng.uniform(0.9, 1.05)
    hair, eyes = _HAIRS[rng.integers(len(_HAIRS))], _EYES[rng.integers(len(_EYES))]
    lips = skin * (0.82, 0.62, 0.66)
    colours = dict.fromkeys(("hair", "fringe", "left brow", "right brow"), np.array(hair))
    colours |= dict.fromkeys(("jaw", "nose", "left ear", "right ear"), skin)
    colours |= dict.fromkeys(("neck", "crease", "nose side"), skin * 0.88)
    colours |= dict.fromkeys(("left nostril", "right nostril"), skin * 0.5)
    colours |= {"shirt": rng.uniform(30, 220, 3), "upper lip": lips * 0.93, "lower lip": lips, "shine": lips * 1.12}
    colours |= {"cavity": np.array((40, 14, 14)), "tongue": np.array((165, 85, 85)), "teeth": np.array((235, 230, 220))}
    for side in ("left", "right"):
        colours |= {
            f"{side} eye": np.array((240, 240, 238)),
            f"{side} iris": np.array(eyes),
            f"{side} pupil": np.zeros(3),
        }
    return {name: tuple(map(float, np.minimum(colour, 255))) for name, colour in colours.items()}


def _backdrop(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A wall: one colour, lighter to one side, with soft blotches."""
    blotches = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 1)), (0, 0), 25)[:, :, None] * 200
    slope = np.linspace(-20, 20, width)[None, :, None] * rng.choice((-1, 1))
    return np.clip(rng.uniform(70, 200, 3) + blotches + slope, 0, 255).astype(np.uint8)


def _ellipse(x: float, y: float, across: float, down: float) -> np.ndarray:
    """A polygon of 40 points (40, 2)."""
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    return np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], 1)
