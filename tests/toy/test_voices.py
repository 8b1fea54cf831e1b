"""The speakers of the toy corpus."""

import importlib.util
import itertools

import numpy as np
import pytest

from omni_avsr.settings.shared import LANGUAGES
from omni_avsr.toy.sentences import SPLITS, sentences
from omni_avsr.toy.speech import speak
from omni_avsr.toy.voices import Voice, speakers

needs_espeak = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="needs espeak-ng"
)
ABROAD = [language for language in LANGUAGES if language != "en"]
BREATHING = {  # variants whose noise espeak seeds with the clock
    *("Alicia", "Demonic", "Reed", "Storm", "caleb", "f2"),
    *("f3", "f5", "sandro", "victor", "whisper", "whisperf"),
}
CORPUS = list(itertools.product(LANGUAGES, SPLITS))


def test_english_speakers_are_those_of_this_generator_version():
    assert [len(speakers(split)) for split in SPLITS] == [28, 3, 5]
    assert speakers("train")[0] == Voice("s00", "en-us+m1", 45, 50, 150)
    assert speakers("train")[27] == Voice("s27", "en+Nguyen", 55, 50, 150)
    assert speakers("test")[2] == Voice("t02", "en-gb-x-rp+Henrique", 45, 50, 150)


@pytest.mark.parametrize("language", ABROAD)
def test_speakers_of_other_languages_have_names_and_voices_of_their_own(language):
    assert len(speakers("train", language)) >= 10
    assert len(speakers("valid", language)) >= 2
    assert len(speakers("test", language)) >= 3
    voices = list(itertools.chain(*[speakers(split, language) for split in SPLITS]))
    assert voices[0].name == f"{language}-s00"
    assert voices[0].espeak == f"{language}+m1"
    assert len({voice.name for voice in voices}) == len(voices)
    assert len({voice.variant for voice in voices}) == len(voices)


def test_no_variant_is_heard_in_two_splits_whatever_the_languages():
    heard = {split: set() for split in SPLITS}
    for language, split in CORPUS:
        heard[split] |= {voice.variant for voice in speakers(split, language)}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not heard[one] & heard[other]


def test_no_variant_breathes():
    for language, split in CORPUS:
        assert not BREATHING & {voice.variant for voice in speakers(split, language)}


@needs_espeak
@pytest.mark.parametrize("language", ABROAD)
def test_all_speakers_of_a_language_sound_and_differ(language):
    text = next(sentences("open", "train", 0, language))
    sounds = set()
    voices = list(itertools.chain(*[speakers(split, language) for split in SPLITS]))
    for voice in voices:
        audio = speak(text, voice, np.random.default_rng(0)).audio
        assert np.abs(audio).max() > 2000, voice
        sounds.add(audio.tobytes())
    assert len(sounds) == len(voices)


def test_a_speaker_varies_a_little_from_day_to_day():
    voice = speakers("train")[0]
    days = [voice.jittered(np.random.default_rng(seed)) for seed in range(4)]
    assert [day.pitch for day in days] == [45, 46, 45, 53]
    assert [day.speed for day in days] == [148, 158, 144, 127]
    assert {day.name for day in days} == {"s00"}


def test_any_speed_in_a_given_range_is_as_likely():
    rng = np.random.default_rng(0)
    voice = Voice("x", "es+m1", speed=1000)
    speeds = [voice.jittered(rng, speed=(0.8, 1.4)).speed for _ in range(2000)]
    counts, _ = np.histogram(speeds, bins=6, range=(800, 1400))
    assert counts.sum() == 2000
    assert counts.min() > 270
