"""Files of any length to windows and text.

What a file has decides the task, and an error ends its own file only.
"""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from omni_avsr import Transcriber, transcribe
from omni_avsr.cli.app import app
from omni_avsr.decode.contents import Lips, look, windows_of
from omni_avsr.decode.decode import load_decoder
from omni_avsr.decode.inputs import expand
from omni_avsr.decode.record import Record
from omni_avsr.decode.transcripts import Segment, Transcript
from omni_avsr.decode.windows import MARGIN, moments, silence, windows
from omni_avsr.errors import InputError
from omni_avsr.files import Journal
from omni_avsr.media import faces, streams
from omni_avsr.media.faces import Face
from omni_avsr.settings import CheckpointOptions, TranscribeSettings
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


def test_no_window_is_longer_than_the_audio_encoder_takes(model):
    transcriber = Transcriber(checkpoint=model, max_seconds_per_window=1000, max_new_tokens=1)
    found = transcriber(speech(40).ravel(), 16_000)
    assert len(found.segments) > 1
    assert found.segments[-1].end == 40


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
    monkeypatch.setattr("omni_avsr.decode.contents._mouths", lambda *_: Lips(lambda: iter(mouths)))
    decoder = load_decoder(CheckpointOptions(checkpoint=model, device="cpu"))
    decoder.model.config.tasks = (Task.AVSR,)
    monkeypatch.setattr("omni_avsr.decode.transcribe.load_decoder", lambda *_: decoder)
    (found,) = transcribe([files / "both.mp4"], max_new_tokens=4)
    assert [segment.task for segment in found.segments] == [Task.AVSR]
    assert "1 s without a face left out" in found.error


@pytest.fixture
def talk(tmp_path, monkeypatch):
    """A raw video with sound, whose face a fake detector loses after 1 s, for 2 s."""
    frames = np.random.default_rng(2).integers(0, 255, (100, 120, 160, 3), np.uint8)
    frames[25:75] = 0
    sound = (speech(4, seed=4).ravel() * 32767).astype(np.int16)
    streams.write_video(tmp_path / "talk.mp4", frames)
    streams.write_audio(tmp_path / "talk.wav", sound)
    face = Face(np.array([40.0, 20, 80, 80]), np.array([[60.0, 40], [100, 40], [80, 60], [80, 80]]))

    def detect(frame):
        return [face] if frame.mean() > 50 else []

    monkeypatch.setattr(faces, "yunet", lambda *_: detect)
    return tmp_path / "talk.mp4"


def test_where_the_face_of_a_raw_video_is_lost_it_is_only_heard(talk, model):
    segments = transcribe(talk, checkpoint=model, max_new_tokens=4).segments
    times = [(segment.start, segment.end, segment.task) for segment in segments]
    assert times == [(0, 1, Task.AVSR), (1, 3, Task.ASR), (3, 4, Task.AVSR)]


def test_a_face_that_is_not_there_is_refused(talk, model):
    with pytest.raises(InputError, match=r"talk\.mp4 has no face 2: faces found: 1"):
        transcribe(talk, checkpoint=model, face=2, max_new_tokens=4)


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("lips.mp4", "asr", "lips.mp4 lacks a voice for asr"),
        ("sound.wav", "vsr", "sound.wav lacks a face for vsr"),
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


def test_a_file_that_is_damaged_in_places_is_transcribed_with_exit_code_1(
    files, model, tmp_path, monkeypatch
):
    def windows_of_damaged(file, *options):
        yield from windows_of(file, *options)
        raise InputError(f"{file} is damaged")

    monkeypatch.setattr("omni_avsr.decode.transcribe.windows_of", windows_of_damaged)
    out = tmp_path / "talk.txt"
    options = ["--checkpoint", model, "--max-new-tokens", "4", "--out", str(out)]
    result = CliRunner().invoke(app, ["transcribe", str(files / "both.mp4"), *options])
    assert result.exit_code == 1
    assert "both.mp4 is damaged" in result.output
    assert out.is_file()
    assert not list(tmp_path.glob("*.part"))  # what is left of a damaged file is all there is


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


def test_shards_write_their_files_into_one_folder(files, model, tmp_path):
    options = ["transcribe", str(files), "--checkpoint", model, "--max-new-tokens", "4"]
    refused = CliRunner().invoke(app, [*options, "--shard", "1/2"])
    assert "--shard needs --out FOLDER" in str(refused.exception)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for shard, out in ((None, whole), ("2/2", parts), ("1/2", parts)):
        own = [] if shard is None else ["--shard", shard]
        result = CliRunner().invoke(app, [*options, "--format", "srt", "--out", str(out), *own])
        assert result.exit_code == 0, result.output
    written = [{file.name: file.read_text() for file in out.iterdir()} for out in (whole, parts)]
    assert written[0] == written[1]


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
    assert "sound.mp4 would become the same sound.srt" in str(refused.exception)


