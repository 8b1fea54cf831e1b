"""Speech from espeak-ng through ctypes, with the times of the words and phonemes.

What espeak says depends on everything that its process said before, because its flutter runs on
from clip to clip, and initialising it again does not reset it. Only a fresh process that says the
same texts in the same order gives the same bytes; corpus.py takes care of that. Breathy voices are
not used, because espeak seeds their noise with the clock.
"""

import ctypes
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.tasks import SAMPLE_RATE, SAMPLES_PER_VIDEO_FRAME
from omni_avsr.toy.phones import SILENCE, Phoneme, phoneme_class
from omni_avsr.toy.voices import Voice
from omni_avsr.toy.words import Word, timed_words

MISSING = (
    'the toy corpus needs the voices of espeak-ng: install them with pip install "omni-avsr[toy]"'
)

_ESPEAK_RATE = 22_050  # Hz
_OUR_SHARE, _THEIR_SHARE = 320, 441  # so many samples of ours last as long as so many of espeak's
_FFT_STEP = _THEIR_SHARE * 8  # samples; lengths with small factors are fast
_SILENCE = (0.12, 0.36)  # seconds before and after the speech
_LOUDNESS = (1400.0, 3000.0)  # RMS of the int16 samples
_ROOM_NOISE = (2.0, 12.0)  # RMS of the int16 samples

# Constants of espeak-ng's speak_lib.h
_SYNCHRONOUS = 2  # the call returns when everything was passed to the callback
_REPORT_PHONEMES, _DO_NOT_EXIT = 0x0001, 0x8000
_SPEED, _PITCH, _PITCH_RANGE = 1, 3, 4
_UTF8 = 1
_END_OF_EVENTS, _WORD_EVENT, _PHONEME_EVENT = 0, 1, 7


@dataclass(frozen=True)
class Spoken:
    """Speech and what is said when; it lasts a whole number of video frames."""

    audio: np.ndarray  # (S,) int16 at 16 kHz
    phonemes: list[Phoneme]
    words: list[Word]


def speak(text: str, voice: Voice, rng: np.random.Generator, pause: float = 0.0) -> Spoken:
    """Returns the text in this voice, between two random silences.

    If there are seconds of a pause, the longest silence inside the text is so much longer.
    """
    said = _synthesize(text, voice)
    if pause:
        said = _paused(said, round(pause * _ESPEAK_RATE))
    speech = _resampled(said.samples)
    lead, trail = rng.uniform(*_SILENCE, 2)  # seconds
    begin = int(lead * SAMPLE_RATE)
    least = len(speech) + int((lead + trail) * SAMPLE_RATE)
    total = _rounded_up(least, SAMPLES_PER_VIDEO_FRAME)

    room_noise = rng.uniform(*_ROOM_NOISE)
    audio = rng.normal(0, room_noise, total)
    loudness = np.exp(rng.uniform(*np.log(_LOUDNESS)))
    own_loudness = np.sqrt(np.mean(speech**2)) + 1e-9
    audio[begin : begin + len(speech)] += speech * (loudness / own_loudness)
    audio = np.clip(np.rint(audio), -32768, 32767).astype(np.int16)

    def time_of(position: int) -> float:
        return begin / SAMPLE_RATE + position / _ESPEAK_RATE

    times = [time_of(position) for position, _ in said.phonemes]
    times.append(total / SAMPLE_RATE)
    phonemes = []
    for index, (_, name) in enumerate(said.phonemes):
        phonemes.append(Phoneme(times[index], times[index + 1], name))
    starts: dict[int, float] = {}
    for position, place in said.words:
        starts.setdefault(place, time_of(position))  # of words said as one, that of the first
    return Spoken(audio, phonemes, timed_words(text, starts, phonemes))


def require_espeak() -> tuple[str, str]:
    """Returns the paths of espeak's library and data; the error says how to install them."""
    try:
        import espeakng_loader  # type: ignore[import-untyped]
    except ImportError:
        raise InputError(MISSING) from None
    return str(espeakng_loader.get_library_path()), str(espeakng_loader.get_data_path())


class _EventId(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("text", ctypes.c_char * 8),
    )


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
_Events = ctypes.POINTER(_Event)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, _Samples, ctypes.c_int, _Events)


