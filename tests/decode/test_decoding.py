"""Decoding a file gives the same figures on every run, whatever the batches."""

import json
import os
from dataclasses import replace

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.decode import decode as decoding
from omni_avsr.decode.decode import load_decoder
from omni_avsr.errors import InputError
from omni_avsr.files import read_rows
from omni_avsr.measure.evaluate import decode_file
from omni_avsr.run import finish_run, start_run
from omni_avsr.settings import DecodeSettings
from omni_avsr.tasks import CLEAN, Condition, Route, Task
from tests.support.corpus import write_split
from tests.support.interruptions import Killed

CLIPS = 7


@pytest.fixture(scope="module")
def checkpoint(make, tmp_path_factory):
    """The folder of a model."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    model, processor = make()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture
def settings(checkpoint, tmp_path):
    file = write_split(tmp_path, "test", CLIPS, 3)
    return DecodeSettings(checkpoint=str(checkpoint), data=file, max_new_tokens=8)


def texts(evaluation):
    return {hypothesis.id: hypothesis.hypothesis for hypothesis in evaluation.hypotheses}


@pytest.mark.parametrize(
    ("noise", "condition"),
    [
        ({}, CLEAN),
        ({"snr": 0.0}, Condition(0.0, "babble")),
        ({"snr": -5.0, "noise": "white"}, Condition(-5.0, "white")),
    ],
)
def test_transcripts_do_not_depend_on_the_batches(settings, noise, condition):
    noisy = replace(settings, **noise)
    wide = decode_file(noisy)
    narrow = decode_file(replace(noisy, max_frames=20))
    assert texts(wide) == texts(narrow)
    for evaluation in (wide, narrow):
        (result,) = evaluation.results
        assert result.condition == condition
        assert result.clips == CLIPS
        assert result.wer == wide.results[0].wer


@pytest.mark.parametrize(("task", "changes"), [(Task.ASR, True), (Task.VSR, False)])
def test_noise_changes_what_is_heard_and_not_what_is_seen(settings, task, changes):
    confidences = []
    for snr in (None, 0.0):
        evaluation = decode_file(replace(settings, task=task, snr=snr))
        confidences.append([hypothesis.confidence for hypothesis in evaluation.hypotheses])
    clean, noisy = confidences
    assert (clean != noisy) == changes


def test_lip_reading_is_measured_even_if_noise_is_asked_for(settings):
    evaluation = decode_file(replace(settings, task=Task.VSR, snr=0.0))
    (result,) = evaluation.results
    assert result.route == Route(Task.VSR, video_rate=2)
    assert result.condition == Condition(0.0, "babble")
    assert result.clips == CLIPS


def test_one_task_reads_only_the_media_that_it_needs(settings, monkeypatch):
    monkeypatch.setattr("omni_avsr.media.streams.read_audio", None)
    evaluation = decode_file(replace(settings, task=Task.VSR))
    assert evaluation.results[0].clips == CLIPS


def write_run(folder, checkpoint, finished):
    """Writes the folder of a run with this model."""
    start_run(folder, DecodeSettings())
    (folder / "model").symlink_to(checkpoint)
    if finished:
        finish_run(folder, {"seconds": 1.0})


def test_the_newest_finished_run_is_decoded_unless_another_is_named(
    checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "one", checkpoint, finished=True)
    write_run(tmp_path / "runs" / "unfinished", checkpoint, finished=False)
    assert load_decoder(None).name == "runs/one/model"
    assert load_decoder("runs/unfinished").name == "runs/unfinished/model"


def test_without_a_finished_run_the_shipped_model_is_decoded(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "unfinished", checkpoint, finished=False)
    assert load_decoder(None).name == "tiny"


def test_the_command_writes_hypotheses_and_names_what_failed(settings, tmp_path):
    (tmp_path / "corpus/test/003.wav").unlink()
    out = tmp_path / "hypotheses.jsonl"
    arguments = [
        *("--checkpoint", settings.checkpoint),
        *("--data", str(settings.data)),
        *("--task", "avsr"),
        *("--max-new-tokens", "8"),
        *("--out", str(out)),
    ]
    result = CliRunner().invoke(app, ["decode", *arguments])
    assert result.exit_code == 1
    assert "AVSR (4,2): WER" in result.stdout
    assert "1 clips could not be read" in result.stdout
    rows = read_rows(out)
    assert len(rows) == CLIPS - 1
    assert rows[0].keys() >= {
        "id",
        "reference",
        "hypothesis",
        "task",
        "audio_rate",
        "video_rate",
        "confidence",
        "errors",
        "words",
    }
    for row in rows:
        assert 0 < row["confidence"] <= 1


def test_files_without_readable_clips_are_refused(settings, tmp_path):
    for path in (tmp_path / "corpus/test").glob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(InputError, match=r"none of the 7 clips of .* could be read"):
        decode_file(settings)


def test_a_file_of_the_callers_corpus_is_decoded_if_no_label_file_is_given(settings):
    asked = []

    def make_corpus(options, splits, progress):
        asked.append((options.toy_world, list(splits)))
        return {"test": settings.data}

    without = replace(settings, data=None, toy_world="open")
    evaluation = decode_file(without, corpus=make_corpus)
    assert asked == [("open", ["test"])]
    assert texts(evaluation) == texts(decode_file(settings))
    with pytest.raises(InputError, match="no label file for test is given"):
        decode_file(without)


def count_decoded(monkeypatch, killed_in_batch=None):
    """Kills decoding in this batch; returns the ids of the clips that were decoded until then."""
    inner = decoding._decode_batch
    batches = 0
    decoded = []

    def counted(decoder, clips, loaded, *rest):
        nonlocal batches
        if batches == killed_in_batch:
            raise Killed
        batches += 1
        decoded.extend(clip.id for clip in loaded)
        return inner(decoder, clips, loaded, *rest)

    monkeypatch.setattr(decoding, "_decode_batch", counted)
    return decoded


def test_killed_decoding_is_resumed(settings, tmp_path):
    out = tmp_path / "out" / "hypotheses.jsonl"
    journal = tmp_path / "out" / "hypotheses.jsonl.part"
    noisy = replace(settings, out=out, max_frames=40, snr=0.0)
    whole = decode_file(replace(noisy, out=None))
    with pytest.MonkeyPatch.context() as patch:
        first = count_decoded(patch, killed_in_batch=2)
        with pytest.raises(Killed):
            decode_file(noisy)
    lines = journal.read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines[1:]] == first
    half_written = "\n".join(lines)[:-9]
    journal.write_text(half_written)
    with pytest.MonkeyPatch.context() as patch:
        second = count_decoded(patch)
        resumed = decode_file(noisy)
    assert len(second) == CLIPS - len(first) + 1
    assert_same_evaluation(resumed, whole)
    assert os.listdir(tmp_path / "out") == ["hypotheses.jsonl"]


def assert_same_evaluation(one, other):
    """Fails unless two evaluations have the same texts and figures, in the same order."""
    assert len(one.hypotheses) == len(other.hypotheses)
    for first, second in zip(one.hypotheses, other.hypotheses, strict=True):
        assert (first.id, first.hypothesis) == (second.id, second.hypothesis)
        assert first.confidence == pytest.approx(second.confidence, rel=1e-4)
    for first, second in zip(one.results, other.results, strict=True):
        assert (first.wer, first.clips) == (second.wer, second.clips)
        assert first.audio_seconds == pytest.approx(second.audio_seconds)


def test_decoding_with_other_options_starts_anew(settings, tmp_path, monkeypatch):
    noisy = replace(settings, out=tmp_path / "out" / "hypotheses.jsonl", max_frames=40, snr=0.0)
    with pytest.MonkeyPatch.context() as patch:
        count_decoded(patch, killed_in_batch=2)
        with pytest.raises(Killed):
            decode_file(noisy)
    decoded = count_decoded(monkeypatch)
    decode_file(replace(noisy, snr=5.0))
    assert len(decoded) == CLIPS


def test_a_second_process_on_the_same_output_is_refused(settings, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with (
        FileLock(out / ".h.jsonl.lock"),
        pytest.raises(InputError, match=r"another process is working in .*out"),
    ):
        decode_file(replace(settings, out=out / "h.jsonl"))


@pytest.mark.parametrize("task", [Task.ASR, Task.VSR, Task.AVSR])
def test_merged_adapters_give_the_same_transcripts(settings, task):
    plain = decode_file(replace(settings, task=task))
    merged = decode_file(replace(settings, task=task, merge=True))
    assert texts(plain) == texts(merged)
