"""Files to text: raw video, mouth clips or sound alone, of any length. `transcribe` is the library's shortest way."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from omni_avsr.data.manifest import VIDEO_SUFFIXES, media_files
from omni_avsr.decode.decode import load, say
from omni_avsr.decode.windows import SILENT, Window, moments, silence, windows
from omni_avsr.media import mouth
from omni_avsr.media import streams as media
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import MOUTH_SIZE, VIDEO_FPS, Task

LOST = VIDEO_FPS  # frames without a face that are not bridged
AWAKE = 0.02  # share of a file's frames in which a face must be seen


@dataclass(frozen=True)
class Segment:
    """What is said in one window."""

    start: float  # in seconds, as is the end
    end: float
    text: str
    task: Task
    confidence: float


@dataclass
class Transcript:
    """What is said in one file; with an error, what was understood before it."""

    file: Path
    segments: list[Segment] = field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        """All segments in one line."""
        return " ".join(segment.text for segment in self.segments if segment.text)


@dataclass(frozen=True)
class _Input:
    """What of a file is heard and seen, and how loud its silence is."""

    sounds: Callable[[], Iterable[np.ndarray]] | None
    mouths: Callable[[], Iterable[np.ndarray | None]] | None
    silent: float


def transcribe(files: str | Path | Sequence[str | Path], **settings: Any) -> Any:
    """The Transcript of a file, or a list of them; settings are the options of `omni-avsr transcribe`."""
    if isinstance(files, str | Path):
        transcript = next(iter(transcribe_files([Path(files)], TranscribeSettings(**settings))))
        if transcript.error:
            raise ValueError(transcript.error)
        return transcript
    return list(transcribe_files([Path(file) for file in files], TranscribeSettings(**settings)))


def transcribe_files(files: Sequence[Path], settings: TranscribeSettings) -> Iterator[Transcript]:
    """The transcript of each file, as soon as it is complete; windows of several files share batches."""
    model, processor, _ = load(settings.checkpoint, settings.device)
    if settings.task != "auto":
        model.config.choose(settings.task, settings.audio_rate, settings.video_rate)
    transcripts = [Transcript(file) for file in files]
    complete = 0
    for batch in _batches(transcripts, model.config.tasks, settings):
        for (index, _), segment in zip(batch, _decode(model, processor, batch, settings), strict=True):
            transcripts[index].segments.append(segment)
        while batch and complete < batch[-1][0]:
            yield transcripts[complete]
            complete += 1
    yield from transcripts[complete:]


def expand(paths: Sequence[Path]) -> list[Path]:
    """The files, and all media in the folders, a sound beside its video left out; what does not exist stays."""
    found = [_media_in(path) if path.is_dir() else [path] for path in paths]
    empty = [path for path, files in zip(paths, found, strict=True) if not files]
    if empty:
        raise ValueError(f"{empty[0]} holds neither videos nor sounds")
    return list(chain.from_iterable(found))


def _media_in(folder: Path) -> list[Path]:
    files = media_files(folder)
    seen = {path.with_suffix("") for path in files if path.suffix.lower() in VIDEO_SUFFIXES}
    return [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES or path.with_suffix("") not in seen]


Job = tuple[int, Window]


def _batches(
    transcripts: Sequence[Transcript], tasks: Sequence[str], settings: TranscribeSettings
) -> Iterator[list[Job]]:
    """Windows of all files in order, as many as fit the frame budget together; a file's error ends that file alone."""
    held: list[Job] = []
    for index, transcript in enumerate(transcripts):
        try:
            for window in _windows(transcript.file, tasks, settings):
                longest = max(window.frames, *(other.frames for _, other in held), 0)
                if held and longest * (len(held) + 1) > settings.max_frames:
                    yield held
                    held = []
                held.append((index, window))
        except (ValueError, OSError, cv2.error) as error:
            transcript.error = str(error)
    yield held


def _windows(file: Path, tasks: Sequence[str], settings: TranscribeSettings) -> Iterator[Window]:
    given = look(file, tasks, settings)
    sounds = media.frames_of_sound(given.sounds()) if given.sounds else None
    stream = moments(sounds, given.mouths() if given.mouths else None, given.silent)
    left_out = 0
    for window in windows(stream, settings.max_seconds_per_window, settings.pause):
        if _task_of(window) in tasks:
            yield window
        else:
            left_out += window.frames
    if left_out:
        raise ValueError(f"{file}: {left_out / VIDEO_FPS:.0f} s without a face left out, the model does not hear alone")


