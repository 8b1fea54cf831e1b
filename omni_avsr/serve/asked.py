"""What a client asks for, in the form fields of OpenAI's transcription API and in our own.

What cannot be done is refused, and never ignored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omni_avsr.errors import InputError
from omni_avsr.serve.noises import NOISES
from omni_avsr.settings import TranscribeSettings
from omni_avsr.settings.base import DECIBELS
from omni_avsr.settings.serve import ServeSettings
from omni_avsr.tasks import Row

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("word", "segment")
# Our own fields, which are options of `omni-avsr transcribe`, and how they are read
OPTIONS = {
    "task": str,
    "audio_rate": int,
    "video_rate": int,
    "rates": str,
    "budget": float,
    "beams": int,
    "face": int,
}
MOST_BEAMS = 32
# Fields of OpenAI's API that this server cannot honour, and why
REFUSED = {
    "language": "the language is that of the model; leave it out",
    "languages": "the language is that of the model; leave it out",
    "prompt": "the model takes no prompt; leave it out",
    "keywords": "the model takes no keywords; leave them out",
    "known_speaker_names": "speakers are not told apart; leave it out",
    "known_speaker_references": "speakers are not told apart; leave it out",
}
SHARED = ("detector", "engine_url", "max_new_tokens")


class Refused(InputError):
    """A request that cannot be served, with the field that it is about."""

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Asked:
    """How an upload is to be transcribed, and how the transcript is to be sent."""

    format: str
    granularities: Sequence[str]
    stream: bool
    logprobs: bool
    mouths: bool  # whether what was seen is sent, too
    noise: str  # that is mixed in
    snr: float | None  # in dB; None if there is no noise
    settings: TranscribeSettings

    @classmethod
    def of(cls, fields: Mapping[str, Sequence[str]], server: ServeSettings, model: str) -> "Asked":
        """What the fields of a form say; each has one value or several."""
        given = {name.removesuffix("[]"): list(values) for name, values in fields.items()}
        asked = cls(
            format=_one_of("response_format", given.pop("response_format", ["json"]), FORMATS),
            granularities=_granularities(given.pop("timestamp_granularities", ["segment"])),
            stream=_is_true("stream", given),
            logprobs=bool(given.get("include")),
            mouths=_is_true("mouths", given),
            noise=_one_of("noise", given.pop("noise", ["white"]), NOISES),
            snr=_ratio(given.pop("snr", [])),
            settings=_settings(given, server),
        )
        _refuse_others(given, model)
        asked._refuse_contradictions(fields)
        return asked

    def _refuse_contradictions(self, fields: Mapping[str, Sequence[str]]) -> None:
        """Refuses what the format or another field leaves no place for."""
        names = {name.removesuffix("[]") for name in fields}
        is_verbose = self.format == "verbose_json"
        if self.logprobs and self.format != "json":
            raise Refused("logprobs are sent as json only", "include")
        if self.mouths and not (is_verbose and "segment" in self.granularities):
            raise Refused("mouths are sent in the segments of verbose_json only", "mouths")
        if "timestamp_granularities" in names and not is_verbose:
            raise Refused("times are sent as verbose_json only", "timestamp_granularities")
        if self.stream and (self.format != "json" or self.logprobs):
            raise Refused("a stream is of text: leave response_format and include[] out", "stream")
        if "noise" in names and self.snr is None:
            raise Refused("noise needs its snr", "noise")


def described() -> Row:
    """The fields of a form, for OpenAPI's documentation."""
    numbers = {int: "integer", float: "number", str: "string"}
    fields: Row = {name: {"type": numbers[kind]} for name, kind in OPTIONS.items()}
    fields |= {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "response_format": {"enum": list(FORMATS), "default": "json"},
        "timestamp_granularities[]": {"type": "array", "items": {"enum": list(GRANULARITIES)}},
        "stream": {"type": "boolean", "default": False},
        "include[]": {"type": "array", "items": {"enum": ["logprobs"]}},
        "mouths": {"type": "boolean", "default": False},
        "noise": {"enum": list(NOISES)},
        "snr": {"type": "number"},
    }
    schema = {"type": "object", "required": ["file"], "properties": fields}
    return {"requestBody": {"content": {"multipart/form-data": {"schema": schema}}}}


def _settings(given: dict[str, list[str]], server: ServeSettings) -> TranscribeSettings:
    """Takes our own fields out of a form."""
    options: dict[str, Any] = {name: getattr(server, name) for name in SHARED}
    # Whether there is a detector was found out when the server started
    options |= {"beams": server.beams, "download": False}
    for name, kind in OPTIONS.items():
        if name in given:
            options[name] = _number(name, given.pop(name)[-1], kind)
    if options["beams"] > MOST_BEAMS:
        raise Refused(f"beams {options['beams']} are more than {MOST_BEAMS}", "beams")
    return TranscribeSettings(**options)


def _number(name: str, value: str, kind: type) -> Any:
    """The value of a field, which is a number unless it is a text."""
    try:
        return kind(value)
    except ValueError:
        raise Refused(f"{name} {value!r} is not a number", name) from None


def _refuse_others(given: Mapping[str, Sequence[str]], model: str) -> None:
    """Refuses what is left of a form, unless it is what this server does anyway."""
    done_anyway = {
        "model": (model, ""),
        "temperature": ("0", "0.0", ""),
        "chunking_strategy": ("auto", ""),
        "include": ("logprobs",),
        **dict.fromkeys(REFUSED, ("",)),
    }
    for name, values in given.items():
        if name not in done_anyway:
            raise Refused(f"there is no field {name!r}", name)
        for value in values:
            if value not in done_anyway[name]:
                known = " or ".join(repr(one) for one in done_anyway[name] if one)
                raise Refused(REFUSED.get(name, f"{name} {value!r} is not {known}"), name)


def _is_true(name: str, given: dict[str, list[str]]) -> bool:
    return _one_of(name, given.pop(name, ["false"]), ("true", "false")) == "true"


def _ratio(values: Sequence[str]) -> float | None:
    if not values:
        return None
    ratio = _number("snr", values[-1], float)
    if not DECIBELS.hold(ratio):
        raise Refused(f"snr {ratio} is not {DECIBELS} dB", "snr")
    return ratio


def _granularities(values: Sequence[str]) -> list[str]:
    return [_one_of("timestamp_granularities", [value], GRANULARITIES) for value in values]


def _one_of(name: str, values: Sequence[str], allowed: Sequence[str]) -> str:
    (value,) = values[-1:]
    if value not in allowed:
        raise Refused(f"{name} {value!r} is none of {', '.join(allowed)}", name)
    return value