def test_a_mistake_leaves_an_older_file_as_it_is(files, tmp_path):
    out = tmp_path / "done.jsonl"
    out.write_text("old\n")
    for format in ("jsonl", "json"):
        options = ["--checkpoint", "nowhere", "--format", format, "--out", str(out)]
        result = CliRunner().invoke(app, ["transcribe", str(files / "sound.wav"), *options])
        assert result.exit_code != 0
        assert out.read_text() == "old\n"


@pytest.mark.parametrize(
    ("format", "start"), [("txt", ""), ("json", "[\n"), ("trn", ""), ("vtt", "WEBVTT\n")]
)
def test_every_format_is_written(files, model, tmp_path, format, start):
    out = tmp_path / "out" / f"x.{format}"
    options = ["--checkpoint", model, "--max-new-tokens", "4"]
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


def test_what_is_named_twice_is_transcribed_once(files):
    assert expand([files / "both.mp4", files, files / "." / "both.mp4"])[:2] == [
        files / "both.mp4",
        files / "lips.mp4",
    ]


@pytest.fixture
def raw(talk, monkeypatch):
    """A raw video with sound on a machine without a face detector; counts the downloads."""
    talk.with_suffix(".wav").rename(talk.with_name("voice.wav"))
    sound = (speech(4, seed=4).ravel() * 32767).astype(np.int16)
    frames = np.zeros((100, 120, 160, 3), np.uint8)
    for name in ("talk.mp4", "again.mp4"):
        streams.write_video(talk.with_name(name), frames, sound)
    streams.write_video(talk.with_name("mute.mp4"), frames)
    downloads = []

    def download(file):
        downloads.append(file)
        return "the download failed"

    monkeypatch.setattr(faces, "yunet", lambda model, download: faces.find_model(model, download))
    monkeypatch.setattr(faces, "_download", download)
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(talk.parent / "cache"))
    monkeypatch.delenv("OMNI_AVSR_FACE_DETECTOR", raising=False)
    return talk, downloads


def test_without_a_detector_a_raw_video_is_only_heard_and_the_download_is_tried_once(raw, model):
    talk, downloads = raw
    found = transcribe([talk, talk.with_name("again.mp4")], checkpoint=model, max_new_tokens=4)
    for transcript in found:
        assert {segment.task for segment in transcript.segments} == {Task.ASR}
        assert transcript.error is None
        (note,) = transcript.notes
        assert "only heard" in note
        assert "omni-avsr doctor --fetch" in note
    assert len(downloads) == 1


@pytest.mark.parametrize(("name", "task"), [("talk.mp4", "avsr"), ("mute.mp4", "auto")])
def test_without_a_detector_what_cannot_be_heard_is_refused(raw, model, name, task):
    talk, _ = raw
    with pytest.raises(InputError, match=f"{name}: no face detector is installed"):
        transcribe(talk.with_name(name), checkpoint=model, task=task)


def test_a_transcriber_takes_paths_waveforms_bytes_and_open_files(files, model, capfd):
    transcriber = Transcriber(checkpoint=model, max_new_tokens=4)
    path = files / "sound.wav"
    expected = transcriber(path)
    assert [segment.task for segment in expected.segments] == [Task.ASR]
    samples = (streams.read_audio(path) * 32768).astype(np.int16)
    floats = torch.from_numpy(samples) / 32768
    with path.open("rb") as opened:
        sources = [samples, floats, path.read_bytes(), opened]
        found = transcriber(sources, sampling_rate=16_000)
    assert [str(transcript.file) for transcript in found] == [
        *("waveform", "waveform", "bytes", "sound.wav")
    ]
    assert [transcript.text for transcript in found] == [expected.text] * 4
    assert capfd.readouterr() == ("", "")


def test_a_waveform_at_another_rate_lasts_as_long(files, model):
    samples = streams.read_audio(files / "sound.wav")
    (segment,) = transcribe(samples, sampling_rate=8000, checkpoint=model).segments
    assert segment.end == pytest.approx(2.4, abs=0.1)


@pytest.mark.parametrize(
    ("source", "rate", "message"),
    [
        (np.zeros(100, np.float32), None, "a waveform needs sampling_rate"),
        (np.zeros(100, np.float32), 0, "its samples per second, not 0"),
        (np.array(["no", "sound"]), 16_000, "not <U5"),
        (np.zeros((2, 100)), 16_000, r"the shape \(samples,\), not \(2, 100\)"),
        (np.full(100, 3000.0), 16_000, "values up to 3000"),
        (np.full(100, np.nan), 16_000, "values up to nan"),
        (np.zeros(100, np.int32), 16_000, "not torch.int32"),
        (b"no media", None, "^bytes cannot be read"),
        (io.StringIO("text"), None, "open it with 'rb'"),
        (3, None, "a int cannot be transcribed"),
        ("https://example.org/a.mp4", None, "https://example.org/a.mp4 is a URL: download it"),
    ],
)
def test_a_source_that_cannot_be_transcribed_is_refused(model, source, rate, message):
    with pytest.raises(InputError, match=message):
        transcribe(source, sampling_rate=rate, checkpoint=model)


