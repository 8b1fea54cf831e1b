"""Every recipe of a published result trains two steps on the toy corpus and shows its table."""

import importlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from omni_avsr.model import towers

NAMES = ["omni_avsr", "llama_mtsk", "llama_avsr", "llama_mt", "noise", "task_weights", "sink_loss", "llm_sizes"]
SHARED = {"__init__", "common", "claims", "verdicts"}


@pytest.fixture
def toy(tower_folders, tmp_path, tmp_path_factory, monkeypatch):
    """The toy setting of the recipes, on the tests' towers and few clips."""
    from recipes import common

    for name in ("tiny-audio", "tiny-video", "tiny-s", "tiny-m", "tiny-l"):
        kind = {"tiny-audio": "audio", "tiny-video": "video"}.get(name, "llm")
        shutil.copytree(tower_folders[kind], tmp_path / "tiny" / name)
    monkeypatch.setattr(towers, "SHIPPED", tmp_path / "tiny")
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    small = {"projector_width": 8, "lora_rank": 2, "lora_targets": "q_proj", "logger": "none", "valid_clips": 1}
    monkeypatch.setattr(
        common, "TOY", replace(common.TOY, **small, toy_clips=32, feature_cache=str(tmp_path / "f"), max_frames=400)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_runs_on_the_toy_corpus(toy, name, tmp_path):
    recipe = importlib.import_module(f"recipes.{name}")
    if name in ("llama_avsr", "llama_mt"):
        recipe.PAPER = dict(list(recipe.PAPER.items())[-2:]) if name == "llama_avsr" else recipe.PAPER
    app = typer.Typer()
    app.command()(recipe.main)
    result = CliRunner().invoke(app, ["--toy", "--steps", "2", "--out", str(tmp_path / "runs")])
    assert result.exit_code == 0, result.output
    assert "WER" in result.output
    assert "…" not in result.output.rpartition("Epoch")[2]  # its table fits a terminal of 80 columns
    runs = list((tmp_path / "runs").rglob("run.json"))
    assert runs
    before = {run: run.stat().st_mtime_ns for run in runs}
    again = CliRunner().invoke(app, ["--toy", "--steps", "2", "--out", str(tmp_path / "runs")])
    assert again.exit_code == 0
    assert {run: run.stat().st_mtime_ns for run in runs} == before  # what is trained is not trained again


def test_every_script_of_a_result_is_tried():
    names = {path.stem for path in Path(importlib.import_module("recipes").__file__).parent.glob("*.py")}
    assert {name for name in names - SHARED if not name.startswith("tiny_")} == set(NAMES)


def test_claims_are_judged_resumed_and_written(toy, tmp_path):
    from recipes import claims

    app = typer.Typer()
    app.command()(claims.main)
    page = tmp_path / "claims.md"
    small = ["--steps", "2", "--seeds", "1,2", "--out", str(tmp_path / "runs"), "--write", str(page)]
    result = CliRunner().invoke(app, ["--claims", "5,7", *small])
    assert result.exit_code == 0, result.output
    assert "5. AVSR withstands babble at 0 dB" in result.output
    first = page.read_text()
    assert first.count("- ASR (16) against AVSR (16,") == 2
    runs = list((tmp_path / "runs").rglob("run.json"))
    assert len(runs) == 2  # both claims are of one model, of two seeds
    before = [run.stat().st_mtime_ns for run in runs]
    assert CliRunner().invoke(app, ["--claims", "5,7", *small]).exit_code == 0
    assert [run.stat().st_mtime_ns for run in runs] == before
    assert page.read_text().splitlines()[4:] == first.splitlines()[4:]


def test_every_model_of_the_claims_can_be_trained():
    from recipes import claims, common

    for name, changes in claims.MODELS.items():
        replace(common.TOY, **changes)
        assert len(changes) > 0, name


def clips(*errors, words=10):
    """Scores of as many seeds, of 40 clips each."""
    return {seed: {str(i): (e + (i % 2) * (e > 0), words) for i in range(40)} for seed, e in enumerate(errors)}


@pytest.mark.parametrize(
    ("how", "first", "second", "verdict"),
    [
        ("better", (2, 2), (1, 1), "1 hold"),
        ("better", (2, 2), (2, 2), "1 do not hold"),
        ("better", (2, 2, 2), (1, 1, 6), "1 undecided"),  # seeds differ
        ("no_worse", (2, 2), (2, 2), "1 hold"),
        ("no_worse", (2, 2), (0, 0), "1 hold"),
        ("no_worse", (2, 2), (4, 4), "1 do not hold"),
        ("alike", (2, 2), (0, 0), "1 do not hold"),
        ("alike", (2, 2), (2, 2), "1 hold"),
    ],
)
def test_a_verdict_is_by_the_interval(how, first, second, verdict):
    from recipes import verdicts

    claim = verdicts.Claim("A claim")
    getattr(verdicts, how)(claim, "some", clips(*first), clips(*second))
    assert claim.verdict == verdict


def test_every_claim_runs(toy, tmp_path):
    from recipes import claims

    lab = claims.Lab(tmp_path, 1, [1])
    found = [claim(lab) for claim in claims.CLAIMS]
    assert len(found) == 8
    assert all(claim.lines and claim.verdicts for claim in found)
    assert len(list(tmp_path.rglob("run.json"))) == len(claims.MODELS)
