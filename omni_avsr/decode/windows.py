"""Cuts a file of any length into windows that a model can take.

A file is cut in its pauses, where a face appears or is lost or another one speaks, and otherwise
where it is quietest.
Windows do not overlap, and they leave out nothing but silence. They are made while the file is
read, so memory does not grow with its length.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, VIDEO_FPS, Task

SILENT = 1e-3  # loudness below which nothing is said: 60 dB below full scale
NOISE = 0.05  # of the loudness of a file's loud frames: what is 26 dB below is the room's noise
LOUD = 99  # percentile of a file's frames that its loud frames exceed
QUIET = 0.1  # of the loudness of a window's loudest frame: what is 20 dB below is a pause
MARGIN = 5  # frames kept before and after speech
SHORTEST = VIDEO_FPS // 2  # frames of a window that is cut in the middle of speech, at least
QUIET_PLACE = 5  # frames whose mean loudness decides where speech is cut

Crop = np.ndarray | None  # (96, 96), the mouth in a frame; None where no face is seen


@dataclass(frozen=True)
class Moment:
    """What is heard and seen during one video frame."""

    sound: np.ndarray | None  # (640,)
    mouth: Crop
    activity: float  # the loudness, or the motion of the mouth where there is no sound
    silent: bool


@dataclass(frozen=True)
class Window:
    """A stretch of a file that is decoded as one clip."""

    start: float  # seconds, as is the end
    end: float
    audio: np.ndarray | None  # (S,)
    video: np.ndarray | None  # (T, 96, 96)
    # (T, 3), middle and side of the mouths in a picture that they were cut from
    squares: np.ndarray | None = None

    @property
    def frames(self) -> int:
        return round((self.end - self.start) * VIDEO_FPS)

    @property
    def task(self) -> Task:
        """What it can be transcribed from: where a face is lost, AVSR becomes ASR."""
        if self.video is None:
            return Task.ASR
        return Task.VSR if self.audio is None else Task.AVSR


@dataclass
class Held:
    """The moments that no window has taken yet."""

    first: int = 0  # frame number of the first moment
    moments: list[Moment] = field(default_factory=list)

    def drop(self, count: int) -> list[Moment]:
        """Removes the first moments and returns them."""
        dropped = self.moments[:count]
        self.moments = self.moments[count:]
        self.first += len(dropped)
        return dropped

    def keep(self, count: int) -> None:
        """Removes all moments but the last ones."""
        self.drop(max(len(self.moments) - count, 0))

    def take(self, count: int) -> Iterator[Window]:
        """Removes the first moments and yields their window, unless all of them are silent."""
        first = self.first
        window = window_of(self.drop(count), first)
        if window is not None:
            yield window


def silence(loudness: np.ndarray) -> float | None:
    """The loudness below which nothing is said in a file.

    It follows from the loudness (T,) of all its frames, and is None if nothing is said at all.
    """
    audible = loudness[loudness >= SILENT]
    if len(audible) == 0:
        return None
    loud = float(np.percentile(audible, LOUD))
    return max(SILENT, NOISE * loud)


def moments(
    sounds: Iterable[np.ndarray] | None,
    mouths: Iterable[Crop] | None,
    silent: float = SILENT,
) -> Iterator[Moment]:
    """The sound and the mouth of each video frame, to the end of the longer stream.

    With sound, a frame is silent if it is less loud than `silent`; without, if no face is seen.
    """
    previous: Crop = None
    for sound, mouth in _paired(sounds, mouths):
        if sound is None:
            motion = motion_between(previous, mouth)
            yield Moment(None, mouth, activity=motion, silent=mouth is None)
        else:
            loudness = float(np.sqrt(np.square(sound).mean()))
            yield Moment(sound, mouth, activity=loudness, silent=loudness < silent)
        previous = mouth


def motion_between(previous: Crop, mouth: Crop) -> float:
    """The mean change of a pixel between two frames, in grey values."""
    if previous is None or mouth is None:
        return 0.0
    change = mouth - previous.astype(np.float32)
    return float(np.abs(change).mean())


def _paired(
    sounds: Iterable[np.ndarray] | None, mouths: Iterable[Crop] | None
) -> Iterator[tuple[np.ndarray | None, Crop]]:
    if sounds is not None and mouths is not None:
        yield from _filled(sounds, mouths)
    elif sounds is not None:
        for sound in sounds:
            yield sound, None
    elif mouths is not None:
        for mouth in mouths:
            yield None, mouth


def _filled(
    sounds: Iterable[np.ndarray], mouths: Iterable[Crop]
) -> Iterator[tuple[np.ndarray, Crop]]:
    """Pairs to the end of the longer stream.

    After its end a sound is silence. A video repeats its last frame for the length of a margin,
    and then shows no face.
    """
    ended: Any = object()
    silence = np.zeros(SAMPLES_PER_VIDEO_FRAME, np.float32)
    shown: Crop = None
    repeated = 0
    for sound, mouth in zip_longest(sounds, mouths, fillvalue=ended):
        if mouth is not ended:
            shown = mouth
        elif repeated < MARGIN:
            repeated += 1
        else:
            shown = None
        yield silence if sound is ended else sound, shown


def windows(
    stream: Iterable[Moment], longest: float, pause: float, cuts: Collection[int] = ()
) -> Iterator[Window]:
    """The windows of a file, cut in pauses of at least `pause` seconds, and before some frames.

    No window is longer than `longest` seconds.
    """
    most_frames, pause_frames = frames_of(longest, pause)
    held = Held()
    for moment in stream:
        number = held.first + len(held.moments)
        if held.moments and (number in cuts or _sees(moment) != _sees(held.moments[-1])):
            yield from held.take(len(held.moments))
        held.moments.append(moment)
        if is_silence(held.moments, pause_frames):
            held.keep(MARGIN)  # something may be said next
        elif ends_in_pause(held.moments, pause_frames):
            yield from held.take(len(held.moments))
        elif len(held.moments) >= most_frames:
            yield from held.take(_quietest_place(held.moments))
    yield from held.take(len(held.moments))


def frames_of(longest: float, pause: float) -> tuple[int, int]:
    """The frames of the longest window and of the shortest pause, given in seconds."""
    return max(int(longest * VIDEO_FPS), 2 * SHORTEST), max(int(pause * VIDEO_FPS), 1)


def _sees(moment: Moment) -> bool:
    return moment.mouth is not None


def is_silence(held: Sequence[Moment], pause_frames: int) -> bool:
    """Whether nothing has been said for the length of a pause or longer."""
    if held[-1].sound is None or len(held) < pause_frames:
        return False
    return all(moment.silent for moment in held)


def ends_in_pause(held: Sequence[Moment], pause_frames: int) -> bool:
    """Whether something was said, and then nothing for the length of a pause."""
    if held[-1].sound is None or len(held) < pause_frames:
        return False
    loudest = max(moment.activity for moment in held)
    last = held[-pause_frames:]
    return all(moment.silent or moment.activity < QUIET * loudest for moment in last)


def _quietest_place(held: Sequence[Moment]) -> int:
    """Where to cut: in the middle of the frames that are quietest together, in the last third."""
    start = max(2 * len(held) // 3, SHORTEST)
    end = len(held) - QUIET_PLACE // 2
    activity = [moment.activity for moment in held]
    sums = np.convolve(activity, np.ones(QUIET_PLACE), "same")  # around each frame
    return start + int(np.argmin(sums[start:end]))


def window_of(held: Sequence[Moment], first: int) -> Window | None:
    """The window of these moments without the silence around it; None if all of it is silent."""
    spoken = [index for index, moment in enumerate(held) if not moment.silent]
    if not spoken:
        return None
    begin = max(spoken[0] - MARGIN, 0)
    end = min(spoken[-1] + 1 + MARGIN, len(held))
    sounds = []
    mouths = []
    for moment in held[begin:end]:
        if moment.sound is not None:
            sounds.append(moment.sound)
        if moment.mouth is not None:
            mouths.append(moment.mouth)
    return Window(
        start=(first + begin) / VIDEO_FPS,
        end=(first + end) / VIDEO_FPS,
        audio=np.concatenate(sounds) if sounds else None,
        video=np.stack(mouths) if mouths else None,
    )
