"""Subtitles are short enough to be read, and are read back by other people's parsers."""

import html

import pytest
import srt
import webvtt
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.decode.outputs import Writer
from omni_avsr.decode.subtitles import LONGEST, LONGEST_LINE, cues
from omni_avsr.decode.transcripts import Segment, Transcript, Update, Word
from omni_avsr.tasks import Task

WORDS = st.lists(st.text("abcdefghij.", min_size=1, max_size=20), min_size=1, max_size=60)


def segment(words, start=1.0, pauses=()):
    """A segment whose words take a tenth of a second for each letter."""
    found = []
    for number, word in enumerate(words):
        end = start + 0.1 * len(word)
        found.append(Word(word, round(start, 3), round(end, 3), 0.9))
        start = end + (2.0 if number in pauses else 0.0)
    return Segment(0.5, start + 0.5, " ".join(words), Task.ASR, 0.9, words=tuple(found))


def texts(found):
    return [cue.text for cue in found]


def write(path, said, format, highlight=False):
    with Writer([format], path, [path], several=False, highlight=highlight) as writer:
        transcript = Transcript(path)
        transcript.segments.append(said)
        writer.write(Update(transcript, said))
        writer.write(Update(transcript, None))
    return path.read_text()


def test_a_cue_begins_and_ends_with_its_words():
    (cue,) = cues(segment(["hello", "there"]), "srt")
    assert (cue.start, cue.end, cue.text) == (1.0, 2.0, "hello there")


def test_two_lines_are_about_as_long():
    (cue,) = cues(segment(["abcde"] * 10), "srt")
    assert cue.text == "abcde abcde abcde abcde abcde\nabcde abcde abcde abcde abcde"


def test_a_long_segment_is_cut_at_the_end_of_a_clause():
    words = ["abcde"] * 5 + ["abcd,"] + ["abcde"] * 12
    assert next(cues(segment(words), "srt")).text.endswith("abcd,")


def test_a_long_segment_is_cut_in_a_pause():
    words = ["abcde"] * 17
    found = list(cues(segment(words, pauses=[5]), "srt"))
    assert len(found[0].text.split()) == 6


@given(WORDS)
def test_cues_say_all_words_and_fit_on_the_screen(words):
    said = segment(words)
    found = list(cues(said, "srt"))
    assert " ".join(texts(found)).split() == words
    before = 0.0
    for cue in found:
        assert before <= cue.start < cue.end
        before = cue.end
        lines = cue.text.split("\n")
        if len(cue.text.split()) > 1:
            assert len(lines) <= 2
            assert max(map(len, lines)) <= LONGEST_LINE
            assert cue.end - cue.start <= LONGEST + 1e-6


@pytest.mark.parametrize("words", [None, (Word("hello", 0.5, 9.0, None),), ()])
def test_a_segment_stays_whole_if_the_times_of_its_words_are_not_known(words):
    said = Segment(0.5, 9.0, "hello", Task.ASR, 0.9, words=words)
    (cue,) = cues(said, "srt")
    assert (cue.start, cue.end, cue.text) == (0.5, 9.0, "hello")


def test_srt_is_read_back(tmp_path):
    said = segment(["abcde", "fgh"] * 20)
    found = list(srt.parse(write(tmp_path / "talk.srt", said, "srt")))
    expected = list(cues(said, "srt"))
    assert [one.content for one in found] == texts(expected)
    assert [one.start.total_seconds() for one in found] == [cue.start for cue in expected]
    assert [one.index for one in found] == list(range(1, 1 + len(found)))


@pytest.mark.parametrize("highlight", [False, True])
def test_vtt_is_read_back(tmp_path, highlight):
    said = segment(["abcde", "f&g<h>", "-->"] * 10)
    write(tmp_path / "talk.vtt", said, "vtt", highlight)
    found = list(webvtt.read(str(tmp_path / "talk.vtt")))
    assert html.unescape(" ".join(one.text for one in found)).split() == said.text.split()
    starts = [cue.start for cue in cues(said, "vtt")]
    assert [one.start_in_seconds for one in found] == pytest.approx(starts, abs=1)


def test_each_word_is_highlighted_from_its_start_on():
    (cue,) = cues(segment(["ab", "cd", "ef"]), "vtt", highlight=True)
    assert cue.text == "ab <00:00:01.200>cd <00:00:01.400>ef"
