"""omni-avsr: one audio-visual language model that hears, reads lips, and does both, at any token rate."""

from importlib import import_module
from typing import Any

from omni_avsr.tasks import VERSION as __version__
from omni_avsr.tasks import Task

_MODEL = ("AVHubertConfig", "AVHubertEncoder", "OmniAVSR", "OmniAVSRConfig", "OmniAVSROutput", "OmniAVSRProcessor")
__all__ = ["Task", "__version__", "transcribe", *_MODEL]


def __getattr__(name: str) -> Any:
    """Imports torch only when a part of the model is asked for."""
    if name in _MODEL:
        return getattr(import_module("omni_avsr.model"), name)
    if name == "transcribe":
        return import_module("omni_avsr.decode.transcribe").transcribe
    raise AttributeError(f"module 'omni_avsr' has no attribute {name!r}")
