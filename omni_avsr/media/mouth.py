"""Faces to mouth clips: aligns every frame of a video and crops the mouth.

Eyes and nose turn and scale a frame (a similarity, fitted by least squares), and the mouth becomes
the middle of the crop, so a mouth clip does not nod, tilt or zoom. All points are smoothed over 12
frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from omni_avsr.tasks import MOUTH_SIZE, VIDEO_FPS

EYES_AND_NOSE = np.array(  # pixels of a crop, from the middle of the mouth
    [
        [-33.0, -74.0],
        [33.0, -74.0],
        [0.0, -34.0],
    ]
)
CROP_SHAPE = (MOUTH_SIZE, MOUTH_SIZE)
CENTRE = MOUTH_SIZE / 2 - 0.5  # pixels, the middle of a crop
SMOOTHING_REACH = 6  # frames before and after a frame that its points are smoothed over
BRIDGED = VIDEO_FPS  # frames without a face over which its place is interpolated, at most
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4  # of the names in a contact sheet
HEADING, MARGIN = 16, 4  # pixels, the height of a name and the space around it


@dataclass(frozen=True)
class Mouth:
    """Where the mouth of one face is: a map from each frame of a video to its crop."""

    maps: np.ndarray  # (T, 2, 3) affine, from the frame to the crop
    detected: np.ndarray  # (T,) whether the face is seen in the frame
    quality: dict[str, float]

    @property
    def squares(self) -> np.ndarray:
        """The middle and the side (T, 3) of what is cut out of each frame, in its pixels."""
        turned = self.maps[:, :, :2]  # (T, 2, 2)
        middles = np.linalg.solve(turned, (CENTRE - self.maps[:, :, 2])[..., None])[..., 0]
        sides = MOUTH_SIZE / np.sqrt(np.linalg.det(turned))
        return np.column_stack([middles, sides])

    def crop(self, frame: np.ndarray, index: int) -> np.ndarray:
        """Returns the mouth in a BGR frame (H, W, 3), grey (96, 96)."""
        image = cv2.warpAffine(frame, self.maps[index], CROP_SHAPE)
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def locate_mouth(seen: Sequence[int], points: Sequence[np.ndarray], frames: int) -> Mouth:
    """Returns the maps of one face over a whole video.

    The face has four points (4, 2) in each frame that it is seen in; in the frames between, the
    points are interpolated.
    """
    raw = _interpolated(seen, points, frames)  # (T, 4, 2)
    smooth = _smooth(raw)
    mouth = smooth[:, 3]
    maps = similarity(smooth)
    maps[:, :, 2] = CENTRE - _turned(maps, mouth)  # the mouth is the middle of the crop
    detected = np.isin(np.arange(frames), seen)
    quality = _quality(raw, maps, detected)
    return Mouth(maps, detected, quality)


def _interpolated(seen: Sequence[int], points: Sequence[np.ndarray], frames: int) -> np.ndarray:
    """Returns the points in every frame (T, 4, 2)."""
    every = np.arange(frames)
    coordinates = np.stack(points).reshape(len(seen), 8).T  # (8, seen)
    rows = [np.interp(every, seen, row) for row in coordinates]
    return np.stack(rows, 1).reshape(frames, 4, 2)


def similarity(points: np.ndarray) -> np.ndarray:
    """Returns the maps (T, 2, 3) that bring eyes and nose of (T, 4, 2) closest to EYES_AND_NOSE.

    They turn and scale, and do not move: their last column is zero.
    """
    source = _centred(points[:, :3])  # (T, 3, 2)
    target = _centred(EYES_AND_NOSE)  # (3, 2)
    x, y = np.moveaxis(source, -1, 0)  # (T, 3) each
    target_x, target_y = target.T  # (3,) each
    size = np.square(source).sum((1, 2))  # (T,)
    size = np.maximum(size, 1e-9)
    cosine = np.einsum("tij,ij->t", source, target) / size
    sine = (x @ target_y - y @ target_x) / size
    zero = np.zeros_like(sine)
    maps = np.array(
        [
            [cosine, -sine, zero],
            [sine, cosine, zero],
        ]
    )  # (2, 3, T)
    return np.ascontiguousarray(np.moveaxis(maps, -1, 0))


def _centred(points: np.ndarray) -> np.ndarray:
    """Moves the mean of the points (..., N, 2) to the origin."""
    return points - points.mean(-2, keepdims=True)


def _turned(maps: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Turns and scales a point per frame (T, 2), without moving it."""
    return np.einsum("tij,tj->ti", maps[:, :, :2], points)


