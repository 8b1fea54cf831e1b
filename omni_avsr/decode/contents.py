"""What a file holds: its sound, and the mouth of the face that speaks in each frame.

A damaged file is read as far as possible. What is wrong with it is raised at the end.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from omni_avsr.decode.windows import SILENT, Crop, Window, moments, silence, windows
from omni_avsr.errors import InputError
from omni_avsr.media import faces, mouth, streams
from omni_avsr.media.speaker import Stretch, speaking_faces
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import MOUTH_SIZE, VIDEO_FPS, Task

PRESENT = 0.02  # share of a file's frames in which a face must be seen
LEAST_SEEN = VIDEO_FPS  # frames in which a face of a longer file must be seen
PREFERRED = (Task.AVSR, Task.ASR, Task.VSR)  # which task is chosen among those that fit a file

Piece = TypeVar("Piece")


@dataclass(frozen=True)
class Lips:
    """The mouths of a file, each read of which reads it anew."""

    read: Callable[[], Iterable[Crop]]  # one per frame
    cuts: frozenset[int] = frozenset()  # numbers of the frames in which another face begins
    squares: np.ndarray | None = None  # (T, 3), where the mouth is in each frame of the file


@dataclass(frozen=True)
class Contents:
    """The sound and the mouths of a file that its task needs; neither if nothing is said."""

    sounds: Callable[[], Iterable[np.ndarray]] | None  # blocks of samples, read anew by each call
    mouths: Lips | None
    silent: float  # loudness below which nothing is said
    problems: tuple[str, ...] = ()  # what could not be read


def windows_of(file: Path, tasks: Sequence[Task], settings: TranscribeSettings) -> Iterator[Window]:
    """The windows of a file that one of the tasks can transcribe.

    What could not be read or transcribed is raised after the last of them.
    """
    contents = look(file, tasks, settings)
    problems = list(contents.problems)
    sounds, mouths, squares = None, None, None
    cuts = frozenset[int]()
    if contents.sounds is not None:
        sounds = streams.frames_of_sound(readable(contents.sounds(), problems))
    if contents.mouths is not None:
        mouths = readable(contents.mouths.read(), problems)
        cuts, squares = contents.mouths.cuts, contents.mouths.squares
    stream = moments(sounds, mouths, contents.silent)
    left_out = 0  # frames
    for window in windows(stream, settings.max_seconds_per_window, settings.pause, cuts):
        if window.task in tasks:
            first = round(window.start * VIDEO_FPS)
            own = None if squares is None else squares[first : first + window.frames]
            yield replace(window, squares=own if window.task.sees else None)
        else:
            left_out += window.frames
    if left_out:
        problems.append(
            f"{file}: {left_out / VIDEO_FPS:.0f} s without a face left out, "
            "as the model does not transcribe from sound only"
        )
    if problems:
        raise InputError("; ".join(dict.fromkeys(problems)))


def readable(pieces: Iterable[Piece], problems: list[str]) -> Iterator[Piece]:
    """The pieces that can be read; what is wrong with the others is added to the problems."""
    try:
        yield from pieces
    except InputError as error:
        problems.append(str(error))


def look(file: Path, tasks: Sequence[Task], settings: TranscribeSettings) -> Contents:
    """What the best fitting task needs of a file: AVSR if possible, else ASR, else VSR."""
    if not file.is_file():
        raise InputError(f"{file} does not exist")
    wanted = list(tasks) if settings.task == "auto" else [Task(settings.task)]
    needs_voice = any(task.hears for task in wanted)
    needs_face = any(task.sees for task in wanted)

    problems: list[str] = []
    sounds = _sounds(file, settings)
    loudness = None
    silent = None
    if needs_voice and sounds is not None:
        loudness = streams.loudness(readable(sounds(), problems))
        silent = silence(loudness)
    voice = None if silent is None else loudness
    mouths = _mouths(file, voice, settings, problems) if needs_face else None

    task = _best_task(wanted, has_voice=voice is not None, has_face=mouths is not None)
    is_silent = loudness is not None and voice is None
    if task is None and not is_silent:
        lacking = ["a voice"] if needs_voice and voice is None else []
        lacking += ["a face"] if needs_face and mouths is None else []
        lack = f"{file} lacks {' and '.join(lacking)} for {' or '.join(wanted)}"
        raise InputError("; ".join(dict.fromkeys([lack, *problems])))
    return Contents(
        sounds=sounds if task and task.hears else None,
        mouths=mouths if task and task.sees else None,
        silent=silent or SILENT,
        problems=tuple(problems),
    )


def _sounds(file: Path, settings: TranscribeSettings) -> Callable[[], Iterable[np.ndarray]] | None:
    """Reads the sound of a file; None if it has only video."""
    sound = streams.sound_of(file)
    if streams.probe(sound).sample_rate is not None:
        return partial(streams.audio_blocks, sound, settings.audio_track)
    if streams.probe(file).fps is None:
        raise InputError(f"{file} has neither sound nor video")
    return None


def _best_task(wanted: Sequence[Task], has_voice: bool, has_face: bool) -> Task | None:
    for task in PREFERRED:
        is_possible = (has_voice or not task.hears) and (has_face or not task.sees)
        if task in wanted and is_possible:
            return task
    return None


def _mouths(
    file: Path, loudness: np.ndarray | None, settings: TranscribeSettings, problems: list[str]
) -> Lips | None:
    """The mouth in each frame; None if a file has no video or no face is seen in it.

    A mouth clip is taken as it is. Of any other video it is the mouth of the face that speaks.
    """
    probe = streams.probe(file)
    if probe.fps is None:
        return None
    if probe.size == (MOUTH_SIZE, MOUTH_SIZE):
        return Lips(partial(frames_of_clip, file))
    detect = faces.yunet(settings.detector, settings.download)
    read = partial(streams.video_frames, file)
    tracks, frames = faces.find(lambda: readable(read(), problems), detect)
    least = min(PRESENT * frames, LEAST_SEEN)
    present = [track for track in tracks if len(track.frames) >= least]
    if settings.face is not None and settings.face > len(present):
        raise InputError(f"{file} has no face {settings.face}: faces found: {len(present)}")
    if not present:
        return None
    if settings.face is not None:
        stretches = [Stretch(0, frames, present[settings.face - 1])]
    else:
        pause = max(int(settings.pause * VIDEO_FPS), 1)
        silent = SILENT if loudness is None else silence(loudness) or SILENT
        stretches = speaking_faces(present, frames, loudness, silent, pause)
    cuts = frozenset(stretch.begin for stretch in stretches[1:])
    parts = [_Part.of(stretch, frames) for stretch in stretches]
    squares = np.concatenate([part.squares for part in parts])
    return Lips(partial(_crops, read, parts), cuts, squares)


def frames_of_clip(file: Path) -> Iterator[Crop]:
    """The frames of a mouth clip; None where nothing is shown."""
    for frame in streams.video_frames(file, "gray"):
        is_shown = frame.shape == (MOUTH_SIZE, MOUTH_SIZE) and frame.any()
        yield frame if is_shown else None


@dataclass(frozen=True)
class _Part:
    """A stretch of a file, and the mouth that speaks in it."""

    stretch: Stretch
    first: int  # number of the frame with which the mouth begins
    found: mouth.Mouth | None

    @classmethod
    def of(cls, stretch: Stretch, frames: int) -> "_Part":
        """The mouth of a stretch with a second on both sides."""
        first = max(stretch.begin - mouth.BRIDGED, 0)
        end = min(stretch.end + mouth.BRIDGED, frames)
        track = stretch.track
        inside = [place for place, frame in enumerate(track.frames) if first <= frame < end]
        if not inside:
            return cls(stretch, first, None)
        seen = [track.frames[place] - first for place in inside]
        points = [track.points[place] for place in inside]
        return cls(stretch, first, mouth.locate_mouth(seen, points, end - first))

    @property
    def indices(self) -> range:
        """The frames of the stretch, counted from the first of the mouth."""
        return range(self.stretch.begin - self.first, self.stretch.end - self.first)

    @property
    def squares(self) -> np.ndarray:
        """Where the mouth is in each frame of the stretch (T, 3)."""
        if self.found is None:
            return np.zeros((len(self.indices), 3))
        return self.found.squares[self.indices]


def _crops(read: Callable[[], Iterable[np.ndarray]], parts: Sequence[_Part]) -> Iterator[Crop]:
    """The mouth that speaks in each frame; None where its face is lost."""
    frames = iter(read())
    for part in parts:
        lost = mouth.lost(part.found.detected) if part.found else None
        for index in part.indices:
            frame = next(frames, None)
            if frame is None:
                return
            if part.found is None or lost is None or lost[index]:
                yield None
            else:
                yield part.found.crop(frame, index)
    for _ in frames:  # so that what is wrong with the end of the file is noticed
        yield None
