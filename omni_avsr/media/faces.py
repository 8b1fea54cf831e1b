"""Finds and follows the faces of a video. The only file that uses a face detector.

A face is four points: the eye on the left of the image, the other eye, the nose, and the middle of
the mouth. They come from the detector YuNet, or from files of landmarks.
"""

import hashlib
import http.client
import os
import pickle
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.files import cache_root, write_atomically
from omni_avsr.media.mouth import similarity
from omni_avsr.tasks import VIDEO_FPS

DETECTED_SIZE = 320  # pixels, the longer side of the image that the detector sees
MINIMUM_SCORE = 0.6  # of a detected face
SAME_FACE = 0.3  # least overlap of the boxes of one face in two frames
PATCH_SIZE = 24  # pixels, the side of the image of a mouth whose change is measured
FORESEEN = VIDEO_FPS  # frames without a face over which it is expected to move on
REMEMBERED = 30 * 60 * VIDEO_FPS  # frames after which a face that comes back is another one
STEADINESS = 0.8  # share of the speed so far in the speed of a face
TURNS = 4  # ways up that a video may be, each a quarter turn from the one before
TURNS_EVERY = VIDEO_FPS  # frames, of which one is looked at in all turns
TURNS_TRIED = 40  # frames with a face that decide which way up a video is
SURE = 0.9  # score of a face that is surely upright
CLEARLY = 0.04  # how much higher faces must score in a turned video

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
    score: float = 1.0  # how sure the detector is, 0..1


Detector = Callable[[np.ndarray], Sequence[Face]]  # takes a BGR frame (H, W, 3)


@dataclass(eq=False)  # two tracks are the same only if they are one object
class Track:
    """One face over time."""

    frames: list[int] = field(default_factory=list)  # indices of the frames in which it is seen
    points: list[np.ndarray] = field(default_factory=list)  # (4, 2) in each of them
    motion: list[float] = field(default_factory=list)  # change of the mouth since the frame before
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))  # in the latest frame
    speed: np.ndarray = field(default_factory=lambda: np.zeros(2))  # pixels per frame
    patch: np.ndarray | None = None  # (PATCH_SIZE, PATCH_SIZE), the mouth in the latest frame

    def add(self, frame: int, face: Face, grey: np.ndarray) -> None:
        """Adds the face in a later frame, whose grey image is (H, W)."""
        patch = _mouth_patch(grey, face.points)
        motion = 0.0
        if self.patch is not None and self.frames[-1] == frame - 1:
            change = np.abs(patch - self.patch)
            motion = float(change.mean())
        if self.frames:
            step = (_centre(face.box) - _centre(self.box)) / (frame - self.frames[-1])
            self.speed = STEADINESS * self.speed + (1 - STEADINESS) * step
        self.frames.append(frame)
        self.points.append(face.points)
        self.motion.append(motion)
        self.box = face.box
        self.patch = patch

    def forget(self, first: int) -> None:
        """Drops what was seen before this frame."""
        while self.frames[0] < first:
            for values in (self.frames, self.points, self.motion):
                del values[0]

    def expected_box(self, frame: int) -> np.ndarray:
        """Returns where the face is if it moves on; where it was if it has long been lost."""
        passed = frame - self.frames[-1]
        if passed > FORESEEN:
            return self.box
        moved = self.box.copy()
        moved[:2] += passed * self.speed
        return moved


def _centre(box: np.ndarray) -> np.ndarray:
    return box[:2] + box[2:] / 2


class NoDetector(InputError):
    """No face detector is installed, so lips cannot be read in raw video."""


def yunet(model: Path | str | None = None, download: bool = True) -> Detector:
    """Returns OpenCV's face detector, with a model file that is found or downloaded."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # hides a warning of OpenCV 5
    file = find_model(model, download)
    try:
        net = cv2.FaceDetectorYN.create(
            str(file), "", (DETECTED_SIZE, DETECTED_SIZE), score_threshold=MINIMUM_SCORE
        )
    except cv2.error as error:
        raise InputError(
            f"{file} is no face detector, YuNet as ONNX is expected: {error.err}"
        ) from None

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
    return Face(box / scale, four_points(landmarks) / scale, float(row[14]))


def find_model(model: Path | str | None = None, download: bool = True) -> Path:
    """Returns the detector's file: the given one, the environment's, or the cached download."""
    named = model or os.environ.get(MODEL_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise InputError(f"there is no face detector {named}")
        return Path(named)
    cached = cache_root() / MODEL
    if not cached.is_file():
        problem = _download(cached) if download else None
        if problem or not download:
            raise NoDetector(
                f"no face detector is installed{f' ({problem})' if problem else ''}: "
                f"`omni-avsr doctor --fetch` downloads it; or download {MODEL_URL}, and give it "
                f"with --detector, name it in {MODEL_VARIABLE}, or put it at {cached}"
            )
    return cached


def _download(file: Path) -> str | None:
    """Downloads the detector's model; returns what went wrong, if anything."""
    try:
        with urllib.request.urlopen(MODEL_URL, timeout=DOWNLOAD_TIMEOUT) as answer:
            content = answer.read(LARGEST_MODEL)
    except (OSError, http.client.HTTPException) as error:
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


