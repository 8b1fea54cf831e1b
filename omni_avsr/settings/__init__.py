"""What a user can choose: each class is the options of a command, with defaults and help.

Options that several commands share are a group, a class that they inherit. Values come from the
command line, a TOML file, a run.json or Python; `Settings` turns all of them into the declared
types. Needs nothing but Python.
"""

from omni_avsr.settings.base import Settings
from omni_avsr.settings.data import CheckSettings, PrepareSettings
from omni_avsr.settings.decode import (
    CalibrateSettings,
    DecodeSettings,
    DecodingOptions,
    EvaluateSettings,
    ManyOptions,
)
from omni_avsr.settings.live import LiveSettings
from omni_avsr.settings.plan import PlanSettings
from omni_avsr.settings.serve import ServeSettings
from omni_avsr.settings.shared import CheckpointOptions
from omni_avsr.settings.toy import DemoSettings, ToySettings
from omni_avsr.settings.train import TrainSettings
from omni_avsr.settings.transcribe import TranscribeSettings

__all__ = [
    "CalibrateSettings",
    "CheckSettings",
    "CheckpointOptions",
    "DecodeSettings",
    "DecodingOptions",
    "DemoSettings",
    "EvaluateSettings",
    "LiveSettings",
    "ManyOptions",
    "PlanSettings",
    "PrepareSettings",
    "ServeSettings",
    "Settings",
    "ToySettings",
    "TrainSettings",
    "TranscribeSettings",
]
