"""An installation makes the library and its recipes importable, and nothing else."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
COPIED = ("omni_avsr", "recipes", "tests", "pyproject.toml", "README.md", "LICENSE", "cli.py")
PIP = [sys.executable, "-m", "pip"]
OFFLINE = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
PROBE = """
import importlib.util, omni_avsr, omni_avsr.recipes
for name in ("cli", "recipes", "tests"):
    assert importlib.util.find_spec(name) is None, f"{name} is installed"
print(omni_avsr.__file__)
"""


@pytest.fixture
def source(tmp_path):
    """A copy without build leftovers, so that builds see what a clone has."""
    paths = [str(REPOSITORY / name) for name in COPIED]
    subprocess.run(["cp", "-r", *paths, tmp_path], check=True)
    return tmp_path


def output(command: list, **options) -> str:
    """What a command prints; its errors are shown if it fails."""
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def install(source: Path, *options: str) -> Path:
    """Where the library is imported from in a new environment that has this installation.

    The environment also sees the packages that the tests run with.
    """
    environment = source / "environment"
    venv.create(environment, symlinks=True)
    python = str(environment / "bin/python")
    tested = next(path for path in sys.path if path.endswith("site-packages"))
    (site_packages,) = environment.glob("lib/*/site-packages")
    (site_packages / "tested.pth").write_text(tested)
    output([*PIP, "--python", python, "install", *OFFLINE, *options])
    outside = source / "elsewhere"
    outside.mkdir()
    return Path(output([python, "-c", PROBE], cwd=outside))


def data_files() -> list[str]:
    """The files of the library that are not code, such as the tiny models."""
    files = []
    for path in (REPOSITORY / "omni_avsr").rglob("*"):
        is_code = path.suffix in (".py", ".pyc")
        if path.is_file() and not is_code and not path.name.startswith("."):
            files.append(path.relative_to(REPOSITORY).as_posix())
    return files


def test_a_wheel_holds_only_the_library_and_its_recipes(source):
    output([*PIP, "wheel", *OFFLINE, "--wheel-dir", source / "dist", source])
    (wheel,) = (source / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    version = wheel.name.split("-")[1]
    folders = {name.split("/")[0] for name in names}
    assert folders == {"omni_avsr", f"omni_avsr-{version}.dist-info"}
    assert "omni_avsr/recipes/__init__.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    code = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "omni_avsr").rglob("*.py")}
    assert code <= set(names)
    for file in data_files():
        assert file in names
    assert install(source, str(wheel)).is_relative_to(source / "environment")


def test_an_editable_install_shows_only_the_library(source):
    imported = install(source, "--editable", str(source))
    assert imported == source / "omni_avsr" / "__init__.py"
