"""The published methods as rows of one table.

A method is a choice of tasks, of the rates in a step, of adapters and of projectors.
"""

from dataclasses import dataclass
from typing import Any, Literal

from omni_avsr.errors import InputError
from omni_avsr.tasks import Task

ConfigFields = dict[str, Any]  # fields of OmniAVSRConfig, by name


@dataclass(frozen=True)
class Method:
    """One row. Every other combination of its columns works too."""

    tasks: Literal["one", "all"]
    rates_in_a_step: Literal["fixed", "all", "sampled"]
    adapters: tuple[str, ...]  # of shared, task, scale; the active ones are summed
    projectors: Literal["one", "per_rate"]

    def settings(self) -> ConfigFields:
        """The model settings that it stands for; each can be overridden."""
        settings: ConfigFields = {
            "tasks": tuple(Task) if self.tasks == "all" else (Task.AVSR,),
            "adapters": self.adapters,
            "projectors": self.projectors,
        }
        if self.rates_in_a_step == "fixed":
            settings |= {"audio_rates": (4,), "video_rates": (2,)}
        return settings


METHODS = {
    # Llama-AVSR: one model per task and rate
    "llama-avsr": Method("one", "fixed", ("shared",), "one"),
    # Llama-MTSK (arXiv 2503.06362): one model per task, every rate in every step
    "llama-mtsk-ms": Method("one", "all", ("shared",), "per_rate"),
    "llama-mtsk-ss": Method("one", "all", ("scale",), "per_rate"),
    "llama-mtsk-mss": Method("one", "all", ("shared", "scale"), "per_rate"),
    # Llama-MT: one model per rate, all tasks
    "llama-mt": Method("all", "fixed", ("shared",), "one"),
    # Omni-AVSR (arXiv 2511.07253): one model, one rate sampled per modality and step
    "omni-avsr-s": Method("all", "sampled", ("shared",), "per_rate"),
    "omni-avsr-t": Method("all", "sampled", ("task",), "per_rate"),
    "omni-avsr-st": Method("all", "sampled", ("shared", "task"), "per_rate"),
}


def method(name: str) -> Method:
    """The row of that name."""
    if name not in METHODS:
        raise InputError(f"unknown method {name!r}; available: {', '.join(METHODS)}")
    return METHODS[name]
