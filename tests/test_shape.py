"""The code's own rules: who imports whom, and how long things are."""

import ast
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FILES = sorted([*REPOSITORY.glob("omni_avsr/**/*.py"), *REPOSITORY.glob("recipes/**/*.py")])


def test_modules_import_only_from_lower_layers():
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_no_file_is_longer_than_400_lines():
    assert {str(f): n for f in FILES if (n := len(f.read_text().splitlines())) > 400} == {}


def test_no_function_is_longer_than_40_lines():
    trees = {file: ast.parse(file.read_text()) for file in FILES}
    functions = [(f, n) for f, tree in trees.items() for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    assert len(functions) > 50
    assert [(str(f), n.name) for f, n in functions if n.end_lineno - n.lineno + 1 > 40] == []
