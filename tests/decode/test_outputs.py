"""Where transcripts go is checked first; then they are written segment by segment."""

import json
import os
import wave
from contextlib import suppress

import pytest
from openai.types.audio import TranscriptionVerbose

from omni_avsr.decode.outputs import INTERRUPTED, Writer
from omni_avsr.decode.subtitles import clock
from omni_avsr.decode.transcripts import Segment, Transcript, Update, Word
from omni_avsr.errors import InputError
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import Task

SAID = [
    Segment(0.4, 2.0, "hello there", Task.ASR, 0.9),
    Segment(2.0, 2.5, "", Task.ASR, 0.9),
    Segment(3723.5, 3725.0, "bye", Task.ASR, 0.9, is_cut=True),
]
SRT = "1\n00:00:00,400 --> 00:00:02,000\nhello there\n\n2\n01:02:03,500 --> 01:02:05,000\nbye\n"
WRITTEN = {
    "text": "hello there\nbye\n",
    "srt": SRT,
    "vtt": "WEBVTT\n\n" + SRT.replace(",", "."),
    "trn": "hello there bye (talk)\n",
}


@pytest.fixture
def recording(tmp_path):
    """A second and a half of sound."""
    path = tmp_path / "recording.wav"
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(bytes(48_000))
    return path


@pytest.fixture
def talk(tmp_path):
    path = tmp_path / "talk.mp4"
    path.write_bytes(b"media")
    return path


def updates(file, segments=SAID, error=None):
    """The updates of one file."""
    transcript = Transcript(file)
    found = []
    for segment in segments:
        transcript.segments.append(segment)
        found.append(Update(transcript, segment))
    transcript.error = error
    return [*found, Update(transcript, None)]


def write(file, out, *formats, **facts):
    with Writer(formats, out, [file], several=False) as writer:
        for update in updates(file, **facts):
            writer.write(update)


@pytest.mark.parametrize("format", WRITTEN)
def test_each_format_is_as_its_readers_want_it(talk, tmp_path, capsys, format):
    write(talk, tmp_path / "out", format)
    assert (tmp_path / "out").read_text() == WRITTEN[format]
    write(talk, None, format)
    assert capsys.readouterr().out == WRITTEN[format]


def test_json_has_what_is_cut_and_what_went_wrong(talk, tmp_path):
    write(talk, tmp_path / "out.json", "json", error="damaged")
    (row,) = json.loads((tmp_path / "out.json").read_text())
    assert row["text"] == "hello there bye"
    assert row["error"] == "damaged"
    assert [segment["cut"] for segment in row["segments"]] == [False, False, True]


@pytest.mark.parametrize(
    ("format", "expected"), [("text", ""), ("srt", ""), ("vtt", "WEBVTT\n"), ("trn", " (talk)\n")]
)
def test_silence_is_an_empty_transcript(talk, tmp_path, format, expected):
    write(talk, tmp_path / "out", format, segments=[])
    assert (tmp_path / "out").read_text() == expected


def test_a_file_that_fails_at_once_leaves_an_older_transcript(talk, tmp_path):
    old = tmp_path / "out.srt"
    old.write_text("old")
    for format in ("srt", "json", "trn"):
        write(talk, old, format, segments=[], error="damaged")
        assert old.read_text() == "old"


def test_segments_are_written_as_they_come(talk, tmp_path):
    out = tmp_path / "out.txt"
    with Writer(["text"], out, [talk], several=False) as writer:
        first, *_ = updates(talk)
        assert not out.exists()
        writer.write(first)
        assert out.read_text() == "hello there\n"


def test_of_an_interrupted_file_json_has_what_is_there(talk, tmp_path):
    transcript = Transcript(talk, SAID[:1])
    with suppress(KeyboardInterrupt), Writer(["json"], tmp_path / "o", [talk], False) as writer:
        writer.write(Update(transcript, SAID[0]))
        raise KeyboardInterrupt
    (row,) = json.loads((tmp_path / "o").read_text())
    assert (row["text"], row["error"]) == ("hello there", INTERRUPTED)


def test_several_formats_are_files_in_a_folder(talk, tmp_path):
    write(talk, tmp_path / "out", "srt", "json", "text")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["talk.json", "talk.srt", "talk.txt"]


