"""What clients are told of what went wrong."""

import logging

from omni_avsr.decode.remote import EngineError

log = logging.getLogger(__name__)


def told_of(error: Exception) -> str:
    """The message for a client; what an engine says, with its address, is logged instead."""
    if isinstance(error, EngineError):
        log.error("%s", error)
        return "the engine of the language model failed"
    return str(error)
