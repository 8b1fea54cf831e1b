"""Faces are followed, the one that speaks is chosen, and landmark files cannot run code."""

import hashlib
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from omni_avsr.errors import InputError
from omni_avsr.media import faces
from omni_avsr.media.faces import Face
from tests.support.heads import FRAME_SIZE, as_landmarks, moving_head

PROOF = Path("/tmp/omni_avsr_was_here")  # exists only if a landmark file has run code


def face_at(points: np.ndarray) -> Face:
    """A face of these points with a box around them."""
    corner = points.min(0) - 20
    size = np.ptp(points, axis=0) + 40
    return Face(np.concatenate([corner, size]), points)


def scripted(frames):
    """A detector that returns these lists of faces, one list per frame."""
    found = iter(frames)
    return lambda _: next(found)


def two_heads() -> tuple[np.ndarray, np.ndarray]:
    """The points (4, 2) of a head on the left and of one on the right."""
    left = moving_head(1, 0, 0)[0] * 0.5 + np.array([-20, 0])
    right = left + np.array([180, 0])
    return left, right


def two_people(talker: int, frames: int = 100):
    """A video of two people, the loudness (T,), and a detector.

    The mouth of the talker opens along with the loudness, the other's at random.
    """
    rng = np.random.default_rng(4)
    loudness = np.repeat(rng.random(frames // 5) > 0.5, 5).astype(float)
    heads = two_heads()
    video = np.full((frames, *FRAME_SIZE, 3), 120, np.uint8)
    for index, frame in enumerate(video):
        for person, head in enumerate(heads):
            swing = loudness[index] if person == talker else rng.random() * 0.3
            opening = 1 + int(10 * swing * (index % 2 + 0.3))
            centre = tuple(head[3].astype(int).tolist())
            cv2.ellipse(frame, centre, (12, opening), 0, 0, 360, (20, 20, 20), -1)
    seen = [face_at(head) for head in heads]
    return video, loudness, scripted([seen] * frames)


@pytest.mark.parametrize("talker", [0, 1])
def test_of_two_faces_the_one_that_moves_with_the_sound_speaks(talker):
    video, loudness, detect = two_people(talker)
    tracks, frames = faces.follow(video, detect)
    assert (len(tracks), frames) == (2, 100)
    assert [len(track.frames) for track in tracks] == [100, 100]
    chosen = faces.speaking_face(tracks, loudness)
    assert (chosen.points[0][3, 0] > 150) == bool(talker)


def test_two_faces_are_followed_in_whatever_order_the_detector_returns_them():
    left, right = two_heads()
    video = np.zeros((3, *FRAME_SIZE, 3), np.uint8)
    first = [face_at(left), face_at(right)]
    second = [face_at(right), face_at(left)]
    tracks, _ = faces.follow(video, scripted([first, second, second]))
    assert [track.frames for track in tracks] == [[0, 1, 2], [0, 1, 2]]
    for track, head in zip(tracks, (left, right), strict=True):
        assert np.array_equal(track.points, [head] * 3)


@pytest.mark.parametrize("protocol", range(6))
def test_landmark_files_of_lists_are_read(tmp_path, protocol):
    face = moving_head(3)
    rows = [as_landmarks(face[0], 68), None, as_landmarks(face[2], 68)]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(rows, protocol))
    (track,), frames = faces.read_landmarks(tmp_path / "x.pkl")
    assert frames == 3
    assert track.frames == [0, 2]
    assert np.allclose(track.points[1], face[2])
    (tmp_path / "none.pkl").write_bytes(pickle.dumps([None, None]))
    assert faces.read_landmarks(tmp_path / "none.pkl") == ([], 2)


class Malicious:
    def __reduce__(self):
        return (open, (str(PROOF), "w"))


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps([Malicious()]),
        b"",
        b"no pickle",
        pickle.dumps({"a": 1}),
        pickle.dumps([np.zeros((7, 2))]),
        pickle.dumps([[[1.0, 2.0], [3.0]]]),
        pickle.dumps(["text"]),
    ],
)
def test_a_file_without_landmarks_is_refused_and_no_code_runs(tmp_path, content):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(InputError, match="landmarks"):
        faces.read_landmarks(tmp_path / "x.pkl")
    assert not PROOF.exists()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    """A cache without a detector, and a download from tmp_path / "model"."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(cache))
    monkeypatch.delenv(faces.MODEL_VARIABLE, raising=False)
    monkeypatch.setattr(faces, "MODEL_URL", (tmp_path / "model").as_uri())
    return cache


def test_without_a_detector_the_three_ways_to_one_are_told(empty_cache):
    ways = f"--detector, name it in {faces.MODEL_VARIABLE}, or put it at {empty_cache}"
    with pytest.raises(InputError, match=ways):
        faces.find_model(download=False)
    with pytest.raises(InputError, match="there is no face detector /nowhere"):
        faces.find_model("/nowhere")


def test_a_download_of_other_content_is_refused(tmp_path, empty_cache):
    (tmp_path / "model").write_bytes(b"other")
    with pytest.raises(InputError, match="another checksum than expected"):
        faces.find_model()
    assert not empty_cache.exists()


def test_a_download_is_kept(tmp_path, monkeypatch, empty_cache):
    monkeypatch.setattr(faces, "MODEL_SHA256", hashlib.sha256(b"weights").hexdigest())
    (tmp_path / "model").write_bytes(b"weights")
    assert faces.find_model().read_bytes() == b"weights"
    (tmp_path / "model").unlink()
    assert faces.find_model() == empty_cache / faces.MODEL
