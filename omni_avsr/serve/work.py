"""Transcribes an upload: its windows are read, decoded with those of others, and put in order."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from omni_avsr.decode.elastic import Climb, chosen_climb
from omni_avsr.decode.transcribe import Transcriber
from omni_avsr.decode.transcripts import Segment
from omni_avsr.decode.windows import Window
from omni_avsr.errors import InputError
from omni_avsr.serve.asked import Asked
from omni_avsr.serve.engine import Engine
from omni_avsr.serve.mouths import seen_in
from omni_avsr.serve.noises import in_noise
from omni_avsr.serve.reader import Reader
from omni_avsr.settings import TranscribeSettings
from omni_avsr.tasks import Route, Row, Task

SHOWN = 300  # seconds of an upload whose mouths are sent, at most
AHEAD = 2  # windows of an upload that are decoded at a time


@dataclass
class Work:
    """The transcription of one upload."""

    engine: Engine
    file: Path
    asked: Asked
    longest: float  # seconds
    reading: asyncio.Semaphore  # of all uploads, which wait for each other until a first window
    seen: list[Row | None] = field(default_factory=list)  # of each segment, if it is asked for
    problem: InputError | None = None  # what could not be read
    climbs: dict[Task, Climb | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what the model does not know."""
        config = self.model.decoder.model.config
        for task in self.tasks:
            config.choose(task, self.settings.audio_rate, self.settings.video_rate)
            self.climbs[task] = chosen_climb(config, task, self.settings)

    @property
    def settings(self) -> TranscribeSettings:
        return self.asked.settings

    @property
    def model(self) -> Transcriber:
        return self.engine.transcriber

    @property
    def tasks(self) -> list[Task]:
        """The tasks of which one is chosen by what the file has."""
        if self.settings.task == "auto":
            return list(self.model.tasks)
        return [Task(self.settings.task)]

    def logprobs(self, segment: Segment) -> list[Row]:
        """The tokens of a segment with their log-probabilities, as OpenAI's API has them."""
        tokenizer = self.model.decoder.processor.tokenizer
        rows = []
        for token, log_prob in zip(segment.tokens, segment.log_probs, strict=True):
            text = tokenizer.decode([token])
            rows.append({"token": text, "logprob": log_prob, "bytes": list(text.encode())})
        return rows

    async def segments(self) -> AsyncGenerator[Segment]:
        """The segments in order. What could not be read is in `problem` after the last of them."""
        # Of each upload, the longest window is one that the model takes
        longest_window = self.model.settings.max_seconds_per_window
        settings = {**vars(self.settings), "max_seconds_per_window": longest_window}
        given = self.file, self.tasks, TranscribeSettings(**settings), self.longest
        pending: deque[asyncio.Task[Segment]] = deque()
        reader = None
        try:
            # What follows the first window is read no faster than it is decoded
            async with self.reading:
                reader = await asyncio.to_thread(Reader, *given)
                windows = iter(reader)
                window = await asyncio.to_thread(self._next, windows)
            while pending or window is not None:
                while window is not None and len(pending) < AHEAD:
                    window = await asyncio.to_thread(self._prepared, window)
                    pending.append(asyncio.create_task(self._segment(window)))
                    window = await asyncio.to_thread(self._next, windows)
                yield await pending.popleft()
        finally:
            for task in pending:
                task.cancel()
            if reader is not None:
                await asyncio.to_thread(reader.close)

    def _next(self, windows: Iterator[Window]) -> Window | None:
        try:
            return next(windows, None)
        except InputError as error:
            self.problem = error
            return None

    def _prepared(self, window: Window) -> Window:
        """A window with the noise that is asked for; what is seen in it is noted."""
        if self.asked.mouths:
            self.seen.append(seen_in(window) if window.end < SHOWN else None)
        if self.asked.snr is None:
            return window
        return in_noise(window, self.asked.noise, self.asked.snr)

    async def _segment(self, window: Window) -> Segment:
        """A window on its route, or on two where the first is in doubt."""
        climb = self.climbs[window.task]
        if climb is None:
            rates = self.settings.audio_rate, self.settings.video_rate
            route = self.model.decoder.model.config.choose(window.task, *rates)
            return await self._decoded(window, route)
        first = await self._decoded(window, climb.ladder.cheap)
        if not climb.of([first.doubt], [window.end - window.start]):
            return first
        second = await self._decoded(window, climb.ladder.better)
        return second if second.doubt <= first.doubt else first

    async def _decoded(self, window: Window, route: Route) -> Segment:
        future = self.engine.submit(window, route, self.settings.beams, client=self.file)
        return await asyncio.wrap_future(future)
