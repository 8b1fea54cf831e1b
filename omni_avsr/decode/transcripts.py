"""What is said in a file, and how it is written: as text, JSON, subtitles or TRN."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from omni_avsr.tasks import Row, Task

SUBTITLES = ("srt", "vtt")


@dataclass(frozen=True)
class Segment:
    """What is said in one window."""

    start: float  # seconds, as is the end
    end: float
    text: str
    task: Task
    confidence: float  # geometric mean of the tokens' probabilities, 0..1
    is_cut: bool = False  # whether the text reached the limit of tokens without an end


@dataclass
class Transcript:
    """What is said in one file; with an error, what was transcribed before it."""

    file: Path
    segments: list[Segment] = field(default_factory=list)
    error: str | None = None
    notes: list[str] = field(default_factory=list)  # what was done otherwise than expected

    @property
    def text(self) -> str:
        """The text of all segments in one line."""
        return " ".join(segment.text for segment in self.segments if segment.text)


@dataclass(frozen=True)
class Update:
    """One more segment of a transcript, or its end."""

    transcript: Transcript  # as far as it goes, with this segment
    segment: Segment | None  # None at the end


def as_row(transcript: Transcript) -> Row:
    """A transcript as a JSON object."""
    segments = []
    for segment in transcript.segments:
        row = asdict(segment)
        row["cut"] = row.pop("is_cut")
        segments.append(row)
    whole: Row = {
        "file": str(transcript.file),
        "text": transcript.text,
        "segments": segments,
    }
    if transcript.error:
        whole["error"] = transcript.error
    if transcript.notes:
        whole["notes"] = transcript.notes
    return whole


def line(format: str, transcript: Transcript, name: Path) -> str:
    """A transcript as a line of JSON, or of TRN with its name."""
    if format == "jsonl":
        return json.dumps(as_row(transcript), ensure_ascii=False)
    return f"{transcript.text} ({name})"


def cue(format: str, segment: Segment, number: int) -> str:
    """A segment as a subtitle of SRT or WebVTT, after what stands between it and the one before."""
    mark = "," if format == "srt" else "."
    start = clock(segment.start, mark)
    end = clock(segment.end, mark)
    before = "" if format == "srt" and number == 1 else "\n"
    return f"{before}{number}\n{start} --> {end}\n{segment.text}"


def clock(seconds: float, mark: str) -> str:
    """Hours, minutes, seconds and, after the mark, milliseconds: 01:02:03,456."""
    whole_seconds, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, second = divmod(whole_seconds, 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}{mark}{milliseconds:03}"
