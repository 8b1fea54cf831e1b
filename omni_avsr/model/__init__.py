"""The model: three towers, two compressors, one language model."""

from omni_avsr.model.avhubert import AVHubertEncoder
from omni_avsr.model.config import AVHubertConfig, OmniAVSRConfig, Route
from omni_avsr.model.omni import OmniAVSR, OmniAVSROutput
from omni_avsr.model.processor import OmniAVSRProcessor

__all__ = [
    "AVHubertConfig",
    "AVHubertEncoder",
    "OmniAVSR",
    "OmniAVSRConfig",
    "OmniAVSROutput",
    "OmniAVSRProcessor",
    "Route",
]
