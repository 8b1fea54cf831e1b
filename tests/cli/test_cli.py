"""The app as a process: its entry points, its version, and how it reports errors."""

import subprocess
import sys
from pathlib import Path

import pytest

from omni_avsr import __version__
from omni_avsr.cli import app
from omni_avsr.errors import InputError
from tests.support.recorded import DATA

REPOSITORY = Path(__file__).parents[2]
ENTRIES = [
    ["cli.py"],
    ["-m", "omni_avsr"],
    ["-c", "from omni_avsr.cli.app import main; main()"],
]
MISTAKE = ["data", "check", "/nonexistent.csv"]


def run(*arguments):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


def test_every_entry_point_runs_the_same_app():
    outputs = [run(*entry, "convert", "--help") for entry in ENTRIES]
    assert [output.returncode for output in outputs] == [0, 0, 0]
    (body,) = {output.stdout for output in outputs}
    assert "official" in body


def test_help_answers_without_torch():
    code = (
        "import sys; from omni_avsr.cli.app import app; from typer.testing import CliRunner; "
        "code = CliRunner().invoke(app, ['--help']).exit_code; "
        "print(code, {'torch', 'transformers'} & set(sys.modules))"
    )
    assert run("-c", code).stdout.strip() == "0 set()"


def test_the_version_is_that_of_the_package():
    assert run("cli.py", "--version").stdout.strip() == f"omni-avsr {__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["convert", "avhubert", DATA / "tokenizer/tokenizer.json", "/nonexistent/out"],
            "not a checkpoint",
        ),
        (["convert", "avhubert", "/nonexistent.pt", "out"], "does not exist"),
        (
            [
                *("convert", "official", DATA / "avhubert_narrow.pt", "out"),
                *("--llm", "x", "--audio-rates", "4,b"),
            ],
            "4,16",
        ),
        (
            ["convert", "official", DATA / "avhubert_narrow.pt", "out", "--llm", DATA],
            "llm.model",
        ),
        (["transcode"], "No such command"),
        (MISTAKE, "/nonexistent.csv does not exist"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, message):
    result = run("cli.py", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_with_debug_a_mistake_has_its_traceback_too():
    result = run("cli.py", "--debug", *MISTAKE)
    assert result.returncode == 2
    traceback, sentence = result.stderr.rsplit("\nerror: ", 1)
    assert "Traceback" in traceback
    assert "InputError" in traceback
    assert sentence.strip() == "label file /nonexistent.csv does not exist"


@pytest.mark.parametrize("error", [InputError("bad input"), OSError("bad disk")])
def test_errors_of_the_user_and_of_the_system_are_one_sentence(error, monkeypatch, capsys):
    assert exit_code_of(error, monkeypatch) == 2
    assert capsys.readouterr().err == f"error: {error}\n"


def test_ctrl_c_is_one_word_and_exit_code_130(monkeypatch, capsys):
    assert exit_code_of(SystemExit(130), monkeypatch) == 130  # as typer ends after a Ctrl-C
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.parametrize("error", [ValueError("bad code"), KeyError("bad key"), AssertionError()])
def test_a_fault_keeps_its_traceback_and_asks_for_a_report(error, monkeypatch, capsys):
    assert exit_code_of(error, monkeypatch) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert type(error).__name__ in lines[-2]
    assert lines[-1] == f"error: {app.REPORT}"


def exit_code_of(error, monkeypatch):
    """The exit code of main if a command raises an error."""

    def command(*arguments, **options):
        raise error

    monkeypatch.setattr(app, "app", command)
    with pytest.raises(SystemExit) as ended:
        app.main()
    return ended.value.code
