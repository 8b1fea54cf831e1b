"""A run's folder with its run.json, progress callbacks, and which process is the first."""

import json
import logging
import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from omni_avsr.errors import InputError
from omni_avsr.files import LOCK, write_text
from omni_avsr.settings.base import Settings
from omni_avsr.tasks import Row

Progress = Callable[[str, int, int], None]  # takes what is done, how much of it, and of how much
Item = TypeVar("Item")
PACKAGES = ("torch", "transformers", "peft", "lightning", "numpy", "av")


def no_progress(what: str, done: int, total: int) -> None:
    """A progress callback that does nothing."""


def with_progress(
    items: Iterable[Item], what: str, total: int, progress: Progress
) -> Iterator[Item]:
    """The items; the callback is called after each."""
    for done, item in enumerate(items, 1):
        yield item
        progress(what, done, total)


def is_first_process() -> bool:
    """Whether this is the process of a run that writes and prints."""
    if os.environ.get("RANK"):  # torchrun, also inside of SLURM
        return _number("RANK") == 0
    if _in_srun():
        return _number("SLURM_PROCID") == 0
    return _number("NODE_RANK") == 0 and _number("LOCAL_RANK") == 0


def _in_srun() -> bool:
    """Whether srun has started this process, by the rules of Lightning's SLURMEnvironment."""
    interactive = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    return "SLURM_NTASKS" in os.environ and not interactive


def _number(variable: str) -> int:
    return int(os.environ.get(variable) or 0)


@dataclass(frozen=True)
class RunRecord:
    """What a run.json holds."""

    settings: Row
    command: list[str] = field(default_factory=list)
    started: str = ""  # ISO 8601
    versions: dict[str, str] = field(default_factory=dict)
    commit: str | None = None
    resumed: list[Row] = field(default_factory=list)  # when and from which checkpoint
    clips: str = ""  # the digest of the clips that it trains and validates on
    trained: Row | None = None  # what the training took; None until it has finished


def read_run(run: Path) -> RunRecord | None:
    """The record of a run's folder; None if there is none."""
    file = run / "run.json"
    if not file.is_file():
        return None
    names = RunRecord.__dataclass_fields__
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        return RunRecord(**{name: value for name, value in known.items() if name in names})
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not the record of a run: {error}") from None


def is_trained(run: Path) -> bool:
    """Whether the run has finished: its record says so last, after the model was written."""
    record = read_run(run)
    return record is not None and record.trained is not None


def start_run(run: Path, settings: Settings, resumed: Path | None = None, clips: str = "") -> None:
    """Writes the run.json of a new run, or adds to that of a resumed one."""
    record: Row = {
        "settings": asdict(settings),
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in PACKAGES}},
        "commit": _git_commit(),
        "clips": clips,
    }
    known = read_run(run) if resumed else None
    if known is not None:
        again = {name: record[name] for name in ("command", "started", "versions", "commit")}
        again["from"] = str(resumed)
        record = {**asdict(known), "resumed": [*known.resumed, again]}
    _write_record(run, record)


def finish_run(run: Path, trained: Row) -> None:
    """Adds what the training took, which marks the run as finished."""
    known = read_run(run)
    assert known is not None, f"{run} has no run.json"
    _write_record(run, {**asdict(known), "trained": trained})


def _write_record(run: Path, record: Row) -> None:
    given = {name: value for name, value in record.items() if value or name == "commit"}
    write_text(run / "run.json", json.dumps(given, indent=1, default=str) + "\n")


def refuse_existing(out: Path) -> None:
    """Refuses a run's folder that holds something."""
    if not out.exists():
        return
    if not out.is_dir() or any(path.name != LOCK for path in out.iterdir()):
        raise InputError(f"{out} holds another run: choose another --out, or remove it")


def _git_commit() -> str | None:
    """The commit of a clone; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


def silence_libraries() -> None:
    """Turns off the messages that libraries address to their developers."""
    from transformers.utils import logging as transformers_logging

    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
