"""The mouth of a camera's speaker is known five frames late, and follows who speaks."""

import cv2
import numpy as np

from omni_avsr.media.faces import Face
from omni_avsr.media.live_mouth import AHEAD, WATCHED, LiveMouth

POINTS = np.array([[-20.0, -30.0], [20.0, -30.0], [0.0, -10.0], [0.0, 12.0]])  # eyes, nose, mouth


def picture(*faces):
    """A frame with faces at these places, whose mouths are this grey."""
    frame = np.full((240, 480, 3), 128, np.uint8)
    for x, y, grey in faces:
        cv2.circle(frame, (x, y + 12), 8, (grey, grey, grey), -1)
    return frame


def camera(shown):
    """A camera whose detector knows where the faces of each frame are."""
    places = iter(shown)

    def detect(_):
        found = []
        for x, y, _ in next(places):
            box = np.array([x - 40, y - 50, 80, 100], float)
            found.append(Face(box, POINTS + np.array([x, y])))
        return found

    return LiveMouth(detect)


def crops(shown):
    """All mouths of the frames, and how many were known while the frames came."""
    live = camera(shown)
    found = list(live.crops(picture(*faces) for faces in shown))
    known = len(found)
    return [*found, *live.finish()], known


def test_each_frame_has_its_mouth_five_frames_later():
    found, known = crops([[(120, 100, 10 + 5 * number)] for number in range(40)])
    assert len(found) == 40
    assert known == 40 - AHEAD
    middles = [int(crop[48, 48]) for crop in found]
    assert middles == [10 + 5 * number for number in range(40)]


def test_a_face_that_is_lost_for_a_moment_is_kept_and_then_given_up():
    shown = [[(120, 100, 30)]] * 20 + [[]] * 60
    found, _ = crops(shown)
    assert all(crop is not None for crop in found[:40])
    assert all(crop is None for crop in found[50:])


def test_after_a_cut_the_new_face_is_seen_at_once():
    shown = [[(120, 100, 10 + 60 * (number % 2))] for number in range(40)]
    shown += [[(360, 100, 200)]] * 30
    found, _ = crops(shown)
    assert all(int(crop[48, 48]) == 200 for crop in found[45:])


def test_who_moves_the_mouth_is_watched():
    still, moving = (120, 100, 30), [(360, 100, 60 + 100 * (number % 2)) for number in range(80)]
    found, _ = crops([[still, moving[number]] for number in range(80)])
    assert all(int(crop[48, 48]) in (60, 160) for crop in found[30:])


def test_what_is_remembered_does_not_grow():
    live = camera([[(120, 100, 30), (360, 100, 30)]] * 300)
    for _ in range(300):
        list(live.crops([picture((120, 100, 30), (360, 100, 30))]))
    assert len(live.tracks) == 2
    assert all(len(track.frames) <= WATCHED + 1 for track in live.tracks)
    assert len(live.frames) == AHEAD
