"""Files that are complete or absent, locks, and journals of finished work."""

import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from omni_avsr.errors import InputError
from omni_avsr.tasks import Row

LOCK = ".lock"


def cache_root() -> Path:
    """$OMNI_AVSR_CACHE, or omni-avsr in the user's cache folder."""
    if own := os.environ.get("OMNI_AVSR_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "omni-avsr"


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a temporary file beside the path and renames it, so no reader sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid.uuid4().hex}.part")
    try:
        write(part)
        with part.open("rb+") as written:
            os.fsync(written.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_rows(file: Path) -> list[Row]:
    """The objects of a file of JSON lines; half-written lines are skipped."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def as_lines(rows: Iterable[Row]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


@contextmanager
def locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Holds a lock in the folder, which is created; the lock ends with the process."""
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process is working in {folder}") from None
    try:
        yield
    finally:
        (folder / name).unlink(missing_ok=True)
        lock.release()
        if new and not any(folder.iterdir()):
            folder.rmdir()


def known_rows(file: Path, work: Row | None) -> list[Row]:
    """The lines of a journal, if it is of this work."""
    known = read_rows(file)
    return known[1:] if known and known[0] == _as_json(work) else []


def _as_json(work: Row | None) -> Row:
    return json.loads(json.dumps(work, default=str))


class Journal:
    """Finished work, one JSON line each, so that interrupted work can be resumed.

    The first line says which work it is; the lines of other work are discarded. Without a file the
    journal is empty and records nothing.
    """

    def __init__(self, file: Path | None = None, work: Row | None = None):
        self.file = file
        self.rows: list[Row] = []
        if file is None:
            return
        self.rows = known_rows(file, work)
        write_text(file, as_lines([_as_json(work), *self.rows]))  # drops a half-written last line

    def add(self, rows: Iterable[Row]) -> None:
        """Appends rows and waits until they are on the disk."""
        if self.file is None:
            return
        with self.file.open("a", encoding="utf-8") as out:
            out.write(as_lines(rows))
            out.flush()
            os.fsync(out.fileno())

    def remove(self) -> None:
        """Deletes the file once its content has been written elsewhere."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)
