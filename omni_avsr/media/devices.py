"""The microphones and cameras of this machine, as FFmpeg knows them."""

import os
import queue
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.media import streams

# What FFmpeg reads sound and pictures from, by the system
FORMATS = {"linux": ("alsa", "v4l2"), "darwin": ("avfoundation",) * 2, "win32": ("dshow",) * 2}
ALSA = Path("/usr/share/alsa/alsa.conf")  # PyAV's own ALSA looks elsewhere
WAITING = 200  # blocks and pictures at most

Pieces = Iterator[tuple[np.ndarray, list[np.ndarray | None]]]


def recorded(microphone: str | None, camera: str | None) -> Pieces:
    """The sound and the pictures as they come, until a device ends or this is closed."""
    if sys.platform not in FORMATS:
        raise InputError(f"microphones and cameras are not known on {sys.platform}")
    if ALSA.is_file():
        os.environ.setdefault("ALSA_CONFIG_PATH", str(ALSA))
    of_sound, of_pictures = FORMATS[sys.platform]
    sources: dict[str, Iterable[np.ndarray]] = {}
    if microphone:
        sources["--mic"] = streams.audio_blocks(microphone, device=of_sound)
    if camera:
        sources["--camera"] = streams.video_frames(camera, device=of_pictures)
    came: queue.Queue[tuple[str, Any]] = queue.Queue(WAITING)
    closed = threading.Event()
    for option, items in sources.items():
        threading.Thread(target=_listen, args=(option, items, came, closed), daemon=True).start()
    try:
        yield from _pieces(len(sources), came)
    finally:
        closed.set()


def _listen(
    option: str, items: Iterable[np.ndarray], came: "queue.Queue[Any]", closed: threading.Event
) -> None:
    """Passes on what a device gives, and at last None or the error that ended it."""
    end: Exception | None = None
    try:
        for item in items:
            came.put((option, item))
            if closed.is_set():
                return
    except InputError as error:
        end = InputError(f"{option}: {error}")
    came.put((option, end))


def _pieces(devices: int, came: "queue.Queue[Any]") -> Pieces:
    while devices:
        option, item = came.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            devices -= 1
        elif option == "--mic":
            yield item, []
        else:
            yield np.zeros(0, np.float32), [item]
