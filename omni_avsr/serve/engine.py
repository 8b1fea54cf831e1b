"""Decodes the windows of many requests together, in a thread of its own.

Windows that wait join those that are being decoded, as clips do in `decode`. Clients take turns, so
that a short clip does not wait for a long file.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from omni_avsr.decode.decode import Decoded, RemoteStream, Stream
from omni_avsr.decode.remote import AT_A_TIME, EngineError
from omni_avsr.decode.transcribe import Transcriber
from omni_avsr.decode.transcripts import Segment
from omni_avsr.decode.windows import Window
from omni_avsr.tasks import Route

ROOM = 16  # windows that are decoded at a time
FRAMES = 800  # of the windows that are encoded together: the others wait as long


@dataclass
class Job:
    """A window that is to be decoded."""

    window: Window
    route: Route
    beams: int
    future: "Future[Segment]" = field(default_factory=Future)
    named: np.ndarray | None = None  # what the aligner names in it


class Engine:
    """One model, and the thread that uses it."""

    def __init__(self, transcriber: Transcriber):
        self.transcriber = transcriber
        self.room = AT_A_TIME if transcriber.decoder.remote else ROOM
        self.waiting: dict[object, deque[Job]] = {}  # of each client, in turn
        self.calls: deque[tuple[Callable[[], Any], Future]] = deque()
        self.lanes: dict[tuple[Route, int], _Lane] = {}  # by route and beams
        self.changed = threading.Condition()
        self.closing = False
        self.batch_sizes: deque[int] = deque(maxlen=1000)  # windows of the last steps
        self.thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self.thread.start()

    def submit(self, window: Window, route: Route, beams: int, client: object) -> "Future[Segment]":
        """The segment of a window, when it is there. What is cancelled before is not decoded."""
        job = Job(window, route, beams)
        with self.changed:
            self.waiting.setdefault(client, deque()).append(job)
            self.changed.notify()
        return job.future

    def call(self, work: Callable[[], Any]) -> Future:
        """What some work with the model returns, which is done between two steps.

        With an engine elsewhere it is done at once, as it waits for that and not for the model.
        """
        if self.transcriber.decoder.remote is not None:
            return self.transcriber.decoder.remote.pool.submit(work)
        future: Future = Future()
        with self.changed:
            self.calls.append((work, future))
            self.changed.notify()
        return future

    def close(self) -> None:
        """Finishes what was submitted, and ends the thread."""
        with self.changed:
            self.closing = True
            self.changed.notify()
        self.thread.join()

    @property
    def queued(self) -> int:
        """Windows that wait."""
        with self.changed:
            return sum(map(len, self.waiting.values()))

    @property
    def running(self) -> int:
        """Windows that are being decoded."""
        return sum(lane.stream.running for lane in list(self.lanes.values()))

    @torch.no_grad()
    def _run(self) -> None:
        while self._has_work():
            for work, future in self._taken_calls():
                _settle(future, work)
            for key, jobs in self._taken_jobs().items():
                lane = self.lanes.setdefault(key, _Lane.of(self.transcriber, *key))
                lane.guarded(lambda: lane.add(jobs))  # noqa: B023 - called at once
            if running := self.running:
                self.batch_sizes.append(running)
            for key, lane in list(self.lanes.items()):
                lane.guarded(lane.step)
                if not lane.stream.running:
                    del self.lanes[key]

    def _has_work(self) -> bool:
        """Waits for something to do; False once there is nothing left and this is closing."""
        with self.changed:
            while not (self.waiting or self.calls or self.lanes):
                if self.closing:
                    return False
                self.changed.wait()
        return True

    def _taken_calls(self) -> list[tuple[Callable[[], Any], Future]]:
        with self.changed:
            taken = list(self.calls)
            self.calls.clear()
        return taken

    def _taken_jobs(self) -> dict[tuple[Route, int], list[Job]]:
        """Some windows, if there is room, one of each client after another."""
        taken: dict[tuple[Route, int], list[Job]] = {}
        room, frames = self.room - self.running, 0
        with self.changed:
            while room and frames < FRAMES and self.waiting:
                client = next(iter(self.waiting))
                jobs = self.waiting.pop(client)
                job = jobs.popleft()
                if jobs:
                    self.waiting[client] = jobs  # behind the others
                if job.future.set_running_or_notify_cancel():
                    taken.setdefault((job.route, job.beams), []).append(job)
                    room -= 1
                    frames += job.window.frames
        return taken


@dataclass
class _Lane:
    """The windows that are decoded on one route."""

    transcriber: Transcriber
    route: Route
    stream: Stream | RemoteStream
    jobs: dict[int, Job] = field(default_factory=dict)  # by their number in the stream

    @classmethod
    def of(cls, transcriber: Transcriber, route: Route, beams: int) -> "_Lane":
        limit = transcriber.settings.max_new_tokens
        return cls(transcriber, route, transcriber.decoder.stream(route, beams, limit, room=ROOM))

    def add(self, jobs: Sequence[Job]) -> None:
        """Encodes windows, and lets them join."""
        self.jobs |= dict(enumerate(jobs, self.stream.added))
        features, named = self.transcriber.encode([job.window for job in jobs])
        for job, own in zip(jobs, named, strict=True):
            job.named = own
        self._finish(self.stream.add(features))

    def step(self) -> None:
        """Runs the LLM once."""
        if self.stream.running:
            self._finish(self.stream.step())

    def _finish(self, found: Iterable[tuple[int, Decoded]]) -> None:
        for number, decoded in found:
            job = self.jobs.pop(number)
            segment = self.transcriber.segment(self.route, job.window, decoded, job.named)
            job.future.set_result(segment)

    def guarded(self, work: Callable[[], None]) -> None:
        """Does some work; if it fails, so have all windows, or the one that an engine left out."""
        try:
            work()
        except Exception as error:
            clip = error.clip if isinstance(error, EngineError) else None
            if clip is not None:
                self.jobs.pop(clip).future.set_exception(error)
                return
            for job in self.jobs.values():
                job.future.set_exception(error)
            self.jobs.clear()
            self.stream.drop()


def _settle(future: Future, work: Callable[[], Any]) -> None:
    """Gives a future what some work returns, or raises."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:
        future.set_exception(error)
