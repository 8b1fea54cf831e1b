"""What an install makes importable: the library and its recipes, and nothing else of the repository."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
FOLDERS = ("omni_avsr", "recipes")
FILES = ("pyproject.toml", "README.md", "LICENSE", "cli.py")
PROBE = """
import importlib.util, omni_avsr, omni_avsr.recipes
print(omni_avsr.__version__, [name for name in ("cli", "recipes", "tests") if importlib.util.find_spec(name)])
"""


@pytest.fixture
def source(tmp_path):
    """A copy without build leftovers, so that builds see what a clone has."""
    subprocess.run(
        ["cp", "-r", *(str(REPOSITORY / name) for name in (*FOLDERS, *FILES, "tests")), tmp_path], check=True
    )
    return tmp_path


def install(source: Path, *options: str) -> str:
    """What the probe says in a new environment that has this install and sees the tested packages."""
    venv.create(source / "env", symlinks=True)
    python = source / "env/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    packages = next(p for p in sys.path if p.endswith("site-packages"))
    next((source / "env").glob("lib/*/site-packages")).joinpath("tested.pth").write_text(packages)
    subprocess.run([*pip, "--no-build-isolation", *options], check=True, capture_output=True, text=True)
    outside = source / "elsewhere"
    outside.mkdir()
    probe = [python, "-c", PROBE]
    return subprocess.run(probe, cwd=outside, check=True, capture_output=True, text=True).stdout.strip()


def test_a_wheel_has_the_library_and_its_recipes_alone(source):
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*wheel, "--wheel-dir", source / "dist", source], check=True, capture_output=True)
    (file,) = (source / "dist").glob("*.whl")
    names = zipfile.ZipFile(file).namelist()
    assert {name.split("/")[0] for name in names} == {"omni_avsr", f"omni_avsr-{file.name.split('-')[1]}.dist-info"}
    assert "omni_avsr/recipes/__init__.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert install(source, str(file)).endswith("[]")


def test_an_editable_install_shows_the_library_alone(source):
    assert install(source, "--editable", str(source)).endswith("[]")
