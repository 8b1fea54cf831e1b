"""The commands without options: the toy corpus, and the package's towers, here the tests' own."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from omni_avsr import OmniAVSR
from omni_avsr.cli.app import app
from omni_avsr.model import towers
from tests.support.runs import assert_same

TOWERS = {"tiny-audio": "audio", "tiny-video": "video", "tiny-m": "llm"}


@pytest.fixture
def shipped(make, tower_folders, tmp_path, tmp_path_factory, monkeypatch):
    """Towers and a model in the package's place, a cache for all tests, and an empty folder."""
    folder = tmp_path / "tiny"
    monkeypatch.setattr(towers, "SHIPPED", folder)
    for name, kind in TOWERS.items():
        shutil.copytree(tower_folders[kind], folder / name)
    model, processor = make(audio="tiny-audio", video="tiny-video", llm="tiny-m")
    model.save_pretrained(folder / "omni-avsr-st")
    processor.save_pretrained(folder / "omni-avsr-st")
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(cache))
    # A model that was trained for two steps never ends a transcript
    monkeypatch.setattr("omni_avsr.model.omni.longest_transcript", lambda seconds: 4)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, [*arguments, "--toy-clips", "32"])
    assert result.exit_code == 0, result.output
    return result.output


def test_decode_takes_the_shipped_model_until_there_is_a_run(shipped, tmp_path):
    decode = ["decode", "--task", "vsr", "--video-rate", "5", "--max-new-tokens", "4"]
    assert "checkpoint tiny" in run(*decode)
    run("train", "--tasks", "asr,vsr,avsr", "--max-steps", "2")
    config = json.loads((tmp_path / "empty/runs/train/model/config.json").read_text())
    assert config["tasks"] == ["asr", "vsr", "avsr"]
    output = run(*decode)
    assert "VSR (5): WER" in output
    assert "checkpoint runs/train/model" in output


def test_a_runs_record_repeats_the_run(shipped, tmp_path):
    run("train", "--tasks", "asr,avsr", "--max-steps", "2", "--seed", "5")
    runs = tmp_path / "empty" / "runs"
    run("train", "--config", str(runs / "train/run.json"), "--out", "runs/again")
    assert_same(runs / "train", runs / "again")


def test_the_demo_measures_every_task_and_rate_and_writes_a_report(shipped, tmp_path):
    output = run("demo", "--max-steps", "2")
    assert "omni-avsr decode --task vsr --video-rate 5" in output
    folder = tmp_path / "empty/runs/demo"
    rows = json.loads((folder / "results.json").read_text())["rows"]
    clean = [row for row in rows if row["snr"] is None]
    assert len({(row["task"], row["audio_rate"], row["video_rate"]) for row in clean}) == 8
    assert {row["task"] for row in rows if row["snr"] == 0} == {"asr", "avsr"}
    assert "babble 0 dB" in (folder / "report.html").read_text()


def test_a_model_on_shipped_towers_loads_wherever_the_package_is(shipped, tmp_path, monkeypatch):
    OmniAVSR.from_pretrained("tiny").save_pretrained(tmp_path / "copy")
    shutil.move(shipped, tmp_path / "moved")
    monkeypatch.setattr(towers, "SHIPPED", tmp_path / "moved")
    model = OmniAVSR.from_pretrained(tmp_path / "copy")
    assert model.config.towers["llm"]["name"] == "tiny-m"


def test_a_tower_that_is_nowhere_is_named(shipped):
    message = "no llm tower 'nowhere': .*, and the hub says"
    with pytest.raises(ValueError, match=message):
        OmniAVSR.from_towers(audio="tiny-audio", llm="nowhere", tasks=["asr"])


def test_a_tower_that_is_not_shipped_is_named(shipped):
    with pytest.raises(ValueError, match="tiny-l is not in this installation"):
        OmniAVSR.from_towers(audio="tiny-audio", video="tiny-video", llm="tiny-l")
