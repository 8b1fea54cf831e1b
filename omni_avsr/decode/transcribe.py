"""Transcribes files of any length: raw videos, mouth clips, or sound only.

`transcribe` is the library's shortest way from a file to its text; a `Transcriber` loads its model
once, for many of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import cv2
import numpy as np
import torch

from omni_avsr.decode.contents import windows_of
from omni_avsr.decode.decode import Decoded, load_decoder
from omni_avsr.decode.elastic import Climb, chosen_climb
from omni_avsr.decode.inputs import refuse_unreadable
from omni_avsr.decode.quiet import silent_libraries
from omni_avsr.decode.record import Record
from omni_avsr.decode.sources import Source, Sources, as_file
from omni_avsr.decode.transcripts import Segment, Transcript, Update
from omni_avsr.decode.windows import Window
from omni_avsr.decode.words import words_of
from omni_avsr.errors import InputError
from omni_avsr.files import Journal
from omni_avsr.media.faces import NoDetector
from omni_avsr.model import Features
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import SAMPLE_RATE, Route, Task


@dataclass(frozen=True)
class _Job:
    """A window of the file with this number, or what is known of it from an earlier run."""

    file: int
    window: Window | None
    known: Segment | None = None

    @property
    def frames(self) -> int:
        """How many frames are to be decoded."""
        return self.window.frames if self.window is not None else 0


class Transcriber:
    """A model that transcribes one source after another.

    The options are those of `omni-avsr transcribe`, such as task="avsr" or beams=5.
    """

    def __init__(self, checkpoint: str | Path | None = None, **options: Any):
        name = None if checkpoint is None else str(checkpoint)
        self.settings = TranscribeSettings(checkpoint=name, **options)
        with silent_libraries():
            self.decoder = load_decoder(self.settings)
        config = self.decoder.model.config
        if config.longest_sound is not None:
            encoder_takes = config.longest_sound / SAMPLE_RATE  # seconds
            longest = min(self.settings.max_seconds_per_window, encoder_takes)
            self.settings = replace(self.settings, max_seconds_per_window=longest)
        self.tasks = list(map(Task, config.tasks))
        if self.settings.task != "auto":  # refuses what the model does not know
            config.choose(self.settings.task, self.settings.audio_rate, self.settings.video_rate)
        self.climbs: dict[Task, Climb] = {}  # of the tasks whose rates the model chooses
        for task in self.tasks if self.settings.task == "auto" else [Task(self.settings.task)]:
            if climb := chosen_climb(config, task, self.settings):
                self.climbs[task] = climb
        self.aligner = self.decoder.model.aligner if self.settings.words else None
        if "ctm" in self.settings.formats and self.aligner is None:
            raise InputError(
                f"ctm needs the times of words, which {self.decoder.name} cannot tell: `omni-avsr "
                "train --aligner only --from` it"
            )
        self.lacking: NoDetector | None = None  # why lips of raw video are not read

    @overload
    def __call__(self, source: Source, sampling_rate: int | None = None) -> Transcript: ...

    @overload
    def __call__(self, source: Sources, sampling_rate: int | None = None) -> list[Transcript]: ...

    def __call__(
        self, source: Source | Sources, sampling_rate: int | None = None
    ) -> Transcript | list[Transcript]:
        """The transcript of a source, or a list of those of several sources.

        A source is a path, a waveform (S,) with its sampling rate, the bytes of a media file, or
        one that is open in binary mode. An error in a single source is raised; one of several
        sources keeps its error in its transcript.
        """
        if isinstance(source, list | tuple):
            return self._transcribe(source, sampling_rate)
        (transcript,) = self._transcribe([source], sampling_rate)
        if transcript.error:
            raise InputError(transcript.error)
        return transcript

    def _transcribe(self, sources: Sequence[Source], sampling_rate: int | None) -> list[Transcript]:
        with ExitStack() as stack:
            stack.enter_context(silent_libraries())
            files = [stack.enter_context(as_file(each, sampling_rate)) for each in sources]
            updates = list(self.follow(files))
        found = [update.transcript for update in updates if update.segment is None]
        for transcript, source in zip(found, sources, strict=True):
            if not isinstance(source, str | Path):
                _forget_folder(transcript)
        return found

    def follow(self, files: Sequence[Path], journal: Journal | None = None) -> Iterator[Update]:
        """Each segment of the files as soon as it is known, and the end of each file, in order.

        Several files share batches. What the journal has is not transcribed again.
        """
        record = Record(journal or Journal())
        transcripts = [Transcript(file) for file in files]
        complete = 0
        for batch in self._batches(transcripts, record):
            segments = self._decode(batch)
            for job, segment in zip(batch, segments, strict=True):
                if job.known is None:
                    record.add(transcripts[job.file].file, segment)
            record.flush()
            for job, segment in zip(batch, segments, strict=True):
                for ended in transcripts[complete : job.file]:
                    record.end(ended)
                    yield Update(ended, None)
                complete = job.file
                transcripts[job.file].segments.append(segment)
                yield Update(transcripts[job.file], segment)
        for ended in transcripts[complete:]:
            record.end(ended)
            yield Update(ended, None)
        record.flush()

    def _batches(self, transcripts: Sequence[Transcript], record: Record) -> Iterator[list[_Job]]:
        """Windows of all files in order, as many at a time as fit the frame budget.

        An error ends its own file only, and is kept in that file's transcript.
        """
        batch: list[_Job] = []
        longest = 0  # frames
        for number, transcript in enumerate(transcripts):
            try:
                for job in self._jobs(number, transcript, record):
                    longest = max(longest, job.frames)
                    if batch and longest * (len(batch) + 1) > self.settings.max_frames:
                        yield batch
                        batch = []
                        longest = job.frames
                    batch.append(job)
            except (InputError, OSError, cv2.error) as error:
                transcript.error = str(error)
        if batch:
            yield batch

    def _jobs(self, number: int, transcript: Transcript, record: Record) -> Iterator[_Job]:
        file = transcript.file
        known = record.known(file)
        if known is not None:
            transcript.notes += known.notes
            for segment in known.segments:
                yield _Job(number, None, segment)
            return
        for window in self._windows(transcript):
            earlier = record.segment(file, window)
            yield _Job(number, None if earlier else window, earlier)

    def _windows(self, transcript: Transcript) -> Iterator[Window]:
        """The windows of a file. Without a face detector a raw video is only heard, if possible."""
        file = transcript.file
        refuse_unreadable(file)
        may_download = self.settings.download and self.lacking is None  # it is tried once
        settings = replace(self.settings, download=may_download)
        try:
            yield from windows_of(file, self.tasks, settings)
            return
        except NoDetector as error:
            self.lacking = self.lacking or error
            if settings.task != "auto" or Task.ASR not in self.tasks:
                raise NoDetector(f"{file}: {error}") from None
        windows = windows_of(file, [Task.ASR], settings)
        first = None
        with suppress(InputError):  # which says what the sound lacks
            first = next(windows, None)
        if first is None:
            raise NoDetector(f"{file}: {self.lacking}")
        transcript.notes.append(f"only heard, as lips cannot be read: {self.lacking}")
        yield first
        yield from windows

    def _decode(self, batch: Sequence[_Job]) -> list[Segment]:
        """The segments of the windows; the windows of one task are decoded together."""
        places: dict[Task, list[int]] = {}  # of its windows in the batch
        windows: dict[int, Window] = {}
        segments: dict[int, Segment] = {}
        for place, job in enumerate(batch):
            if job.known is not None:
                segments[place] = job.known
            if job.window is not None:
                windows[place] = job.window
                places.setdefault(job.window.task, []).append(place)
        for task, own in places.items():
            found = self._decode_task(task, [windows[place] for place in own])
            segments.update(zip(own, found, strict=True))
        return [segments[place] for place in range(len(batch))]

    def _decode_task(self, task: Task, batch: Sequence[Window]) -> list[Segment]:
        """The segments of windows of one task; those in doubt are decoded again, if chosen."""
        settings, config = self.settings, self.decoder.model.config
        climb = self.climbs.get(task)
        if climb is None:
            route = config.choose(task, settings.audio_rate, settings.video_rate)
            return self._decode_route(route, batch)
        segments = self._decode_route(climb.ladder.cheap, batch)
        doubts = [segment.doubt for segment in segments]
        places = climb.of(doubts, [window.end - window.start for window in batch])
        again = self._decode_route(climb.ladder.better, [batch[place] for place in places])
        for place, segment in zip(places, again, strict=True):
            if segment.doubt <= doubts[place]:
                segments[place] = segment
        return segments

    @torch.no_grad()
    def _decode_route(self, route: Route, batch: Sequence[Window]) -> list[Segment]:
        if not batch:
            return []
        settings, decoder = self.settings, self.decoder
        features, named = self.encode(batch)
        decoded = decoder.transcribe(features, route, settings.beams, settings.max_new_tokens)
        rows = zip(batch, decoded, named, strict=True)
        return [self.segment(route, *of_window) for of_window in rows]

    def encode(self, batch: Sequence[Window]) -> tuple[Features, Sequence[np.ndarray | None]]:
        """The features of windows of one task, and what the aligner names in each, if it is to."""
        sounds = [window.audio for window in batch if window.audio is not None]
        mouths = [window.video for window in batch if window.video is not None]
        media = self.decoder.processor.media(sounds or None, mouths or None)
        features = self.decoder.model.encode(media.to(self.decoder.device))
        named: Sequence[np.ndarray | None] = [None] * len(batch)
        if self.aligner is not None:
            named = self.aligner.named(features)
        return features, named

    def segment(
        self, route: Route, window: Window, decoded: Decoded, named: np.ndarray | None
    ) -> Segment:
        """What was decoded of a window; its words are None if it cannot be told when they are."""
        words = None
        if named is not None:
            words = words_of(self.decoder, route.task, named, decoded, window.start)
        is_invented = words == ()
        tokens = () if is_invented else self.decoder.processor.said(decoded.ids)
        log_probs = np.diff(decoded.sums[: len(tokens)], prepend=0.0)
        return Segment(
            start=window.start,
            end=window.end,
            text="" if is_invented else decoded.text,
            task=route.task,
            confidence=decoded.confidence,
            is_cut=decoded.is_cut,
            words=words,
            tokens=tokens,
            log_probs=tuple(log_probs.round(4).tolist()),
            audio_rate=route.audio_rate,
            video_rate=route.video_rate,
        )


def _forget_folder(transcript: Transcript) -> None:
    """Leaves only the name of a temporary file."""
    file = transcript.file
    transcript.file = Path(file.name)
    if transcript.error:
        transcript.error = transcript.error.replace(str(file), file.name)


@overload
def transcribe(files: Source, **settings: Any) -> Transcript: ...


@overload
def transcribe(files: Sources, **settings: Any) -> list[Transcript]: ...


def transcribe(
    files: Source | Sources, sampling_rate: int | None = None, **settings: Any
) -> Transcript | list[Transcript]:
    """The transcript of a file, or a list of those of several files, as a `Transcriber` makes them.

    The settings are the options of `omni-avsr transcribe`, such as task="avsr" or beams=5.
    """
    return Transcriber(**settings)(files, sampling_rate)
