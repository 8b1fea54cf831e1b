"""Long recordings: what is told about them is what is heard and seen, and they are reproducible."""

import importlib.util
import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.settings import ToySettings
from omni_avsr.tasks import SAMPLE_RATE, VIDEO_FPS
from omni_avsr.toy import long
from omni_avsr.toy.long import BETWEEN, LONG_PAUSE, Recording, Scene, lay_out, write_recording
from omni_avsr.toy.looks import OPENING

needs_espeak = pytest.mark.skipif(
    not importlib.util.find_spec("espeakng_loader"), reason="needs espeak-ng"
)
DUO = Recording("open", minutes=0.25, people=2, seed=1)
AUDIBLE = 0.004  # amplitude; the room is quieter and every voice is louder


@pytest.fixture(scope="module")
def turns():
    return lay_out(DUO)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("long"), replace(DUO, minutes=0.09))


def rows(video, kind):
    lines = video.with_suffix(f".{kind}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@needs_espeak
def test_sentences_are_heard_when_the_recording_says(video):
    sound = np.abs(streams.read_audio(video))
    for segment in rows(video, "segments"):
        begin = int(segment["start"] * SAMPLE_RATE)
        end = int(segment["end"] * SAMPLE_RATE)
        before = begin - SAMPLE_RATE // 10
        first = before + int(np.argmax(sound[before:end] > AUDIBLE))
        assert abs(first - begin) < 0.02 * SAMPLE_RATE
        last = begin + int(np.flatnonzero(sound[begin : end + 3200] > AUDIBLE)[-1])
        assert last < end + 0.05 * SAMPLE_RATE


@needs_espeak
def test_a_video_has_a_face_for_each_person_and_lasts_as_long_as_asked_for(video):
    frames = streams.read_video(video)
    height, width = long.SIZES[2]
    assert frames.shape == (round(0.09 * 60 * VIDEO_FPS), height, 2 * width)
    for segment in rows(video, "segments"):
        x, y = np.array(segment["mouth"]).astype(int)
        stretch = slice(*(int(segment[edge] * VIDEO_FPS) for edge in ("start", "end")))
        own = frames[stretch, y - 12 : y + 13, x - 12 : x + 13].astype(int)
        mirrored = (x + width) % (2 * width)
        other = frames[stretch, y - 12 : y + 13, mirrored - 12 : mirrored + 13].astype(int)
        assert np.abs(np.diff(own, axis=0)).mean() > 1.5 * np.abs(np.diff(other, axis=0)).mean()


@needs_espeak
def test_words_and_subtitles_have_the_texts_of_the_sentences(video):
    segments = rows(video, "segments")
    words = rows(video, "words")
    said = " ".join(segment["text"] for segment in segments)
    assert segments
    assert " ".join(word["word"] for word in words) == said
    assert {word["speaker"] for word in words} == {segment["speaker"] for segment in segments}
    texts = video.with_suffix(".srt").read_text().split("\n")[2::4]
    assert " ".join(texts) == said


@needs_espeak
def test_both_people_speak_and_pause_between_sentences(turns):
    assert {turn.sentence.person for turn in turns} == {0, 1}
    for turn, following in itertools.pairwise(turns):
        assert BETWEEN[0] - 0.05 < following.start - turn.end < LONG_PAUSE + 0.1
    assert turns[-1].stop <= DUO.frames


@needs_espeak
def test_words_lie_inside_their_sentence(turns):
    assert turns
    for turn in turns:
        edges = [edge for word in turn.words for edge in (word.start, word.end) if edge]
        assert edges == sorted(edges)
        assert abs(edges[0] - turn.start) < 0.1
        assert turn.words[-1].end is None or abs(edges[-1] - turn.end) < 0.01


@needs_espeak
def test_who_is_silent_rests_the_lips(turns):
    scene = Scene.of(DUO, turns)
    for turn in turns:
        speaking = scene.tracks[turn.sentence.person][turn.first : turn.stop, OPENING]
        silent = scene.tracks[1 - turn.sentence.person][turn.first : turn.stop, OPENING]
        assert np.ptp(speaking) > 0.5
        assert np.ptp(silent) < 0.4


@needs_espeak
def test_a_recording_is_said_the_same_with_one_process_and_with_two(turns, monkeypatch):
    monkeypatch.setattr(long, "_PROCESSES", 1)
    again = lay_out(DUO)
    assert [turn.first for turn in again] == [turn.first for turn in turns]
    for one, two in zip(again, turns, strict=True):
        assert np.array_equal(one.sentence.spoken.audio, two.sentence.spoken.audio)


def test_a_recording_is_named_after_what_it_is():
    assert DUO.name == "open_duo_000001"
    assert Recording("open", 1, language="es").name == "open-es_solo_000000"


def test_several_languages_are_refused():
    with pytest.raises(InputError, match="a long recording is in one language, not in multi"):
        Recording("open", 1, language="multi")


def test_two_speakers_without_a_recording_are_refused():
    with pytest.raises(InputError, match="speakers 2 is for a long recording: add --long"):
        ToySettings(speakers=2)


@needs_espeak
def test_a_recording_too_short_for_a_sentence_says_so(tmp_path):
    given = ["toy", str(tmp_path), "--long", "0.01", "--world", "open"]
    result = CliRunner().invoke(app, given)
    assert "no sentence fits into 0.01 minutes" in (result.output + str(result.exception))
    assert not list(tmp_path.rglob("*.mp4"))
