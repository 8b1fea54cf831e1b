"""A file of any length to windows that a model can take: cut in pauses, where a face is lost, else where it is quiet.

Windows neither overlap nor leave out anything but silence, and are made while the file is read: memory does not grow
with its length.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS

SILENT = 1e-3  # loudness below which nothing is said: 60 dB under the loudest that a file can hold
NOISE = 0.05  # of a file's loud frames: what is 26 dB under them is the room's noise
LOUD = 99  # per cent of a file's frames that are not louder than its loud ones
QUIET = 0.1  # of the loudest frame of a window: 20 dB under it
MARGIN = 5  # frames kept before and after what is said
SHORTEST = VIDEO_FPS // 2  # frames that are cut off before a quiet place


@dataclass(frozen=True)
class Moment:
    """One video frame of time."""

    sound: np.ndarray | None  # (640,)
    mouth: np.ndarray | None  # (96, 96); None where no face is seen
    activity: float  # the loudness, or without sound the mouth's motion
    silent: bool


@dataclass(frozen=True)
class Window:
    """A stretch of a file that is decoded at once; begins and ends in seconds."""

    start: float
    end: float
    audio: np.ndarray | None  # (S,)
    video: np.ndarray | None  # (T, 96, 96)

    @property
    def frames(self) -> int:
        return round((self.end - self.start) * VIDEO_FPS)


def silence(loudness: np.ndarray) -> float | None:
    """The loudness below which nothing is said in a file, by that of all its frames; None if nothing is."""
    heard = loudness[loudness >= SILENT]
    return max(SILENT, NOISE * float(np.percentile(heard, LOUD))) if len(heard) else None


def moments(
    sounds: Iterable[np.ndarray] | None, mouths: Iterable[np.ndarray | None] | None, silent: float = SILENT
) -> Iterator[Moment]:
    """Sound and mouth of each frame of time, as long as the longer of them; only what is there can be silent."""
    rows = _together(sounds, mouths)
    before: np.ndarray | None = None
    for sound, mouth in rows:
        if sound is not None:
            loudness = float(np.sqrt(np.square(sound).mean()))
            yield Moment(sound, mouth, loudness, loudness < silent)
        else:
            moved = 0.0 if mouth is None or before is None else float(np.abs(mouth - before.astype(np.float32)).mean())
            yield Moment(None, mouth, moved, mouth is None)
        before = mouth


def _together(sounds: Iterable | None, mouths: Iterable | None) -> Iterator[tuple]:
    """Pairs; the one that ends first goes on as silence, or as no face after some frames of the last one."""
    left, right = (iter(repeat(None) if items is None else items) for items in (sounds, mouths))
    if sounds is None or mouths is None:
        yield from zip(left, right, strict=False)
        return
    done, last, more = object(), None, 0
    while True:
        sound, mouth = next(left, done), next(right, done)
        if sound is done and mouth is done:
            return
        more = more + 1 if mouth is done else 0
        last = (last if more <= MARGIN else None) if mouth is done else mouth
        yield np.zeros(SAMPLES_PER_VIDEO_FRAME, np.float32) if sound is done else sound, last


def windows(stream: Iterable[Moment], longest: float, pause: float) -> Iterator[Window]:
    """The windows of a file, none longer than so many seconds."""
    limit, patience = max(int(longest * VIDEO_FPS), 2 * SHORTEST), max(int(pause * VIDEO_FPS), 1)
    held: list[Moment] = []
    first = 0  # the number of held[0]
    for moment in chain(stream, [None]):
        turned = bool(held) and moment is not None and (moment.mouth is None) != (held[-1].mouth is None)
        if moment is None or turned:
            yield from _closed(held, first)
            first, held = first + len(held), []
        if moment is None:
            return
        held.append(moment)
        if _pausing(held, patience):
            yield from _closed(held, first)
            kept = MARGIN if all(moment.silent for moment in held) else 0  # of a silence that something may follow
            first, held = first + len(held) - kept, held[len(held) - kept :]
        elif len(held) >= limit:
            cut = _quietest(held)
            yield from _closed(held[:cut], first)
            first, held = first + cut, held[cut:]


def _pausing(held: list[Moment], patience: int) -> bool:
    """Whether something was said, and then nothing for that long; or nothing at all for that long."""
    if held[-1].sound is None or len(held) < patience:
        return False
    if all(moment.silent for moment in held):
        return True
    level = QUIET * max(moment.activity for moment in held)
    return all(moment.silent or moment.activity < level for moment in held[-patience:])


def _quietest(held: list[Moment]) -> int:
    """Where to cut in the last third: in the middle of the five frames that are quietest together."""
    start = max(2 * len(held) // 3, SHORTEST)
    activity = np.convolve([moment.activity for moment in held], np.ones(5), "same")
    return start + int(np.argmin(activity[start : len(held) - 2]))


def _closed(held: list[Moment], first: int) -> Iterator[Window]:
    """The window of these moments without the silence around it; none if all is silent."""
    spoken = [i for i, moment in enumerate(held) if not moment.silent]
    if not spoken:
        return
    begin, end = max(spoken[0] - MARGIN, 0), min(spoken[-1] + 1 + MARGIN, len(held))
    kept = held[begin:end]
    sounds = [moment.sound for moment in kept if moment.sound is not None]
    mouths = [moment.mouth for moment in kept if moment.mouth is not None]
    audio = np.concatenate(sounds) if sounds else None
    video = np.stack(mouths) if mouths else None
    yield Window((first + begin) / VIDEO_FPS, (first + end) / VIDEO_FPS, audio, video)
