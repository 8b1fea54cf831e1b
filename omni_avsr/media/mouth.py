"""Faces to mouth clips: detect, track, align, crop. The only file that knows a detector.

A face is four points: the viewer's left eye, the right eye, the nose, and the middle of the mouth. Eyes and nose turn
and scale a frame (least squares over a similarity), and the mouth is then the middle of the crop, so that a mouth clip
does not nod, tilt or zoom. All points are smoothed over 12 frames.
"""

import hashlib
import os
import pickle
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from omni_avsr.run import cache_root, write_whole
from omni_avsr.tasks import MOUTH_SIZE

EYES_AND_NOSE = np.array([[-33.0, -74.0], [33.0, -74.0], [0.0, -34.0]])  # around the mouth, in pixels of a mouth clip
SMOOTHED = 12  # frames
DETECTED_SIZE = 320  # pixels, the longer side of what the detector sees
SURE = 0.6  # of the detector's score
SAME_FACE = 0.3  # overlap of the boxes of one face in successive frames
PATCH = 24  # pixels of the mouth whose change is measured
MODEL = "yunet_n_320_320.onnx"
MODEL_URL = f"https://github.com/ShiqiYu/libfacedetection.train/raw/master/onnx/{MODEL}"
MODEL_SHA256 = "81dbde155e982455488235acb8ec2dec5d647edf7cf7080d33e4abb69b93a0d2"
MODEL_VARIABLE = "OMNI_AVSR_FACE_DETECTOR"

Found = tuple[np.ndarray, np.ndarray]  # boxes (N, 4) as x, y, width, height, and faces (N, 4, 2)
Detector = Callable[[np.ndarray], Found]  # of a BGR frame


@dataclass
class Track:
    """One face over time."""

    frames: list[int] = field(default_factory=list)
    points: list[np.ndarray] = field(default_factory=list)  # (4, 2) each
    motion: list[float] = field(default_factory=list)  # of the mouth, since the frame before
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))
    patch: np.ndarray | None = None

    def add(self, frame: int, box: np.ndarray, points: np.ndarray, grey: np.ndarray) -> None:
        """The face in a further frame."""
        patch = _warp(grey, _similarity(points[None])[0], points[3], PATCH * 2)
        patch = cv2.resize(patch, (PATCH, PATCH), interpolation=cv2.INTER_AREA).astype(np.float32)
        change = 0.0 if self.patch is None else float(np.abs(patch - self.patch).mean())
        self.motion.append(change if self.frames and frame - self.frames[-1] == 1 else 0.0)
        self.frames.append(frame)
        self.points.append(points)
        self.box, self.patch = box, patch


@dataclass(frozen=True)
class Mouth:
    """Where the mouth of one face is: a map from each frame of a video to its crop."""

    maps: np.ndarray  # (T, 2, 3) affine, from the frame to the crop
    detected: np.ndarray  # (T,) whether the face was seen in the frame
    quality: dict[str, float]

    def crop(self, frame: np.ndarray, index: int) -> np.ndarray:
        """The mouth (96, 96) in a frame (H, W, 3), grey."""
        image = cv2.warpAffine(frame, self.maps[index], (MOUTH_SIZE, MOUTH_SIZE))
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)


