"""The face that speaks is chosen for each stretch of speech."""

import numpy as np

from omni_avsr.media import speaker
from omni_avsr.media.faces import Track
from omni_avsr.media.speaker import speaking_face, speaking_faces

SILENT = 0.01
PAUSE = 12  # frames
REST = 0.3  # how much a mouth at rest seems to move


def speech(*frames):
    """The loudness of syllables; a negative number is a silence of so many frames."""
    rng = np.random.default_rng(0)
    pieces = []
    for count in frames:
        syllables = np.repeat(rng.uniform(0.1, 1, abs(count) // 3 + 1), 3)[: abs(count)]
        pieces.append(syllables if count > 0 else np.zeros(-count))
    return np.concatenate(pieces)


def seen(begin, end, loudness, speaks, seed=0):
    """A face seen from begin to end, whose mouth moves with the sound in the frames it speaks."""
    rng = np.random.default_rng(seed)
    motion = REST + 0.1 * rng.random(len(loudness))
    for first, last in speaks:
        motion[first:last] += 5 * loudness[first:last]
    frames = list(range(begin, end))
    return Track(frames, [np.zeros((4, 2))] * len(frames), motion[begin:end].tolist())


def chosen(tracks, loudness, pause=PAUSE):
    """Where each stretch begins, and the number of the face that speaks in it."""
    found = speaking_faces(tracks, len(loudness), loudness, SILENT, pause)
    assert [0, *(s.end for s in found)] == [*(s.begin for s in found), len(loudness)]
    return [(stretch.begin, tracks.index(stretch.track)) for stretch in found]


def test_in_a_dialogue_each_turn_has_the_face_of_its_speaker():
    loudness = speech(100, -20, 80, -20, 100)
    a = seen(0, 320, loudness, [(0, 100), (220, 320)], seed=1)
    b = seen(0, 320, loudness, [(120, 200)], seed=2)
    assert chosen([a, b], loudness) == [(0, 0), (110, 1), (210, 0)]


def test_after_a_cut_the_other_face_speaks():
    loudness = speech(200)
    a = seen(0, 120, loudness, [(0, 120)], seed=1)
    b = seen(120, 200, loudness, [(120, 200)], seed=2)
    assert chosen([a, b], loudness) == [(0, 0), (120, 1)]


def test_a_listener_who_is_shown_meanwhile_does_not_speak():
    loudness = speech(300)
    a = seen(0, 300, loudness, [(0, 300)], seed=1)
    del a.frames[100:200], a.points[100:200], a.motion[100:200]
    listener = seen(100, 200, loudness, [], seed=2)
    assert chosen([a, listener], loudness) == [(0, 0)]


def test_of_a_face_and_its_mirror_image_one_is_kept():
    loudness = speech(80, -20, 60, -20, 80, -20, 90)
    a = seen(0, 370, loudness, [(0, 370)], seed=1)
    mirrored = seen(0, 370, loudness, [(0, 370)], seed=3)
    assert len(chosen([a, mirrored], loudness)) == 1


def test_a_single_face_has_a_single_stretch():
    loudness = speech(100, -40, 100)
    a = seen(30, 200, loudness, [(30, 200)])
    assert chosen([a], loudness) == [(0, 0)]


def test_a_listener_who_comes_and_goes_changes_nothing():
    loudness = speech(300)
    a = seen(0, 300, loudness, [(0, 300)], seed=1)
    passers = [seen(begin, begin + 40, loudness, [], seed=begin) for begin in (20, 90, 91, 200)]
    assert chosen([a, *passers], loudness) == [(0, 0)]


def test_a_face_is_only_scored_where_it_is_seen(monkeypatch):
    loudness = speech(2000)
    passers = [seen(begin, begin + 40, loudness, [], seed=begin) for begin in range(0, 2000, 40)]
    scored = []
    of = speaker._Scores.of

    def counted(self, track, begin, end):
        scored.append(track)
        return of(self, track, begin, end)

    monkeypatch.setattr(speaker._Scores, "of", counted)
    chosen(passers, loudness)
    assert len(scored) <= 5 * len(passers)


def test_without_sound_a_face_speaks_that_moves_its_mouth():
    loudness = speech(200)
    a = seen(0, 100, loudness, [(0, 100)], seed=1)
    b = seen(100, 200, loudness, [(100, 200)], seed=2)
    still = seen(0, 200, loudness, [], seed=3)
    found = speaking_faces([still, a, b], 200, None, SILENT, PAUSE)
    assert [(stretch.begin, stretch.track) for stretch in found] == [(0, a), (100, b)]
    assert speaking_face([still, a], None) is a
