"""The README and the site are true: their Python runs, their commands parse, their links resolve.

Python blocks run as they stand, on small stand-ins for the files and models that they name. Every
shell command is parsed by the real command line with its settings, and the commands of the first
tutorial really run, with fewer clips and steps.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import typer.main
from typer.testing import CliRunner

from omni_avsr import OmniAVSRConfig, Transcriber, settings
from omni_avsr.cli.app import app
from omni_avsr.cli.options import read_config
from omni_avsr.media import streams
from omni_avsr.methods import METHODS
from omni_avsr.settings import Settings, TrainSettings
from tests.support.serving import served

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
TUTORIAL = DOCS / "first-model.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]

SETTINGS: dict[str, type[Settings]] = {
    "demo": settings.DemoSettings,
    "train": settings.TrainSettings,
    "scale": settings.TrainSettings,
    "plan": settings.PlanSettings,
    "decode": settings.DecodeSettings,
    "evaluate": settings.EvaluateSettings,
    "transcribe": settings.TranscribeSettings,
    "prepare": settings.PrepareSettings,
    "check": settings.CheckSettings,
    "toy": settings.ToySettings,
}
FILES = (
    "large_vox_iter5.pt",
    "model_avg_1.pth",
    "faster-whisper-base",
)  # that commands check for when they are parsed
LESS_WORK = {  # options that make a command of the tutorial quick
    "toy": ["--clips", "10"],
    "check": ["--sample", "2"],
    "decode": ["--toy-clips", "8", "--max-new-tokens", "4"],
    "train": ["--max-steps", "2", "--valid-clips", "1", "--logger", "csv"],
    "evaluate": ["--tasks", "asr,vsr", "--max-new-tokens", "4"],
    "transcribe": ["--max-new-tokens", "8"],
}
OTHERS_OPTIONS = {  # options in the text that are not ours
    "--lora-target-modules",
    "--tensor-parallel-size",
    "--data-parallel-size",
    "--alpha",
    "--claims",
    "--help",
    "--shm-size",
    "--kill-on-bad-exit",
    "--nodes",
    "--ntasks-per-node",
    "--rank",
    "--seeds",
    "--labels",
    "--signal",
    "--toy",
    "--write",
}


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"^```{language}\b[^\n]*\n(.*?)^```", page.read_text(), re.DOTALL | re.M)


def commands(page: Path) -> list[list[str]]:
    """The shell commands of a page, as lists of words without comments."""
    found = []
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(words)
    return found


def on_pages(items_of) -> list:
    """The items of all pages as test parameters that are named by their page."""
    found = []
    for page in PAGES:
        for number, item in enumerate(items_of(page), start=1):
            found.append(pytest.param(item, id=f"{page.stem}-{number}"))
    return found


def python_blocks(page: Path) -> list[str]:
    return blocks(page, "python")


def toml_blocks(page: Path) -> list[str]:
    return blocks(page, "toml")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory, files, make):
    """A folder with what the pages name: label files, a talk, a run, a config, checkpoints."""
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "labels").symlink_to(files["train"].parent)
    model, processor = make()
    model.save_pretrained(folder / "runs" / "first" / "model")
    processor.save_pretrained(folder / "runs" / "first" / "model")
    noise = np.random.default_rng(0).integers(256, size=(25, 96, 96), dtype=np.uint8)
    sound = noise.ravel()[:16_000].astype(np.int16) * 50
    streams.write_video(folder / "talk.mp4", noise, sound)
    (toml,) = toml_blocks(DOCS / "training.md")
    (folder / "omni-avsr-lrs3.toml").write_text(toml)
    for name in FILES:
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def address():
    """Where a server listens."""
    with served(Transcriber("tiny", download=False)) as address:
        yield address


@pytest.mark.parametrize("block", on_pages(python_blocks))
def test_every_python_block_runs(block, workspace, tower_folders, monkeypatch, capsys, address):
    monkeypatch.chdir(workspace)
    block = block.replace("127.0.0.1:8000", address)
    stand_ins = {
        "openai/whisper-medium.en": tower_folders["audio"],
        "avhubert-large": tower_folders["video"],
        "meta-llama/Llama-3.2-1B": tower_folders["llm"],
    }
    for name, folder in stand_ins.items():
        block = block.replace(f'"{name}"', repr(folder))
    exec(compile(block, "block", "exec"), {})
    assert capsys.readouterr().out


@pytest.mark.parametrize("words", on_pages(commands))
def test_every_command_is_one_that_exists(words, workspace, monkeypatch, request):
    monkeypatch.chdir(workspace)
    program, *arguments = words
    if program == "curl":
        ask(request.getfixturevalue("address"), arguments)
    elif program == "omni-avsr":
        parse(arguments)
    elif program in ("torchrun", "srun"):
        (place,) = (i for i, word in enumerate(arguments) if word in ("omni_avsr", "omni-avsr"))
        parse(arguments[place + 1 :])
    elif program == "make":
        (target,) = arguments
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M)
    elif program in ("pip", "python"):
        {"pip": check_pip, "python": check_python}[program](arguments)
    elif program == "cp":
        assert (ROOT / arguments[0]).is_file()
    else:
        raise AssertionError(f"no check for {program}")


def ask(address: str, arguments: list[str]) -> None:
    """Runs curl with these arguments against a server that listens."""
    if not shutil.which("curl"):
        pytest.skip("no curl")
    asked = [word.replace("127.0.0.1:8000", address) for word in arguments]
    subprocess.run(["curl", "--silent", "--fail", *asked], check=True)


def parse(arguments: list[str]) -> None:
    """Parses the arguments of omni-avsr and builds the settings, without running anything."""
    if arguments == ["--version"]:
        return
    command = typer.main.get_command(app)
    name, parent = "omni-avsr", None
    while True:
        context = command.make_context(name, list(arguments), parent=parent)
        if not hasattr(command, "resolve_command"):
            break
        rest = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, rest)
        parent = context
    if name in SETTINGS:
        own = {option.name for option in fields(SETTINGS[name])}
        values = {key: value for key, value in context.params.items() if value is not None}
        chosen = {key: value for key, value in values.items() if key in own}
        if "config" in values:
            chosen = {**read_config(values["config"], SETTINGS[name]), **chosen}
        SETTINGS[name](**chosen)


def check_pip(arguments: list[str]) -> None:
    install, package = arguments
    assert install == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extra in re.findall(r"\w+", package.removeprefix(".")):
        assert extra in extras["optional-dependencies"]


def check_python(arguments: list[str]) -> None:
    if arguments[0] == "-m":
        _, module, *options = arguments
    else:
        script, *options = arguments
        module = script.removesuffix(".py").replace("/", ".").replace("my_noise", "recipes.noise")
    assert find_spec(module), module
    if module.startswith("recipes."):
        recipe = typer.Typer()
        recipe.command()(import_module(module).main)
        typer.main.get_command(recipe).make_context(module, options)


@pytest.mark.parametrize("block", on_pages(toml_blocks))
def test_every_config_file_is_one_of_a_training_run(block):
    TrainSettings(**tomllib.loads(block))


def test_the_tutorial_runs_from_its_first_corpus_to_its_last_transcript(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMNI_AVSR_CACHE", str(tmp_path / "cache"))
    done = []
    for words in commands(TUTORIAL):
        arguments = words[1:]
        name = "check" if arguments[:2] == ["data", "check"] else arguments[0]
        if name == "demo":  # tests/cli/ has it
            continue
        result = CliRunner().invoke(app, [*arguments, *LESS_WORK.get(name, [])])
        assert result.exit_code == 0, (arguments, result.output, result.exception)
        done.append(name)
    assert {"toy", "check", "train", "evaluate", "info", "compare", "transcribe"} <= set(done)
    assert (tmp_path / "runs/first/evaluation/report.html").is_file()
    assert (tmp_path / "transcripts.jsonl").read_text()


def test_cli_py_is_the_command_line():
    result = subprocess.run(
        [sys.executable, "cli.py", "--version"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.stdout.startswith("omni-avsr ")


def test_the_readme_has_at_most_160_lines():
    assert len(README.read_text().splitlines()) <= 160


def test_the_readme_shows_the_model_in_ten_lines():
    short = []
    for block in blocks(README, "python"):
        lines = [line for line in block.splitlines() if line.strip()]
        if "from_pretrained" in block and ".loss" in block:
            short.append(len(lines))
    assert short
    assert min(short) <= 10


@pytest.mark.parametrize("page", [README, DOCS / "contributing.md"], ids=lambda page: page.stem)
def test_every_folder_and_file_of_a_picture_exists(page):
    (picture,) = re.findall(
        r"^```(?:text)?\n((?:\w[^\n]*\n)?omni_avsr/ .*?)^```", page.read_text(), re.DOTALL | re.M
    )
    missing = []
    for line in picture.splitlines():
        inside = line.startswith("  ") and not line.startswith("   ")
        if not inside and not line[0].strip():
            continue  # the rest of a description
        name = line.split()[0]
        path = ROOT / "omni_avsr" / name if inside else ROOT / name
        if not path.exists():
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_to_a_file_resolves(page):
    missing = []
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        if not (page.parent / target.strip()).exists():
            missing.append(target)
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_option_in_the_text_is_one_of_a_command(page):
    known = {"--debug", "--version", *OTHERS_OPTIONS, *options_of(typer.main.get_command(app))}
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.M)
    named = re.findall(r"`[^`\n]*?(--[a-z][a-z-]*)", text)
    assert [option for option in named if option not in known] == []


def options_of(command) -> set[str]:
    """The options of a command and of all that are below it."""
    found = {name for parameter in command.params for name in parameter.opts}
    found |= {name for parameter in command.params for name in parameter.secondary_opts}
    for child in getattr(command, "commands", {}).values():
        found |= options_of(child)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_module_that_the_text_runs_exists(page):
    modules = re.findall(r"`python -m ([\w.]+)", page.read_text())
    assert [module for module in modules if not exists(module)] == []


def exists(module: str) -> bool:
    """Whether a module is in the repository; an install gives recipes a second name."""
    in_a_clone = module.removeprefix("omni_avsr.") if "recipes" in module else module
    return find_spec(in_a_clone) is not None


@pytest.mark.parametrize("page", [README, DOCS / "methods.md"], ids=lambda page: page.stem)
def test_every_method_has_a_row_of_the_table(page):
    text = page.read_text()
    missing = []
    for name in METHODS:
        family, _, strategy = name.rpartition("-")
        if f"`{name}`" not in text and not (f"`{family}-" in text and f"`-{strategy}`" in text):
            missing.append(name)
    assert missing == []


def test_the_table_of_the_config_has_its_fields_and_defaults():
    config = OmniAVSRConfig.__dataclass_fields__
    table = (DOCS / "api.md").read_text().partition("| field of `OmniAVSRConfig`")[2]
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", table, re.M)
    assert len(rows) > 15
    for name, default in rows:
        expected = config[name].default
        if isinstance(expected, tuple):
            expected = tuple(str(item) if isinstance(item, str) else item for item in expected)
        assert repr(expected) == default, name


def test_the_walks_name_functions_that_are_where_they_say():
    text = (DOCS / "how-it-works.md").read_text()
    steps = re.findall(r"\*\*`([\w/]+\.py)`\*\*\s+`([\w.]+)`", text)
    assert len(steps) >= 30
    missing = []
    for file, name in steps:
        code = (ROOT / "omni_avsr" / file).read_text()
        for part in name.split("."):
            if not re.search(rf"^\s*(?:def|class) {part}\b", code, re.M):
                missing.append((file, name))
    assert missing == []


def test_every_test_that_reliability_names_exists():
    named = re.findall(r"`((?:[a-z]+/)+\w+\.py)`", (DOCS / "reliability.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []


def test_the_site_builds_without_a_warning_and_needs_no_network(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    subprocess.run([*build, "--site-dir", tmp_path], cwd=ROOT, check=True)
    fetched = []
    for page in tmp_path.rglob("*.html"):
        fetched += re.findall(
            r'<(?:script|link|img)[^>]*(?:src|href)="?(https?:[^" >]+)', page.read_text()
        )
    assert fetched == []
