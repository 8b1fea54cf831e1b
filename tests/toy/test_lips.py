"""What the lips of the toy corpus do, and the whole face that tests and benchmarks use."""

import numpy as np

from omni_avsr.toy import draw_mouth, lip_track, make_face
from omni_avsr.toy.looks import OPENING
from omni_avsr.toy.portrait import render_face


def seen(consonant):
    """Returns frames of a mouth that says this consonant and "at"."""
    face = make_face(np.random.default_rng(0))
    rng = np.random.default_rng(1)
    phonemes = [(0.2, 0.3, consonant), (0.3, 0.5, "a"), (0.5, 0.6, "t"), (0.6, 0.9, "_:")]
    return draw_mouth(lip_track(phonemes, 22, face, rng), face, rng)


def test_homophemes_look_the_same_and_others_do_not():
    assert np.array_equal(seen("p"), seen("b"))
    assert np.array_equal(seen("p"), seen("m"))
    assert not np.array_equal(seen("p"), seen("f"))


def test_lips_close_on_a_bilabial_and_open_on_a_vowel():
    face = make_face(np.random.default_rng(0))
    phonemes = [(0.2, 0.4, "a"), (0.4, 0.5, "m"), (0.5, 0.7, "a"), (0.7, 1.0, "_:")]
    tracks = [lip_track(phonemes, 25, face, np.random.default_rng(seed)) for seed in range(30)]
    opening = np.mean(tracks, 0)[:, OPENING]
    assert opening[11] < 0.25 < 0.5 < opening[7]
    assert opening[23] < 0.2


def test_a_rendered_face_says_where_its_mouth_is():
    track = np.tile([0.9, 0.6, 0.1, 0.0, 0.0, 0.0], (5, 1))
    frames, centres = render_face(track, seed=3)
    assert frames.shape == (5, 288, 360, 3)
    assert frames.dtype == np.uint8
    assert centres.shape == (5, 2)
    for frame, (x, y) in zip(frames, centres.astype(int), strict=True):
        inside = frame[y + 1 : y + 9, x - 3 : x + 4]
        assert inside.mean() < 70  # the dark of an open mouth
