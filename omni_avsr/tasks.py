"""Tasks, units and lengths: the numbers that everything else derives from. Standard library only."""

import struct
from enum import StrEnum

VERSION = "0.1.0"

SAMPLE_RATE = 16_000  # Hz
VIDEO_FPS = 25  # mouth frames a second
AUDIO_FPS = 50  # frames a second out of Whisper's encoder
SAMPLES_PER_VIDEO_FRAME = SAMPLE_RATE // VIDEO_FPS  # 640
SAMPLES_PER_AUDIO_FRAME = SAMPLE_RATE // AUDIO_FPS  # 320
MEL_HOP = SAMPLES_PER_AUDIO_FRAME // 2  # samples; Whisper's second convolution has stride 2
MEL_WINDOW = 400  # samples, 25 ms

MOUTH_SIZE = 96  # pixels, a mouth clip on disk
CROP_SIZE = 88  # pixels, what the encoder sees
PIXEL_MEAN, PIXEL_STD = 0.421, 0.165  # of grey values in 0..1

NORMALISERS = ("lower", "13a", "whisper")  # how texts can be scored
PUBLISHED_LEAST_AUDIO_FRAMES = 25  # half a second


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

    @classmethod
    def _missing_(cls, value: object) -> "Task":
        raise ValueError(f"unknown task {value!r}; available: {', '.join(cls)}")


def audio_frames(samples: int, exact: bool = True) -> int:
    """Frames that Whisper's encoder gives for so many samples; a started frame counts.

    With exact=False as the published code computes it: in float32, rounded down, half a second at the least.
    """
    if exact:
        return -(-samples // SAMPLES_PER_AUDIO_FRAME)
    return max(int(_float32(_float32(samples / SAMPLE_RATE) * AUDIO_FPS)), PUBLISHED_LEAST_AUDIO_FRAMES)


def token_count(frames: int, rate: int, keep_tail: bool) -> int:
    """Tokens left of so many frames at a compression rate; a last partial window is one more if keep_tail."""
    return -(-frames // rate) if keep_tail else frames // rate


def _float32(number: float) -> float:
    return struct.unpack("f", struct.pack("f", number))[0]
