"""Captions over a WebSocket, while someone speaks.

The events are those of vLLM's realtime API: the client sends `input_audio_buffer.append` with sound
in base64 (16-bit samples at 16 kHz), and `input_audio_buffer.commit` at the end; the server sends
`transcription.delta` with words that are never taken back, and `transcription.done`. Ours are
`input_video_buffer.append` with a JPEG of the picture, or a mouth of 96 x 96 grey bytes, in base64,
25 a second; and beside each delta its words with their times, and what may still change.
"""

import asyncio
import base64
import json
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, TypeAlias

import cv2
import numpy as np
from fastapi import WebSocket, WebSocketDisconnect

from omni_avsr.decode.live import Caption, Live, Picture
from omni_avsr.decode.remote import EngineError
from omni_avsr.errors import InputError
from omni_avsr.serve.engine import Engine
from omni_avsr.serve.failures import told_of
from omni_avsr.tasks import MOUTH_SIZE, Row, Task

LARGEST_MESSAGE = 1 << 20  # characters of base64
LARGEST_SIDE = 1920  # pixels of a picture
MOST_WAITING = 200  # events, four seconds of sound and pictures
MOST_TAKEN = 50  # of them at a time
REFUSED, FAILED = 1003, 1011  # codes of a WebSocket that is closed

Events: TypeAlias = "asyncio.Queue[Row | Exception]"


async def converse(socket: WebSocket, live: Live, engine: Engine, model: str) -> None:
    """Takes the sound and pictures of a client, and sends captions, until it commits or goes."""
    await socket.accept()
    await socket.send_json({"type": "session.created", "tasks": list(live.tasks)})
    events: Events = asyncio.Queue(MOST_WAITING)
    receiving = asyncio.create_task(_receive(socket, events))
    session = _Session(socket, live, engine, model)
    try:
        while not session.has_ended:
            await session.take(await _waiting(events))
        await socket.close()
    except WebSocketDisconnect:
        pass
    except InputError as error:
        with suppress(WebSocketDisconnect):
            await socket.send_json({"type": "error", "error": {"message": told_of(error)}})
            await socket.close(FAILED if isinstance(error, EngineError) else REFUSED)
    finally:
        receiving.cancel()


async def _receive(socket: WebSocket, events: Events) -> None:
    """Puts what a client sends into a queue, even while a model is at work.

    The last entry is what ends the session.
    """
    try:
        while True:
            await events.put(_event(await socket.receive()))
    except Exception as error:  # or the session would wait for ever
        await events.put(error)


async def _waiting(events: Events) -> list[Row | Exception]:
    """The events that have come, a second of them at most; waits for one."""
    taken = [await events.get()]
    while not events.empty() and len(taken) < MOST_TAKEN:
        taken.append(events.get_nowait())
    return taken


@dataclass
class _Session:
    """A client who speaks."""

    socket: WebSocket
    live: Live
    engine: Engine
    model: str  # its name
    said: list[str] = field(default_factory=list)  # words that have settled
    sounds: list[np.ndarray] = field(default_factory=list)  # that came since the last captions
    pictures: list[Picture] = field(default_factory=list)
    has_begun: bool = False  # whether sound or pictures have come
    has_ended: bool = False

    async def take(self, events: Sequence[Row | Exception]) -> None:
        """Takes what has come, all of it at once, so that a busy model does not fall behind."""
        for event in events:
            if isinstance(event, Exception):
                raise event
            kind = event.get("type")
            if kind == "session.update":
                self._update(event)
            elif kind == "input_audio_buffer.commit":
                await self._end()
                return
            else:
                self.has_begun = True
                sound, pictures = await asyncio.to_thread(_given, event)
                self.sounds += sound
                self.pictures += pictures
        await self._feed()

    def _update(self, event: Row) -> None:
        if self.has_begun:
            raise InputError("session.update comes before the first sound or picture")
        if event.get("model", self.model) != self.model:
            raise InputError(f"the model is {self.model!r}")
        self.live = _chosen(self.live, event)

    async def _feed(self) -> None:
        sound = np.concatenate(self.sounds) if self.sounds else None
        feed = partial(self.live.feed, sound, self.pictures)
        self.sounds, self.pictures = [], []
        await self._send(await asyncio.wrap_future(self.engine.call(feed)))

    async def _end(self) -> None:
        await self._feed()
        await self._send(await asyncio.wrap_future(self.engine.call(self.live.finish)))
        done = {"type": "transcription.done", "text": " ".join(self.said)}
        await self.socket.send_json(done)
        self.has_ended = True

    async def _send(self, captions: Sequence[Caption]) -> None:
        for caption in captions:
            words = [word.word for word in caption.words]
            space = " " if self.said and words else ""
            self.said += words
            event: Row = {"type": "transcription.delta", "delta": space + " ".join(words)}
            await self.socket.send_json({**event, **asdict(caption)})


def _event(received: MutableMapping[str, Any]) -> Row:
    """The event in a message; raises WebSocketDisconnect if the client has gone."""
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received["code"])
    message = received.get("text")
    if message is None:
        raise InputError("the message is binary: send JSON, with sound and pictures in base64")
    if len(message) > LARGEST_MESSAGE:
        raise InputError("the message is too large: send shorter pieces")
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        raise InputError("the message is no JSON") from None
    if not isinstance(event, dict):
        raise InputError("the message is no JSON object")
    return event


def _chosen(live: Live, event: Row) -> Live:
    """A listener for the task that the client chooses."""
    unknown = event.keys() - {"type", "model", "task"}
    if unknown:
        raise InputError(f"session.update has no {', '.join(sorted(unknown))}")
    task = event.get("task")
    if task in (None, "auto"):
        return live.again()
    if task not in live.transcriber.tasks:
        known = ", ".join(live.transcriber.tasks)
        raise InputError(f"task {task!r} is not one of {known}")
    return live.again([Task(task)])


def _given(event: Row) -> tuple[list[np.ndarray], list[Picture]]:
    """The sound or the picture of an event."""
    kind = event.get("type")
    if kind == "input_audio_buffer.append":
        samples = _decoded(event, "audio")
        return [np.frombuffer(samples[: len(samples) // 2 * 2], "<i2")], []
    if kind == "input_video_buffer.append":
        if "mouth" in event:
            return [], [_mouth(_decoded(event, "mouth"))]
        return [], [_picture(_decoded(event, "image"))]
    raise InputError(f"there is no event {kind!r}")


def _decoded(event: Row, name: str) -> bytes:
    try:
        return base64.b64decode(event[name], validate=True)
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{event['type']} needs {name!r} in base64") from None


def _mouth(content: bytes) -> np.ndarray:
    if len(content) != MOUTH_SIZE**2:
        raise InputError(f"a mouth has {MOUTH_SIZE} x {MOUTH_SIZE} bytes, {len(content)} came")
    return np.frombuffer(content, np.uint8).reshape(MOUTH_SIZE, MOUTH_SIZE)


def _picture(content: bytes) -> np.ndarray:
    """The picture of a JPEG, whose size is looked at before it is decoded."""
    size = _jpeg_size(content)
    if size is None or max(size) > LARGEST_SIDE:
        raise InputError(f"an image is a JPEG of at most {LARGEST_SIDE} pixels a side")
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if picture is None:
        raise InputError("the image is a damaged JPEG")
    return picture


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    """The height and width that the header of a JPEG announces."""
    place = 2
    if content[:2] != b"\xff\xd8":
        return None
    while place + 9 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(content[place + 5 : place + 7])
            return height, int.from_bytes(content[place + 7 : place + 9])
        place += 2 + length
    return None
