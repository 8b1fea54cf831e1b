"""Finds, follows and chooses the faces of a video. The only file that uses a face detector.

A face is four points: the eye on the left of the image, the other eye, the nose, and the middle of
the mouth. They come from the detector YuNet, or from files of landmarks.
"""

import hashlib
import os
import pickle
import urllib.request
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.files import cache_root, write_atomically
from omni_avsr.media.mouth import similarity

DETECTED_SIZE = 320  # pixels, the longer side of the image that the detector sees
MINIMUM_SCORE = 0.6  # of a detected face
SAME_FACE = 0.3  # least overlap of the boxes of one face in two frames
PATCH_SIZE = 24  # pixels, the side of the image of a mouth whose change is measured
MOTION_WINDOW = 5  # frames that mouth motion and loudness are averaged over
LEAST_CORRELATION = 0.01  # what a face scores whose mouth moves against the sound

MODEL = "yunet_n_320_320.onnx"
MODEL_URL = f"https://github.com/ShiqiYu/libfacedetection.train/raw/master/onnx/{MODEL}"
MODEL_SHA256 = "81dbde155e982455488235acb8ec2dec5d647edf7cf7080d33e4abb69b93a0d2"
MODEL_VARIABLE = "OMNI_AVSR_FACE_DETECTOR"
LARGEST_MODEL = 2_000_000  # bytes
DOWNLOAD_TIMEOUT = 30  # seconds

DAMAGED_PICKLE = (  # what reading one can raise
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ValueError,
    IndexError,
    TypeError,
    KeyError,
)


@dataclass(frozen=True)
class Face:
    """A face in one frame."""

    box: np.ndarray  # (4,): x, y, width, height
    points: np.ndarray  # (4, 2)


Detector = Callable[[np.ndarray], Sequence[Face]]  # takes a BGR frame (H, W, 3)


@dataclass(eq=False)  # two tracks are the same only if they are one object
class Track:
    """One face over time."""

    frames: list[int] = field(default_factory=list)  # indices of the frames in which it is seen
    points: list[np.ndarray] = field(default_factory=list)  # (4, 2) in each of them
    motion: list[float] = field(default_factory=list)  # change of the mouth since the frame before
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))  # in the latest frame
    patch: np.ndarray | None = None  # (PATCH_SIZE, PATCH_SIZE), the mouth in the latest frame

    def add(self, frame: int, face: Face, grey: np.ndarray) -> None:
        """Adds the face in a later frame, whose grey image is (H, W)."""
        patch = _mouth_patch(grey, face.points)
        motion = 0.0
        if self.patch is not None and self.frames[-1] == frame - 1:
            change = np.abs(patch - self.patch)
            motion = float(change.mean())
        self.frames.append(frame)
        self.points.append(face.points)
        self.motion.append(motion)
        self.box = face.box
        self.patch = patch


def yunet(model: Path | str | None = None, download: bool = True) -> Detector:
    """Returns OpenCV's face detector, with a model file that is found or downloaded."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # hides a warning of OpenCV 5
    file = find_model(model, download)
    net = cv2.FaceDetectorYN.create(
        str(file), "", (DETECTED_SIZE, DETECTED_SIZE), score_threshold=MINIMUM_SCORE
    )

    def detect(frame: np.ndarray) -> list[Face]:
        small = frame
        longer_side = max(frame.shape[:2])
        scale = min(1.0, DETECTED_SIZE / longer_side)
        if scale < 1:
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        height, width = small.shape[:2]
        net.setInputSize((width, height))
        _, rows = net.detect(small)  # None, or (N, 15): box, five landmarks, score
        if rows is None:
            return []
        return [_face_of(row, scale) for row in rows]

    return detect


def _face_of(row: np.ndarray, scale: float) -> Face:
    """Returns the face of a row of the detector (15,), found in an image of this scale."""
    box = row[:4]
    landmarks = row[4:14].reshape(5, 2)
    return Face(box / scale, four_points(landmarks) / scale)


def find_model(model: Path | str | None = None, download: bool = True) -> Path:
    """Returns the detector's file: the given one, the environment's, or the cached download."""
    named = model or os.environ.get(MODEL_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(f"there is no face detector {named}")
        return Path(named)
    cached = cache_root() / MODEL
    if not cached.is_file():
        problem = _download(cached) if download else "downloads are off"
        if problem:
            raise InputError(
                f"no face detector ({problem}): download {MODEL_URL}, and give it with "
                f"--detector, name it in {MODEL_VARIABLE}, or put it at {cached}"
            )
    return cached


def _download(file: Path) -> str | None:
    """Downloads the detector's model; returns what went wrong, if anything."""
    try:
        with urllib.request.urlopen(MODEL_URL, timeout=DOWNLOAD_TIMEOUT) as answer:
            content = answer.read(LARGEST_MODEL)
    except OSError as error:
        return f"the download failed: {error}"
    if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
        return "the downloaded file has another checksum than expected"
    write_atomically(file, lambda part: part.write_bytes(content))
    return None


def four_points(landmarks: np.ndarray) -> np.ndarray:
    """Returns eyes, nose and middle of the mouth (4, 2) from 68, 5 or 4 landmarks."""
    points = np.asarray(landmarks, np.float64)
    if points.shape == (4, 2):
        return points
    if points.shape == (5, 2):  # eyes, nose, corners of the mouth
        mouth = points[3:].mean(0)
        return np.stack([*points[:3], mouth])
    if points.shape == (68, 2):  # the layout of iBUG 300-W
        left_eye = points[36:42].mean(0)
        right_eye = points[42:48].mean(0)
        nose = points[30]
        mouth = points[48:68].mean(0)
        return np.stack([left_eye, right_eye, nose, mouth])
    raise InputError(f"landmarks of shape {points.shape}, (68, 2), (5, 2) or (4, 2) expected")


