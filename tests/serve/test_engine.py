"""Windows of many clients are decoded together, in turn, and what fails harms nobody else."""

import asyncio
import multiprocessing
import threading
import wave
from pathlib import Path

import numpy as np
import pytest

from omni_avsr import Transcriber
from omni_avsr.decode import words
from omni_avsr.decode.windows import Window
from omni_avsr.errors import InputError
from omni_avsr.serve.asked import Asked
from omni_avsr.serve.engine import ROOM, Engine
from omni_avsr.serve.reader import Reader
from omni_avsr.serve.work import Work
from omni_avsr.settings import ServeSettings, TranscribeSettings
from omni_avsr.tasks import Route, Task

ASR = Route(Task.ASR, 4)


@pytest.fixture(scope="module")
def transcriber():
    return Transcriber("tiny", download=False)


@pytest.fixture
def engine(transcriber):
    engine = Engine(transcriber)
    yield engine
    engine.close()


def window(number, seconds=1.0):
    sound = np.random.default_rng(number).normal(0, 0.1, round(16_000 * seconds))
    return Window(0.0, seconds, sound.astype(np.float32), None)


def held(engine):
    """Keeps the engine busy until the event that is returned is set."""
    go_on = threading.Event()
    engine.call(go_on.wait)
    return go_on


def test_windows_are_decoded_as_alone_whatever_they_are_with(engine, transcriber, monkeypatch):
    monkeypatch.setattr(words, "LEAST_HEARD", 0.0)  # what is decoded is noise
    windows = [window(number, 0.6 + 0.2 * number) for number in range(6)]
    routes = [ASR, Route(Task.ASR, 16)]
    futures = {}
    for number, one in enumerate(windows):
        for route in routes:
            futures[number, route] = engine.submit(one, route, 1, client=number)
    for (number, route), future in futures.items():
        (alone,) = transcriber._decode_route(route, [windows[number]])
        found = future.result()
        assert (found.text, found.task, found.tokens) == (alone.text, Task.ASR, alone.tokens)
        assert found.confidence == pytest.approx(alone.confidence, rel=1e-4)


def test_a_short_clip_does_not_wait_for_a_long_file(engine, monkeypatch):
    taken = []
    take = Engine._taken_jobs

    def noted(self):
        jobs = take(self)
        taken.extend(job.window.end for own in jobs.values() for job in own)
        return jobs

    monkeypatch.setattr(Engine, "_taken_jobs", noted)
    go_on = held(engine)
    long = [engine.submit(window(0), ASR, 1, client="long") for _ in range(3 * ROOM)]
    short = engine.submit(window(0, 0.5), ASR, 1, client="short")
    go_on.set()
    short.result()
    for future in long:
        future.result()
    assert taken.index(0.5) == 1  # after one of the other's windows
    assert engine.queued == engine.running == 0


def test_what_is_cancelled_before_it_is_decoded_is_not(engine):
    go_on = held(engine)
    gone = engine.submit(window(0), ASR, 1, client="gone")
    stays = engine.submit(window(1), ASR, 1, client="stays")
    assert gone.cancel()
    go_on.set()
    assert stays.result() is not None
    assert engine.queued == 0


def test_what_fails_harms_nobody_else(engine, transcriber, monkeypatch):
    encode = Transcriber.encode

    def failing(self, batch):
        if any(one.end == 0.5 for one in batch):
            raise RuntimeError("out of memory")
        return encode(self, batch)

    monkeypatch.setattr(Transcriber, "encode", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        engine.submit(window(0, 0.5), ASR, 1, client="a").result()
    assert engine.submit(window(0), ASR, 1, client="b").result() is not None
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 / 0).result()


def test_closing_finishes_what_was_submitted(transcriber):
    engine = Engine(transcriber)
    futures = [engine.submit(window(number), ASR, 1, client=number) for number in range(3)]
    engine.close()
    assert all(future.done() for future in futures)
    assert not engine.thread.is_alive()


def read(file, longest=60.0):
    reader = Reader(file, [Task.ASR], TranscribeSettings(task="asr", download=False), longest)
    try:
        return list(reader)
    finally:
        reader.close()


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.wav"
    samples = np.random.default_rng(0).normal(0, 3000, 32_000).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, 16_000, 0, "NONE", ""))
        out.writeframes(samples.tobytes())
    return path


def test_a_reader_gives_the_windows_of_a_file(sound):
    (found,) = read(sound)
    assert found.end == 2.0
    with pytest.raises(InputError, match="longer than the 1 seconds"):
        read(sound, longest=1.0)
    with pytest.raises(InputError, match="the file cannot be read"):
        read(Path(__file__))


def test_a_reader_that_dies_is_a_file_that_cannot_be_read(sound):
    reader = Reader(sound, [Task.ASR], TranscribeSettings(task="asr", download=False), 60.0)
    reader.process.kill()
    reader.process.join()
    with pytest.raises(InputError, match="broke what reads it"):
        list(reader)
    reader.close()
    assert len(read(sound)) == 1


def test_a_request_that_hangs_up_ends_its_reader(engine, sound):
    async def hang_up():
        work = Work(
            engine,
            sound,
            Asked.of({"task": ["asr"]}, ServeSettings(), "tiny"),
            60.0,
            asyncio.Semaphore(),
        )
        segments = work.segments()
        first = await anext(segments)
        await segments.aclose()
        return first

    assert asyncio.run(hang_up()).end == 2.0
    assert multiprocessing.active_children() == []
