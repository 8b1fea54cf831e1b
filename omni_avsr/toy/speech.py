"""Speech from espeak-ng through ctypes, with the time of each phoneme.

espeak's sound depends on all that its process said before (flutter goes on from clip to clip), and re-initialising it
does not help: only a fresh process that says the same things in the same order gives the same bytes; corpus.py sees to
that. Voices with a breath are not used: espeak seeds that noise with the clock.
"""

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from omni_avsr.tasks import SAMPLE_RATE, SAMPLES_PER_VIDEO_FRAME
from omni_avsr.toy.phones import Phoneme

MISSING = 'the toy corpus needs espeak-ng: pip install "omni-avsr[toy]" brings it as the wheel espeakng-loader'

_ESPEAK_RATE = 22_050  # Hz
_SYNCHRONOUS = 2  # the call returns once all has been said to the callback
_PHONEME_EVENTS, _DONT_EXIT = 0x0001, 0x8000
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak's parameter numbers
_UTF8 = 1
_END_OF_EVENTS, _PHONEME_EVENT = 0, 7
_FFT_STEP = 441 * 8  # samples; 441 of espeak's are 320 of ours, and a length with small factors is fast
_SILENCE_S = (0.12, 0.36)  # of the silence before and after
_RMS = (1400.0, 3000.0)  # of the int16 samples
_ROOM_NOISE = (2.0, 12.0)  # likewise


@dataclass(frozen=True)
class Voice:
    """A speaker: an espeak voice with its variant, pitch and pitch range in 0..99, and words a minute."""

    name: str
    espeak: str
    pitch: int = 50
    range: int = 50
    speed: int = 150

    def jittered(self, rng: np.random.Generator) -> "Voice":
        """The same speaker on another day: a little higher or lower, faster or slower."""
        pitch, speed = rng.normal(0, 4), rng.normal(1, 0.07)
        return replace(
            self, pitch=int(np.clip(self.pitch + pitch, 5, 95)), speed=int(self.speed * np.clip(speed, 0.85, 1.15))
        )


@dataclass(frozen=True)
class Spoken:
    """int16 audio (S,) at 16 kHz, a whole number of video frames long, and the phonemes in it."""

    audio: np.ndarray
    phonemes: list[Phoneme]


def _speakers(letter: str, table: str) -> tuple[Voice, ...]:
    rows = [row.split() for row in table.split(",")]
    return tuple(Voice(f"{letter}{i:02d}", row[0], *map(int, row[1:])) for i, row in enumerate(rows))


# Rows: espeak voice and variant, pitch, pitch range, words a minute. No variant of one split speaks in another.
SPEAKERS = {
    "train": _speakers(
        "s",
        "en-us+m1 45 50 150, en-us+f1 55 50 150, en-us+m3 40 40 155, en-us+steph 55 55 160, en-us+max 50 50 145,"
        "en-us+Alex 55 45 150, en-us+Annie 60 60 155, en-us+Andy 45 50 165, en+m2 50 55 150, en+linda 60 50 145,"
        "en+m4 45 60 150, en+f4 55 45 155, en+Michael 40 50 160, en+belinda 55 55 150, en+Mike 50 40 145,"
        "en-gb-x-rp+m5 40 50 150, en-gb-x-rp+f4 60 60 155, en-gb-x-rp+adam 50 50 160, en-gb-x-rp+edward2 45 45 150,"
        "en-gb-scotland+m6 50 50 150, en-gb-scotland+linda 55 50 145, en-029+m7 45 55 155, en-us-nyc+f1 62 50 150,"
        "en-us-nyc+quincy 45 50 155, en-us-nyc+grandpa 40 45 145, en-gb-x-gbclan+rob 50 50 150,"
        "en-gb-x-gbcwmd+david 45 55 155, en+Nguyen 55 50 150",
    ),
    "valid": _speakers("v", "en-us+Lee 50 50 150, en+Hugo 45 50 155, en-us+shelby 55 50 150"),
    "test": _speakers(
        "t",
        "en-us+m8 50 50 150, en+grandma 55 50 155, en-gb-x-rp+Henrique 45 50 150, en-us+robert 50 45 150,"
        "en+aunty 55 55 150",
    ),
}


