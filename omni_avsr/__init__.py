"""omni-avsr: one audio-visual language model that hears, reads lips, and does both.

It works at any token rate. Torch is imported only when a part of the model is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from omni_avsr.errors import InputError
from omni_avsr.tasks import VERSION as __version__
from omni_avsr.tasks import Condition, Route, Task

if TYPE_CHECKING:
    from omni_avsr.decode.live import Live
    from omni_avsr.decode.transcribe import Transcriber, transcribe
    from omni_avsr.model import (
        AVHubertConfig,
        AVHubertEncoder,
        Batch,
        Features,
        Media,
        OmniAVSR,
        OmniAVSRConfig,
        OmniAVSROutput,
        OmniAVSRProcessor,
    )

__all__ = [
    "AVHubertConfig",
    "AVHubertEncoder",
    "Batch",
    "Condition",
    "Features",
    "InputError",
    "Live",
    "Media",
    "OmniAVSR",
    "OmniAVSRConfig",
    "OmniAVSROutput",
    "OmniAVSRProcessor",
    "Route",
    "Task",
    "Transcriber",
    "__version__",
    "transcribe",
]

MODULES = {  # of the names that are not in omni_avsr.model
    "Live": "omni_avsr.decode.live",
    "Transcriber": "omni_avsr.decode.transcribe",
    "transcribe": "omni_avsr.decode.transcribe",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'omni_avsr' has no attribute {name!r}")
    module = MODULES.get(name, "omni_avsr.model")
    return getattr(import_module(module), name)
