"""The command transcribe: what it finds before torch, what it says, and how it ends."""

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from omni_avsr.choice import is_toy
from omni_avsr.cli import transcribe
from omni_avsr.cli.app import app
from omni_avsr.media import streams

PROBE = """
import sys
from typer.testing import CliRunner
from omni_avsr.cli.app import app
result = CliRunner().invoke(app, ["transcribe", *sys.argv[1:]])
found = {"torch", "transformers"} & set(sys.modules)
print(result.exit_code, found, result.output, result.exception)
"""
HEAVY = ("lightning", "matplotlib", "tensorboard")


@pytest.fixture
def sound(tmp_path):
    samples = np.random.default_rng(0).normal(0, 3000, 16_000).astype(np.int16)
    streams.write_audio(tmp_path / "a [b] c.wav", samples)
    return str(tmp_path / "a [b] c.wav")


def invoke(*arguments):
    return CliRunner().invoke(app, ["transcribe", *map(str, arguments)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.mp4"], "missing.mp4 does not exist"),
        (["https://example.org/a.mp4"], "https://example.org/a.mp4 is a URL: download it first"),
        (["empty.mp4"], "empty.mp4 is empty"),
        (["text.mp4"], "text.mp4 cannot be read"),
        (["folder"], "folder holds neither videos nor sounds"),
        (["good.wav", "--out", "good.wav"], "good.wav is named as a video or sound"),
        (["good.wav", "--detector", "text.mp4"], "text.mp4 is no face detector"),
    ],
)
def test_mistakes_are_found_without_torch(sound, tmp_path, arguments, message):
    (tmp_path / "good.wav").symlink_to(sound)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no media")
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-c", PROBE, *arguments]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    assert message in found
    assert " set() " in found


def test_transcribing_imports_nothing_that_only_training_and_reports_need(sound):
    probe = PROBE.replace('{"torch", "transformers"}', str(set(HEAVY)))
    command = [sys.executable, "-c", probe, sound, "--checkpoint", "tiny", "--beams", "1"]
    found = subprocess.run(command, capture_output=True, text=True).stdout
    assert found.startswith("0 set() ")


def test_the_model_is_named_and_the_toy_is_called_one(sound, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke(sound)
    assert result.exit_code == 0
    assert "model: tiny\n" in result.stderr
    assert "toy world" in result.stderr
    assert "model" not in result.stdout


def test_a_model_of_other_towers_is_no_toy(sound, make, tmp_path):
    model, processor = make()
    model.save_pretrained(tmp_path / "m")
    processor.save_pretrained(tmp_path / "m")
    assert not is_toy(str(tmp_path / "m"))
    assert "toy world" not in invoke(sound, "--checkpoint", tmp_path / "m").stderr


def test_a_model_on_the_small_towers_is_a_toy(tmp_path):
    (tmp_path / "config.json").write_text('{"towers": {"audio": {"name": "tiny-audio"}}}')
    assert is_toy(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    assert not is_toy(str(tmp_path))


def test_cut_segments_are_counted(sound):
    result = invoke(sound, "--checkpoint", "tiny", "--max-new-tokens", "1")
    assert "1 of 1 segments are cut" in result.stderr
    assert "--max-new-tokens" in result.stderr


def test_of_several_files_a_bad_one_is_told_first(sound, tmp_path):
    result = invoke(sound, tmp_path / "gone.wav", "--checkpoint", "tiny")
    assert result.exit_code == 1
    assert result.stderr.index("gone.wav does not exist") < result.stderr.index("model: tiny")


def test_a_note_is_said_once(monkeypatch, tmp_path, capsys):
    from omni_avsr.decode.outputs import Writer
    from omni_avsr.decode.transcripts import Transcript, Update

    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    updates = [Update(Transcript(file, notes=["only heard"]), None) for file in files]
    writer = Writer(["text"], None, files, several=True)
    assert transcribe._write(updates, writer, dict.fromkeys(files, 1.0)) == []
    assert capsys.readouterr().err.count("only heard") == 1


def test_a_name_with_brackets_and_spaces_is_written_as_it_is(sound, tmp_path):
    out = tmp_path / "out [x]"
    assert invoke(sound, "--checkpoint", "tiny", "--format", "srt,txt", "--out", out).exit_code == 1
    result = invoke(sound, "--checkpoint", "tiny", "--format", "srt,text", "--out", out)
    assert result.exit_code == 0
    assert sorted(path.name for path in out.iterdir()) == ["a [b] c.srt", "a [b] c.txt"]
