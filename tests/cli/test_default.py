"""The commands without options: the toy corpus, and the towers in the package's folder, here the tests' own."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from omni_avsr import OmniAVSR
from omni_avsr.cli.app import app
from omni_avsr.model import towers


@pytest.fixture
def shipped(make, tower_folders, tmp_path, tmp_path_factory, monkeypatch):
    """Towers and a model where the package has its own, a cache that the tests share, and an empty folder."""
    folder = tmp_path / "tiny"
    monkeypatch.setattr(towers, "SHIPPED", folder)
    for name, kind in {"tiny-audio": "audio", "tiny-video": "video", "tiny-m": "llm"}.items():
        shutil.copytree(tower_folders[kind], folder / name)
    model, processor = make(audio="tiny-audio", video="tiny-video", llm="tiny-m")
    model.save_pretrained(folder / "omni-avsr-st")
    processor.save_pretrained(folder / "omni-avsr-st")
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, [*arguments, "--toy-clips", "32"])
    assert result.exit_code == 0, result.output
    return result.output


def test_decode_takes_the_shipped_model_until_there_is_a_run(shipped, tmp_path):
    assert "checkpoint tiny" in run("decode", "--task", "vsr", "--video-rate", "5", "--max-new-tokens", "4")
    run("train", "--tasks", "asr,vsr,avsr", "--max-steps", "2")
    assert json.loads((tmp_path / "empty/runs/train/model/config.json").read_text())["tasks"] == ["asr", "vsr", "avsr"]
    output = run("decode", "--task", "vsr", "--video-rate", "5", "--max-new-tokens", "4")
    assert "VSR at video rate 5: WER" in output
    assert "checkpoint runs/train/model" in output


def test_the_demo_measures_every_task_and_rate_and_writes_a_report(shipped, tmp_path):
    output = run("demo", "--max-steps", "2")
    assert "omni-avsr decode --task vsr --video-rate 5" in output
    rows = json.loads((tmp_path / "empty/runs/demo/results.json").read_text())["rows"]
    clean = {(row["task"], row["audio_rate"], row["video_rate"]) for row in rows if row["snr"] is None}
    assert len(clean) == 8
    assert {row["task"] for row in rows if row["snr"] == 0} == {"asr", "avsr"}
    assert "babble 0 dB" in (tmp_path / "empty/runs/demo/report.html").read_text()


def test_a_model_on_shipped_towers_loads_wherever_the_package_lies(shipped, tmp_path, monkeypatch):
    OmniAVSR.from_pretrained("tiny").save_pretrained(tmp_path / "copy")
    shutil.move(shipped, tmp_path / "moved")
    monkeypatch.setattr(towers, "SHIPPED", tmp_path / "moved")
    assert OmniAVSR.from_pretrained(tmp_path / "copy").config.towers["llm"]["name"] == "tiny-m"


def test_a_tower_that_is_nowhere_is_named(shipped):
    with pytest.raises(ValueError, match="no llm tower 'nowhere': no folder, none that ships, and the hub says"):
        OmniAVSR.from_towers(audio="tiny-audio", llm="nowhere", tasks=["asr"])


def test_a_tower_that_is_not_shipped_is_named(shipped):
    with pytest.raises(ValueError, match="tiny-l is not in this installation"):
        OmniAVSR.from_towers(audio="tiny-audio", video="tiny-video", llm="tiny-l")
