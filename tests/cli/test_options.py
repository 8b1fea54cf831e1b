"""Settings classes as options, and options from a run.json or a TOML file."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from omni_avsr.cli.options import as_typed, read_config, takes
from omni_avsr.errors import InputError
from omni_avsr.run import start_run
from omni_avsr.settings import (
    CheckSettings,
    DecodeSettings,
    DemoSettings,
    EvaluateSettings,
    PlanSettings,
    PrepareSettings,
    Settings,
    ToySettings,
    TrainSettings,
    TranscribeSettings,
)
from omni_avsr.settings.base import flag, option
from omni_avsr.tasks import Task

EVERY = [
    CheckSettings,
    DecodeSettings,
    DemoSettings,
    EvaluateSettings,
    PlanSettings,
    PrepareSettings,
    ToySettings,
    TrainSettings,
    TranscribeSettings,
]
WIDE = {"COLUMNS": "200"}


@dataclass(frozen=True)
class SpeedOptions(Settings):
    """A group of options."""

    fast: bool = option(False, "Whether to hurry.")
    careful: bool = option(True, "Whether to look.")


@dataclass(frozen=True)
class SmallSettings(SpeedOptions):
    """The options of a small command."""

    rates: tuple[int, ...] | None = option(None, "Rates.")
    targets: tuple[str, ...] = option(("q_proj", "v_proj"), "Layers.")
    weights: tuple[float, ...] = option((1.0, 1.5), "Weights.")
    task: Task = option(Task.AVSR, "Task.")
    folder: Path = option(Path("runs/x"), "Folder.")
    count: int = option(3, "How many.")


def run(settings, *arguments):
    """The settings that a command gets, and what it prints."""
    taken = []
    app = typer.Typer(rich_markup_mode="markdown", pretty_exceptions_enable=False)
    app.command()(takes(settings)(lambda given: taken.append(given)))
    result = CliRunner().invoke(app, list(map(str, arguments)), env=WIDE)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return (taken or [None])[0], result.output


@pytest.mark.parametrize("settings", EVERY)
def test_without_options_a_command_gets_the_defaults(settings):
    assert run(settings)[0] == settings()


def test_every_kind_of_value_is_parsed():
    typed = ["--rates", "4,16", "--targets", "k_proj", "--weights", "2,.5", "--task", "vsr"]
    given, _ = run(SmallSettings, *typed, "--folder", "a/b", "--fast", "--no-careful")
    assert given == SmallSettings(
        rates=(4, 16),
        targets=("k_proj",),
        weights=(2.0, 0.5),
        task=Task.VSR,
        folder=Path("a/b"),
        fast=True,
        careful=False,
    )


def test_a_value_that_cannot_be_parsed_is_an_input_error():
    with pytest.raises(InputError, match="rates '4,b' is not a list of whole numbers"):
        run(SmallSettings, "--rates", "4,b")
    with pytest.raises(InputError, match="unknown task 'tts'; available: asr, vsr, avsr"):
        run(SmallSettings, "--task", "tts")


def test_help_shows_forms_defaults_and_a_panel_per_group():
    _, output = run(SmallSettings, "--help")
    for shown in ("INT,INT", "FLOAT,FLOAT", "TEXT,TEXT", "TASK", "PATH"):
        assert shown in output
    for shown in ("q_proj,v_proj", "1,1.5", "avsr", "runs/x", "3", "--careful"):
        assert f"[default: {shown}]" in output
    assert output.index("─ Options ─") < output.index("─ Speed options ─") < output.index("--fast")
    assert "[default: --fast]" not in output


def test_the_options_of_train_are_in_panels():
    _, output = run(TrainSettings, "--help")
    for group in ("Method", "Model", "Label", "Toy", "Optimizer", "Run"):
        assert f"─ {group} options ─" in output


@pytest.mark.parametrize("settings", EVERY)
def test_a_default_as_it_is_shown_can_be_typed(settings):
    given = []
    for own in settings.__dataclass_fields__.values():
        if own.default is not None and not isinstance(own.default, bool):
            given += [flag(own), as_typed(own.default)]
    assert run(settings, *given)[0] == settings()


def test_a_runs_record_repeats_the_run(tmp_path):
    settings = TrainSettings(
        out=tmp_path / "a",
        tasks=(Task.ASR, Task.AVSR),
        audio_rates=(4, 8),
        lora_targets=("q_proj",),
        feature_cache=tmp_path / "cache",
        compile=True,
        lr=0.5,
    )
    start_run(tmp_path / "a", settings)
    repeated, _ = run(
        TrainSettings, "--config", tmp_path / "a" / "run.json", "--out", tmp_path / "b"
    )
    assert repeated == replace(settings, out=tmp_path / "b")


def test_an_option_may_have_a_name_that_python_reserves(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text('from = "runs/a"')
    start_run(tmp_path, TrainSettings(from_="runs/a"))
    for given in (["--from", "runs/a"], ["--config", file], ["--config", tmp_path / "run.json"]):
        assert run(TrainSettings, *given)[0] == TrainSettings(from_="runs/a")
    file.write_text("class = 3")
    with pytest.raises(InputError, match="options that this command does not take: class"):
        read_config(file, TrainSettings)


def test_a_record_of_an_older_version_has_its_lists_as_strings(tmp_path):
    record = {
        "settings": {"audio_rates": "4,16", "task_weights": "1,1.5,1", "out": "runs/a", "seed": 7},
        "command": ["omni-avsr"],
        "started": "2025-01-01T00:00:00+00:00",
        "versions": {},
        "commit": None,
    }
    (tmp_path / "run.json").write_text(json.dumps(record))
    given, _ = run(TrainSettings, "--config", tmp_path / "run.json")
    assert given == TrainSettings(audio_rates=(4, 16), out=Path("runs/a"), seed=7)


def test_the_options_of_a_toml_file_are_taken_with_hyphens_or_underscores(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text(
        'max-steps = 5\nwarmup_steps = 1\naudio_rates = [4, 8]\nvideo-rates = "2,3"\n'
        'lr = 1\ncompile = true\nout = "runs/toml"\n'
    )
    given, _ = run(TrainSettings, "--config", file)
    assert given == TrainSettings(
        max_steps=5,
        warmup_steps=1,
        audio_rates=(4, 8),
        video_rates=(2, 3),
        lr=1.0,
        compile=True,
        out=Path("runs/toml"),
    )


def test_the_command_line_takes_precedence_even_with_a_default_value(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text("max-steps = 5\nseed = 9\ncompile = true\n")
    default = str(TrainSettings.max_steps)
    given, _ = run(TrainSettings, "--config", file, "--max-steps", default, "--no-compile")
    assert given == TrainSettings(seed=9)


def test_unknown_options_of_a_file_are_listed_with_the_file(tmp_path):
    file = tmp_path / "options.toml"
    file.write_text("max-stepz = 5\nseed = 9\nbeems = 2\n")
    with pytest.raises(InputError, match=r"options\.toml has .*: beems, max_stepz;"):
        run(TrainSettings, "--config", file)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "max-steps 5", r"a\.toml is neither a run\.json nor a TOML file"),
        ("a.toml", b"\xff\xfe", r"a\.toml is neither a run\.json nor a TOML file"),
        ("run.json", "{", r"run\.json is not the record of a run"),
        ("run.json", '{"rows": []}', r"run\.json is not the record of a run"),
        ("run.json", "[]", r"run\.json is not the record of a run"),
    ],
)
def test_a_file_without_options_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_config(tmp_path / name, TrainSettings)


def test_a_file_that_does_not_exist_is_a_usage_error(tmp_path):
    given, output = run(TrainSettings, "--config", tmp_path / "none.toml")
    assert given is None
    assert "does not exist" in output


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["train", "--valid", "5%"], "data"),
        (["decode"], "data"),
        (["evaluate"], "root"),
        (["prepare", "videos", "--out", "out"], "landmarks"),
    ],
)
def test_a_missing_file_is_told_before_torch_is_imported(command, option):
    arguments = [*command, f"--{option}", "gone"]
    code = (
        "import sys; from omni_avsr.cli.app import app; from typer.testing import CliRunner; "
        f"error = CliRunner().invoke(app, {arguments}).exception; "
        "print(error, 'torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == f"{option} gone does not exist False"
