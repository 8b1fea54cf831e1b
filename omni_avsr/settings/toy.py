"""The options of `omni-avsr toy` and `omni-avsr demo`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.settings.base import COUNT, DECIBELS, POSITIVE, SEED, WHOLE, Bounds, Settings, option
from omni_avsr.settings.shared import LANGUAGES, MULTI, WORLDS
from omni_avsr.settings.train import TrainSettings


@dataclass(frozen=True)
class ToySettings(Settings):
    """The options of `omni-avsr toy`."""

    clips: int = option(1600, "Training clips.", bounds=COUNT)
    world: str = option(
        "grid", "grid: six-word commands; open: sentences of over 500 words; mixed: both.", WORLDS
    )
    language: str = option(
        "en", "Language of the open world; multi is all of them in turn.", (*LANGUAGES, MULTI)
    )
    seed: int = option(1, "Seed of sentences, voices and mouths.", bounds=SEED)
    processes: int = option(
        0, "Processes; 0 takes one per core. The corpus does not depend on it.", bounds=WHOLE
    )
    long: float | None = option(
        None,
        "Write one recording of so many minutes instead of a corpus: whole faces, and what is said "
        "when.  [default: a corpus]",
        bounds=POSITIVE,
    )
    speakers: int = option(
        1, "With --long: 1, or 2 who sit side by side and take turns.", bounds=Bounds(1, 2)
    )

    def problems(self) -> Iterator[str]:
        if self.speakers > 1 and self.long is None:
            yield f"speakers {self.speakers} is for a long recording: add --long MINUTES"


@dataclass(frozen=True)
class DemoSettings(Settings):
    """The options of `omni-avsr demo`."""

    out: Path = option(Path("runs/demo"), "The run's folder.")
    seed: int = option(1, "Seed of everything random.", bounds=SEED)
    max_steps: int = option(TrainSettings.max_steps, "Optimizer steps.", bounds=COUNT)
    toy_clips: int = option(
        1600, "Training clips; there are an eighth as many test clips.", bounds=COUNT
    )
    snr: float = option(0.0, "Signal-to-noise ratio of the babble, in dB.", bounds=DECIBELS)
