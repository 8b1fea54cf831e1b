"""Tasks, routes, units and lengths: the numbers that everything else derives from.

Needs nothing but Python.
"""

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from omni_avsr.errors import InputError

VERSION = "0.1.0"

Row = dict[str, Any]  # one JSON object of a results, hypothesis or journal file

SAMPLE_RATE = 16_000  # Hz
VIDEO_FPS = 25  # mouth frames per second
AUDIO_FPS = 50  # frames per second out of Whisper's encoder
SAMPLES_PER_VIDEO_FRAME = SAMPLE_RATE // VIDEO_FPS  # 640
SAMPLES_PER_AUDIO_FRAME = SAMPLE_RATE // AUDIO_FPS  # 320
MEL_HOP = SAMPLES_PER_AUDIO_FRAME // 2  # samples; Whisper's second convolution has stride 2
MEL_WINDOW = 400  # samples, 25 ms

MOUTH_SIZE = 96  # pixels, the side of a mouth clip on disk
CROP_SIZE = 88  # pixels, the side of what the encoder sees
PIXEL_MEAN, PIXEL_STD = 0.421, 0.165  # of grey values in 0..1

MODALITIES = ("audio", "video")  # in the order of the token sequence
FRAME_RATES = {"audio": AUDIO_FPS, "video": VIDEO_FPS}  # encoder frames per second
NORMALISERS = ("lower", "13a", "whisper")  # how texts can be scored
PUBLISHED_MINIMUM_AUDIO_FRAMES = 25  # half a second
# Enough for fast speech that a tokenizer spells in bytes: 18 a second at most in the toy corpus
TRANSCRIPT_TOKENS = 16  # of any transcript, and for each second as many more
TRANSCRIPT_TOKENS_PER_SECOND = 20


class Task(StrEnum):
    """What a clip is transcribed from."""

    ASR = "asr"  # the voice
    VSR = "vsr"  # the lips
    AVSR = "avsr"  # both

    @property
    def hears(self) -> bool:
        return self is not Task.VSR

    @property
    def sees(self) -> bool:
        return self is not Task.ASR

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the task needs of a clip, in the order of the token sequence."""
        return {Task.ASR: ("audio",), Task.VSR: ("video",), Task.AVSR: MODALITIES}[self]

    @classmethod
    def _missing_(cls, value: object) -> "Task":
        raise InputError(f"unknown task {value!r}; available: {', '.join(cls)}")


@dataclass(frozen=True)
class Route:
    """A task at its token rates: one pass of the language model, one column of a results table."""

    task: Task
    audio_rate: int | None = None  # encoder frames per token; None in VSR
    video_rate: int | None = None  # video frames per token; None in ASR

    def __post_init__(self) -> None:
        object.__setattr__(self, "task", Task(self.task))
        for modality, rate in (("audio", self.audio_rate), ("video", self.video_rate)):
            if modality not in self.task.modalities and rate is not None:
                raise InputError(f"{self.task} takes no {modality} rate, {rate} was given")
            if modality in self.task.modalities and (rate is None or rate < 1):
                raise InputError(f"{self.task}: the {modality} rate must be 1 or more, not {rate}")

    def __str__(self) -> str:
        return f"{self.task.upper()} {self.rates}"

    def __lt__(self, other: "Route") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[int, int, int]:
        return list(Task).index(self.task), self.audio_rate or 0, self.video_rate or 0

    @property
    def modalities(self) -> tuple[str, ...]:
        """What the route needs of a clip, in the order of the token sequence."""
        return self.task.modalities

    def rate(self, modality: str) -> int:
        """Frames per token of one of its modalities."""
        rate = self.audio_rate if modality == "audio" else self.video_rate
        assert rate is not None, f"{self} has no {modality}"
        return rate

    @property
    def rates(self) -> str:
        """The rates as tables show them: (4,2)."""
        return f"({','.join(str(self.rate(modality)) for modality in self.modalities)})"

    @property
    def key(self) -> str:
        """A name for files and metrics: avsr-a4-v2."""
        parts = [f"{modality[0]}{self.rate(modality)}" for modality in self.modalities]
        return "-".join([self.task, *parts])

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the language model that a second of speech becomes."""
        return sum(FRAME_RATES[name] / self.rate(name) for name in self.modalities)

    @classmethod
    def from_row(cls, row: Row) -> "Route":
        """The route of a row of a results or hypothesis file."""
        return cls(Task(row["task"]), row["audio_rate"], row["video_rate"])

    def as_row(self) -> Row:
        """Its columns in a results or hypothesis file."""
        return {
            "task": str(self.task),
            "audio_rate": self.audio_rate,
            "video_rate": self.video_rate,
        }


@dataclass(frozen=True)
class Condition:
    """What the voice is mixed with: one row of a results table."""

    snr: float | None = None  # dB; None is clean
    noise: str | None = None  # babble, white, or a folder of sounds

    def __post_init__(self) -> None:
        if self.snr is None:
            object.__setattr__(self, "noise", None)  # clean, whatever noise is named

    def __str__(self) -> str:
        return "clean" if self.snr is None else f"{self.noise or 'noise'} {self.snr:g} dB"

    def __lt__(self, other: "Condition") -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[bool, str, float]:
        return self.snr is not None, self.noise or "", -(self.snr or 0)

    @classmethod
    def from_row(cls, row: Row) -> "Condition":
        """The condition of a row of a results or hypothesis file."""
        return cls(row["snr"], row["noise"])

    def as_row(self) -> Row:
        """Its columns in a results or hypothesis file."""
        return {"snr": self.snr, "noise": self.noise}


CLEAN = Condition()


def audio_frames(samples: int, exact: bool = True) -> int:
    """Frames that Whisper's encoder gives for so many samples; a started frame counts.

    With exact=False as the published code computes it: in float32, rounded down, and at least half
    a second.
    """
    if exact:
        return -(-samples // SAMPLES_PER_AUDIO_FRAME)
    seconds = _float32(samples / SAMPLE_RATE)
    return max(int(_float32(seconds * AUDIO_FPS)), PUBLISHED_MINIMUM_AUDIO_FRAMES)


def token_count(frames: int, rate: int, keep_tail: bool) -> int:
    """Tokens that so many frames become; with keep_tail a last partial window is one more."""
    return -(-frames // rate) if keep_tail else frames // rate


def longest_transcript(seconds: float) -> int:
    """Tokens at which the transcript of so long a clip is cut, unless another limit is given."""
    return TRANSCRIPT_TOKENS + int(TRANSCRIPT_TOKENS_PER_SECOND * seconds)


def _float32(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]
