"""What a file holds: its sound, and the mouth of the face that speaks in each frame."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from omni_avsr.decode.windows import SILENT, Crop, Window, moments, silence, windows
from omni_avsr.errors import InputError
from omni_avsr.media import faces, mouth, streams
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import MOUTH_SIZE, VIDEO_FPS, Task

BRIDGED = VIDEO_FPS  # frames without a face over which its place is interpolated, at most
PRESENT = 0.02  # share of a file's frames in which a face must be seen
PREFERRED = (Task.AVSR, Task.ASR, Task.VSR)  # which task is chosen among those that fit a file


@dataclass(frozen=True)
class Contents:
    """The sound and the mouths of a file that its task needs. Each call reads them anew."""

    sounds: Callable[[], Iterable[np.ndarray]] | None  # blocks of samples
    mouths: Callable[[], Iterable[Crop]] | None  # one per frame
    silent: float  # loudness below which nothing is said


def windows_of(file: Path, tasks: Sequence[Task], settings: TranscribeSettings) -> Iterator[Window]:
    """The windows of a file that one of the tasks can transcribe."""
    contents = look(file, tasks, settings)
    sounds = streams.frames_of_sound(contents.sounds()) if contents.sounds else None
    mouths = contents.mouths() if contents.mouths else None
    stream = moments(sounds, mouths, contents.silent)
    left_out = 0  # frames
    for window in windows(stream, settings.max_seconds_per_window, settings.pause):
        if window.task in tasks:
            yield window
        else:
            left_out += window.frames
    if left_out:
        raise InputError(
            f"{file}: {left_out / VIDEO_FPS:.0f} s without a face left out, "
            "as the model does not transcribe from sound only"
        )


def look(file: Path, tasks: Sequence[Task], settings: TranscribeSettings) -> Contents:
    """What the best fitting task needs of a file: AVSR if possible, else ASR, else VSR."""
    if not file.is_file():
        raise InputError(f"{file} does not exist")
    wanted = list(tasks) if settings.task == "auto" else [Task(settings.task)]
    needs_voice = any(task.hears for task in wanted)
    needs_face = any(task.sees for task in wanted)

    loudness = _loudness(file) if needs_voice else np.zeros(0, np.float32)
    silent = silence(loudness)
    has_voice = silent is not None
    voice = loudness if has_voice else None
    mouths = _mouths(file, voice, settings) if needs_face else None
    has_face = mouths is not None

    sounds = partial(streams.audio_blocks, streams.sound_of(file))
    for task in PREFERRED:
        is_possible = (has_voice or not task.hears) and (has_face or not task.sees)
        if task in wanted and is_possible:
            return Contents(
                sounds=sounds if task.hears else None,
                mouths=mouths if task.sees else None,
                silent=SILENT if silent is None else silent,
            )
    lacking = []
    if needs_voice and not has_voice:
        lacking.append("a voice")
    if needs_face and not has_face:
        lacking.append("a face")
    raise InputError(f"{file} lacks {' and '.join(lacking)} for {' or '.join(wanted)}")


def _loudness(file: Path) -> np.ndarray:
    """The loudness (T,) of each frame of a file's sound; empty without sound."""
    sound = streams.sound_of(file)
    if streams.probe(sound).sample_rate is None:
        return np.zeros(0, np.float32)
    return streams.loudness(_until_unreadable(streams.audio_blocks(sound)))


def _until_unreadable(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The pieces up to the first that cannot be read; decoding reports what is wrong with it."""
    with suppress(InputError):
        yield from pieces


def _mouths(
    file: Path, loudness: np.ndarray | None, settings: TranscribeSettings
) -> Callable[[], Iterable[Crop]] | None:
    """Reads the mouth of each frame; None if a file has no video or no face is seen in it.

    A mouth clip is taken as it is. Of any other video it is the mouth of the face that speaks.
    """
    probe = streams.probe(file)
    if probe.fps is None:
        return None
    if probe.size == (MOUTH_SIZE, MOUTH_SIZE):
        return partial(streams.video_frames, file, "gray")
    detect = faces.yunet(settings.detector, settings.download)
    tracks, frames = faces.follow(_until_unreadable(streams.video_frames(file)), detect)
    present = [track for track in tracks if len(track.frames) >= PRESENT * frames]
    if len(present) < (settings.face or 1):
        return None
    if settings.face is None:
        track = faces.speaking_face(present, loudness)
    else:
        track = present[settings.face - 1]
    found = mouth.locate_mouth(track.frames, track.points, frames)
    return partial(_crops, file, found)


def _crops(file: Path, found: mouth.Mouth) -> Iterator[Crop]:
    """The mouth in each frame; None where the face is lost."""
    crops = mouth.crops(streams.video_frames(file), found)
    for crop, is_lost in zip(crops, _lost(found.detected), strict=False):
        yield None if is_lost else crop


def _lost(detected: np.ndarray) -> np.ndarray:
    """Whether a face (T,) is lost for longer than is bridged."""
    lost = np.zeros(len(detected), bool)
    begin = 0
    for seen, run in groupby(detected):
        end = begin + len(list(run))
        lost[begin:end] = not seen and end - begin > BRIDGED
        begin = end
    return lost