def find(read: Callable[[], Iterable[np.ndarray]], detect: Detector) -> tuple[list[Track], int]:
    """Returns what `follow` does of a video that may be on its side or upside down.

    `read` returns its frames; of a turned video they are read twice. The points are those of the
    frames as they are read.
    """
    scores = np.zeros(TURNS)
    tracks, count = follow(_tried(read(), detect, scores), detect)
    turns = int(scores.argmax())
    if scores[turns] > scores[0] + CLEARLY:
        tracks, count = follow(read(), lambda frame: _detect_turned(frame, detect, turns))
    return tracks, count


def _tried(
    frames: Iterable[np.ndarray], detect: Detector, scores: np.ndarray
) -> Iterator[np.ndarray]:
    """Yields the frames; `scores` becomes the mean of the best scores in each turn (TURNS,)."""
    tried = 0
    for index, frame in enumerate(frames):
        if index % TURNS_EVERY == 0 and tried < TURNS_TRIED:
            found = _best_scores(frame, detect)
            if found.any():
                tried += 1
                scores += (found - scores) / tried
        yield frame


def _best_scores(frame: np.ndarray, detect: Detector) -> np.ndarray:
    """Returns the score of the best face in each turn of a frame (TURNS,)."""
    scores = np.zeros(TURNS)
    for turns in range(TURNS):
        faces = _detect_turned(frame, detect, turns)
        scores[turns] = max((face.score for face in faces), default=0.0)
        if scores[0] >= SURE:
            break
    return scores


def _detect_turned(frame: np.ndarray, detect: Detector, turns: int) -> list[Face]:
    """Detects faces in a frame turned by quarters; returns where they are in the frame itself."""
    turned = np.ascontiguousarray(np.rot90(frame, turns))
    quarter = np.array([[0, -1], [1, 0]])  # takes a point back by a quarter, about the origin
    back = np.linalg.matrix_power(quarter, turns)
    far_corner = np.array(turned.shape[1::-1]) - 1  # of the turned frame, (2,)
    corner = np.minimum(back @ far_corner, 0)  # of the frame, where it comes to lie
    faces = []
    for face in detect(turned):
        points = face.points @ back.T - corner
        ends = np.stack([face.box[:2], face.box[:2] + face.box[2:]]) @ back.T - corner
        box = np.concatenate([ends.min(0), np.abs(ends[1] - ends[0])])
        faces.append(Face(box, points, face.score))
    return faces


def follow(frames: Iterable[np.ndarray], detect: Detector) -> tuple[list[Track], int]:
    """Returns the faces of a video, the one seen longest first, and the number of frames."""
    tracks: list[Track] = []
    remembered: list[Track] = []
    count = 0
    for index, frame in enumerate(frames):
        count = index + 1
        faces = detect(frame)
        if not faces:
            continue
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        remembered = [track for track in remembered if index - track.frames[-1] <= REMEMBERED]
        known = same_faces(remembered, faces, index)
        for place, face in enumerate(faces):
            if place not in known:
                known[place] = Track()
                tracks.append(known[place])
                remembered.append(known[place])
            known[place].add(index, face, grey)
    tracks.sort(key=lambda track: len(track.frames), reverse=True)
    return tracks, count


def same_faces(tracks: Sequence[Track], faces: Sequence[Face], frame: int) -> dict[int, Track]:
    """Returns the track of each face, by its place, that is where a known face is expected.

    Those that overlap most are paired first. Also lost faces are known: one that comes back to its
    place is the same.
    """
    overlaps = _overlaps(tracks, faces, frame)
    pairs = np.argwhere(overlaps >= SAME_FACE).tolist()
    pairs.sort(key=lambda pair: overlaps[*pair], reverse=True)
    found: dict[int, Track] = {}
    for number, place in pairs:
        track = tracks[number]
        if place not in found and track not in found.values():
            found[place] = track
    return found


def _overlaps(tracks: Sequence[Track], faces: Sequence[Face], frame: int) -> np.ndarray:
    """Returns the intersection over union (tracks, faces) of where faces are expected and seen."""
    expected = np.array([track.expected_box(frame) for track in tracks]).reshape(-1, 1, 4)
    seen = np.array([face.box for face in faces])  # (faces, 4)
    expected_corner, expected_size = expected[..., :2], expected[..., 2:]
    seen_corner, seen_size = seen[:, :2], seen[:, 2:]
    begin = np.maximum(expected_corner, seen_corner)
    end = np.minimum(expected_corner + expected_size, seen_corner + seen_size)
    shared = np.maximum(end - begin, 0).prod(-1)  # (tracks, faces)
    union = expected_size.prod(-1) + seen_size.prod(-1) - shared
    return shared / np.maximum(union, 1e-9)


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
