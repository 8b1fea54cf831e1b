"""A run's folder: new, and with a run.json that says how it was made."""

import json
import logging
import os
import platform
import subprocess
import sys
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

Report = Callable[[str, int, int], None]  # is told what is done, how much of it, and of how much
Item = TypeVar("Item")
LOCK = ".lock"
PACKAGES = ("torch", "transformers", "peft", "lightning", "numpy", "av")


def silent(*_: Any) -> None:
    """The report of who does not want to know."""


def counted(items: Iterable[Item], what: str, total: int, report: Report) -> Iterator[Item]:
    """The items, each reported once it is done with."""
    for done, item in enumerate(items, 1):
        yield item
        report(what, done, total)


def cache_root() -> Path:
    """$OMNI_AVSR_CACHE, or omni-avsr in the user's cache folder."""
    if own := os.environ.get("OMNI_AVSR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omni-avsr"


def write_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes beside the path and renames, so that a file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        write(part)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def first_process() -> bool:
    """Whether this is the one of a run's processes that writes and prints."""
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return not int(next(filter(None, ranks), 0))


def write_text(path: Path | str, text: str) -> None:
    """Writes a text file that is either the old one or whole."""
    write_whole(Path(path), lambda part: part.write_text(text, encoding="utf-8"))


def refuse_taken(out: str | Path) -> None:
    """Refuses a run's folder that holds something."""
    if Path(out).exists() and (not Path(out).is_dir() or any(p.name != LOCK for p in Path(out).iterdir())):
        raise ValueError(f"{out} holds another run: choose another --out, or remove it")


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Makes the folder, or what else is named in it, this process's own; the lock ends with the process."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process is at work in {folder}") from None
    try:
        yield
    finally:
        (folder / name).unlink(missing_ok=True)
        lock.release()
        if new and not any(folder.iterdir()):
            folder.rmdir()


def start_run(out: str | Path, settings: Any, resumed: Path | None = None) -> Path:
    """The folder of a run with its run.json, which also tells when and where the run went on."""
    run, now = Path(out), facts(settings)
    if resumed and (run / "run.json").is_file():
        known = json.loads((run / "run.json").read_text(encoding="utf-8"))
        again = {"from": str(resumed), **{name: now[name] for name in ("command", "started", "versions", "commit")}}
        now = {**known, "resumed": [*known.get("resumed", []), again]}
    write_text(run / "run.json", json.dumps(now, indent=1) + "\n")
    return run


def finish_run(run: Path, spent: dict[str, Any]) -> None:
    """Adds to run.json what the training took."""
    known = json.loads((run / "run.json").read_text(encoding="utf-8"))
    write_text(run / "run.json", json.dumps({**known, "trained": spent}, indent=1) + "\n")


def facts(settings: Any) -> dict[str, Any]:
    """Settings, versions, commit and command line."""
    return {
        "settings": asdict(settings),
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "commit": _commit(),
    }


def newest_model(runs: Path) -> Path | None:
    """The model of the newest finished run in a folder of runs."""
    models = [file.parent for file in runs.glob("**/model/config.json")]
    return max(models, key=lambda folder: (folder / "config.json").stat().st_mtime, default=None)


def _commit() -> str | None:
    """The commit of a clone, None of an install."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None


def quiet() -> None:
    """Leaves out what libraries say to their developers."""
    from transformers.utils import logging as transformers_logging

    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
