"""Captions over a WebSocket, while someone speaks.

The events are those of vLLM's realtime API: the client sends `input_audio_buffer.append` with sound
in base64 (16-bit samples at 16 kHz), and `input_audio_buffer.commit` at the end; the server sends
`transcription.delta` with words that are never taken back, and `transcription.done`. Ours are
`input_video_buffer.append` with a JPEG of the picture, or a mouth of 96 x 96 grey bytes, in base64,
25 a second; and beside each delta its words with their times, and what may still change.
"""

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

import cv2
import numpy as np
from fastapi import WebSocket, WebSocketDisconnect

from omni_avsr.decode.live import Caption, Live, Picture
from omni_avsr.errors import InputError
from omni_avsr.serve.engine import Engine
from omni_avsr.tasks import MOUTH_SIZE, Row, Task

LARGEST_MESSAGE = 4 << 20  # characters of base64
LARGEST_SIDE = 1920  # pixels of a picture


async def converse(socket: WebSocket, live: Live, engine: Engine) -> None:
    """Takes the sound and pictures of a client, and sends captions, until it commits or goes."""
    await socket.accept()
    await socket.send_json({"type": "session.created", "tasks": list(live.tasks)})
    said: list[str] = []
    try:
        while True:
            event = _event(await socket.receive_text())
            kind = event.get("type")
            if kind == "session.update":
                live = _chosen(live, event)
                continue
            if kind == "input_audio_buffer.commit":
                break
            feed = partial(live.feed, *_given(event))
            await _send(socket, await asyncio.wrap_future(engine.call(feed)), said)
        await _send(socket, await asyncio.wrap_future(engine.call(live.finish)), said)
        await socket.send_json({"type": "transcription.done", "text": " ".join(said)})
        await socket.close()
    except InputError as error:
        await socket.send_json({"type": "error", "error": {"message": str(error)}})
        await socket.close(1003)
    except WebSocketDisconnect:
        pass


async def _send(socket: WebSocket, captions: Sequence[Caption], said: list[str]) -> None:
    """Sends captions, and notes the words that have settled."""
    for caption in captions:
        words = [word.word for word in caption.words]
        space = " " if said and words else ""
        said += words
        event: Row = {"type": "transcription.delta", "delta": space + " ".join(words)}
        await socket.send_json({**event, **asdict(caption)})


def _event(message: str) -> Row:
    if len(message) > LARGEST_MESSAGE:
        raise InputError("the message is too large: send shorter pieces")
    try:
        event = json.loads(message)
    except ValueError:
        raise InputError("the message is no JSON") from None
    if not isinstance(event, dict):
        raise InputError("the message is no JSON object")
    return event


def _chosen(live: Live, event: Row) -> Live:
    """A listener for the task that the client chooses."""
    task = event.get("task")
    if task is None:
        return live
    if task not in live.transcriber.tasks:
        known = ", ".join(live.transcriber.tasks)
        raise InputError(f"task {task!r} is not one of {known}")
    return live.again([Task(task)])


def _given(event: Row) -> tuple[np.ndarray | None, list[Picture]]:
    """The sound or the picture of an event."""
    kind = event.get("type")
    if kind == "input_audio_buffer.append":
        samples = _decoded(event, "audio")
        return np.frombuffer(samples[: len(samples) // 2 * 2], "<i2"), []
    if kind == "input_video_buffer.append":
        if "mouth" in event:
            return None, [_mouth(_decoded(event, "mouth"))]
        return None, [_picture(_decoded(event, "image"))]
    raise InputError(f"there is no event {kind!r}")


def _decoded(event: Row, name: str) -> bytes:
    try:
        return base64.b64decode(event[name], validate=True)
    except (KeyError, TypeError, binascii.Error):
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
