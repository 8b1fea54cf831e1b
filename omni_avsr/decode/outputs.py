"""Writes transcripts segment by segment, to the terminal, to one file, or to a folder.

Where they go is checked before anything is transcribed, and nothing is opened before the first
segment, so that an early mistake leaves an older file as it is.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from omni_avsr.decode.subtitles import cues, written
from omni_avsr.decode.transcripts import (
    SUBTITLES,
    Transcript,
    Update,
    as_row,
    as_verbose,
    line,
)
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.media.folders import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from omni_avsr.settings.transcribe import ending
from omni_avsr.tasks import Row

INTERRUPTED = "interrupted before the end of the file"
HEADS = {"vtt": "WEBVTT\n"}  # what a file of a format begins with


class Writer:
    """Writes transcripts to where they go.

    That is a folder if --out is one, if there are several formats, or subtitles of several files.
    There each transcript has a file per format, named by the path of its media file from the folder
    that holds all of them. Otherwise all transcripts go to one file, or to the terminal.
    """

    def __init__(
        self,
        formats: Sequence[str],
        out: Path | None,
        files: Sequence[Path],
        several: bool,
        highlight: bool = False,
    ):
        own_files = several and not {*SUBTITLES, "verbose_json"}.isdisjoint(formats)
        if own_files and out is None:
            raise InputError(f"{', '.join(formats)} of several files needs --out, a folder")
        self.formats = formats
        self.out = out
        self.several = several
        self.highlight = highlight  # the word that is said, in VTT
        self.names = _names(files)
        self.into_folder = out is not None and (own_files or len(formats) > 1 or out.is_dir())
        self.shows_files = several and not self.into_folder
        self.sheets: dict[str, _Sheet] = {}  # the open ones, by format
        self.unfinished: Transcript | None = None
        if out is not None:
            self._check(out, files)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files; of a file that is not finished it writes what there is."""
        unfinished = self.unfinished
        if unfinished is not None:
            unfinished.error = unfinished.error or INTERRUPTED
            self.write(Update(unfinished, None))
        self._close()

    def write(self, update: Update) -> None:
        """Writes a segment, or what belongs to the end of a transcript."""
        transcript = update.transcript
        is_end = update.segment is None
        self.unfinished = None if is_end else transcript
        if is_end and transcript.error and not transcript.segments:
            return
        for format in self.formats:
            self._sheet(format, transcript.file).write(update)
        if is_end and self.into_folder:
            self._close()

    def unfinished_file(self, name: str) -> Path | None:
        """Where unfinished work of this name is noted; None if the terminal is written to."""
        out = self.out
        if out is None:
            return None
        if self.into_folder:
            return out / f"unfinished-{name}.part"
        is_special = out.exists() and not out.is_file()  # such as /dev/stdout
        return None if is_special else out.with_name(f"{out.name}.part")

    def _sheet(self, format: str, file: Path) -> "_Sheet":
        if format not in self.sheets:
            self.sheets[format] = _Sheet(format, self._target(format, file), self)
        return self.sheets[format]

    def _target(self, format: str, file: Path) -> Path | None:
        if self.out is None or not self.into_folder:
            return self.out
        return self.out / f"{self.names[file]}{ending(format)}"

    def _close(self) -> None:
        for sheet in self.sheets.values():
            sheet.close()
        self.sheets = {}

    def _check(self, out: Path, files: Sequence[Path]) -> None:
        """Refuses an --out that cannot be written, or whose files are needed for something else."""
        if self.into_folder:
            self._refuse_same_names()
        if not self.into_folder and out.suffix.lower() in VIDEO_SUFFIXES + AUDIO_SUFFIXES:
            raise InputError(f"--out {out} is named as a video or sound: name it {out.stem}.txt")
        if self.into_folder and out.exists() and not out.is_dir():
            raise InputError(f"--out {out} is a file, but a folder is needed here: name another")
        taken = {_identity(file) for file in files if file.exists()}
        for target in self._targets(files):
            _refuse_unwritable(target)
            if target.exists() and _identity(target) in taken:
                raise InputError(f"--out would overwrite {target}, which is to be transcribed")

    def _refuse_same_names(self) -> None:
        """Refuses files that differ only in their endings, of which one would overwrite another."""
        owners: dict[Path, Path] = {}
        for file, name in self.names.items():
            other = owners.setdefault(name, file)
            if other != file:
                raise InputError(
                    f"{other} and {file} would become the same {self.names[file]}"
                    f"{ending(self.formats[0])}: transcribe them one at a time"
                )

    def _targets(self, files: Sequence[Path]) -> Iterator[Path]:
        """Every file that is going to be written."""
        for format in self.formats:
            for file in files:
                target = self._target(format, file)
                assert target is not None, "the terminal is not checked"
                if self.into_folder and format == "text" and _lies_beside(target, file):
                    raise InputError(
                        f"{target} would lie beside {file}, where a file of this name is its "
                        "reference transcript: name another folder"
                    )
                yield target


