"""The options of `omni-avsr live`."""

from collections.abc import Iterator
from dataclasses import dataclass

from omni_avsr.settings.base import POSITIVE, WHOLE, option
from omni_avsr.settings.shared import (
    CheckpointOptions,
    DetectorOptions,
    RateOptions,
    SoundOptions,
)
from omni_avsr.settings.transcribe import SECONDS
from omni_avsr.tasks import Task


@dataclass(frozen=True)
class LiveSettings(CheckpointOptions, RateOptions, DetectorOptions, SoundOptions):
    """The options of `omni-avsr live`."""

    task: str = option(
        "auto",
        "asr, vsr, avsr, or auto: whatever there is, a voice, a face, or both.",
        ("auto", *Task),
    )
    format: str = option("text", "text, or jsonl: a line for each pass.", ("text", "jsonl"))
    mic: str | None = option(
        None,
        "Listen to this microphone instead of a file: default on Linux, :0 on a Mac.",
    )
    camera: str | None = option(
        None, "Watch through this camera: /dev/video0 on Linux, 0 on a Mac."
    )
    fast: bool = option(False, "Read the file as fast as it goes, not as fast as it plays.")
    patience: float = option(
        0.8,
        "Seconds between the end of a word and the newest sound, after which it settles.",
        bounds=WHOLE,
    )
    pass_every: float = option(0.4, "Seconds of new sound between two passes.", bounds=POSITIVE)
    pause: float = option(0.5, "A pause of so many seconds ends a caption.", bounds=SECONDS)
    max_seconds_per_window: float = option(
        12.0, "Most seconds of speech that are decoded together.", bounds=SECONDS
    )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.budget:
            yield "live decodes everything several times, so there is no budget: leave it out"

    @property
    def records(self) -> bool:
        """Whether a microphone or a camera is used."""
        return self.mic is not None or self.camera is not None

    @property
    def recorded_task(self) -> str:
        """The task; with one device alone, what is not recorded is not waited for."""
        if self.task != "auto" or not self.records:
            return self.task
        if self.camera is None:
            return Task.ASR
        return Task.VSR if self.mic is None else "auto"
