"""The code's own rules: who imports whom, how much a module offers, and how large the core is."""

import ast
import io
import subprocess
import sys
import tokenize
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "omni_avsr"
PUBLIC_NAMES = 12  # at most, in a module
CORE_LINES = 6_950  # of code, fewer than
# What the core imports but is not counted with it: media, and the options of satellites
NOT_COUNTED = (
    "media",
    "settings/data.py",
    "settings/live.py",
    "settings/plan.py",
    "settings/toy.py",
    "settings/transcribe.py",
)
LAYOUT = {
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.COMMENT,
}
DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@pytest.fixture(scope="module")
def core_contract():
    """The contract of import-linter that lists the modules of the core and the satellites."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["name"] == "the core imports no satellite"]
    return contract


def files_of(modules: list[str]) -> list[Path]:
    """The files of these modules, and of everything in those that are packages."""
    files = []
    for module in modules:
        path = REPOSITORY / module.replace(".", "/")
        files += path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return files


def docstring_lines(tree: ast.Module) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, *DEFINITIONS)) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.update(range(docstring.lineno, docstring.end_lineno + 1))
    return lines


def code_lines(source: str) -> int:
    """How many lines hold code; blank lines, comments and docstrings do not."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    lines = {token.start[0] for token in tokens if token.type not in LAYOUT}
    return len(lines - docstring_lines(ast.parse(source)))


def public_names(source: str) -> list[str]:
    """The classes and functions of a module that are meant for other modules."""
    names = [node.name for node in ast.parse(source).body if isinstance(node, DEFINITIONS)]
    return [name for name in names if not name.startswith("_")]


def imported_modules(source: str) -> set[str]:
    """The modules that a file imports, or imports from."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module))
    return modules


def test_code_lines_are_counted_without_comments_and_docstrings():
    source = '''"""A module."""

# a comment
def double(x):
    """Twice x."""
    text = """not a
    docstring"""
    return 2 * x  # a comment

'''
    assert code_lines(source) == 3


def test_modules_import_only_what_the_contracts_allow():
    linter = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([linter], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_every_module_belongs_either_to_the_core_or_to_the_satellites(core_contract):
    core = files_of(core_contract["source_modules"])
    satellites = files_of(core_contract["forbidden_modules"])
    assert not set(core) & set(satellites)
    modules = {file for file in PACKAGE.rglob("*.py") if not file.name.startswith("__")}
    assert modules - set(core) - set(satellites) == set()


def test_the_core_is_small(core_contract):
    lines = 0
    for file in files_of(core_contract["source_modules"]):
        if not str(file.relative_to(PACKAGE)).startswith(NOT_COUNTED):
            lines += code_lines(file.read_text())
    assert 1_000 < lines < CORE_LINES


def test_no_module_offers_more_public_names_than_one_can_remember():
    offered = {}
    for file in [*PACKAGE.rglob("*.py"), *REPOSITORY.glob("recipes/**/*.py")]:
        names = public_names(file.read_text())
        if len(names) > PUBLIC_NAMES:
            offered[str(file.relative_to(REPOSITORY))] = names
    assert offered == {}


def test_no_test_imports_from_another_test():
    tests = REPOSITORY / "tests"
    for file in tests.rglob("*.py"):
        for module in imported_modules(file.read_text()):
            is_ours = module.split(".")[0] == "tests"
            is_support = module.split(".")[:2] == ["tests", "support"]
            assert is_support or not is_ours, f"{file} imports {module}"
