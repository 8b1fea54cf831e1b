"""Transcribes files of any length: raw videos, mouth clips, or sound only.

`transcribe` is the library's shortest way from a file to its text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import cv2
import torch

from omni_avsr.data.clips import VIDEO_SUFFIXES, media_files
from omni_avsr.decode.contents import windows_of
from omni_avsr.decode.decode import Decoder, load_decoder
from omni_avsr.decode.windows import Window
from omni_avsr.errors import InputError
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import Task


@dataclass(frozen=True)
class Segment:
    """What is said in one window."""

    start: float  # seconds, as is the end
    end: float
    text: str
    task: Task
    confidence: float  # geometric mean of the tokens' probabilities, 0..1


@dataclass
class Transcript:
    """What is said in one file; with an error, what was transcribed before it."""

    file: Path
    segments: list[Segment] = field(default_factory=list)
    error: str | None = None

    @property
    def text(self) -> str:
        """The text of all segments in one line."""
        return " ".join(segment.text for segment in self.segments if segment.text)


@dataclass(frozen=True)
class _Job:
    """A window of the file with this number."""

    file: int
    window: Window


@overload
def transcribe(files: str | Path, **settings: Any) -> Transcript: ...


@overload
def transcribe(files: Sequence[str | Path], **settings: Any) -> list[Transcript]: ...


def transcribe(
    files: str | Path | Sequence[str | Path], **settings: Any
) -> Transcript | list[Transcript]:
    """The transcript of a file, or a list of those of several files.

    The settings are the options of `omni-avsr transcribe`, such as task="avsr" or beams=5. An error
    in a single file is raised; one of several files keeps its error in its transcript.
    """
    chosen = TranscribeSettings(**settings)
    if not isinstance(files, str | Path):
        return list(transcribe_files([Path(file) for file in files], chosen))
    (transcript,) = transcribe_files([Path(files)], chosen)
    if transcript.error:
        raise InputError(transcript.error)
    return transcript


def transcribe_files(files: Sequence[Path], settings: TranscribeSettings) -> Iterator[Transcript]:
    """The transcript of each file, as soon as it is complete; several files share batches."""
    decoder = load_decoder(settings.checkpoint, settings.device)
    config = decoder.model.config
    if settings.task != "auto":
        config.choose(settings.task, settings.audio_rate, settings.video_rate)  # refuses early
    tasks = list(map(Task, config.tasks))
    transcripts = [Transcript(file) for file in files]
    complete = 0
    for batch in _batches(transcripts, tasks, settings):
        segments = _decode([job.window for job in batch], decoder, settings)
        for job, segment in zip(batch, segments, strict=True):
            transcripts[job.file].segments.append(segment)
        while complete < batch[-1].file:
            yield transcripts[complete]
            complete += 1
    yield from transcripts[complete:]


def expand(paths: Sequence[Path]) -> list[Path]:
    """The files, with each folder replaced by the media in it; missing files are kept.

    In a folder, a sound is left out if it lies beside its video.
    """
    found: list[Path] = []
    for path in paths:
        files = _media_in(path) if path.is_dir() else [path]
        if not files:
            raise InputError(f"{path} holds neither videos nor sounds")
        found += files
    return found


def _media_in(folder: Path) -> list[Path]:
    files = media_files(folder)
    with_video = {path.with_suffix("") for path in files if _is_video(path)}
    found = []
    for path in files:
        if _is_video(path) or path.with_suffix("") not in with_video:
            found.append(path)
    return found


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _batches(
    transcripts: Sequence[Transcript], tasks: Sequence[Task], settings: TranscribeSettings
) -> Iterator[list[_Job]]:
    """Windows of all files in order, as many at a time as fit the frame budget.

    An error ends its own file only, and is kept in that file's transcript.
    """
    batch: list[_Job] = []
    longest = 0  # frames
    for number, transcript in enumerate(transcripts):
        try:
            for window in windows_of(transcript.file, tasks, settings):
                longest = max(longest, window.frames)
                if batch and longest * (len(batch) + 1) > settings.max_frames:
                    yield batch
                    batch = []
                    longest = window.frames
                batch.append(_Job(number, window))
        except (InputError, OSError, cv2.error) as error:
            transcript.error = str(error)
    if batch:
        yield batch


def _decode(
    batch: Sequence[Window], decoder: Decoder, settings: TranscribeSettings
) -> list[Segment]:
    """The segments of the windows; the windows of one task are decoded together."""
    places: dict[Task, list[int]] = {}  # of its windows in the batch
    for place, window in enumerate(batch):
        places.setdefault(window.task, []).append(place)
    segments: dict[int, Segment] = {}
    for task, own in places.items():
        found = _decode_task(task, [batch[place] for place in own], decoder, settings)
        segments.update(zip(own, found, strict=True))
    return [segments[place] for place in range(len(batch))]


@torch.no_grad()
def _decode_task(
    task: Task, batch: Sequence[Window], decoder: Decoder, settings: TranscribeSettings
) -> list[Segment]:
    route = decoder.model.config.choose(task, settings.audio_rate, settings.video_rate)
    sounds = [window.audio for window in batch if window.audio is not None]
    mouths = [window.video for window in batch if window.video is not None]
    media = decoder.processor.media(sounds or None, mouths or None)
    features = decoder.model.encode(media.to(decoder.device))
    decoded = decoder.transcribe(features, route, settings.beams, settings.max_new_tokens)
    segments = []
    for window, found in zip(batch, decoded, strict=True):
        segments.append(
            Segment(
                start=window.start,
                end=window.end,
                text=found.text,
                task=task,
                confidence=found.confidence,
            )
        )
    return segments
