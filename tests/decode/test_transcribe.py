"""Files of any length to windows and text.

What a file has decides the task, and an error ends its own file only.
"""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from omni_avsr import transcribe
from omni_avsr.cli.app import app
from omni_avsr.decode.contents import look
from omni_avsr.decode.decode import load_decoder
from omni_avsr.decode.transcribe import Segment, Transcript, expand
from omni_avsr.decode.transcripts import clock, subtitles
from omni_avsr.decode.windows import MARGIN, moments, silence, windows
from omni_avsr.errors import InputError
from omni_avsr.media import faces, streams
from omni_avsr.media.faces import Face
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import VIDEO_FPS, Task

TASKS = list(Task)


def speech(*seconds, seed=0):
    """Frames (T, 640) of bursts of noise; a negative number is a silence of that length."""
    rng = np.random.default_rng(seed)
    pieces = []
    for length in seconds:
        frames = round(abs(length) * VIDEO_FPS)
        loudness = 0.1 if length > 0 else 0.0
        pieces.append(rng.normal(0, loudness, (frames, 640)).astype(np.float32))
    return np.concatenate(pieces)


def cut(sound=None, mouths=None, longest=4.0, pause=0.5):
    return list(windows(moments(sound, mouths), longest, pause))


def test_speech_is_cut_in_its_pauses_and_nothing_of_it_is_lost():
    sound = speech(-1, 2, -0.6, 1.4, -0.2, 1, -3, 1)
    found = cut(sound)
    times = [(round(window.start, 2), round(window.end, 2)) for window in found]
    assert times == [(0.8, 3.2), (3.48, 6.4), (9.0, 10.2)]
    heard = np.concatenate([w.audio for w in found])
    assert np.array_equal(heard[heard != 0], sound[sound != 0])
    assert all(len(w.audio) == 640 * w.frames for w in found)


def test_long_speech_is_cut_where_it_is_quietest_without_overlap():
    sound = speech(20)
    dip = slice(85, 88)  # 3.4 s
    sound[dip] *= 0.5
    found = cut(sound)
    assert found[0].end == pytest.approx(86 / 25, abs=0.09)
    assert all(w.end - w.start <= 4 for w in found)
    assert np.array_equal(np.concatenate([w.audio for w in found]).reshape(-1, 640), sound)
    assert [w.start for w in found[1:]] == [w.end for w in found[:-1]]


def test_silence_has_no_windows():
    assert cut(speech(-30)) == []
    assert cut(np.zeros((0, 640), np.float32)) == []


def test_windows_end_where_a_face_is_lost():
    mouth = np.zeros((96, 96), np.uint8)
    mouths = [mouth] * 40 + [None] * 30 + [mouth] * 20
    found = cut(speech(3.6), mouths)
    assert [(w.frames, w.video is None) for w in found] == [(40, False), (30, True), (20, False)]
    assert all(len(w.video) == w.frames for w in found if w.video is not None)
    lips = cut(None, mouths)
    assert [w.frames for w in lips] == [40, 20]
    assert lips[1].start == pytest.approx(70 / 25)


def test_a_sound_that_is_longer_than_the_video_is_heard():
    mouth = np.zeros((96, 96), np.uint8)
    found = cut(speech(3), [mouth] * 50)
    assert [window.frames for window in found] == [50 + MARGIN, 25 - MARGIN]
    assert [window.task for window in found] == [Task.AVSR, Task.ASR]


def test_lips_without_sound_are_cut_where_they_rest():
    rng = np.random.default_rng(0)
    mouths = [rng.integers(0, 255, (96, 96), np.uint8) for _ in range(150)]
    for t in range(84, 92):
        mouths[t] = mouths[84]
    first = cut(None, mouths)[0]
    assert 85 <= first.frames <= 91


def test_memory_holds_one_window():
    def endless():
        rng = np.random.default_rng(0)
        for _ in range(25 * 600):
            yield rng.normal(0, 0.1, 640).astype(np.float32)

    longest = max(w.frames for w in windows(moments(endless(), None), 4, 0.5))
    assert longest <= 100


@pytest.fixture
def files(tmp_path):
    """One recording as a mouth clip with sound, as sound, as a mute video, and with silence."""
    rng = np.random.default_rng(1)
    sound = (speech(1.2, seed=3).ravel() * 32767).astype(np.int16)
    lips = rng.integers(0, 255, (30, 96, 96), np.uint8)
    streams.write_video(tmp_path / "both.mp4", lips, sound)
    streams.write_audio(tmp_path / "sound.wav", sound)
    streams.write_video(tmp_path / "lips.mp4", lips)
    streams.write_video(tmp_path / "muted.mp4", lips, np.zeros_like(sound))
    return tmp_path


