"""The times of words are those of their characters, rise, and do not overlap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.decode.decode import Decoded
from omni_avsr.decode.words import LATE, word_times, words_of
from omni_avsr.model import OmniAVSRProcessor
from omni_avsr.model.aligner import Aligner

ALIGNER = Aligner({}, "abcd")
FRAME = 0.02  # seconds


@pytest.fixture(scope="module")
def processor():
    return OmniAVSRProcessor.from_pretrained("tiny")


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
    times = word_times(ALIGNER, named("..aab....ccd.."), ["ab", "cd"])
    boundary = pytest.approx(9 * FRAME - LATE)
    assert times == {0: (2 * FRAME - LATE, boundary), 1: (boundary, 12 * FRAME)}


def test_a_pause_belongs_to_no_word():
    times = word_times(ALIGNER, named("ab" + 20 * "." + "cd"), ["ab", "cd"])
    assert times == {0: (0.0, 2 * FRAME), 1: (pytest.approx(22 * FRAME - LATE), 24 * FRAME)}


def test_a_word_of_one_character_begins_where_the_word_before_it_ends():
    times = word_times(ALIGNER, named("ab......c....dd"), ["ab", "c", "dd"[:1]])
    assert times[1][0] == times[0][1] == 2 * FRAME


def test_words_of_unknown_characters_are_not_placed():
    assert list(word_times(ALIGNER, named("..ab..cd"), ["ab", "xyz", "cd"])) == [0, 2]
    assert word_times(ALIGNER, named("ab"), ["abcd"]) == {}
    assert word_times(ALIGNER, named("ab"), []) == {}


@given(
    st.integers(1, 60),
    st.lists(st.text("abcdx", min_size=1, max_size=5), max_size=6),
    st.integers(0, 99),
)
def test_times_rise_do_not_overlap_and_lie_in_the_clip(frames, words, seed):
    log_probs = np.log(np.random.default_rng(seed).dirichlet(np.ones(5), frames))
    times = word_times(ALIGNER, log_probs, words)
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


def test_a_word_that_cannot_be_placed_lies_between_its_neighbours(processor):
    text = "ab xx c yy"
    said = decoded(processor, text, *[0.5] * 4)
    found = words_of(ALIGNER, named("..ab................c...."), said, processor, 3.0)
    assert [(word.word, word.start, word.end) for word in found] == [
        ("ab", 3.01, 3.08),
        ("xx", 3.08, 3.37),
        ("c", 3.37, 3.42),
        ("yy", 3.42, 3.5),
    ]
    assert found[0].probability == pytest.approx(0.5 ** pieces(processor, "ab"), abs=1e-4)
    assert found[1].probability is found[3].probability is None
    (alone,) = words_of(ALIGNER, named("....."), decoded(processor, "xx", 0.5), processor, 3.0)
    assert (alone.start, alone.end, alone.probability) == (3.0, 3.1, None)


def test_an_empty_transcript_has_no_words(processor):
    assert words_of(ALIGNER, named("...."), decoded(processor, ""), processor, 0.0) == ()
