import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.recorded import DATA

REPOSITORY = Path(__file__).parents[2]
DOORS = [["cli.py"], ["-m", "omni_avsr"], ["-c", "from omni_avsr.cli.app import main; main()"]]


def run(*arguments):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=REPOSITORY, capture_output=True, text=True)


def test_the_three_doors_lead_to_one_app():
    outputs = [run(*door, "convert", "--help") for door in DOORS]
    assert [output.returncode for output in outputs] == [0, 0, 0]
    bodies = {output.stdout for output in outputs}
    assert len(bodies) == 1
    assert "official" in bodies.pop()


def test_help_answers_without_torch():
    code = "import sys; from omni_avsr.cli.app import app; from typer.testing import CliRunner; "
    code += "print(CliRunner().invoke(app, ['--help']).exit_code, {'torch', 'transformers'} & set(sys.modules))"
    assert run("-c", code).stdout.strip() == "0 set()"


def test_the_version_is_the_packages():
    import omni_avsr

    assert run("cli.py", "--version").stdout.strip() == f"omni-avsr {omni_avsr.__version__}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "avhubert", DATA / "tokenizer/tokenizer.json", "/nonexistent/out"], "not a checkpoint"),
        (["convert", "avhubert", "/nonexistent.pt", "out"], "does not exist"),
        (["convert", "official", DATA / "avhubert_narrow.pt", "out", "--llm", "x", "--audio-rates", "4,b"], "4,16"),
        (["convert", "official", DATA / "avhubert_narrow.pt", "out", "--llm", DATA / "tokenizer"], "llm.model"),
        (["transcode"], "No such command"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(arguments, message):
    result = run("cli.py", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
