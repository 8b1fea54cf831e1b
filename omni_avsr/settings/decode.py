"""The options of the commands that decode."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni_avsr.settings.base import COUNT, DECIBELS, SEED, WHOLE, option, shard_problem
from omni_avsr.settings.shared import CheckpointOptions, LabelOptions, RateOptions, ToyOptions
from omni_avsr.tasks import NORMALISERS, Condition, Task


@dataclass(frozen=True)
class DecodingOptions(CheckpointOptions, ToyOptions, LabelOptions):
    """What `omni-avsr decode` and `evaluate` share."""

    data: Path | None = option(
        None, "Label file.  [default: the toy corpus's test clips]", must_exist=True
    )
    normaliser: str = option("lower", "How texts are scored: lower, 13a or whisper.", NORMALISERS)
    max_frames: int = option(3000, "Video frames in a batch.", bounds=COUNT)
    seed: int = option(1, "Seed of the noise.", bounds=SEED)
    workers: int | None = option(
        None,
        "Processes that read clips ahead.  [default: up to 4 for a GPU, 0 without one]",
        bounds=WHOLE,
    )


@dataclass(frozen=True)
class DecodeSettings(DecodingOptions, RateOptions):
    """The options of `omni-avsr decode`."""

    task: str = option(
        Task.AVSR,
        "What to transcribe from: asr, vsr, avsr, or auto, which hears, and looks where it is in "
        "doubt.",
        (*Task, "auto"),
    )
    snr: float | None = option(
        None,
        "Mix noise in at this signal-to-noise ratio, in dB.  [default: clean]",
        bounds=DECIBELS,
    )
    noise: str = option(
        "babble", "babble of 30 of the file's own voices at a time, white, or a folder of sounds."
    )
    merge: bool = option(
        False, "Merge the task's adapters into a copy of the LLM's weights first, which is faster."
    )
    out: Path | None = option(None, "Write the hypotheses to this file, as JSON lines.")
    shard: str | None = option(
        None,
        "The part of the clips to decode, such as 3/8, for job arrays; the same command without it "
        "then writes --out.",
    )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.shard is not None:
            if problem := shard_problem(self.shard):
                yield problem
            if self.out is None:
                yield "a shard is kept beside out, which all parts share: name it"
            if self.budget:
                yield "a budget is for all clips together: leave it or shard out"
        if self.merge and self.quantize:
            yield (
                f"adapters cannot be merged into an LLM in {self.quantize}, whose weights are "
                "rounded: leave merge or quantize out"
            )
        if self.merge and self.is_auto:
            yield "one task's adapters are merged at given rates: leave merge or auto out"

    @property
    def is_auto(self) -> bool:
        return super().is_auto or self.task == "auto"

    @property
    def condition(self) -> Condition:
        return Condition(self.snr, self.noise)


@dataclass(frozen=True)
class ManyOptions(DecodingOptions):
    """Which tasks are decoded, at which rates, in which noise."""

    tasks: tuple[Task, ...] | None = option(None, "Such as asr,avsr.  [default: the model's]")
    audio_rates: tuple[int, ...] | None = option(
        None, "Audio frames per token, such as 4,16.  [default: the trained ones]", bounds=COUNT
    )
    video_rates: tuple[int, ...] | None = option(
        None, "Video frames per token, such as 2,5.  [default: the trained ones]", bounds=COUNT
    )
    snr: tuple[str, ...] = option(
        ("clean",), "Signal-to-noise ratios in dB, such as clean,10,5,0,-5."
    )
    noise: tuple[str, ...] = option(
        ("babble",), "Kinds: babble of the file's own voices, white, or folders of sounds."
    )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.tasks == (Task.VSR,) and "clean" not in self.snr:
            yield "VSR does not hear noise: add clean to --snr"
        for snr in self.snr:
            if snr != "clean" and not _is_ratio(snr):
                yield f"{snr!r} is neither clean nor a signal-to-noise ratio {DECIBELS} dB"

    @property
    def conditions(self) -> list[Condition]:
        """Clean if asked for, then each kind of noise at each ratio."""
        conditions = [Condition()] if "clean" in self.snr else []
        for kind in self.noise:
            conditions += [Condition(float(snr), kind) for snr in self.snr if snr != "clean"]
        return list(dict.fromkeys(conditions))  # each once


@dataclass(frozen=True)
class EvaluateSettings(ManyOptions):
    """The options of `omni-avsr evaluate`."""

    out: Path = option(
        Path("runs/evaluate"), "Folder for results.json, hypotheses.jsonl and report.html."
    )
    elastic: bool = option(
        False,
        "Add what the model reaches if it chooses its rates or what it looks at, and elastic.json.",
    )
    live: bool = option(
        False,
        "Measure captions while the clips play, at the first rates of each task, and write "
        "live.json alone.",
    )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.live and (self.elastic or self.conditions != [Condition()]):
            yield "live is measured in clean sound at given rates: leave snr and elastic out"


@dataclass(frozen=True)
class CalibrateSettings(ManyOptions):
    """The options of `omni-avsr calibrate`."""

    data: Path | None = option(
        None,
        "Label file of clips that the model was neither trained nor is tested on.  [default: the "
        "toy corpus's validation clips]",
        must_exist=True,
    )
    snr: tuple[str, ...] = option(
        ("clean", "0"), "Signal-to-noise ratios in dB, such as clean,10,5,0,-5."
    )


def _is_ratio(text: str) -> bool:
    try:
        return DECIBELS.hold(float(text))
    except ValueError:
        return False