@pytest.fixture
def model(make, tmp_path):
    model, processor = make(video_lora_rank=0)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    ("name", "task"),
    [("both.mp4", "avsr"), ("sound.wav", "asr"), ("lips.mp4", "vsr"), ("muted.mp4", "vsr")],
)
def test_auto_takes_what_is_there(files, model, name, task):
    contents = look(files / name, TASKS, TranscribeSettings())
    assert (contents.sounds is not None) == Task(task).hears
    assert (contents.mouths is not None) == Task(task).sees
    transcript = transcribe(files / name, checkpoint=model, max_new_tokens=4)
    (segment,) = transcript.segments
    assert segment.task == Task(task)
    assert 1.0 <= segment.end - segment.start <= 1.5
    assert transcript.text == segment.text
    assert 0 < segment.confidence <= 1


def test_a_prepared_clip_is_heard_and_seen_and_a_folder_has_it_once(files, model):
    (files / "both.mp4").unlink()
    (files / "muted.mp4").unlink()
    (files / "sound.wav").rename(files / "lips.wav")
    (segment,) = transcribe(files / "lips.mp4", checkpoint=model, max_new_tokens=4).segments
    assert segment.task is Task.AVSR
    assert expand([files]) == [files / "lips.mp4"]
    named = [files / "lips.mp4", files / "lips.wav"]
    assert expand(named) == named


def test_the_noise_of_a_room_is_silence():
    loud = speech(2, -20, 2, -36)
    noise = np.random.default_rng(5).normal(0, 0.003, loud.shape).astype(np.float32)
    sound = loud + noise
    loudness = np.sqrt(np.square(sound).mean(1))
    found = list(windows(moments(sound, None, silence(loudness)), 8, 0.5))
    assert [round(window.end - window.start, 1) for window in found] == [2.2, 2.4]
    assert silence(np.zeros(100, np.float32)) is None


def test_speech_without_a_face_is_reported_if_the_model_needs_one(files, model, monkeypatch):
    mouths = [np.zeros((96, 96), np.uint8)] * 15 + [None] * 15
    monkeypatch.setattr("omni_avsr.decode.contents._mouths", lambda *_: lambda: iter(mouths))
    decoder = load_decoder(model, "cpu")
    decoder.model.config.tasks = (Task.AVSR,)
    monkeypatch.setattr("omni_avsr.decode.transcribe.load_decoder", lambda *_: decoder)
    (found,) = transcribe([files / "both.mp4"], max_new_tokens=4)
    assert [segment.task for segment in found.segments] == [Task.AVSR]
    assert "1 s without a face left out" in found.error


@pytest.fixture
def talk(tmp_path, monkeypatch):
    """A raw video with sound, whose face a fake detector loses after 1 s, for 2 s."""
    frames = np.random.default_rng(2).integers(0, 255, (100, 120, 160, 3), np.uint8)
    sound = (speech(4, seed=4).ravel() * 32767).astype(np.int16)
    streams.write_video(tmp_path / "talk.mp4", frames)
    streams.write_audio(tmp_path / "talk.wav", sound)
    face = Face(np.array([40.0, 20, 80, 80]), np.array([[60.0, 40], [100, 40], [80, 60], [80, 80]]))

    def detector(*_):
        shown = iter(range(100))
        return lambda frame: [] if 25 <= next(shown) < 75 else [face]

    monkeypatch.setattr(faces, "yunet", detector)
    return tmp_path / "talk.mp4"


def test_where_the_face_of_a_raw_video_is_lost_it_is_only_heard(talk, model):
    segments = transcribe(talk, checkpoint=model, max_new_tokens=4).segments
    times = [(segment.start, segment.end, segment.task) for segment in segments]
    assert times == [(0, 1, Task.AVSR), (1, 3, Task.ASR), (3, 4, Task.AVSR)]


def test_a_face_that_is_not_there_leaves_the_voice(talk, model):
    (segment,) = transcribe(talk, checkpoint=model, face=2, max_new_tokens=4).segments
    assert segment.task is Task.ASR


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("lips.mp4", "asr", "lips.mp4 lacks a voice for asr"),
        ("sound.wav", "vsr", "sound.wav lacks a face for vsr"),
        ("muted.mp4", "avsr", "muted.mp4 lacks a voice for avsr"),
    ],
)
def test_a_task_whose_input_a_file_lacks_is_refused(files, model, name, task, message):
    with pytest.raises(InputError, match=message):
        transcribe(files / name, task=task, checkpoint=model)


def test_a_model_of_one_task_takes_what_it_can(files):
    assert look(files / "both.mp4", [Task.ASR], TranscribeSettings()).mouths is None
    assert look(files / "both.mp4", [Task.VSR], TranscribeSettings()).sounds is None


def test_text_does_not_depend_on_what_is_transcribed_together(files, model):
    names = ["both.mp4", "sound.wav", "lips.mp4"]
    options = {"checkpoint": model, "max_new_tokens": 6}
    together = transcribe([files / name for name in names], **options)
    assert [t.text for t in together] == [
        transcribe(files / name, **options).text for name in names
    ]
    assert [t.file.name for t in together] == names