def yunet(model: Path | str | None = None, download: bool = True) -> Detector:
    """OpenCV's face detector, of a model file that is found, or fetched once."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # OpenCV 5 warns of a default of its own
    net = cv2.FaceDetectorYN.create(str(find_model(model, download)), "", (DETECTED_SIZE, DETECTED_SIZE), SURE)

    def detect(frame: np.ndarray) -> Found:
        scale = min(1.0, DETECTED_SIZE / max(frame.shape[:2]))
        small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
        net.setInputSize((small.shape[1], small.shape[0]))
        faces = net.detect(small)[1]
        if faces is None:
            return np.zeros((0, 4)), np.zeros((0, 4, 2))
        return faces[:, :4] / scale, np.stack([four_points(face[4:14].reshape(5, 2)) for face in faces]) / scale

    return detect


def find_model(model: Path | str | None = None, download: bool = True) -> Path:
    """The detector's file: as given, as the environment says, or in the cache, where it is downloaded to."""
    named = model or os.environ.get(MODEL_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise ValueError(f"there is no face detector {named}")
        return Path(named)
    cached = cache_root() / MODEL
    if not cached.is_file():
        problem = _download(cached) if download else "downloads are off"
        if problem:
            raise ValueError(
                f"no face detector ({problem}): give {MODEL} with --detector, name it in {MODEL_VARIABLE}, or "
                f"put it at {cached}; it is at {MODEL_URL}"
            )
    return cached


def _download(file: Path) -> str | None:
    """Fetches the detector; returns what went wrong."""
    try:
        with urllib.request.urlopen(MODEL_URL, timeout=30) as answer:
            content = answer.read(2_000_000)
    except OSError as error:
        return f"the download failed: {error}"
    if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
        return "the download is not the file that was expected"
    write_whole(file, lambda part: part.write_bytes(content))
    return None


def four_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose and middle of the mouth (4, 2) of 68, 5 or 4 landmarks."""
    points = np.asarray(landmarks, np.float64)
    if points.shape == (68, 2):
        return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48:68].mean(0)])
    if points.shape == (5, 2):
        return np.stack([*points[:3], points[3:].mean(0)])
    if points.shape == (4, 2):
        return points
    raise ValueError(f"landmarks of shape {points.shape}, (68, 2), (5, 2) or (4, 2) expected")


def follow(frames: Iterable[np.ndarray], detect: Detector) -> tuple[list[Track], int]:
    """Every face of a video, the one seen longest first, and how many frames there are."""
    tracks: list[Track] = []
    count = 0
    for count, frame in enumerate(frames, 1):
        boxes, faces = detect(frame)
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if len(boxes) else frame
        alive = list(tracks)  # a face that comes back to its place is the same one
        for box, points in zip(boxes, faces, strict=True):
            best = max(alive, key=lambda track: _overlap(track.box, box), default=None)
            if best is None or _overlap(best.box, box) < SAME_FACE:
                best = Track()
                tracks.append(best)
            else:
                alive.remove(best)
            best.add(count - 1, box, points, grey)
    return sorted(tracks, key=lambda track: -len(track.frames)), count


def read_landmarks(file: Path | str) -> tuple[list[Track], int]:
    """The one face of a .pkl file of landmarks and its frames: a list with None, or with 68 or 4 points, for each."""
    with open(file, "rb") as opened:
        try:
            rows = _Arrays(opened).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, IndexError, TypeError, KeyError) as error:
            raise ValueError(f"{file} holds no landmarks: {error}") from None
    if not isinstance(rows, list) or not all(row is None or isinstance(row, np.ndarray | list) for row in rows):
        raise ValueError(f"{file} holds no list of landmarks")
    seen = [(index, four_points(np.asarray(row, np.float64))) for index, row in enumerate(rows) if row is not None]
    track = Track([i for i, _ in seen], [points for _, points in seen], [0.0] * len(seen))
    return [track] if seen else [], len(rows)


class _Arrays(pickle.Unpickler):
    """Reads lists and arrays of numbers; nothing else can be named in a file, so nothing runs."""

    ALLOWED = frozenset(
        f"{module}.{name}"
        for core in ("numpy.core", "numpy._core")
        for module, name in (
            (f"{core}.multiarray", "_reconstruct"),
            (f"{core}.multiarray", "scalar"),
            (f"{core}.numeric", "_frombuffer"),
        )
    ) | {"numpy.ndarray", "numpy.dtype", "_codecs.encode"}

    def find_class(self, module: str, name: str):
        if f"{module}.{name}" not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is in it")
        return super().find_class(module, name)


def speaking(tracks: Sequence[Track], loudness: np.ndarray | None) -> Track:
    """The face that speaks: whose mouth moves most along with the loudness (T,) of the sound.

    Of each face the correlation of mouth motion and loudness, both over five frames, is multiplied with how much the
    mouth moves and how long the face is seen. Without sound, the motion and the length decide.
    """
    if len(tracks) == 1:
        return tracks[0]
    loud = np.zeros(max(track.frames[-1] for track in tracks) + 1)
    if loudness is not None:
        loud[: len(loudness)] = _averaged(loudness)[: len(loud)]

    def score(track: Track) -> float:
        motion = _averaged(np.array(track.motion))
        together = 1.0 if loudness is None else max(_correlation(motion, loud[track.frames]), 0.01)
        return together * float(motion.mean() + 1e-6) * len(track.frames)

    return max(tracks, key=score)


def locate_mouth(track: Track, frames: int) -> Mouth:
    """The maps of one face over a whole video; where the face is lost its points are interpolated."""
    seen = np.array(track.frames)
    points = np.stack(track.points).reshape(len(seen), -1)
    raw = np.stack([np.interp(np.arange(frames), seen, values) for values in points.T], 1)  # (T, 8)
    smooth = _smooth(raw)
    found = smooth.reshape(frames, 4, 2)
    maps = _similarity(found)
    middle = MOUTH_SIZE / 2 - 0.5
    moved = np.einsum("tij,tj->ti", maps[:, :, :2], found[:, 3])
    maps[:, :, 2] = middle - moved  # the mouth is the middle of the crop
    detected = np.isin(np.arange(frames), seen)
    return Mouth(maps, detected, _quality(raw.reshape(frames, 4, 2), maps, detected))


def _quality(raw: np.ndarray, maps: np.ndarray, detected: np.ndarray) -> dict[str, float]:
    """What to judge a clip by; pixels of the crop, but for the size of the face in the frame."""
    mouth = np.einsum("tij,tj->ti", maps[:, :, :2], raw[:, 3]) + maps[:, :, 2] - (MOUTH_SIZE / 2 - 0.5)
    jitter = np.abs(np.diff(mouth, 2, axis=0)).mean() if len(mouth) > 2 else 0.0
    return {
        "detected": round(float(detected.mean()), 3),
        "jitter": round(float(jitter), 2),
        "off_centre": round(float(np.linalg.norm(mouth, axis=1).max()), 2),
        "eyes_apart": round(float(np.linalg.norm(raw[:, 1] - raw[:, 0], axis=1).mean()), 1),
    }


def crops(frames: Iterable[np.ndarray], mouth: Mouth) -> Iterator[np.ndarray]:
    """The mouth (96, 96) in each frame."""
    return (mouth.crop(frame, index) for index, frame in zip(range(len(mouth.maps)), frames, strict=False))


def contact_sheet(clips: Sequence[np.ndarray], columns: int = 10) -> np.ndarray:
    """One picture with a row of frames of each mouth clip (T, 96, 96), from its beginning to its end."""
    rows = [np.hstack(list(clip[np.linspace(0, len(clip) - 1, columns).round().astype(int)])) for clip in clips]
    return np.vstack(rows)


def write_picture(path: Path | str, picture: np.ndarray) -> None:
    """Writes a picture as PNG, under any name."""
    Path(path).write_bytes(cv2.imencode(".png", picture)[1].tobytes())


def _similarity(points: np.ndarray) -> np.ndarray:
    """The maps (T, 2, 3) that turn and scale eyes and nose of (T, 4, 2) nearest to where they belong."""
    source = points[:, :3] - points[:, :3].mean(1, keepdims=True)
    target = EYES_AND_NOSE - EYES_AND_NOSE.mean(0)
    size = np.maximum(np.square(source).sum((1, 2)), 1e-9)
    along = np.einsum("tij,ij->t", source, target) / size
    across = (source[:, :, 0] @ target[:, 1] - source[:, :, 1] @ target[:, 0]) / size
    maps = np.zeros((len(points), 2, 3))
    maps[:, 0, 0] = maps[:, 1, 1] = along
    maps[:, 1, 0], maps[:, 0, 1] = across, -across
    return maps


def _warp(grey: np.ndarray, turn: np.ndarray, mouth: np.ndarray, size: int) -> np.ndarray:
    turn = turn.copy()
    turn[:, 2] = size / 2 - turn[:, :2] @ mouth
    return cv2.warpAffine(grey, turn, (size, size))


def _smooth(values: np.ndarray, reach: int = SMOOTHED // 2) -> np.ndarray:
    """A parabola fitted to (T, N) about each frame, as far to one side as to the other: a moving face is not delayed,
    and one that turns round is not cut short."""
    index = np.arange(len(values))
    reaches = np.minimum(np.minimum(index, index[::-1]), reach)
    smooth = np.empty_like(values)
    for t, r in enumerate(reaches):
        steps = np.arange(-r, r + 1)
        weights = 3 * (3 * r * r + 3 * r - 1 - 5 * steps**2) / ((2 * r - 1) * (2 * r + 1) * (2 * r + 3))
        smooth[t] = weights @ values[t - r : t + r + 1]
    return smooth


def _averaged(values: np.ndarray, width: int = 5) -> np.ndarray:
    return np.convolve(values, np.ones(width) / width, "same")[: len(values)]


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 3 or first.std() < 1e-9 or second.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """The intersection of two boxes over their union."""
    low = np.maximum(first[:2], second[:2])
    high = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / max(float(np.prod(first[2:]) + np.prod(second[2:])) - shared, 1e-9)
