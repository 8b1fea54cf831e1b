"""Faces are followed, the one that speaks is chosen, and landmark files cannot run code."""

import hashlib
import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from omni_avsr.errors import InputError
from omni_avsr.media import faces, mouth, speaker
from omni_avsr.media.faces import Face
from omni_avsr.toy import lip_track, make_face
from omni_avsr.toy.portrait import render_face
from tests.support.heads import FRAME_SIZE, as_landmarks, moving_head

SHARED_DETECTOR = Path(__file__).parents[3] / "shared/models" / faces.MODEL
DETECTOR = Path(os.environ.get(faces.MODEL_VARIABLE, SHARED_DETECTOR))
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
    chosen = speaker.speaking_face(tracks, loudness)
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


def scene(paths, hidden_if_overlapping=True):
    """A detector's faces in each frame, by the places (x, y) of each person's face over time.

    A place is None where the person is away. Of two faces that overlap, the second is hidden.
    """
    head = moving_head(1, 0, 0)[0] * 0.5
    head -= head.mean(0)
    frames = []
    for places in zip(*paths, strict=True):
        seen = [face_at(head + np.array(place)) for place in places if place is not None]
        if hidden_if_overlapping and len(seen) == 2:
            apart = np.abs(seen[0].box[0] - seen[1].box[0])
            if apart < 0.7 * seen[0].box[2]:
                seen = seen[:1]
        frames.append(seen)
    return frames


def walk(begin, end, frames=60):
    return [(x, 140.0) for x in np.linspace(begin, end, frames)]


def followed(frames):
    """The tracks in scripted frames, each as the places x of its face over time."""
    video = np.zeros((len(frames), *FRAME_SIZE, 3), np.uint8)
    tracks, _ = faces.follow(video, scripted(frames))
    return [[points.mean(0)[0] for points in track.points] for track in tracks]


@pytest.mark.parametrize("hides", [False, True])
def test_faces_that_cross_are_not_exchanged(hides):
    noise = np.random.default_rng(0).normal(0, 1, 60)
    right = [(x + jitter, y) for (x, y), jitter in zip(walk(60, 300), noise, strict=True)]
    for first, second in ((right, walk(300, 60)), (walk(300, 60), right)):
        tracks = followed(scene([first, second], hides))
        assert len(tracks) == 2
        for track in tracks:
            steps = np.diff(track)
            assert abs(track[-1] - track[0]) > 200
            assert np.abs(steps).max() < 60 if hides else 12


def test_a_face_that_leaves_and_one_that_appears_are_two():
    away = [None] * 30
    still = walk(60, 60)
    leaving = walk(180, 180)[:30] + away
    appearing = away + walk(300, 300)[:30]
    tracks = followed(scene([still, leaving, appearing]))
    assert sorted((len(track), round(np.mean(track))) for track in tracks) == [
        (30, 180),
        (30, 300),
        (60, 60),
    ]


def test_a_face_that_is_back_in_its_place_is_the_same():
    path = walk(100, 110)
    path[20:50] = [None] * 30
    assert [len(track) for track in followed(scene([path]))] == [30]


def test_a_face_that_has_long_been_away_is_another_one(monkeypatch):
    path = walk(100, 110)
    path[20:50] = [None] * 30
    monkeypatch.setattr(faces, "REMEMBERED", 30)
    assert [len(track) for track in followed(scene([path]))] == [20, 10]
    monkeypatch.setattr(faces, "REMEMBERED", 31)
    assert [len(track) for track in followed(scene([path]))] == [30]


def upright_detector(head):
    """Sees the white mouth of an upright head; a turned one it sees too, but upright and badly."""

    def detect(frame):
        ys, xs = np.nonzero(frame[..., 0] > 128)
        dark_y, dark_x = np.nonzero(frame[..., 0] < 64)
        mouth = np.array([xs.mean(), ys.mean()])
        eyes = np.array([dark_x.mean(), dark_y.mean()])
        is_upright = eyes[1] < mouth[1] - 10
        middle = np.mean([mouth, eyes], 0)
        points = head + (mouth if is_upright else middle)
        return [Face(face_at(points).box, points, 0.95 if is_upright else 0.8)]

    return detect


@pytest.mark.parametrize("turns", range(4))
def test_a_face_is_found_whichever_way_up_its_video_is_and_its_crop_is_upright(turns):
    head = moving_head(1, 0, 0)[0] * 0.6
    head -= head[3]
    place = np.array([150.0, 180.0])
    frame = np.full((*FRAME_SIZE, 3), 100, np.uint8)
    for point, level in zip(head[[0, 1, 3]] + place, (0, 0, 255), strict=True):
        cv2.circle(frame, point.round().astype(int).tolist(), 6, (level,) * 3, -1)
    video = [np.ascontiguousarray(np.rot90(frame, turns))] * 30
    (track,), count = faces.find(lambda: iter(video), upright_detector(head))
    assert (len(track.frames), count) == (30, 30)
    found = mouth.locate_mouth(track.frames, track.points, count)
    crop = found.crop(video[0], 0)
    ys, xs = np.nonzero(crop > 180)
    assert np.hypot(xs.mean() - 47.5, ys.mean() - 47.5) < 2
    expected = mouth.locate_mouth(range(30), [head + place] * 30, 30).crop(frame, 0)
    assert np.corrcoef(crop.ravel(), expected.ravel())[0, 1] > 0.95
    patch = track.patch
    assert patch[8:16, 8:16].max() > 200


@pytest.mark.skipif(not DETECTOR.is_file(), reason="the face detector is not there")
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_crops_of_a_turned_video_are_those_of_the_upright_one(turns):
    rng = np.random.default_rng(3)
    track = lip_track([(0.2 * i, 0.2 * i + 0.2, "a") for i in range(6)], 30, make_face(rng), rng)
    drawn, _ = render_face(track, 3)
    crops = []
    for quarters in (0, turns):
        video = [np.ascontiguousarray(np.rot90(frame, quarters)) for frame in drawn]
        (found, *_), count = faces.find(lambda video=video: iter(video), faces.yunet(DETECTOR))
        assert len(found.frames) == count == 30
        located = mouth.locate_mouth(found.frames, found.points, count)
        crops.append(np.stack(list(mouth.crops(video, located))).astype(int))
    assert np.abs(crops[0] - crops[1]).mean() < 1


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