class _Sheet:
    """One file, or the terminal, which is written in one format."""

    def __init__(self, format: str, path: Path | None, writer: Writer):
        self.format = format
        self.path = path
        self.writer = writer
        self.cues = 0
        self.rows: list[Row] = []  # of JSON, which is written at the end
        self.has_begun = False
        self.opened: TextIO | None = None

    def write(self, update: Update) -> None:
        transcript, segment = update.transcript, update.segment
        if segment is None:
            self._end(transcript)
        elif not segment.text:
            return
        elif self.format == "text":
            name = f"{transcript.file}: " if self.writer.shows_files else ""
            self._print(f"{name}{segment.text}\n")
        elif self.format in SUBTITLES:
            for cue in cues(segment, self.format, self.writer.highlight):
                self.cues += 1
                self._print(f"{written(cue, self.format, self.cues)}\n")

    def _end(self, transcript: Transcript) -> None:
        """Writes what waits for the end of a transcript; an empty file if nothing is said."""
        if self.format == "json":
            self.rows.append(as_row(transcript))
        elif self.format == "verbose_json":
            seconds = streams.probe(transcript.file).seconds
            whole = as_verbose(transcript, round(seconds, 3))
            self._print(f"{json.dumps(whole, ensure_ascii=False, indent=1)}\n")
        elif self.format in ("jsonl", "trn", "ctm"):
            self._print(line(self.format, transcript, self.writer.names[transcript.file]))
        else:
            self._print("")

    def close(self) -> None:
        if self.rows:
            self._print(f"{json.dumps(self.rows, ensure_ascii=False, indent=1)}\n")
        if self.opened is not None:
            self.opened.close()

    def _print(self, text: str) -> None:
        """Prints to the terminal, or to the file, which is opened by the first call."""
        if not self.has_begun:
            self.has_begun = True
            text = HEADS.get(self.format, "") + text
            if self.path is not None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.opened = self.path.open("w", encoding="utf-8")
        print(text, end="", file=self.opened or sys.stdout, flush=True)


def _names(files: Sequence[Path]) -> dict[Path, Path]:
    """The path of each file, without its ending, from the folder that holds all of them."""
    paths = {file: Path(os.path.abspath(file)) for file in files}
    folder = os.path.commonpath([path.parent for path in paths.values()])
    return {file: path.relative_to(folder).with_suffix("") for file, path in paths.items()}


def _identity(file: Path) -> tuple[int, int]:
    """What two names of the same file share."""
    found = file.stat()
    return found.st_dev, found.st_ino


def _lies_beside(target: Path, file: Path) -> bool:
    return os.path.realpath(target.parent) == os.path.realpath(file.parent)


def _refuse_unwritable(target: Path) -> None:
    """Refuses a file that cannot be written, or made with the folders above it."""
    if target.is_dir():
        raise InputError(f"--out {target} is a folder, but a file is needed here: name another")
    place = target
    while not place.exists():
        place = place.parent
    if place != target and not place.is_dir():
        raise InputError(f"--out {target} cannot be written: {place} is not a folder")
    if not os.access(place, os.W_OK):
        raise InputError(f"--out {target} cannot be written: you may not write to {place}")