def speak(text: str, voice: Voice, rng: np.random.Generator) -> Spoken:
    """The text in this voice, between two random silences."""
    samples, events = _synthesize(text, voice)
    lead, trail = rng.uniform(*_SILENCE_S, 2)
    speech = _resampled(samples)
    total = -(-(len(speech) + int((lead + trail) * SAMPLE_RATE)) // SAMPLES_PER_VIDEO_FRAME) * SAMPLES_PER_VIDEO_FRAME
    start = int(lead * SAMPLE_RATE)
    audio = rng.normal(0, rng.uniform(*_ROOM_NOISE), total)  # a floor, as digital silence is found nowhere
    loudness = np.sqrt(np.mean(speech**2)) + 1e-9
    audio[start : start + len(speech)] += speech * (np.exp(rng.uniform(*np.log(_RMS))) / loudness)
    times = [start / SAMPLE_RATE + position / _ESPEAK_RATE for position, _ in events] + [total / SAMPLE_RATE]
    phonemes = [(times[i], times[i + 1], name) for i, (_, name) in enumerate(events)]
    return Spoken(np.clip(np.rint(audio), -32768, 32767).astype(np.int16), phonemes)


def require_espeak() -> tuple[str, str]:
    """The paths of the library and its data, or an error that says how to get them."""
    try:
        import espeakng_loader  # type: ignore[import-untyped]
    except ImportError:
        raise ValueError(MISSING) from None
    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


class _EventId(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("text", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Samples = ctypes.POINTER(ctypes.c_short)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, _Samples, ctypes.c_int, ctypes.POINTER(_Event))


class _Recorder:
    """Collects what espeak hands over while it speaks."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.events: list[tuple[int, str]] = []
        self.callback: Callable[..., int] = _Callback(self._collect)  # kept, or ctypes frees it under espeak

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self.pieces.append(ctypes.string_at(samples, 2 * count))
        i = 0
        while events[i].type != _END_OF_EVENTS:
            if events[i].type == _PHONEME_EVENT:
                self.events.append((events[i].sample, events[i].id.text.decode("utf-8", "replace")))
            i += 1
        return 0  # go on


@functools.cache
def _espeak() -> tuple[ctypes.CDLL, _Recorder]:
    library, data = require_espeak()
    espeak, recorder = ctypes.CDLL(library), _Recorder()
    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), _PHONEME_EVENTS | _DONT_EXIT)
    if rate != _ESPEAK_RATE:
        raise ValueError(
            f"espeak-ng at {library} starts with a rate of {rate}, {_ESPEAK_RATE} is expected; reinstall it"
        )
    espeak.espeak_SetSynthCallback(recorder.callback)
    return espeak, recorder


def _synthesize(text: str, voice: Voice) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """Float samples (S,) at espeak's rate, and (sample, name) of each phoneme's start."""
    espeak, recorder = _espeak()
    recorder.pieces.clear()
    recorder.events.clear()
    if espeak.espeak_SetVoiceByName(voice.espeak.encode()):
        raise ValueError(f"this espeak-ng has no voice {voice.espeak!r}; see its folder espeak-ng-data/voices/!v")
    for parameter, value in ((_RATE, voice.speed), (_PITCH, voice.pitch), (_RANGE, voice.range)):
        espeak.espeak_SetParameter(parameter, value, 0)
    spoken = text.encode()
    if espeak.espeak_Synth(spoken, ctypes.c_size_t(len(spoken) + 1), 0, 1, 0, _UTF8, None, None):
        raise ValueError(f"espeak-ng does not say {text!r}")
    return np.frombuffer(b"".join(recorder.pieces), np.int16).astype(np.float64), list(recorder.events)


def _resampled(samples: np.ndarray) -> np.ndarray:
    """Samples at espeak's rate -> at ours, by cutting the spectrum off at our Nyquist frequency."""
    padded = -(-len(samples) // _FFT_STEP) * _FFT_STEP  # silence, in which the transform's wrap-around is not heard
    count = padded * 320 // 441
    whole = np.fft.irfft(np.fft.rfft(samples, padded), count) * (count / padded)
    return whole[: len(samples) * 320 // 441]
