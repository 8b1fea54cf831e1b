"""Finished work, a line for each piece, so that work which is cut off goes on where it stopped."""

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omni_avsr.run import write_text


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a line that was cut off is none."""
    found = []
    for line in file.read_text(encoding="utf-8", errors="replace").split("\n") if file.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found


class Journal:
    """The lines of finished work under a head that says of what; work of another head begins anew."""

    def __init__(self, file: Path | None, head: dict[str, Any] | None = None):
        self.file, self.lines = file, []
        if file is None:
            return
        head = json.loads(json.dumps(head))
        known = read_lines(file)
        self.lines = known[1:] if known[:1] == [head] else []
        write_text(file, _text([head, *self.lines]))  # without a line that was cut off

    def add(self, lines: Iterable[dict[str, Any]]) -> None:
        """Writes lines; of what is being written, a kill may cut off the last one."""
        if self.file is None:
            return
        with self.file.open("a", encoding="utf-8") as out:
            out.write(_text(lines))
            out.flush()
            os.fsync(out.fileno())

    def done(self) -> None:
        """Ends the journal: the work is in its own files."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def _text(lines: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