def test_an_existing_folder_is_a_folder(talk, tmp_path):
    (tmp_path / "out").mkdir()
    write(talk, tmp_path / "out", "jsonl")
    assert (tmp_path / "out" / "talk.jsonl").read_text()


def test_files_above_the_working_folder_stay_in_the_folder(talk, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "other.mp4").touch()
    monkeypatch.chdir(tmp_path / "work")
    above = talk.relative_to(tmp_path)
    files = [type(talk)("..") / above, type(talk)("other.mp4")]
    writer = Writer(["srt"], tmp_path / "out", files, several=True)
    assert [str(name) for name in writer.names.values()] == ["talk", "work/other"]


def link(talk, tmp_path, make):
    other = tmp_path / "other.txt"
    make(talk, other)
    return other


@pytest.mark.parametrize("make", [os.link, os.symlink])
def test_what_is_to_be_transcribed_is_not_overwritten(talk, tmp_path, make):
    with pytest.raises(InputError, match=r"would overwrite .*, which is to be transcribed"):
        Writer(["text"], link(talk, tmp_path, make), [talk], several=False)


def test_a_relative_path_to_the_input_is_refused(talk, tmp_path, monkeypatch):
    plain = talk.rename(tmp_path / "talk")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="would overwrite"):
        Writer(["text"], type(talk)("./../") / tmp_path.name / "talk", [plain], several=False)


def refusals(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken" / "talk.srt").mkdir(parents=True)


@pytest.mark.parametrize(
    ("out", "formats", "message"),
    [
        ("talk.mp4", ["text"], "named as a video or sound: name it talk.txt"),
        ("file", ["srt", "json"], "file is a file, but a folder is needed"),
        ("file/x.txt", ["text"], "file is not a folder"),
        ("taken", ["srt"], "talk.srt is a folder, but a file is needed"),
        (".", ["text"], "would lie beside .*talk.mp4, .* its reference transcript"),
    ],
)
def test_an_out_that_cannot_be_right_is_refused_before_the_work(
    talk, tmp_path, out, formats, message
):
    refusals(tmp_path)
    with pytest.raises(InputError, match=message):
        Writer(formats, tmp_path / out, [talk], several=False)


def test_a_folder_that_may_not_be_written_is_refused(talk, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match="you may not write to"):
        Writer(["srt"], tmp_path / "a" / "b.srt", [talk], several=False)


def test_the_format_follows_the_name_of_the_file():
    assert TranscribeSettings(out="talk.SRT").formats == ("srt",)
    assert TranscribeSettings(out="talk.txt").formats == ("text",)
    assert TranscribeSettings(out="talk").formats == ("text",)
    assert TranscribeSettings(out="talk", format="json,srt,json").formats == ("json", "srt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "json", "out": "talk.srt"}, "talk.srt is srt by its name, but format is json"),
        ({"format": "srt,json", "out": "talk.srt"}, "several need --out, a folder"),
        ({"format": "srt,json"}, "several need --out, a folder"),
        ({"format": "srt,doc"}, "unknown format 'doc'"),
    ],
)
def test_formats_that_contradict_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TranscribeSettings(**options)


def test_a_clock_carries_its_milliseconds():
    assert clock(59.9996, ",") == "00:01:00,000"


def test_verbose_json_is_what_clients_of_openai_read(recording, tmp_path):
    words = (Word("hello", 0.5, 1.0, 0.9), Word("there", 1.0, 1.4, None))
    said = [Segment(0.4, 1.4, "hello there", Task.ASR, 0.5, words=words, tokens=(7, 8))]
    silent = Segment(1.4, 1.5, "", Task.ASR, 0.5, words=())
    write(recording, tmp_path / "out", "verbose_json", segments=[*said, silent])
    found = TranscriptionVerbose.model_validate_json((tmp_path / "out").read_text(), strict=True)
    assert (found.text, found.duration, found.language) == ("hello there", 1.5, "und")
    assert [(word.word, word.start, word.end) for word in found.words] == [
        ("hello", 0.5, 1.0),
        ("there", 1.0, 1.4),
    ]
    first, second = found.segments
    assert (first.id, first.seek, first.tokens) == (0, 40, [7, 8])
    assert first.avg_logprob == pytest.approx(-0.6931)
    assert (first.no_speech_prob, second.no_speech_prob) == (0.0, 1.0)
    assert second.compression_ratio == 0.0