def look(file: Path, tasks: Sequence[str], settings: TranscribeSettings) -> _Input:
    """What there is to hear and to see in a file, and the task for that."""
    if not file.is_file():
        raise ValueError(f"{file} does not exist")
    probe, sound = media.probe(file), media.sound_of(file)
    wanted = [Task(task) for task in tasks] if settings.task == "auto" else [Task(settings.task)]
    loudness = np.zeros(0, np.float32)
    if any(task.hears for task in wanted) and media.probe(sound).sample_rate is not None:
        loudness = media.loudness(_readable(media.audio_blocks(sound)))
    silent = silence(loudness)
    mouths = None
    if any(task.sees for task in wanted) and probe.fps is not None:
        mouths = _mouths(file, probe, None if silent is None else loudness, settings)
    fitting = [task for task in wanted if task.hears <= (silent is not None) and task.sees <= bool(mouths)]
    if not fitting:
        needed = {
            "a voice": silent is None and any(t.hears for t in wanted),
            "a face": not mouths and any(t.sees for t in wanted),
        }
        lacking = " and ".join(name for name, lacks in needed.items() if lacks)
        raise ValueError(f"{file} lacks {lacking} for {' or '.join(wanted)}")
    task = max(fitting, key=lambda task: (task.hears + task.sees, task.hears))
    sounds = partial(media.audio_blocks, sound) if task.hears else None
    return _Input(sounds, mouths if task.sees else None, silent or SILENT)


def _readable(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """What can be read of a file; what is wrong with the rest is told when it is decoded."""
    with suppress(ValueError):
        yield from pieces


def _mouths(
    file: Path, probe: media.Probe, loudness: np.ndarray | None, settings: TranscribeSettings
) -> Callable[[], Iterable[np.ndarray | None]] | None:
    """The mouth of each frame: of a mouth clip as it is, of any other video that of the face that speaks."""
    if probe.size == (MOUTH_SIZE, MOUTH_SIZE):
        return lambda: media.video_frames(file, "gray")
    detect = mouth.yunet(settings.detector, settings.download)
    tracks, frames = mouth.follow(_readable(media.video_frames(file)), detect)
    tracks = [track for track in tracks if len(track.frames) >= AWAKE * frames]
    if len(tracks) < (settings.face or 1):
        return None
    track = tracks[settings.face - 1] if settings.face else mouth.speaking(tracks, loudness)
    found = mouth.locate_mouth(track, frames)
    lost = _long_gaps(found.detected)

    def crops() -> Iterator[np.ndarray | None]:
        yield from (None if gone else crop for crop, gone in zip(_crops(file, found), lost, strict=False))

    return crops


def _crops(file: Path, found: mouth.Mouth) -> Iterator[np.ndarray]:
    return mouth.crops(media.video_frames(file), found)


def _long_gaps(detected: np.ndarray) -> np.ndarray:
    """Where the face is lost for longer than is bridged (T,)."""
    lost = np.zeros(len(detected), bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[1], detected.astype(int), [1]])))
    for begin, end in edges.reshape(-1, 2):
        lost[begin:end] = end - begin > LOST
    return lost


@torch.no_grad()
def _decode(model, processor, batch: Sequence[Job], settings: TranscribeSettings) -> list[Segment]:
    """The segments of the windows, those of one task together."""
    segments: dict[int, Segment] = {}
    for task in Task:
        chosen = [i for i, (_, window) in enumerate(batch) if _task_of(window) is task]
        if not chosen:
            continue
        rates = model.config.choose(task, settings.audio_rate, settings.video_rate)
        sounds = [batch[i][1].audio for i in chosen] if task.hears else None
        mouths = [batch[i][1].video for i in chosen] if task.sees else None
        inputs = {n: v.to(model.device) for n, v in processor.media(sounds, mouths, training=False).items()}
        options = {"num_beams": settings.beams, "max_new_tokens": settings.max_new_tokens}
        texts, sure = say(model, processor, inputs, model.encode(**inputs), task, rates, **options)
        for i, text, confidence in zip(chosen, texts, sure, strict=True):
            window = batch[i][1]
            segments[i] = Segment(window.start, window.end, text, task, confidence)
    return [segments[i] for i in range(len(batch))]


def _task_of(window: Window) -> Task:
    """Both, or what of them a window has: where a face is lost, AVSR goes on as ASR."""
    if window.video is None:
        return Task.ASR
    return Task.VSR if window.audio is None else Task.AVSR
