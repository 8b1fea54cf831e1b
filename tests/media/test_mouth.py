"""Crops stay on a mouth whatever its head does; the face that speaks is chosen; landmarks are read without risk."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest

from omni_avsr.media import mouth
from omni_avsr.media.mouth import EYES_AND_NOSE, Track
from omni_avsr.toy import make_face, render_face
from omni_avsr.toy.mouth import lip_track

MIDDLE = 47.5  # of a crop of 96 pixels
SIZE = (288, 360)


def head(frames=75, degrees=20.0, zoom=0.25):
    """A face (T, 4, 2) that wanders, tilts and comes closer, as people do within three seconds."""
    time = np.arange(frames) / 25
    turn = np.radians(degrees) * np.sin(2 * np.pi * 0.4 * time)
    size = 0.8 * (1 + zoom * np.sin(2 * np.pi * 0.3 * time + 1))
    centre = np.stack([180 + 50 * np.sin(2 * np.pi * 0.35 * time), 200 + 25 * np.cos(2 * np.pi * 0.3 * time)], 1)
    shape = np.concatenate([EYES_AND_NOSE, [[0, 0]]])
    rotation = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], 1).reshape(-1, 2, 2)
    return np.einsum("tij,pj->tpi", size[:, None, None] * rotation, shape) + centre[:, None]


def track_of(points, frames=None):
    return Track(list(frames if frames is not None else range(len(points))), list(points), [0.0] * len(points))


def dots(points):
    """Frames (T, 288, 360, 3), black but for a disc at the mouth."""
    canvas = np.zeros((len(points), *SIZE, 3), np.uint8)
    for frame, face in zip(canvas, points, strict=True):
        cv2.circle(frame, (face[3] * 16).round().astype(int), 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return canvas


def centres(crops):
    y, x = np.mgrid[:96, :96]
    return np.array([[(c * x).sum() / c.sum(), (c * y).sum() / c.sum()] for c in crops.astype(float)])


@pytest.mark.parametrize("landmarks", [4, 5, 68])
def test_the_mouth_is_the_middle_of_the_crop_while_the_head_moves_turns_and_grows(landmarks):
    points = head()
    noisy = points + np.random.default_rng(0).normal(0, 0.5, points.shape)
    spelt = [mouth.four_points(spell(face, landmarks)) for face in noisy]
    found = mouth.locate_mouth(track_of(spelt), len(points))
    crops = np.stack(list(mouth.crops(dots(points), found)))
    assert np.linalg.norm(centres(crops) - MIDDLE, axis=1).max() < 2
    assert found.quality["off_centre"] < 3
    assert found.quality["detected"] == 1


def spell(face, count):
    """The same face as 4, 5 or 68 landmarks."""
    if count == 4:
        return face
    across = (face[1] - face[0]) / 4
    if count == 5:
        return np.stack([*face[:3], face[3] - across, face[3] + across])
    points = np.zeros((68, 2))
    for places, where in ((slice(36, 42), face[0]), (slice(42, 48), face[1]), (slice(48, 68), face[3])):
        points[places] = where
    points[30] = face[2]
    return points


def test_a_crop_is_upright_and_of_one_size():
    points = head()
    found = mouth.locate_mouth(track_of(points), len(points))
    eyes = np.einsum("tij,tpj->tpi", found.maps[:, :, :2], points[:, :2]) + found.maps[:, None, :, 2]
    across = eyes[:, 1] - eyes[:, 0]
    assert np.abs(np.degrees(np.arctan2(across[:, 1], across[:, 0]))).max() < 2
    assert np.abs(np.linalg.norm(across, axis=1) - 66).max() < 2.5


def test_on_rendered_faces_the_crop_is_the_known_mouth():
    phonemes = [(0.2 * i, 0.2 * i + 0.2, "a") for i in range(10)]
    rng = np.random.default_rng(3)
    frames, truth = render_face(lip_track(phonemes, 50, make_face(rng), rng), seed=1)
    offset = EYES_AND_NOSE * 0.95
    points = np.concatenate([truth[:, None] + offset, truth[:, None]], 1)
    crops = np.stack(list(mouth.crops(frames, mouth.locate_mouth(track_of(points), 50))))
    assert crops.shape == (50, 96, 96)
    direct = np.stack(
        [
            cv2.getRectSubPix(cv2.cvtColor(f, cv2.COLOR_BGR2GRAY), (96, 96), tuple(map(float, t)))
            for f, t in zip(frames, truth, strict=True)
        ]
    )
    assert np.corrcoef(crops.ravel(), direct.ravel())[0, 1] > 0.9


def test_a_face_that_is_lost_for_some_frames_is_interpolated():
    points = head()
    seen = [i for i in range(75) if not 30 <= i < 38]
    found = mouth.locate_mouth(track_of(points[seen], seen), 75)
    crops = np.stack(list(mouth.crops(dots(points), found)))
    assert np.linalg.norm(centres(crops) - MIDDLE, axis=1).max() < 4
    assert found.detected.sum() == 67
    assert found.quality["detected"] == pytest.approx(67 / 75, abs=1e-3)


def scripted(*faces):
    """A detector that finds these faces (T, 4, 2), each with a box, in the frames that it is given in turn."""
    frame = iter(range(10_000))

    def detect(_):
        now = next(frame)
        points = np.stack([face[now] for face in faces])
        return np.concatenate([points.min(1) - 20, np.ptp(points, axis=1) + 40], 1), points

    return detect


def two_people(talker, frames=100):
    """Frames with a mouth left and right, of which one opens along with the loudness (T,), the other at random."""
    rng = np.random.default_rng(4)
    loud = np.repeat(rng.random(frames // 5) > 0.5, 5).astype(float)
    left = np.repeat(head(1, 0, 0) * 0.5 + [-20, 0], frames, 0)
    right = left + np.array([180, 0])
    video = np.full((frames, *SIZE, 3), 120, np.uint8)
    for t in range(frames):
        for person, face in enumerate((left, right)):
            swing = loud[t] if person == talker else np.repeat(rng.random(1), 1)[0] * 0.3
            opening = 1 + int(10 * swing * (t % 2 + 0.3))
            cv2.ellipse(video[t], tuple(face[t, 3].astype(int).tolist()), (12, opening), 0, 0, 360, (20, 20, 20), -1)
    return video, loud, scripted(left, right)


@pytest.mark.parametrize("talker", [0, 1])
def test_of_two_faces_the_one_that_moves_with_the_sound_speaks(talker):
    video, loud, detect = two_people(talker)
    tracks, frames = mouth.follow(video, detect)
    assert (len(tracks), frames) == (2, 100)
    assert [len(track.frames) for track in tracks] == [100, 100]
    chosen = mouth.speaking(tracks, loud)
    assert (chosen.points[0][3, 0] > 150) == bool(talker)


@pytest.mark.parametrize("protocol", range(6))
def test_landmark_files_of_lists_are_read(tmp_path, protocol):
    face = head(3)
    rows = [spell(face[0], 68), None, spell(face[2], 68)]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(rows, protocol))
    (track,), frames = mouth.read_landmarks(tmp_path / "x.pkl")
    assert frames == 3
    assert track.frames == [0, 2]
    assert np.allclose(track.points[1], face[2])
    (tmp_path / "none.pkl").write_bytes(pickle.dumps([None, None]))
    assert mouth.read_landmarks(tmp_path / "none.pkl") == ([], 2)


class Malicious:
    def __reduce__(self):
        return (open, ("/tmp/omni_avsr_was_here", "w"))


@pytest.mark.parametrize(
    "content",
    [pickle.dumps([Malicious()]), b"", b"no pickle", pickle.dumps({"a": 1}), pickle.dumps([np.zeros((7, 2))])],
)
def test_a_landmark_file_that_is_none_is_refused_and_nothing_runs(tmp_path, content):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="landmarks"):
        mouth.read_landmarks(tmp_path / "x.pkl")
    assert not Path("/tmp/omni_avsr_was_here").exists()


def test_without_a_detector_the_three_ways_to_one_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path))
    monkeypatch.delenv(mouth.MODEL_VARIABLE, raising=False)
    with pytest.raises(ValueError, match=f"--detector, name it in {mouth.MODEL_VARIABLE}, or put it at {tmp_path}"):
        mouth.find_model(download=False)
    monkeypatch.setattr(mouth, "MODEL_URL", (tmp_path / "model").as_uri())
    (tmp_path / "model").write_bytes(b"other")
    with pytest.raises(ValueError, match="not the file that was expected"):
        mouth.find_model()
    with pytest.raises(ValueError, match="there is no face detector /nowhere"):
        mouth.find_model("/nowhere")


def test_a_download_is_kept(tmp_path, monkeypatch):
    import hashlib

    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(mouth.MODEL_VARIABLE, raising=False)
    monkeypatch.setattr(mouth, "MODEL_URL", (tmp_path / "model").as_uri())
    monkeypatch.setattr(mouth, "MODEL_SHA256", hashlib.sha256(b"weights").hexdigest())
    (tmp_path / "model").write_bytes(b"weights")
    assert mouth.find_model().read_bytes() == b"weights"
    (tmp_path / "model").unlink()
    assert mouth.find_model() == tmp_path / "cache" / mouth.MODEL
