"""Runs that start from the weights of a checkpoint, with a new optimizer and schedule."""

from collections.abc import Sequence
from dataclasses import fields, replace

from omni_avsr.choice import model_of
from omni_avsr.errors import InputError
from omni_avsr.model import OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor
from omni_avsr.model.precision import Dtypes
from omni_avsr.settings import TrainSettings
from omni_avsr.settings.train import MODEL_OPTIONS
from omni_avsr.train.resume import shown

TOWERS = {"audio": "audio_encoder", "video": "video_encoder", "llm": "llm"}
# Settings that the weights of a checkpoint fix
FIXED = tuple(name for name in MODEL_OPTIONS if name != "sink_loss_weight")


def load_start(
    checkpoint: str, settings: TrainSettings, dtype: Dtypes
) -> tuple[OmniAVSR, OmniAVSRProcessor]:
    """The model of a run, folder or hub id; on other towers where the settings name some."""
    given = _given(settings)
    towers = {kind: given[option] for kind, option in TOWERS.items() if option in given}
    name = model_of(checkpoint)
    try:
        model = OmniAVSR.from_pretrained(
            name, towers=towers, dtype=dtype, quantize=settings.quantize
        )
    except RuntimeError as error:  # as torch and PEFT say that sizes differ
        if not towers:
            raise
        named = ", ".join(map(str, towers.values()))
        raise InputError(f"--from {checkpoint} does not fit {named}: {error}") from error
    model.config.calibration, model.config.ladders = {}, {}  # which were fitted to these weights
    if "sink_loss_weight" in given:
        model.config.sink_loss_weight = settings.sink_loss_weight
    return model, OmniAVSRProcessor.from_pretrained(name, towers=towers)


def as_started(checkpoint: str, settings: TrainSettings, config: OmniAVSRConfig) -> TrainSettings:
    """The settings with what the checkpoint fixes; refuses those that contradict it."""
    given = _given(settings)
    known = {name: getattr(config, name) for name in FIXED}
    different = []
    for name in FIXED:
        if name in given and _comparable(given[name]) != _comparable(known[name]):
            different.append(f"{name} {shown(known[name])}, not {shown(given[name])}")
    if different:
        raise InputError(f"--from {checkpoint} has {'; '.join(different)}: leave these options out")
    return replace(settings, **known)


def _given(settings: TrainSettings) -> dict[str, object]:
    """The settings that are not at their defaults."""
    given = {}
    for own in fields(settings):
        value = getattr(settings, own.name)
        if value != own.default:
            given[own.name] = value
    return given


def _comparable(value: object) -> object:
    return list(map(str, value)) if isinstance(value, Sequence) else value
