"""A crop stays on the mouth while the head moves, turns and grows."""

import cv2
import numpy as np
import pytest

from omni_avsr.media import mouth
from omni_avsr.media.faces import four_points
from omni_avsr.toy import lip_track, make_face
from omni_avsr.toy.portrait import render_face
from tests.support.heads import FRAME_SIZE, as_landmarks, moving_head, still_head

CENTRE = 47.5  # pixels, the middle of a crop


def discs(points: np.ndarray) -> np.ndarray:
    """Black frames (T, 288, 360, 3) with a white disc at the mouth."""
    frames = np.zeros((len(points), *FRAME_SIZE, 3), np.uint8)
    for frame, face in zip(frames, points, strict=True):
        centre = (face[3] * 16).round().astype(int)  # in sixteenths of a pixel
        cv2.circle(frame, centre, 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    return frames


def distances_from_centre(crops: np.ndarray) -> np.ndarray:
    """How far the centre of gravity of each crop (T, 96, 96) is from its middle (T,)."""
    y, x = np.mgrid[:96, :96]
    distances = []
    for crop in crops.astype(float):
        centre_x = (crop * x).sum() / crop.sum()
        centre_y = (crop * y).sum() / crop.sum()
        distances.append(np.hypot(centre_x - CENTRE, centre_y - CENTRE))
    return np.array(distances)


@pytest.mark.parametrize("landmarks", [4, 5, 68])
def test_the_mouth_is_the_middle_of_the_crop_while_the_head_moves_turns_and_grows(landmarks):
    points = moving_head()
    noisy = points + np.random.default_rng(0).normal(0, 0.5, points.shape)
    known = [four_points(as_landmarks(face, landmarks)) for face in noisy]
    found = mouth.locate_mouth(range(75), known, 75)
    crops = np.stack(list(mouth.crops(discs(points), found)))
    assert distances_from_centre(crops).max() < 2
    assert found.quality["off_centre"] < 3
    assert found.quality["detected"] == 1


def test_squares_tell_what_is_cut_out_of_the_frames():
    found = mouth.locate_mouth(range(75), list(moving_head()), 75)
    middles, sides = found.squares[:, :2], found.squares[:, 2]
    cut = np.einsum("tij,tj->ti", found.maps[:, :, :2], middles) + found.maps[:, :, 2]
    assert cut == pytest.approx(CENTRE)
    # As long in the frame as 96 pixels of the crop
    across = middles + np.column_stack([sides, np.zeros(75)])
    moved = np.einsum("tij,tj->ti", found.maps[:, :, :2], across) + found.maps[:, :, 2]
    assert np.linalg.norm(moved - cut, axis=1) == pytest.approx(96)


def test_a_crop_is_upright_and_of_one_size():
    points = moving_head()
    found = mouth.locate_mouth(range(75), list(points), 75)
    turned = np.einsum("tij,tpj->tpi", found.maps[:, :, :2], points[:, :2])
    eyes = turned + found.maps[:, None, :, 2]
    across = eyes[:, 1] - eyes[:, 0]
    tilt = np.degrees(np.arctan2(across[:, 1], across[:, 0]))
    assert np.abs(tilt).max() < 2
    assert np.abs(np.linalg.norm(across, axis=1) - 66).max() < 2.5


def test_on_rendered_faces_the_crop_is_the_known_mouth():
    phonemes = [(0.2 * i, 0.2 * i + 0.2, "a") for i in range(10)]
    rng = np.random.default_rng(3)
    frames, mouths = render_face(lip_track(phonemes, 50, make_face(rng), rng), seed=1)
    points = [still_head() * 0.95 + middle for middle in mouths]
    crops = np.stack(list(mouth.crops(frames, mouth.locate_mouth(range(50), points, 50))))
    assert crops.shape == (50, 96, 96)
    expected = []
    for frame, (x, y) in zip(frames, mouths, strict=True):
        grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
        expected.append(cv2.getRectSubPix(grey, (96, 96), (float(x), float(y))))
    assert np.corrcoef(crops.ravel(), np.stack(expected).ravel())[0, 1] > 0.9


def test_a_face_that_is_lost_for_some_frames_is_interpolated():
    points = moving_head()
    seen = [*range(30), *range(38, 75)]
    found = mouth.locate_mouth(seen, list(points[seen]), 75)
    crops = np.stack(list(mouth.crops(discs(points), found)))
    assert distances_from_centre(crops).max() < 4
    assert found.detected.sum() == 67
    assert found.quality["detected"] == pytest.approx(67 / 75, abs=1e-3)


def test_a_contact_sheet_names_each_clip_above_its_frames():
    clips = [np.full((frames, 96, 96), grey, np.uint8) for frames, grey in ((1, 50), (30, 90))]
    names = ["a/größe", "a folder/" * 40 + "b"]
    sheet = mouth.contact_sheet(clips, names)
    assert sheet.shape == (2 * (16 + 96), 960)
    for top, clip in ((0, clips[0]), (112, clips[1])):
        assert (sheet[top + 16 : top + 112] == clip[0, 0, 0]).all()
        name = sheet[top : top + 16]
        assert name.max() > 200
        assert name[:, -3:].max() == 0  # a long name ends within the picture
    assert np.count_nonzero(sheet[112:128]) > 5 * np.count_nonzero(sheet[:16])