def _smooth(points: np.ndarray) -> np.ndarray:
    """Smooths points (T, 4, 2) over time: fits a parabola around each frame.

    It reaches equally far to both sides, so a moving face is not delayed, and being a parabola it
    does not cut the turning points of a motion short.
    """
    frames = len(points)
    values = points.reshape(frames, 8)
    smooth = np.empty_like(values)
    for frame in range(frames):
        before, after = frame, frames - 1 - frame
        reach = min(before, after, SMOOTHING_REACH)
        around = values[frame - reach : frame + reach + 1]
        smooth[frame] = _parabola_weights(reach) @ around
    return smooth.reshape(points.shape)


def _parabola_weights(reach: int) -> np.ndarray:
    """Returns the weights of a least-squares parabola's middle (2 reach + 1,): Savitzky-Golay."""
    steps = np.arange(-reach, reach + 1)
    width = 2 * reach + 1
    middle = 3 * reach * (reach + 1) - 1
    weights = 3 * (middle - 5 * steps**2)
    total = (width - 2) * width * (width + 2)
    return weights / total


def lost(detected: np.ndarray) -> np.ndarray:
    """Returns whether the face (T,) is lost: not seen for longer than is bridged."""
    frames = np.zeros(len(detected), bool)
    begin = 0
    for seen, run in groupby(detected):
        end = begin + len(list(run))
        frames[begin:end] = not seen and end - begin > BRIDGED
        begin = end
    return frames


def _quality(raw: np.ndarray, maps: np.ndarray, detected: np.ndarray) -> dict[str, float]:
    """Returns measures of a clip, in pixels of the crop; eyes_apart in pixels of the frame."""
    left_eye, right_eye, _, mouth = np.moveaxis(raw, 1, 0)  # (T, 2) each
    in_crop = _turned(maps, mouth) + maps[:, :, 2] - CENTRE  # (T, 2)
    off_centre = np.linalg.norm(in_crop, axis=1)
    eyes_apart = np.linalg.norm(right_eye - left_eye, axis=1)
    jitter = 0.0
    if len(in_crop) > 2:
        accelerations = np.diff(in_crop, 2, axis=0)
        jitter = np.abs(accelerations).mean()
    return {
        "detected": round(float(detected.mean()), 3),
        "jitter": round(float(jitter), 2),
        "off_centre": round(float(off_centre.max()), 2),
        "eyes_apart": round(float(eyes_apart.mean()), 1),
    }


def crops(frames: Iterable[np.ndarray], mouth: Mouth) -> Iterator[np.ndarray]:
    """Yields the mouth (96, 96) of each frame, at most as many as there are maps."""
    indices = range(len(mouth.maps))
    for index, frame in zip(indices, frames, strict=False):
        yield mouth.crop(frame, index)


def contact_sheet(
    clips: Sequence[np.ndarray], names: Sequence[str], columns: int = 10
) -> np.ndarray:
    """Returns a picture of mouth clips (T, 96, 96): frames from start to end, under the name."""
    rows = []
    for clip, name in zip(clips, names, strict=True):
        last = len(clip) - 1
        chosen = np.linspace(0, last, columns).round().astype(int)
        row = np.hstack(list(clip[chosen]))
        rows += [_heading(name, row.shape[1]), row]
    return np.vstack(rows)


def _heading(text: str, width: int) -> np.ndarray:
    """Returns the text, white on black; the start of one that is too long is left out."""
    shown = text.encode("ascii", "replace").decode()  # OpenCV draws no other letters
    fitting = shown
    while _width(fitting) > width - 2 * MARGIN:
        shown = shown[1:]
        fitting = f"...{shown}"
    strip = np.zeros((HEADING, width), np.uint8)
    place = (MARGIN, HEADING - MARGIN)
    cv2.putText(strip, fitting, place, FONT, FONT_SCALE, 255, 1, cv2.LINE_AA)
    return strip


def _width(text: str) -> int:
    """Returns the pixels that a drawn text takes."""
    (width, _), _ = cv2.getTextSize(text, FONT, FONT_SCALE, 1)
    return width


def write_picture(path: Path | str, picture: np.ndarray) -> None:
    """Writes a picture as PNG, whatever the ending of its name."""
    _, encoded = cv2.imencode(".png", picture)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(encoded.tobytes())
