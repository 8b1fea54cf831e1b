"""What is said in a file, and how it is written: as JSON, TRN or CTM."""

import json
import math
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

from omni_avsr.decode.confidence import doubt_of
from omni_avsr.tasks import Row, Task

SUBTITLES = ("srt", "vtt")
UNKNOWN = "und"  # the code of a language that is not known
LEAST = 1e-6  # confidence


@dataclass(frozen=True)
class Word:
    """A word and when it is said."""

    word: str
    start: float  # seconds, as is the end
    end: float
    probability: float | None  # None if it could not be placed, and lies between its neighbours


@dataclass(frozen=True)
class Segment:
    """What is said in one window."""

    start: float  # seconds, as is the end
    end: float
    text: str
    task: Task
    confidence: float  # geometric mean of the tokens' probabilities, 0..1
    is_cut: bool = False  # whether the text reached the limit of tokens without an end
    words: tuple[Word, ...] | None = None  # None if the model cannot tell when they are said
    tokens: tuple[int, ...] = ()  # of the text
    log_probs: tuple[float, ...] = ()  # of each of them
    audio_rate: int | None = None  # at which it was decoded, as is the other
    video_rate: int | None = None

    @property
    def doubt(self) -> float:
        """The share of its words that are wrong, as far as the model can tell."""
        return doubt_of([word.probability for word in self.words or ()])

    @classmethod
    def from_row(cls, row: Row) -> "Segment":
        """The segment of a journal's row, which is its `asdict`."""
        words = row["words"] and tuple(Word(**word) for word in row["words"])
        tokens = {name: tuple(row[name]) for name in ("tokens", "log_probs")}
        return cls(**{**row, "task": Task(row["task"]), "words": words, **tokens})


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

    @property
    def words(self) -> list[Word]:
        """The words of all segments, with their times, as far as they are known."""
        return [word for segment in self.segments for word in segment.words or ()]


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
        del row["tokens"], row["log_probs"]
        if segment.words is None:
            del row["words"]
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


def as_verbose(transcript: Transcript, seconds: float) -> Row:
    """A transcript as OpenAI's verbose JSON, with what is ours beside it."""
    segments = []
    for number, segment in enumerate(transcript.segments):
        text = segment.text.encode()
        row = {
            "id": number,
            "seek": round(100 * segment.start),
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "tokens": list(segment.tokens),
            "temperature": 0.0,
            "avg_logprob": round(math.log(max(segment.confidence, LEAST)), 4),
            "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
            "no_speech_prob": float(not segment.text),
            "confidence": segment.confidence,
            "task": segment.task,
            "audio_rate": segment.audio_rate,
            "video_rate": segment.video_rate,
        }
        segments.append(row)
    words = list(map(asdict, transcript.words))
    whole = {"task": "transcribe", "language": UNKNOWN, "duration": seconds}
    return {**whole, "text": transcript.text, "words": words, "segments": segments}


def line(format: str, transcript: Transcript, name: Path) -> str:
    """A transcript as a line of JSON, or of TRN with its name, or as lines of CTM."""
    if format == "jsonl":
        return json.dumps(as_row(transcript), ensure_ascii=False) + "\n"
    if format == "trn":
        return f"{transcript.text} ({name})\n"
    recording = "_".join(str(name).split())  # as spaces stand between its fields
    return "".join(f"{recording} {_ctm_fields(word)}\n" for word in transcript.words)


def _ctm_fields(word: Word) -> str:
    """The channel, the start, the duration, the word and, if it is known, how sure it is."""
    fields = f"1 {word.start:.3f} {word.end - word.start:.3f} {word.word}"
    return fields if word.probability is None else f"{fields} {word.probability:.4f}"
