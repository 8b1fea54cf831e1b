"""What `omni-avsr serve` does: loads a model, and listens."""

import os
import socket

from omni_avsr.choice import chosen_model
from omni_avsr.cli.terminal import name_model, note, say
from omni_avsr.errors import InputError
from omni_avsr.run import silence_libraries
from omni_avsr.settings.serve import ServeSettings
from omni_avsr.settings.shared import CheckpointOptions, DetectorOptions

NEEDED = "the server needs packages of its own: pip install 'omni-avsr[serve]'"
# Convolutions that oneDNN keeps ready, one for each shape of a batch; its 1,024 take 100 MB
KEPT_CONVOLUTIONS = "128"
PATIENCE = 60  # seconds that requests have to finish when the server is stopped


def run(settings: ServeSettings) -> None:
    """Serves until it is stopped."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KEPT_CONVOLUTIONS)
    try:
        import uvicorn

        from omni_avsr.serve.app import create_app
    except ModuleNotFoundError as error:
        raise InputError(f"{NEEDED} ({error.name} is missing)") from None
    import torch

    from omni_avsr.data.workers import usable_cores
    from omni_avsr.decode.transcribe import Transcriber
    from omni_avsr.media.faces import NoDetector, yunet

    silence_libraries()
    # One core is left to the readers: a thread that shares its core holds up all of the model's
    torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores() - 1)))
    model = chosen_model(settings.checkpoint)
    name_model(model)
    try:
        yunet(settings.detector, settings.download)
    except NoDetector as error:
        note(f"raw video is only heard: {error}")
    shared = {*CheckpointOptions.__dataclass_fields__, *DetectorOptions.__dataclass_fields__}
    given = {name: getattr(settings, name) for name in shared - {"checkpoint"}}
    app = create_app(settings, Transcriber(model, **given), model)
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=PATIENCE)
    with _listening(settings.host, settings.port) as listener:
        say(f"http://{settings.host}:{settings.port} listens; Ctrl-C ends it")
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{host} port {port} cannot be listened at: {reason}") from None
