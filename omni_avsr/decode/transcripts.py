"""Writes transcripts as text, JSON, subtitles or TRN, each as soon as it is complete."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from omni_avsr.decode.transcribe import Transcript
from omni_avsr.errors import InputError
from omni_avsr.files import write_text
from omni_avsr.tasks import Row

SUBTITLES = ("srt", "vtt")


class Writer:
    """Writes transcripts to the terminal or to one file.

    Subtitles of several files go to a folder instead, one file each, named by the path from the
    folder that holds all of the transcribed files. Nothing is opened before the first transcript,
    so that an early mistake leaves an older file as it is.
    """

    def __init__(self, format: str, out: Path | None, files: Sequence[Path], several: bool):
        if format in SUBTITLES and several and out is None:
            raise InputError(f"{format} of several files needs --out, a folder")
        self.format = format
        self.out = out
        self.several = several
        self.names = _names(files)
        self.rows: list[Row] = []
        self._opened: TextIO | None = None
        all_differ = len(set(self.names.values())) == len(self.names)
        if self._folder is not None and not all_differ:
            raise InputError(
                f"several files would become the same .{format}: only their endings differ; "
                "transcribe them one at a time"
            )

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, failed: type | None, *_: object) -> None:
        if self.format == "json" and (self.rows or failed is None):
            self._print(json.dumps(self.rows, ensure_ascii=False, indent=1))
        if self._opened is not None:
            self._opened.close()

    @property
    def _folder(self) -> Path | None:
        """Where each transcript gets a file of its own."""
        own_files = self.format in SUBTITLES and self.several
        return self.out if own_files else None

    def write(self, transcript: Transcript) -> None:
        """Writes one transcript; one with an error as far as it goes."""
        if transcript.error and not transcript.segments:
            return
        if self._folder is not None:
            file = self._folder / f"{self.names[transcript.file]}.{self.format}"
            write_text(file, subtitles(transcript, self.format))
        elif self.format == "json":
            self.rows.append(as_row(transcript))
        else:
            self._print(self._rendered(transcript))

    def _rendered(self, transcript: Transcript) -> str:
        if self.format == "jsonl":
            return json.dumps(as_row(transcript), ensure_ascii=False)
        if self.format == "trn":
            return f"{transcript.text} ({self.names[transcript.file]})"
        if self.format in SUBTITLES:
            return subtitles(transcript, self.format)
        return f"{transcript.file}: {transcript.text}" if self.several else transcript.text

    def _print(self, text: str) -> None:
        """Prints to the terminal, or to the file, which is opened by the first call."""
        if self.out is not None and self._opened is None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._opened = self.out.open("w", encoding="utf-8")
        print(text, file=self._opened or sys.stdout, flush=True)


def _names(files: Sequence[Path]) -> dict[Path, Path]:
    """The path of each file, without its ending, from the folder that holds all of them."""
    folder = os.path.commonpath([file.absolute().parent for file in files])
    return {file: file.absolute().relative_to(folder).with_suffix("") for file in files}


def as_row(transcript: Transcript) -> Row:
    """A transcript as a JSON object."""
    row: Row = {
        "file": str(transcript.file),
        "text": transcript.text,
        "segments": [asdict(segment) for segment in transcript.segments],
    }
    if transcript.error:
        row["error"] = transcript.error
    return row


def subtitles(transcript: Transcript, format: str) -> str:
    """The transcript as SRT or WebVTT, one cue per segment."""
    mark = "," if format == "srt" else "."
    blocks = ["WEBVTT\n"] if format == "vtt" else []
    number = 0
    for segment in transcript.segments:
        if segment.text:
            number += 1
            start = clock(segment.start, mark)
            end = clock(segment.end, mark)
            blocks.append(f"{number}\n{start} --> {end}\n{segment.text}\n")
    return "\n".join(blocks)


def clock(seconds: float, mark: str) -> str:
    """Hours, minutes, seconds and, after the mark, milliseconds: 01:02:03,456."""
    whole_seconds, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole_seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"
