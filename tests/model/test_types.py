"""A type checker sees the model's methods, although torch's modules accept any attribute."""

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
MISTAKES = """\
from omni_avsr import Batch, OmniAVSR

def transcribe(model: OmniAVSR, batch: Batch) -> None:
    model.generate(batch)
    model.generaet(1, 2)
    model.generate("a clip")
"""


def test_mypy_reports_a_misspelt_method_and_a_wrong_argument_of_the_model(tmp_path):
    """Takes a second if mypy's cache is warm, and a minute if it is not."""
    file = tmp_path / "mistakes.py"
    file.write_text(MISTAKES)
    mypy = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", file]
    result = subprocess.run(mypy, cwd=REPOSITORY, capture_output=True, text=True)
    reported = re.findall(r"mistakes\.py:(\d+): error", result.stdout)
    assert reported == ["5", "6"], result.stdout + result.stderr