def follow(frames: Iterable[np.ndarray], detect: Detector) -> tuple[list[Track], int]:
    """Returns the faces of a video, the one seen longest first, and the number of frames."""
    tracks: list[Track] = []
    count = 0
    for index, frame in enumerate(frames):
        count = index + 1
        faces = detect(frame)
        if not faces:
            continue
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        free = list(tracks)  # also lost ones: a face that comes back to its place is the same
        for face in faces:
            track = _same_face(free, face)
            if track is None:
                track = Track()
                tracks.append(track)
            else:
                free.remove(track)
            track.add(index, face, grey)
    tracks.sort(key=lambda track: len(track.frames), reverse=True)
    return tracks, count


def _same_face(tracks: Sequence[Track], face: Face) -> Track | None:
    """Returns the track whose latest box overlaps most with the face's, if it does enough."""
    best = None
    largest = 0.0
    for track in tracks:
        overlap = _overlap(track.box, face.box)
        if overlap > largest:
            best = track
            largest = overlap
    return best if largest >= SAME_FACE else None


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Returns the intersection of two boxes over their union."""
    first_corner, first_size = first[:2], first[2:]
    second_corner, second_size = second[:2], second[2:]
    begin = np.maximum(first_corner, second_corner)
    end = np.minimum(first_corner + first_size, second_corner + second_size)
    shared_size = np.maximum(end - begin, 0)
    shared = float(np.prod(shared_size))
    areas = float(np.prod(first_size) + np.prod(second_size))
    union = areas - shared
    return shared / max(union, 1e-9)


def _mouth_patch(grey: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns a small upright image of the mouth (PATCH_SIZE, PATCH_SIZE)."""
    mouth = points[3]
    size = 2 * PATCH_SIZE
    to_patch = similarity(points[None])[0]  # (2, 3)
    turned_mouth = to_patch[:, :2] @ mouth
    to_patch[:, 2] = size / 2 - turned_mouth
    patch = cv2.warpAffine(grey, to_patch, (size, size))
    patch = cv2.resize(patch, (PATCH_SIZE, PATCH_SIZE), interpolation=cv2.INTER_AREA)
    return patch.astype(np.float32)


def read_landmarks(file: Path | str) -> tuple[list[Track], int]:
    """Returns the one face of a .pkl file of landmarks, if it is ever seen, and the frame count.

    The file is a list with an entry for each frame: None, or 68, 5 or 4 points.
    """
    track = Track()
    rows = _load_landmarks(file)
    for index, row in enumerate(rows):
        if row is not None:
            track.frames.append(index)
            track.points.append(four_points(row))
            track.motion.append(0.0)
    tracks = [track] if track.frames else []
    return tracks, len(rows)


def _load_landmarks(file: Path | str) -> list[np.ndarray | None]:
    try:
        with open(file, "rb") as opened:
            rows = _ArrayUnpickler(opened).load()
        if not isinstance(rows, list):
            raise TypeError(f"it is a {type(rows).__name__}, a list is expected")
        return [None if row is None else np.asarray(row, np.float64) for row in rows]
    except DAMAGED_PICKLE as error:
        raise InputError(f"{file} holds no landmarks: {error}") from error


class _ArrayUnpickler(pickle.Unpickler):
    """Reads lists and arrays of numbers; it refuses all other names, so a file cannot run code."""

    ALLOWED = (
        "_codecs.encode",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy.core.numeric._frombuffer",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.numeric._frombuffer",
    )

    def find_class(self, module: str, name: str) -> object:
        if f"{module}.{name}" not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed in it")
        return super().find_class(module, name)


def speaking_face(tracks: Sequence[Track], loudness: np.ndarray | None) -> Track:
    """Returns the face that speaks: the one whose mouth moves most along with the loudness (T,).

    A face scores the correlation of mouth motion and loudness, times how much the mouth moves,
    times how long the face is seen. Without sound, the motion and the length decide.
    """
    if len(tracks) == 1:
        return tracks[0]
    last = max(track.frames[-1] for track in tracks)
    loud = None
    if loudness is not None:
        loud = _of_length(_averaged(loudness), last + 1)

    def score(track: Track) -> float:
        motion = _averaged(np.array(track.motion))
        moved = float(motion.mean() + 1e-6)
        together = 1.0
        if loud is not None:
            correlation = _correlation(motion, loud[track.frames])
            together = max(correlation, LEAST_CORRELATION)
        return together * moved * len(track.frames)

    return max(tracks, key=score)


def _averaged(values: np.ndarray) -> np.ndarray:
    """Returns the moving average (T,) of values (T,)."""
    window = np.ones(MOTION_WINDOW) / MOTION_WINDOW
    averaged = np.convolve(values, window, "same")  # as long as the longer of both
    return averaged[: len(values)]


def _of_length(values: np.ndarray, length: int) -> np.ndarray:
    """Returns the values cut off, or padded with zeros, to this length."""
    result = np.zeros(length)
    kept = values[:length]
    result[: len(kept)] = kept
    return result


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    if len(first) < 3:
        return 0.0
    if first.std() < 1e-9 or second.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
