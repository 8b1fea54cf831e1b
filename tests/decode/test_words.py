"""The times of words are those of their characters, rise, and do not overlap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.decode.decode import Decoded, Decoder
from omni_avsr.decode.words import LATE, word_times, words_of
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.aligner import Aligner
from omni_avsr.tasks import Task

ALIGNER = Aligner({}, "abcd")
FRAME = 0.02  # seconds


@pytest.fixture(scope="module")
def decoder():
    """One that finds the letters a to d, and whose probabilities are those of the LLM."""
    model = OmniAVSR.from_pretrained("tiny")
    model.aligner = ALIGNER
    model.config.calibration = {}
    return Decoder(model, OmniAVSRProcessor.from_pretrained("tiny"), "tiny")


@pytest.fixture(scope="module")
def processor(decoder):
    return decoder.processor


def times_of(characters, words):
    return word_times(ALIGNER.places(named(characters), words))


def named(characters):
    """Frames that are sure of these characters, or of none where there is a dot."""
    log_probs = np.full((len(characters), 5), np.log(1e-4))
    for frame, character in enumerate(characters):
        log_probs[frame, (ALIGNER.classes_of(character) or [0])[0]] = 0.0
    return log_probs


def pieces(processor, word):
    return len(processor.tokenizer(word, add_special_tokens=False)["input_ids"])


def decoded(processor, text, *probabilities):
    """A transcript in which each token of a word has this probability."""
    ids = processor.answers([text])[0].tolist()
    log_probs = []
    for word, probability in zip(text.split(), probabilities, strict=True):
        log_probs += pieces(processor, word) * [np.log(probability)]
    assert len(log_probs) == len(ids) - 1
    sums = [*np.cumsum([*log_probs, 0.0]).tolist(), 7.0]  # that of padding is no sum
    return Decoded(text, 1.0, False, [*ids, processor.config.pad_token_id], sums)


def test_words_without_a_pause_share_the_moment_between_them():
    times = times_of("..aab....ccd..", ["ab", "cd"])
    boundary = pytest.approx(9 * FRAME - LATE)
    assert times == {0: (2 * FRAME - LATE, boundary), 1: (boundary, 12 * FRAME)}


def test_a_pause_belongs_to_no_word():
    times = times_of("ab" + 20 * "." + "cd", ["ab", "cd"])
    assert times == {0: (0.0, 2 * FRAME), 1: (pytest.approx(22 * FRAME - LATE), 24 * FRAME)}


def test_a_word_of_one_character_begins_where_the_word_before_it_ends():
    times = times_of("ab......c....dd", ["ab", "c", "dd"[:1]])
    assert times[1][0] == times[0][1] == 2 * FRAME


def test_words_of_unknown_characters_are_not_placed():
    assert list(times_of("..ab..cd", ["ab", "xyz", "cd"])) == [0, 2]
    assert times_of("ab", ["abcd"]) == {}
    assert times_of("ab", []) == {}


@given(
    st.integers(1, 60),
    st.lists(st.text("abcdx", min_size=1, max_size=5), max_size=6),
    st.integers(0, 99),
)
def test_times_rise_do_not_overlap_and_lie_in_the_clip(frames, words, seed):
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(5), frames))
    times = word_times(ALIGNER.places(log_probs, words))
    before = 0.0
    for start, end in times.values():
        assert before <= start < end <= frames * FRAME + 1e-9
        before = end


def test_a_word_is_as_likely_as_its_tokens_together(processor):
    words, given = ["set", "qx", "now"], [0.9, 0.8, 0.7]
    assert pieces(processor, "qx") > 1
    expected = [one ** pieces(processor, word) for word, one in zip(words, given, strict=True)]
    said = decoded(processor, "set qx now", *given)
    found = processor.word_probabilities(said.ids, said.sums)
    assert found == pytest.approx(expected)
    silence = decoded(processor, "")
    assert processor.word_probabilities(silence.ids, silence.sums) == []


def test_a_word_that_cannot_be_placed_lies_between_its_neighbours(decoder, processor):
    text = "ab xx c yy"
    said = decoded(processor, text, *[0.5] * 4)
    found = words_of(decoder, Task.ASR, named("..ab................c...."), said, 3.0)
    assert [(word.word, word.start, word.end) for word in found] == [
        ("ab", 3.01, 3.08),
        ("xx", 3.08, 3.37),
        ("c", 3.37, 3.42),
        ("yy", 3.42, 3.5),
    ]
    assert found[0].probability == pytest.approx(0.5 ** pieces(processor, "ab"), abs=1e-4)
    assert found[1].probability is found[3].probability is None
    alone_said = decoded(processor, "xx", 0.5)
    (alone,) = words_of(decoder, Task.ASR, named("....."), alone_said, 3.0)
    assert (alone.start, alone.end, alone.probability) == (3.0, 3.1, None)


def test_an_empty_transcript_has_no_words(decoder, processor):
    assert words_of(decoder, Task.ASR, named("...."), decoded(processor, ""), 0.0) == ()


def test_a_calibrated_word_is_judged_by_its_characters_too(decoder, processor, monkeypatch):
    weights = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]  # of how clearly the characters are found alone
    monkeypatch.setattr(decoder.model.config, "calibration", {"asr": weights})
    said = decoded(processor, "ab cd", 0.5, 0.5)
    clear, vague = words_of(decoder, Task.ASR, named("..ab........c......"), said, 0.0)
    assert clear.probability == pytest.approx(0.5, abs=0.01)
    assert vague.probability < 0.1
    (seen, _) = words_of(decoder, Task.VSR, named("..ab........c......"), said, 0.0)
    assert seen.probability == pytest.approx(0.5 ** pieces(processor, "ab"), abs=1e-4)