def test_a_waveform_of_another_byte_order_is_the_same(model):
    sound = speech(1).ravel()
    texts = [
        transcribe(sound.astype(kind), 16_000, checkpoint=model).text for kind in ("<f4", ">f4")
    ]
    assert texts[0] == texts[1]


def test_silence_has_empty_subtitles(files, model):
    streams.write_audio(files / "silence.wav", np.zeros(16_000, np.int16))
    out = files / "silence.srt"
    command = ["transcribe", str(files / "silence.wav"), "--checkpoint", model, "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    assert out.read_text() == ""


def test_a_cut_segment_is_marked(files, model):
    assert transcribe(files / "sound.wav", checkpoint=model, max_new_tokens=1).segments[0].is_cut


def batches_until(calls, monkeypatch):
    """Ends the work when so many batches are decoded; returns how many windows each had."""
    decoded = []
    decode = Transcriber._decode_task

    def counted(self, task, batch):
        if len(decoded) == calls:
            raise KeyboardInterrupt
        decoded.append(len(batch))
        return decode(self, task, batch)

    monkeypatch.setattr(Transcriber, "_decode_task", counted)
    return decoded


@pytest.fixture
def long(tmp_path):
    """A sound of four utterances."""
    sound = speech(1, -2, 1, -2, 1, -2, 1, seed=6)
    folder = tmp_path / "long"
    folder.mkdir()
    streams.write_audio(folder / "long.wav", (sound.ravel() * 32767).astype(np.int16))
    return folder / "long.wav"


@pytest.mark.parametrize("format", ["txt", "srt", "vtt", "json", "jsonl", "trn"])
def test_an_interrupted_file_keeps_what_is_there_and_is_resumed(long, model, format, monkeypatch):
    options = ["--checkpoint", model, "--max-new-tokens", "4", "--max-frames", "70"]
    command = ["transcribe", str(long), *options, "--out"]
    whole, out = long.with_name(f"whole.{format}"), long.with_name(f"out.{format}")
    assert CliRunner().invoke(app, [*command, str(whole)]).exit_code == 0
    with monkeypatch.context() as patch:
        batches_until(1, patch)
        assert CliRunner().invoke(app, [*command, str(out)]).exit_code == 130
    assert out.read_text()
    assert out.read_text() != whole.read_text()
    if "json" in format:
        assert "interrupted" in out.read_text()
    with monkeypatch.context() as patch:
        decoded = batches_until(9, patch)
        assert CliRunner().invoke(app, [*command, str(out)]).exit_code == 0
    assert sum(decoded) == 2
    assert out.read_text() == whole.read_text()
    assert sorted(path.name for path in long.parent.iterdir()) == [
        "long.wav",
        out.name,
        whole.name,
    ]


def test_of_a_file_that_was_cut_otherwise_before_only_the_last_segments_are_kept(long):
    journal = long.with_name("journal")
    interrupted = Record(Journal(journal, {}))
    interrupted.add(long, Segment(0, 2, "heard without a detector", Task.ASR, 0.5))
    interrupted.flush()
    seen = [Segment(start, start + 1, "seen", Task.AVSR, 0.5) for start in (0, 1)]
    resumed = Record(Journal(journal, {}))
    for segment in seen:
        resumed.add(long, segment)
    resumed.end(Transcript(long, seen))
    resumed.flush()
    known = Record(Journal(journal, {})).known(long)
    assert known.segments == seen


def test_a_folder_is_resumed_and_a_changed_file_is_transcribed_again(files, model, monkeypatch):
    out = files.parent / "texts"
    names = ["both.mp4", "lips.mp4", "muted.mp4", "sound.wav"]
    paths = [str(files / name) for name in names]
    command = ["transcribe", *paths, "--checkpoint", model, "--max-new-tokens", "4"]
    command += ["--max-frames", "30", "--format", "srt,json", "--out", str(out)]
    with monkeypatch.context() as patch:
        batches_until(3, patch)
        assert CliRunner().invoke(app, command).exit_code == 130
    (files / "lips.mp4").write_bytes((files / "muted.mp4").read_bytes())
    with monkeypatch.context() as patch:
        decoded = batches_until(9, patch)
        assert CliRunner().invoke(app, command).exit_code == 0
    assert len(decoded) == 2
    written = sorted(path.name for path in out.iterdir())
    expected = [f"{name.split('.')[0]}.{format}" for name in names for format in ("json", "srt")]
    assert written == expected
