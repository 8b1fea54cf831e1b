"""A server that listens in a thread."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from omni_avsr import Transcriber
from omni_avsr.serve.app import create_app
from omni_avsr.settings import ServeSettings


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
