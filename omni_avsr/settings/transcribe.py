"""The options of `omni-avsr transcribe`."""

from dataclasses import dataclass
from pathlib import Path

from omni_avsr.settings.base import COUNT, POSITIVE, option
from omni_avsr.settings.shared import CheckpointOptions, FaceOptions, RateOptions
from omni_avsr.tasks import Task

TRANSCRIPT_FORMATS = ("text", "json", "jsonl", "srt", "vtt", "trn")


@dataclass(frozen=True)
class TranscribeSettings(CheckpointOptions, RateOptions, FaceOptions):
    """The options of `omni-avsr transcribe`."""

    task: str = option(
        "auto",
        "asr, vsr, avsr, or auto: whatever the file has, a voice, a face, or both.",
        ("auto", *Task),
    )
    format: str = option(
        "text",
        f"{', '.join(TRANSCRIPT_FORMATS[:-1])} or {TRANSCRIPT_FORMATS[-1]}.",
        TRANSCRIPT_FORMATS,
    )
    max_new_tokens: int = option(128, "Longest transcript of a window, in tokens.", bounds=COUNT)
    max_seconds_per_window: float = option(
        16.0,
        "Longest window in seconds; longer speech is cut at its quietest place.",
        bounds=POSITIVE,
    )
    pause: float = option(0.5, "A pause of so many seconds ends a window.", bounds=POSITIVE)
    max_frames: int = option(1500, "Video frames in a batch.", bounds=COUNT)
    out: Path | None = option(None, "Write here instead of to the terminal.")
