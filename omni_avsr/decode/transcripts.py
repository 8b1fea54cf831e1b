"""Transcripts as text, JSON, subtitles or TRN, written file by file as they come."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from omni_avsr.decode.transcribe import Transcript
from omni_avsr.run import write_text

SUBTITLES = ("srt", "vtt")


class Writer:
    """Writes to the terminal or one file; subtitles of several videos go to a folder, one file each.

    Of several files each goes by its path from the folder that holds them all. Nothing is opened before the first.
    """

    def __init__(self, format: str, out: str | None, files: Sequence[Path], several: bool):
        if format in SUBTITLES and several and not out:
            raise ValueError(f"{format} of several files needs --out, a folder")
        self.format, self.out, self.several = format, Path(out) if out else None, several
        self.rows: list[dict[str, Any]] = []
        base = os.path.commonpath([file.absolute().parent for file in files])
        self.names = {file: file.absolute().relative_to(base).with_suffix("") for file in files}
        if self._own_files and len(set(self.names.values())) < len(set(files)):
            raise ValueError(f"several files would become the same .{format}: their names differ in their ending alone")

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, failed: type | None, *_: Any) -> None:
        if self.format == "json" and (self.rows or not failed):
            print(json.dumps(self.rows, ensure_ascii=False, indent=1), file=self.stream)
        if self.out and "stream" in vars(self):
            self.stream.close()

    @cached_property
    def stream(self) -> TextIO:
        """The file, or the terminal."""
        if not self.out:
            return sys.stdout
        self.out.parent.mkdir(parents=True, exist_ok=True)
        return self.out.open("w", encoding="utf-8")

    @property
    def _own_files(self) -> bool:
        return self.format in SUBTITLES and self.several

    def write(self, transcript: Transcript) -> None:
        """Writes one transcript; with an error, what there is of it."""
        if transcript.error and not transcript.segments:
            return
        if self._own_files:
            assert self.out
            file = self.out / f"{self.names[transcript.file]}.{self.format}"
            write_text(file, subtitles(transcript, self.format))
        elif self.format == "json":
            self.rows.append(as_row(transcript))
        else:
            print(self._line(transcript), file=self.stream, flush=True)

    def _line(self, transcript: Transcript) -> str:
        if self.format == "jsonl":
            return json.dumps(as_row(transcript), ensure_ascii=False)
        if self.format == "trn":
            return f"{transcript.text} ({self.names[transcript.file]})"
        if self.format in SUBTITLES:
            return subtitles(transcript, self.format)
        return f"{transcript.file}: {transcript.text}" if self.several else transcript.text


def as_row(transcript: Transcript) -> dict[str, Any]:
    """A transcript as JSON has it."""
    segments = [asdict(segment) for segment in transcript.segments]
    error = {"error": transcript.error} if transcript.error else {}
    return {"file": str(transcript.file), "text": transcript.text, "segments": segments, **error}


def subtitles(transcript: Transcript, format: str) -> str:
    """The cues of SRT or WebVTT, one a segment."""
    mark = "," if format == "srt" else "."
    cues = [
        f"{number}\n{clock(s.start, mark)} --> {clock(s.end, mark)}\n{s.text}\n"
        for number, s in enumerate((s for s in transcript.segments if s.text), 1)
    ]
    return "\n".join(["WEBVTT\n", *cues] if format == "vtt" else cues)


def clock(seconds: float, mark: str) -> str:
    """Hours, minutes, seconds and milliseconds: 01:02:03,456."""
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{thousandths:03}"
