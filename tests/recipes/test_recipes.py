"""A copy of every recipe trains two steps on the toy corpus and shows its table."""

import importlib.util
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from omni_avsr.measure.compare import ClipScore
from omni_avsr.measure.verdicts import Claim, alike, better, no_worse
from omni_avsr.model import towers

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = [
    "omni_avsr_models",
    "llama_mtsk",
    "llama_avsr",
    "llama_mt",
    "noise",
    "task_weights",
    "sink_loss",
    "llm_sizes",
]


@pytest.fixture
def small(tower_folders, tmp_path, tmp_path_factory, monkeypatch):
    """Options of a small toy run, in which the tests' towers take the place of the tiny ones."""
    kinds = {"tiny-audio": "audio", "tiny-video": "video"}
    for name in ("tiny-audio", "tiny-video", "tiny-s", "tiny-m", "tiny-l"):
        kind = kinds.get(name, "llm")
        shutil.copytree(tower_folders[kind], tmp_path / "tiny" / name)
    monkeypatch.setattr(towers, "SHIPPED", tmp_path / "tiny")
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    # A model that was trained for two steps never ends a transcript
    monkeypatch.setattr("omni_avsr.model.omni.longest_transcript", lambda seconds: 4)
    return {
        "projector_width": 8,
        "lora_rank": 2,
        "lora_targets": ("q_proj",),
        "logger": "none",
        "valid_clips": 1,
        "toy_clips": 32,
        "feature_cache": tmp_path / "features",
        "max_frames": 400,
    }


def load(file: Path):
    """The module of a file, which belongs to no package."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def copy_of(tmp_path, monkeypatch):
    """Copies a recipe into an empty folder, where a user would edit it, and loads it there."""
    folder = tmp_path / "copies"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def copied(name: str):
        shutil.copy(RECIPES / f"{name}.py", folder / f"my_{name}.py")
        return load(folder / f"my_{name}.py")

    return copied


def run(recipe, *options: str):
    app = typer.Typer()
    app.command()(recipe.main)
    return CliRunner().invoke(app, [*options, "--steps", "2"])


def trained_runs(folder: Path) -> dict[Path, int]:
    """When each run below a folder was last written to."""
    return {run: run.stat().st_mtime_ns for run in folder.rglob("run.json")}


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_of_a_recipe_runs_on_the_toy_corpus(small, copy_of, name, tmp_path):
    recipe = copy_of(name)
    recipe.TOY = replace(recipe.TOY, **small)
    if name == "llama_avsr":
        recipe.PAPER = dict(list(recipe.PAPER.items())[-2:])
    out = tmp_path / "runs"
    result = run(recipe, "--toy", "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "WER" in result.output
    table = result.output.rpartition("Training")[2]
    assert "…" not in table  # it fits a terminal of 80 columns
    runs = trained_runs(out)
    assert runs
    assert run(recipe, "--toy", "--out", str(out)).exit_code == 0
    assert trained_runs(out) == runs  # what is trained is not trained again


@pytest.mark.parametrize("name", NAMES)
def test_the_published_settings_are_eight_epochs_on_the_label_files(name):
    settings = load(RECIPES / f"{name}.py").published(Path("labels"))
    corpus, hours = ("lrs2", 225) if name == "task_weights" else ("lrs3", 433)
    assert settings.data == Path(f"labels/{corpus}_train.csv")
    assert settings.test == Path(f"labels/{corpus}_test.csv")
    frames_per_step = settings.max_frames * settings.accumulate
    assert settings.max_steps * frames_per_step == 8 * hours * 3600 * 25


def test_every_recipe_is_tried():
    files = {path.stem for path in RECIPES.glob("*.py")}
    assert files - {"__init__", "claims"} == set(NAMES)


def test_recipes_run_as_files_beside_each_other(tmp_path):
    """A folder with all recipes, which Python searches first, hides no package."""
    shutil.copytree(RECIPES, tmp_path / "all")
    command = [sys.executable, str(tmp_path / "all" / "noise.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--toy" in done.stdout


@pytest.fixture
def claims(small, copy_of):
    """A copy of the recipe of the claims, with small models."""
    recipe = copy_of("claims")
    for name, settings in recipe.MODELS.items():
        recipe.MODELS[name] = replace(settings, **small)
    return recipe


def test_claims_are_judged_resumed_and_written(claims, tmp_path):
    page = tmp_path / "claims.md"
    out = tmp_path / "runs"
    options = ("--claims", "5,7", "--seeds", "1,2", "--out", str(out), "--write", str(page))
    result = run(claims, *options)
    assert result.exit_code == 0, result.output
    assert "5. AVSR withstands babble at 0 dB" in result.output
    first = page.read_text()
    assert first.count("- ASR (16) against AVSR (16,") == 2
    runs = trained_runs(out)
    assert len(runs) == 2  # both claims are of one model, of two seeds
    assert run(claims, *options).exit_code == 0
    assert trained_runs(out) == runs
    assert page.read_text() == first


@pytest.mark.parametrize("options", [("--seeds", "1,a"), ("--claims", "9"), ("--claims", "")])
def test_numbers_that_are_none_are_refused(claims, tmp_path, options):
    result = run(claims, "--out", str(tmp_path / "runs"), *options)
    assert result.exit_code == 2, result.output
    assert not (tmp_path / "runs").exists()


def test_claims_that_are_not_judged_stay_on_the_page(claims, tmp_path):
    page = tmp_path / "claims.md"
    page.write_text("head\n\n## 1. First\n\nkept\n\n## 2. Second\n\nreplaced\n")
    claim = Claim("New", ["a line"], ["hold"])
    claims.write_page(page, {2: claim}, claims.Lab(tmp_path, 3, [1]))
    text = page.read_text()
    assert text.startswith("# The papers' claims")
    assert "## 1. First\n\nkept\n\n## 2. New\n\n" in text
    assert "1 hold. Seeds 1, 3 steps.\n\n- a line\n" in text
    assert "replaced" not in text


def scores(*errors, words=10):
    """Scores of as many seeds, of 40 clips each."""
    return {
        seed: {str(i): ClipScore(e + (i % 2) * (e > 0), words) for i in range(40)}
        for seed, e in enumerate(errors)
    }


@pytest.mark.parametrize(
    ("judge", "first", "second", "verdict"),
    [
        (better, (2, 2, 2), (1, 1, 1), "1 hold"),
        (better, (2, 2, 2), (2, 2, 2), "1 do not hold"),
        (better, (2, 2, 2), (1, 1, 6), "1 undecided"),  # seeds differ
        (better, (2, 2), (1, 1), "1 undecided (too few seeds)"),
        (better, (2,), (1,), "1 undecided (too few seeds)"),
        (no_worse, (2, 2, 2), (2, 2, 2), "1 hold"),
        (no_worse, (2, 2, 2), (0, 0, 0), "1 hold"),
        (no_worse, (2, 2, 2), (4, 4, 4), "1 do not hold"),
        (no_worse, (2, 2), (4, 4), "1 undecided (too few seeds)"),
        (alike, (2, 2, 2), (0, 0, 0), "1 do not hold"),
        (alike, (2, 2, 2), (2, 2, 2), "1 hold"),
    ],
)
def test_a_verdict_is_by_the_interval(judge, first, second, verdict):
    claim = Claim("A claim")
    judge(claim, "some", scores(*first), scores(*second))
    assert claim.verdict == verdict
