"""A server that listens in a thread, and what one of another process is asked and does."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from omni_avsr import Transcriber
from omni_avsr.serve.app import create_app
from omni_avsr.settings import ServeSettings

CLIPS = sorted((Path(__file__).parents[2] / "omni_avsr/serve/clips").iterdir())
ANSWERS = {200, 400}  # that even a damaged upload gets


@contextmanager
def served(transcriber: Transcriber, settings: ServeSettings | None = None) -> Iterator[str]:
    """The address, such as 127.0.0.1:1234, of a server of this model, named tiny."""
    app = create_app(settings or ServeSettings(), transcriber, "tiny")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    (socket,) = server.servers[0].sockets
    yield f"127.0.0.1:{socket.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def memory(process: int) -> float:
    """MiB that a process holds."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
