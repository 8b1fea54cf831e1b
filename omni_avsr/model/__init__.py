"""The model: three towers, two compressors, one language model."""

from omni_avsr.model.avhubert import AVHubertEncoder
from omni_avsr.model.batch import Batch, Features, Media
from omni_avsr.model.config import AVHubertConfig, OmniAVSRConfig
from omni_avsr.model.omni import OmniAVSR, OmniAVSROutput
from omni_avsr.model.processor import OmniAVSRProcessor

__all__ = [
    "AVHubertConfig",
    "AVHubertEncoder",
    "Batch",
    "Features",
    "Media",
    "OmniAVSR",
    "OmniAVSRConfig",
    "OmniAVSROutput",
    "OmniAVSRProcessor",
]