def test_a_bad_file_does_not_end_the_others_and_the_exit_code_says_so(files, model):
    (files / "bad.mp4").write_text("no video")
    paths = [str(files / name) for name in ("both.mp4", "bad.mp4", "gone.mp4", "sound.wav")]
    options = ["--checkpoint", model, "--max-new-tokens", "4", "--format", "jsonl"]
    result = CliRunner().invoke(app, ["transcribe", *paths, *options])
    assert result.exit_code == 1
    rows = [json.loads(line) for line in result.output.split("\n") if line.startswith("{")]
    assert [row["file"].split("/")[-1] for row in rows] == ["both.mp4", "sound.wav"]
    assert set(rows[0]) == {"file", "text", "segments"}
    assert "bad.mp4 cannot be read" in result.output
    assert "gone.mp4 does not exist" in result.output
    alone = CliRunner().invoke(app, ["transcribe", paths[1], "--checkpoint", model])
    assert alone.exit_code == 2


def test_a_folder_is_its_media_and_subtitles_go_to_a_folder(files, model, tmp_path):
    options = ["--checkpoint", model, "--max-new-tokens", "4", "--format", "srt"]
    arguments = ["transcribe", str(files), *options]
    refused = CliRunner().invoke(app, arguments)
    assert "srt of several files needs --out" in str(refused.exception)
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "subtitles")])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "subtitles").iterdir()) == [
        "both.srt",
        "lips.srt",
        "muted.srt",
        "sound.srt",
    ]


def test_files_of_one_name_keep_their_own_subtitles(files, model, tmp_path):
    out = tmp_path / "out"
    options = ["--checkpoint", model, "--max-new-tokens", "4", "--format", "srt"]
    arguments = [*options, "--out", str(out)]
    for folder in ("a", "b"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        shutil.copy(files / "sound.wav", tmp_path / "in" / folder / "1.wav")
    result = CliRunner().invoke(app, ["transcribe", str(tmp_path / "in"), *arguments])
    assert result.exit_code == 0
    written = sorted(str(file.relative_to(out)) for file in out.rglob("*.srt"))
    assert written == ["a/1.srt", "b/1.srt"]
    video = shutil.copy(files / "lips.mp4", files / "sound.mp4")
    refused = CliRunner().invoke(
        app, ["transcribe", str(files / "sound.wav"), str(video), *arguments]
    )
    assert "several files would become the same .srt" in str(refused.exception)


def test_a_mistake_leaves_an_older_file_as_it_is(files, tmp_path):
    out = tmp_path / "done.jsonl"
    out.write_text("old\n")
    for format in ("jsonl", "json"):
        options = ["--checkpoint", "nowhere", "--format", format, "--out", str(out)]
        result = CliRunner().invoke(app, ["transcribe", str(files / "sound.wav"), *options])
        assert result.exit_code != 0
        assert out.read_text() == "old\n"


def test_subtitles_are_as_players_want_them(tmp_path):
    segments = [
        Segment(0.4, 2.0, "hello there", Task.ASR, 0.9),
        Segment(2.0, 2.5, "", Task.ASR, 0.9),
        Segment(3723.5, 3725.0, "bye", Task.ASR, 0.9),
    ]
    transcript = Transcript(tmp_path / "x.mp4", segments)
    assert subtitles(transcript, "srt") == (
        "1\n00:00:00,400 --> 00:00:02,000\nhello there\n\n2\n01:02:03,500 --> 01:02:05,000\nbye\n"
    )
    assert subtitles(transcript, "vtt").startswith(
        "WEBVTT\n\n1\n00:00:00.400 --> 00:00:02.000\nhello there\n"
    )
    assert clock(59.9996, ",") == "00:01:00,000"
    assert transcript.text == "hello there bye"


@pytest.mark.parametrize(
    ("format", "start"), [("text", ""), ("json", "[\n"), ("trn", ""), ("vtt", "WEBVTT\n")]
)
def test_every_format_is_written(files, model, tmp_path, format, start):
    out = tmp_path / "out/x.txt"
    options = ["--checkpoint", model, "--max-new-tokens", "4", "--format", format]
    arguments = ["transcribe", str(files / "sound.wav"), *options, "--out", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert out.read_text().startswith(start)
    assert ("(sound)" in out.read_text()) == (format == "trn")


def test_an_unknown_format_or_task_is_refused():
    with pytest.raises(InputError, match="unknown format 'doc'; available: text, json"):
        TranscribeSettings(format="doc")
    with pytest.raises(InputError, match="unknown task 'tts'"):
        TranscribeSettings(task="tts")


def test_pauses_shorter_than_a_margin_keep_windows_in_their_place():
    first, second = cut(speech(-2, 1, -2, 1), pause=0.1)
    assert first.start == pytest.approx(2 - MARGIN / VIDEO_FPS)
    assert second.start == pytest.approx(5 - MARGIN / VIDEO_FPS)


def test_several_errors_of_a_list_stay_in_their_transcripts(files, model):
    found = transcribe([files / "gone.wav", files / "sound.wav"], checkpoint=model)
    assert found[0].error.endswith("gone.wav does not exist")
    assert found[1].error is None


def test_margins_are_as_long_as_they_should_be():
    (window,) = cut(speech(-2, 1, -2))
    assert window.frames == 25 + 2 * MARGIN
