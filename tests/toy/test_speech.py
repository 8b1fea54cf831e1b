"""How the toy corpus sounds, and when each phoneme is heard."""

import importlib.util
import itertools
from dataclasses import replace

import numpy as np
import pytest

from omni_avsr.tasks import SAMPLE_RATE, SAMPLES_PER_VIDEO_FRAME
from omni_avsr.toy.phones import PHONEMES, frame_labels, phoneme_class
from omni_avsr.toy.sentences import SPLITS
from omni_avsr.toy.speech import MISSING, speak
from omni_avsr.toy.voices import speakers

needs_espeak = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="needs espeak-ng"
)


@needs_espeak
def test_every_voice_speaks():
    rng = np.random.default_rng(0)
    for voice in itertools.chain(*map(speakers, SPLITS)):
        spoken = speak("we saw a bird", voice, rng)
        heard = {phoneme_class(name) for _, _, name in spoken.phonemes}
        assert heard >= {"w", "s", "b", "d"}, voice
        assert np.abs(spoken.audio).max() > 2000, voice
        assert len(spoken.audio) % SAMPLES_PER_VIDEO_FRAME == 0


@needs_espeak
def test_the_times_of_phonemes_are_those_of_the_sound():
    spoken = speak("set red at e six now", speakers("train")[0], np.random.default_rng(0))
    labels = frame_labels(spoken.phonemes, len(spoken.audio) // 320, 50)
    frames = spoken.audio.reshape(-1, 320).astype(float)
    loudness = np.sqrt((frames**2).mean(1))
    assert labels[0] == labels[-1] == 0
    assert np.median(loudness[labels == 0]) < 0.05 * np.median(loudness[labels > 0])
    assert all(start < end for start, end, _ in spoken.phonemes)


@needs_espeak
def test_words_follow_each_other_from_the_first_sound_to_the_last():
    spoken = speak("tom never saw sarah", speakers("train")[0], np.random.default_rng(0))
    words = spoken.words
    assert [word.text for word in words] == ["tom", "never", "saw", "sarah"]
    sounding = [phoneme for phoneme in spoken.phonemes if phoneme_class(phoneme.name) != "sil"]
    assert words[0].start == pytest.approx(sounding[0].start, abs=0.06)  # a stop begins silently
    assert words[-1].end == pytest.approx(sounding[-1].end)
    for word, following in itertools.pairwise(words):
        assert word.start < word.end == following.start
    hiss = next(phoneme for phoneme in spoken.phonemes if phoneme.name == "s")
    assert words[2].start == pytest.approx(hiss.start, abs=0.02)


@needs_espeak
def test_a_word_ends_where_a_pause_begins():
    voice = speakers("train")[0]
    spoken = speak("tom saw sarah and david saw laura", voice, np.random.default_rng(0))
    sarah = spoken.words[2]
    pauses = [start for start, _, name in spoken.phonemes if phoneme_class(name) == "sil"]
    assert sarah.end == pytest.approx(pauses[0])
    assert spoken.words[3].start > sarah.end + 0.05


@needs_espeak
def test_a_pause_moves_what_is_said_after_it_and_is_silent():
    voice = speakers("test", "ru")[0]
    short, long = (
        speak("анна нашла, красную книгу", voice, np.random.default_rng(0), pause)
        for pause in (0.0, 0.5)
    )
    for before, after in zip(short.words[:2], long.words[:2], strict=True):
        assert (after.start, after.end) == pytest.approx((before.start, before.end), abs=0.03)
    for before, after in zip(short.words[2:], long.words[2:], strict=True):
        moved = (before.start + 0.5, before.end + 0.5)
        assert (after.start, after.end) == pytest.approx(moved, abs=0.05)
    silence = slice(*(int(time * SAMPLE_RATE) for time in (long.words[1].end, long.words[2].start)))
    assert np.abs(long.audio[silence]).mean() < 0.02 * np.abs(long.audio).max()


@needs_espeak
def test_only_where_it_begins_is_known_where_espeak_says_two_words_as_one():
    words = speak("tom is in the house", speakers("train")[0], np.random.default_rng(0)).words
    tom, _, first, joined, house = words
    assert [word.text for word in words] == ["tom", "is", "in", "the", "house"]
    assert tom.end < first.start < house.start
    assert first.end is joined.start is joined.end is None


@needs_espeak
def test_of_two_words_that_begin_at_one_place_the_first_begins_there():
    words = speak("it was too much today", speakers("train")[0], np.random.default_rng(0)).words
    was, too, much, today = words[1:]
    assert too.start == pytest.approx(was.end)
    assert (too.end, much.start, much.end) == (None, None, None)
    assert today.start > too.start + 0.2


@needs_espeak
@pytest.mark.parametrize(
    ("voice", "text"),
    [("ru+m1", "анна нашла красную книгу"), ("fr+m1", "l'école est près d'ici")],
)
def test_words_of_other_letters_have_times_too(voice, text):
    voice = replace(speakers("train")[0], espeak=voice)
    words = speak(text, voice, np.random.default_rng(0)).words
    assert [word.text for word in words] == text.split()
    assert all(word.end - word.start > 0.05 for word in words)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("'aI3", "aI"),
        (",oU", "oU"),
        ("t#", "t"),
        ("_:", "sil"),
        ("0", "A:"),
        ("X!", "@"),
        ("", "sil"),
    ],
)
def test_every_name_of_espeak_has_a_class(name, expected):
    assert phoneme_class(name) == expected


def test_frame_labels_follow_the_middle_of_a_frame():
    labels = frame_labels([(0.05, 0.13, "p"), (0.13, 0.5, "'i:")], 6, 25)
    assert [PHONEMES[label] for label in labels] == ["sil", "p", "p", "i:", "i:", "i:"]


def test_the_advice_about_missing_voices_is_one_line():
    assert "\n" not in MISSING
