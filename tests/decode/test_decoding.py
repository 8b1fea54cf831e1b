"""Decoding a file gives the same figures on every run, whatever the batches."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from omni_avsr import OmniAVSRConfig
from omni_avsr.cli.app import app
from omni_avsr.data import manifest
from omni_avsr.decode import decode as decoding
from omni_avsr.decode.decode import load_decoder
from omni_avsr.errors import InputError
from omni_avsr.files import as_lines, read_rows
from omni_avsr.measure.evaluate import decode_file
from omni_avsr.model.beams import Generated, Search
from omni_avsr.run import finish_run, start_run
from omni_avsr.settings import CheckpointOptions, DecodeSettings, EvaluateSettings
from omni_avsr.tasks import CLEAN, SAMPLES_PER_VIDEO_FRAME, Condition, Route, Task
from tests.support.corpus import write_split
from tests.support.interruptions import Killed
from tests.support.towers import clips as random_clips

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
    assert load_decoder(CheckpointOptions()).name == "runs/one/model"
    assert (
        load_decoder(CheckpointOptions(checkpoint="runs/unfinished")).name
        == "runs/unfinished/model"
    )


def test_without_a_finished_run_the_shipped_model_is_decoded(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "unfinished", checkpoint, finished=False)
    assert load_decoder(CheckpointOptions()).name == "tiny"


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


def odd_labels(tmp_path, **changes):
    """A label file of the clips in our own format, with changes to each row but the first."""
    file = tmp_path / "odd.jsonl"
    manifest.write(manifest.read(tmp_path / "labels/test.csv"), file)
    first, *others = read_rows(file)
    file.write_text(as_lines([first, *({**row, **changes} for row in others[:1])]))
    return file


def run(settings, *arguments):
    """What the command prints."""
    given = [
        *("--checkpoint", settings.checkpoint),
        *("--data", str(settings.data)),
        *("--max-new-tokens", "4"),
        *("--task", "asr"),
    ]
    return CliRunner().invoke(app, ["decode", *given, *arguments])


@pytest.mark.parametrize("name", ["[/dim]", "a[bold]b", ":smile:", "[/]", "back\\"])
def test_ids_are_shown_as_they_are(settings, tmp_path, name):
    result = run(replace(settings, data=odd_labels(tmp_path, id=name, text="x")))
    assert result.exit_code == 0, result.output
    assert f"\n{name}\n" in result.stdout


def test_folders_with_markup_in_their_names_are_shown_as_they_are(
    settings, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")  # shows the bar as in a terminal
    monkeypatch.setenv("COLUMNS", "200")
    model, noise = Path("[/b]"), Path("sounds[/i]")
    shutil.copytree(checkpoint, model)
    noise.mkdir(parents=True)
    shutil.copy("corpus/test/000.wav", noise / "noise.wav")
    chosen = replace(settings, checkpoint=str(model))
    result = run(chosen, "--snr", "0", "--noise", str(noise))
    assert result.exit_code == 0, result.output
    assert "[/b]" in result.stdout
    assert "sounds[/i]" in result.stderr


def test_clips_without_a_text_are_not_scored(settings, tmp_path):
    result = run(replace(settings, data=odd_labels(tmp_path, text="")))
    assert ", 1 clips, 1 more without a text, " in result.stdout


def test_a_file_without_texts_is_transcribed_and_not_scored(settings, tmp_path):
    lines = settings.data.read_text().splitlines()
    settings.data.write_text("".join(line.rsplit(",", 1)[0] + ",\n" for line in lines))
    (tmp_path / "corpus/test/003.wav").unlink()
    (tmp_path / "corpus/test/003.mp4").unlink()
    out = tmp_path / "hypotheses.jsonl"
    result = run(settings, "--out", str(out))
    assert "6 clips were transcribed; as none has a text, nothing can be scored" in result.stdout
    assert result.exit_code == 1  # for the clip that could not be read
    assert len(read_rows(out)) == 6


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_loaded(
    settings, tmp_path, monkeypatch
):
    monkeypatch.setattr("omni_avsr.measure.evaluate.load_decoder", None)
    labels = settings.data.read_text()
    for out, message in (
        (tmp_path, "is a folder: name a file"),
        (settings.data, "is the label file"),
        (settings.data.parent / "../labels/test.csv", "is the label file"),
        (settings.data / "below.jsonl", "test.csv is a file, a folder is needed"),
    ):
        with pytest.raises(InputError, match=message):
            decode_file(replace(settings, out=out))
    assert settings.data.read_text() == labels


def test_transcripts_that_were_cut_are_counted(settings, tmp_path):
    out = tmp_path / "hypotheses.jsonl"
    (short,) = decode_file(replace(settings, max_new_tokens=1, out=out)).results
    assert short.cut == CLIPS
    assert all(row["cut"] for row in read_rows(out))
    assert "7 transcripts cut at their limit" in run(settings, "--max-new-tokens", "1").stdout


def test_transcripts_without_a_limit_do_not_depend_on_the_batches(settings):
    unlimited = replace(settings, max_new_tokens=None)
    assert texts(decode_file(unlimited)) == texts(decode_file(replace(unlimited, max_frames=20)))


def test_a_clip_that_is_too_long_for_the_audio_encoder_is_left_out_and_named(
    settings, monkeypatch, caplog
):
    lengths = sorted(clip.frames for clip in manifest.read(settings.data))
    longest = lengths[-2] * SAMPLES_PER_VIDEO_FRAME
    monkeypatch.setattr(OmniAVSRConfig, "longest_sound", longest)
    (result,) = decode_file(replace(settings, task=Task.ASR)).results
    left_out = sum(frames > lengths[-2] for frames in lengths)
    assert (result.clips, result.unreadable) == (CLIPS - left_out, left_out) == (6, 1)
    assert "the audio encoder takes" in caplog.text
    (lips,) = decode_file(replace(settings, task=Task.VSR)).results
    assert lips.clips == CLIPS


def test_damaged_weights_are_told_from_silence(settings, checkpoint, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(checkpoint, damaged)
    weights = load_file(damaged / "model.safetensors")
    for name, weight in weights.items():
        if name.startswith("markers."):
            weight.fill_(float("nan"))
    save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="damaged computes NaN or infinity"):
        decode_file(replace(settings, checkpoint=str(damaged)))


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "mps:7", "gpu"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(device, monkeypatch):
    monkeypatch.setattr(decoding, "OmniAVSR", None)
    with pytest.raises(InputError, match=rf"no device '{device}' here; available: auto, cpu"):
        load_decoder(CheckpointOptions(checkpoint="tiny", device=device))


def test_a_tower_that_has_moved_can_be_named(settings, checkpoint, tower_folders, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    config["towers"]["video"]["name"] = "/gone/video"
    (folder / "config.json").write_text(json.dumps(config))
    moved = replace(settings, checkpoint=str(folder))
    with pytest.raises(InputError, match="--tower video=FOLDER"):
        decode_file(moved)
    tower = f"video={tower_folders['video']}"
    assert texts(decode_file(replace(moved, tower=tower))) == texts(decode_file(settings))
    shown = CliRunner().invoke(app, ["info", str(folder), "--tower", tower])
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("tower", ["video", "mouth=x", "video=", "=x"])
def test_a_wrong_tower_is_refused(tower):
    with pytest.raises(InputError, match="is not KIND=FOLDER, where KIND is audio, video, llm"):
        DecodeSettings(tower=f"llm=x,{tower}")
    with pytest.raises(InputError, match="is not KIND=FOLDER"):
        EvaluateSettings(tower=tower)


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
    """Kills decoding in this batch; returns the ids of the clips that it has begun until then."""
    inner = decoding._RouteStream.add
    batches = 0
    begun = []

    def counted(self, clips, loaded, *rest):
        nonlocal batches
        if batches == killed_in_batch:
            raise Killed
        batches += 1
        begun.extend(clips[index].id for index in loaded.clips)
        return inner(self, clips, loaded, *rest)

    monkeypatch.setattr(decoding._RouteStream, "add", counted)
    return begun


def test_what_a_transcript_repeats_at_its_limit_is_kept_once():
    decoder = load_decoder(CheckpointOptions(checkpoint="tiny"))
    said, repeated = decoder.processor.tokenizer(["set blue", "now"], add_special_tokens=False)[
        "input_ids"
    ]
    ids = torch.tensor([said + 5 * repeated])
    found = Generated(ids, torch.zeros(1), torch.tensor([True]), torch.zeros(ids.shape))
    (decoded,) = decoder.decoded(found)
    assert decoded.text == "set blue now"
    assert decoded.is_cut


def test_clips_that_are_done_make_room_for_those_of_the_next_batch(settings, monkeypatch):
    decoder = load_decoder(settings)
    route = decoder.model.config.choose("avsr")
    batches = []
    for lengths in ((50, 6, 8, 5), (7, 40, 6, 9)):
        media = decoder.processor.media(**random_clips(*lengths))
        batches.append(decoder.model.encode(media))
    expected = []
    for batch in batches:
        expected += decoder.transcribe(batch, route, beams=2, max_new_tokens=None)
    joined = []
    join = Search.join

    def counted(self, other):
        joined.append(other.clips)
        join(self, other)

    monkeypatch.setattr(Search, "join", counted)
    stream = decoding.Stream(decoder, route, beams=2, max_new_tokens=None)
    found = {}
    for batch in batches:
        found.update(stream.add(batch))
    assert joined  # while the long clip of the first batch is decoded
    assert stream.search is not None
    found.update(stream.finish())
    assert stream.search is None  # with its cache
    assert [found[clip].text for clip in range(8)] == [one.text for one in expected]


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
    kept = [json.loads(line)["id"] for line in lines[1:]]
    assert kept
    assert set(kept) <= set(first)  # the others were not done yet
    half_written = "\n".join(lines)[:-9]
    journal.write_text(half_written)
    with pytest.MonkeyPatch.context() as patch:
        second = count_decoded(patch)
        resumed = decode_file(noisy)
    assert len(second) == CLIPS - len(kept) + 1
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


@pytest.mark.parametrize("shards", [["3/3", "1/3", "2/3"], ["2/9", "1/2", "9/9"]])
def test_shards_in_any_order_give_the_file_of_one(settings, tmp_path, shards):
    noisy = replace(settings, snr=0.0, out=tmp_path / "whole.jsonl")
    decode_file(noisy)
    out = tmp_path / "parts.jsonl"
    for shard in shards:
        decode_file(replace(noisy, shard=shard, out=out))
        assert not out.exists()
    decode_file(replace(noisy, out=out))  # what is missing is decoded now
    assert out.read_text() == noisy.out.read_text()
    assert [file.name for file in tmp_path.glob(f"{out.name}*")] == [out.name]


def test_what_shards_have_decoded_is_not_decoded_again(settings, tmp_path, monkeypatch):
    whole = replace(settings, out=tmp_path / "hypotheses.jsonl")
    for shard in ("1/2", "2/2"):
        decode_file(replace(whole, shard=shard))
    monkeypatch.setattr(decoding, "_encode", None)  # it would fail
    assert len(decode_file(whole).hypotheses) == CLIPS


@pytest.mark.parametrize("options", [{"shard": "1/2"}, {"shard": "3/2", "out": "h.jsonl"}])
def test_a_shard_that_cannot_be_is_refused(options):
    with pytest.raises(InputError, match="shard"):
        DecodeSettings(**options)