@dataclass(frozen=True)
class _Said:
    """What espeak says, at its own sample rate."""

    samples: np.ndarray  # (S,)
    phonemes: list[tuple[int, str]]  # the first sample and the name of each
    words: list[tuple[int, int]]  # the first sample, and the first character in the text


class _Recorder:
    """Collects the samples, phonemes and words that espeak passes to its callback."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.phonemes: list[tuple[int, str]] = []
        self.words: list[tuple[int, int]] = []
        # Without a reference to it, the callback would be freed while espeak uses it.
        self.callback: Callable[..., int] = _Callback(self._collect)

    def clear(self) -> None:
        self.pieces.clear()
        self.phonemes.clear()
        self.words.clear()

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self.pieces.append(ctypes.string_at(samples, 2 * count))
        for event in events:  # a C array, ended by a special event
            if event.type == _END_OF_EVENTS:
                break
            if event.type == _PHONEME_EVENT:
                name = event.id.text.decode("utf-8", "replace")
                self.phonemes.append((event.sample, name))
            if event.type == _WORD_EVENT:
                self.words.append((event.sample, event.text_position - 1))
        return 0  # continue


@functools.cache
def _espeak() -> tuple[ctypes.CDLL, _Recorder]:
    library, data = require_espeak()
    espeak = ctypes.CDLL(library)
    options = _REPORT_PHONEMES | _DO_NOT_EXIT
    rate = espeak.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), options)
    if rate != _ESPEAK_RATE:
        raise InputError(
            f"espeak-ng at {library} starts with a sample rate of {rate}, expected {_ESPEAK_RATE}: "
            "reinstall espeakng-loader"
        )
    recorder = _Recorder()
    espeak.espeak_SetSynthCallback(recorder.callback)
    return espeak, recorder


def _synthesize(text: str, voice: Voice) -> _Said:
    """Returns the text in this voice, as espeak says it."""
    espeak, recorder = _espeak()
    recorder.clear()
    if espeak.espeak_SetVoiceByName(voice.espeak.encode()):
        raise InputError(
            f"this espeak-ng has no voice {voice.espeak!r}: reinstall espeakng-loader, or choose a "
            "voice from its folder espeak-ng-data/voices/!v"
        )
    espeak.espeak_SetParameter(_SPEED, voice.speed, 0)
    espeak.espeak_SetParameter(_PITCH, voice.pitch, 0)
    espeak.espeak_SetParameter(_PITCH_RANGE, voice.range, 0)
    given = text.encode()
    size = ctypes.c_size_t(len(given) + 1)
    if espeak.espeak_Synth(given, size, 0, 1, 0, _UTF8, None, None):
        raise InputError(f"espeak-ng cannot say {text!r}")
    samples = np.frombuffer(b"".join(recorder.pieces), np.int16)
    return _Said(samples.astype(np.float64), list(recorder.phonemes), list(recorder.words))


def _paused(said: _Said, samples: int) -> _Said:
    """Returns what is said with its longest silence made longer by so many samples."""
    middle = _middle_of_longest_silence(said)
    if middle is None:
        return said

    def moved(start: int) -> int:
        return start + samples if start > middle else start

    return _Said(
        np.insert(said.samples, middle, np.zeros(samples)),
        [(moved(start), name) for start, name in said.phonemes],
        [(moved(start), place) for start, place in said.words],
    )


def _middle_of_longest_silence(said: _Said) -> int | None:
    """Returns a sample of the longest silence inside what is said; a word begins after it."""
    middle, longest = None, 0
    for (silence, name), (sound, _) in itertools.pairwise(said.phonemes):
        following = [start for start, _ in said.words if start > silence]
        if phoneme_class(name) == SILENCE and following and sound - silence > longest:
            middle = (silence + following[0]) // 2
            longest = sound - silence
    return middle


def _resampled(samples: np.ndarray) -> np.ndarray:
    """Returns samples at our rate, without the frequencies above our Nyquist frequency."""
    # The silence that is added keeps the wrap-around of the transform out of the speech.
    padded = _rounded_up(len(samples), _FFT_STEP)
    count = padded * _OUR_SHARE // _THEIR_SHARE
    spectrum = np.fft.rfft(samples, padded)
    whole = np.fft.irfft(spectrum, count) * (count / padded)
    return whole[: len(samples) * _OUR_SHARE // _THEIR_SHARE]


def _rounded_up(count: int, step: int) -> int:
    """Returns the next multiple of the step."""
    return -(-count // step) * step
