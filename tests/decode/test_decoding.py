"""Decoding a file: the same figure on every run, whatever the batches."""

import json
from dataclasses import replace

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from omni_avsr.cli.app import app
from omni_avsr.decode import decode as decoding
from omni_avsr.decode.decode import decode_file, load, make_noise
from omni_avsr.settings import DecodeSettings
from tests.support.corpus import write_split


@pytest.fixture
def settings(make, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path / "runs/one/model")
    processor.save_pretrained(tmp_path / "runs/one/model")
    file = write_split(tmp_path, "test", 7, 3)
    return DecodeSettings(checkpoint=str(tmp_path / "runs/one"), data=str(file), max_new_tokens=8)


def texts(settings):
    decoded, row, _ = decode_file(settings)
    return {h.id: h.hypothesis for h in decoded.hypotheses}, row


@pytest.mark.parametrize("noise", [{}, {"snr": 0.0}, {"snr": -5.0, "noise": "white"}])
def test_transcripts_do_not_depend_on_the_batches(settings, noise):
    wide, row = texts(replace(settings, **noise))
    narrow, other = texts(replace(settings, **noise, max_frames=20))
    assert wide == narrow
    assert (row["wer"], row["snr"], row["noise"]) == (other["wer"], noise.get("snr"), row["noise"])
    assert row["clips"] == 7


def test_noise_changes_what_is_heard_and_not_what_is_seen(settings):
    for task, changes in (("asr", True), ("vsr", False)):
        clean, noisy = (
            [h.confidence for h in decode_file(replace(settings, task=task, snr=snr))[0].hypotheses]
            for snr in (None, 0.0)
        )
        assert (clean != noisy) == changes


def test_the_newest_run_is_decoded_unless_another_is_named(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(None)[2] == "runs/one/model"


def test_the_command_writes_hypotheses_and_names_what_failed(settings, tmp_path):
    (tmp_path / "corpus/test/003.wav").unlink()
    arguments = ["decode", "--checkpoint", settings.checkpoint, "--data", settings.data, "--task", "avsr"]
    result = CliRunner().invoke(app, [*arguments, "--max-new-tokens", "8", "--out", str(tmp_path / "hypotheses.jsonl")])
    assert result.exit_code == 1
    assert "AVSR at audio rate 4, video rate 2: WER" in result.stdout
    assert "1 clips could not be read" in result.stdout
    rows = [json.loads(line) for line in (tmp_path / "hypotheses.jsonl").read_text().splitlines()]
    assert len(rows) == 6
    assert {
        "id",
        "reference",
        "hypothesis",
        "task",
        "audio_rate",
        "video_rate",
        "confidence",
        "errors",
        "words",
    } <= rows[0].keys()
    assert all(0 < row["confidence"] <= 1 for row in rows)


def test_unknown_noise_and_files_without_readable_clips_are_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="unknown noise 'pink'; available: babble, white"):
        make_noise("pink", 0.0, [], 1)
    for path in (tmp_path / "corpus/test").glob("*.mp4"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 7 clips of .* could be read"):
        decode_file(settings)


class Killed(BaseException):
    """Nothing handles it."""


def kill_in_batch(monkeypatch, number):
    """Ends the process, as it were, in the middle of this batch; says which clips were decoded."""
    inner, decoded = decoding._decode_batch, []

    def counted(model, processor, batch, *rest):
        if len(decoded) == number:
            raise Killed
        decoded.append([clip.id for clip, _ in batch])
        return inner(model, processor, batch, *rest)

    monkeypatch.setattr(decoding, "_decode_batch", counted)
    return decoded


def test_decoding_that_is_cut_off_goes_on(settings, tmp_path, monkeypatch):
    out = tmp_path / "out" / "hypotheses.jsonl"
    cut = replace(settings, out=str(out), max_frames=40, snr=0.0)
    whole, row, _ = decode_file(replace(cut, out=None))
    first = kill_in_batch(monkeypatch, 2)
    with pytest.raises(Killed):
        decode_file(cut)
    lines = (tmp_path / "out" / "hypotheses.jsonl.part").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines[1:]} == {name for names in first for name in names}
    (tmp_path / "out" / "hypotheses.jsonl.part").write_text("\n".join(lines)[:-9])  # the last line is cut off
    monkeypatch.undo()
    second = kill_in_batch(monkeypatch, None)
    decoded, again, _ = decode_file(cut)
    assert [(h.id, h.hypothesis) for h in decoded.hypotheses] == [(h.id, h.hypothesis) for h in whole.hypotheses]
    assert [h.confidence for h in decoded.hypotheses] == pytest.approx(
        [h.confidence for h in whole.hypotheses], rel=1e-4
    )
    assert (again["wer"], again["clips"]) == (row["wer"], row["clips"])
    assert again["audio_seconds"] == pytest.approx(row["audio_seconds"])
    assert len({name for names in second for name in names}) == 7 - (len(lines) - 1) + 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hypotheses.jsonl"]
    monkeypatch.undo()
    other = kill_in_batch(monkeypatch, None)
    decode_file(replace(cut, snr=5.0))
    assert sum(map(len, other)) == 7  # other options begin anew


def test_a_second_process_on_the_same_output_is_refused(settings, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with FileLock(out / ".h.jsonl.lock"), pytest.raises(ValueError, match=r"another process is at work in .*out"):
        decode_file(replace(settings, out=str(out / "h.jsonl")))


@pytest.mark.parametrize("task", ["asr", "avsr"])
def test_merged_adapters_say_the_same(settings, task):
    plain, merged = (texts(replace(settings, task=task, merge=merge))[0] for merge in (False, True))
    assert plain == merged
