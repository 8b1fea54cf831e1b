"""The options of `omni-avsr transcribe`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.settings.base import COUNT, Bounds, option, shard_problem
from omni_avsr.settings.shared import CheckpointOptions, FaceOptions, RateOptions, SoundOptions
from omni_avsr.tasks import Task

TRANSCRIPT_FORMATS = ("text", "json", "jsonl", "verbose_json", "srt", "vtt", "ctm", "trn")
SECONDS = Bounds(0, 3600, above=True)
ENDINGS = {"text": ".txt", "verbose_json": ".verbose.json"}  # the others are their own endings


def ending(format: str) -> str:
    """How the files of a transcript format end."""
    return ENDINGS.get(format, f".{format}")


@dataclass(frozen=True)
class TranscribeSettings(CheckpointOptions, RateOptions, FaceOptions, SoundOptions):
    """The options of `omni-avsr transcribe`."""

    task: str = option(
        "auto",
        "asr, vsr, avsr, or auto: whatever the file has, a voice, a face, or both.",
        ("auto", *Task),
    )
    format: tuple[str, ...] | None = option(
        None,
        f"{', '.join(TRANSCRIPT_FORMATS[:-1])} or {TRANSCRIPT_FORMATS[-1]}, or several such as "
        "srt,json.  [default: as --out ends, or text]",
        TRANSCRIPT_FORMATS,
    )
    words: bool = option(
        True,
        "Find when each word is said, if the model can: for JSON and CTM, and to break subtitles.",
    )
    highlight: bool = option(False, "Mark in VTT when each word is said.")
    max_seconds_per_window: float = option(
        16.0,
        "Longest window in seconds, at most what the audio encoder takes; longer speech is cut at "
        "its quietest place.",
        bounds=SECONDS,
    )
    pause: float = option(0.5, "A pause of so many seconds ends a window.", bounds=SECONDS)
    max_frames: int = option(1500, "Video frames in a batch.", bounds=COUNT)
    out: Path | None = option(
        None,
        "Write to this file, or to a file for each transcript in this folder, instead of to the "
        "terminal.",
    )

    shard: str | None = option(
        None, "The part of the files to transcribe, such as 3/8, for job arrays."
    )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats to write: the given ones, else what the name of --out says, else text."""
        return tuple(dict.fromkeys(self.format or (self._named_format or "text",)))

    @property
    def _named_format(self) -> str | None:
        """The format that --out ends in."""
        if self.out is None or self.out.is_dir():
            return None
        known = {ending(format): format for format in TRANSCRIPT_FORMATS}
        return known.get(self.out.suffix.lower())

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.shard and (problem := shard_problem(self.shard)):
            yield problem
        if self.rates and not self.words:
            yield "rates auto judges words: leave no-words out"
        named = self._named_format
        if "ctm" in self.formats and not self.words:
            yield "format ctm is the times of words: leave --no-words out"
        if len(self.formats) > 1 and (self.out is None or named):
            yield f"format {', '.join(self.formats)}: several need --out, a folder"
        elif named and self.formats != (named,):
            (format,) = self.formats
            yield f"out {self.out} is {named} by its name, but format is {format}: change one"
