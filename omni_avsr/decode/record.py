"""Which segments of which files are transcribed already, so that the rest can be resumed."""

from dataclasses import asdict
from pathlib import Path

from omni_avsr.decode.transcripts import Segment, Transcript
from omni_avsr.decode.windows import Window
from omni_avsr.files import Journal
from omni_avsr.tasks import Row


class Record:
    """The transcripts in a journal. Those of a file that has changed since are not found."""

    def __init__(self, journal: Journal):
        self.journal = journal
        self.segments: dict[str, dict[tuple[float, float, str], Segment]] = {}
        self.complete: dict[str, Row] = {}  # the row of each complete file
        self.pending: list[Row] = []  # rows that are to be written together
        for row in journal.rows:
            if "notes" in row:
                self.complete[row["file"]] = row
            else:
                segment = Segment.from_row(row["segment"])
                self.segments.setdefault(row["file"], {})[_place(segment)] = segment

    def known(self, file: Path) -> Transcript | None:
        """The transcript of a file, if it is complete.

        Segments of an earlier run that cut the file in other places are left out.
        """
        key = _key(file)
        if key not in self.complete:
            return None
        row = self.complete[key]
        segments = [self.segments[key][tuple(place)] for place in row["places"]]
        return Transcript(file, segments, notes=row["notes"])

    def segment(self, file: Path, window: Window) -> Segment | None:
        """What is said in a window of a file, if it is known."""
        return self.segments.get(_key(file), {}).get(_place(window))

    def add(self, file: Path, segment: Segment) -> None:
        """Keeps a segment for the next `flush`."""
        self.pending.append({"file": _key(file), "segment": asdict(segment)})

    def end(self, transcript: Transcript) -> None:
        """Keeps for the next `flush` that a transcript is complete."""
        key = _key(transcript.file)
        if not transcript.error and key not in self.complete:
            places = list(map(_place, transcript.segments))
            self.pending.append({"file": key, "notes": transcript.notes, "places": places})

    def flush(self) -> None:
        """Writes what was kept to the disk."""
        self.journal.add(self.pending)
        self.pending = []


def _place(part: Segment | Window) -> tuple[float, float, str]:
    """What tells the parts of a file from each other."""
    return part.start, part.end, part.task


def _key(file: Path) -> str:
    """What names a file in its present state; empty for one that is not there."""
    if not file.exists():
        return ""
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns} {file.absolute()}"
