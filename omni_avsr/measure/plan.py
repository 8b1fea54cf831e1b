"""What a training and its decoding will take on GPUs: memory by part, FLOPs, hours, largest batch.

A batch is rehearsed with the model's own code on tensors without values, so nothing is downloaded
but configs, and no GPU is needed.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import nn

from omni_avsr.measure.cost import training_step
from omni_avsr.measure.phantom import Spent
from omni_avsr.measure.rehearsal import Clips, DecodingCost, Rehearsal, StepCost
from omni_avsr.model.adapters import plain
from omni_avsr.model.precision import PRECISIONS, chosen_precision, dtype_name, to_dtype
from omni_avsr.run import Progress, no_progress
from omni_avsr.settings import PlanSettings
from omni_avsr.tasks import VIDEO_FPS, Row, longest_transcript

GIB = 2**30  # bytes
# Of a GPU's memory; the rest is for what was not rehearsed: CUDA itself, its libraries' workspaces
# and the gaps between blocks
USABLE = 0.9
MOST_CLIPS = 512  # in a batch, whatever fits
GATHERED_LAYERS = 2  # of a sharded LLM that are whole at a time: one computes, one is fetched
PARTS = ("audio encoder", "video encoder", "LLM", "projectors", "LoRAs")


@dataclass(frozen=True)
class Plan:
    """What `omni-avsr plan` says; memory is in bytes and of one GPU."""

    dtype: str
    precision: str
    quantize: str | None
    gpus: int
    clips: int  # of a batch
    seconds: float  # of a clip
    parameters: dict[str, int]
    training: dict[str, int]  # by part; they add up to the step's peak
    encoding_peak: int
    decoding: dict[str, int]  # likewise
    step_tflops: float  # of a batch, encoders included unless they ran before
    encoding_tflops: float  # of a batch
    epochs: float
    hours: float  # of the training
    max_frames: dict[float, int]  # that fits, by GiB, up to 512 clips; 0 if no clip does

    @property
    def training_peak(self) -> int:
        """The most memory that training takes."""
        return max(self.encoding_peak, sum(self.training.values()))

    @property
    def decoding_peak(self) -> int:
        """The most memory that decoding takes."""
        return sum(self.decoding.values())

    def as_json(self) -> Row:
        """What `omni-avsr plan --json` prints."""
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        peaks = {"training_peak": self.training_peak, "decoding_peak": self.decoding_peak}
        return {**own, **peaks, "max_frames": {f"{g:g}": n for g, n in self.max_frames.items()}}


def plan(settings: PlanSettings, progress: Progress = no_progress) -> Plan:
    """Rehearses decoding, a step, and a step of twice as many clips."""
    what, total = "Rehearsing", 4
    progress(what, 0, total)
    dtype = to_dtype("bfloat16" if settings.dtype == "auto" else settings.dtype)
    precision = settings.precision or _mixed(dtype)
    chosen_precision(precision, dtype, "cuda")  # refuses what does not go together
    rehearsal = Rehearsal(settings, dtype, precision, gpu=True)
    clips = clips_of(settings)
    progress(what, 1, total)
    # Before training, after which the LoRAs leave casting to autocast
    decoding = rehearsal.decode(clips, settings.beams, _longest(settings))
    progress(what, 2, total)
    step = rehearsal.train(clips)
    flops = rehearsal.route_flops(clips, step)
    progress(what, 3, total)
    twice = rehearsal.train(replace(clips, count=2 * clips.count))
    progress(what, 4, total)
    changes = _Changes.of(settings, rehearsal)
    state = _state_while_encoding(settings, step)
    work = _Work.of(settings, clips, training_step(flops, settings.step_rates), step)
    return Plan(
        dtype=dtype_name(dtype),
        precision=precision,
        quantize=settings.quantize,
        gpus=settings.gpus,
        clips=clips.count,
        seconds=settings.seconds,
        parameters=rehearsal.parameters,
        training=training_parts(step, rehearsal.weights, changes),
        encoding_peak=changes.encoding(step.encoders, state),
        decoding=decoding_parts(decoding, rehearsal.weights),
        step_tflops=work.step / 1e12,
        encoding_tflops=step.encoders.flops / 1e12,
        epochs=work.epochs,
        hours=work.hours(settings),
        max_frames=_max_frames(settings, rehearsal, (step, twice), changes),
    )


def _max_frames(
    settings: PlanSettings, rehearsal: Rehearsal, steps: Sequence[StepCost], changes: "_Changes"
) -> dict[float, int]:
    """The largest --max-frames by memory in GiB; 0 where no clip fits."""
    clips = clips_of(settings)
    peaks = [changes.training(step) for step in steps]
    state = _state_while_encoding(settings, steps[0])

    @cache
    def encoding_peak_of(count: int) -> int:
        spent = rehearsal.encode(replace(clips, count=count))
        return changes.encoding(spent, state)

    found = {}
    for gib in settings.gpu_memory:
        most = largest_batch(USABLE * gib * GIB, clips.count, peaks, encoding_peak_of)
        found[gib] = most * clips.frames
    return found


def _state_while_encoding(settings: PlanSettings, step: StepCost) -> int:
    """Bytes of the optimizer's state, which the first step makes: none if features are cached."""
    return 0 if settings.cache_copies else step.state


def _mixed(dtype: torch.dtype) -> str:
    """The precision of training by default, on a GPU with bfloat16."""
    return "bf16-mixed" if dtype is torch.float32 else PRECISIONS[dtype][0]


def clips_of(settings: PlanSettings) -> Clips:
    """A batch of as many clips as --max-frames takes."""
    tokens = max(1, round(settings.seconds * settings.tokens_per_second))
    return Clips(settings.max_frames // settings.frames, settings.frames, tokens)


def _longest(settings: PlanSettings) -> int:
    return settings.max_new_tokens or longest_transcript(settings.seconds)


@dataclass(frozen=True)
class _Changes:
    """What several GPUs change, which was not rehearsed, in bytes of each GPU."""

    sharded: int = 0  # of the LLM's frozen layers, which other GPUs hold
    buckets: int = 0  # in which gradients travel

    @classmethod
    def of(cls, settings: PlanSettings, rehearsal: Rehearsal) -> "_Changes":
        """Those of so many GPUs with this strategy."""
        if settings.gpus == 1:
            return cls()
        sharded = 0
        if settings.strategy == "fsdp":
            layers = plain(rehearsal.model.llm).get_decoder().layers
            sharded = _sharded(layers, settings.gpus)
        return cls(sharded, rehearsal.weights["trainable"])

    def training(self, step: StepCost) -> int:
        """The peak of a step."""
        return step.peak + self.buckets - self.sharded

    def encoding(self, encoders: Spent, state: int) -> int:
        """The peak while clips are encoded, with so many bytes of the optimizer's state."""
        return encoders.peak + state + self.buckets - self.sharded


def _sharded(layers: nn.ModuleList, gpus: int) -> int:
    """Bytes of frozen layers that other GPUs hold while some are gathered."""
    frozen = 0
    for weight in layers.parameters():
        if not weight.requires_grad:
            frozen += weight.nbytes
    gathered = GATHERED_LAYERS * frozen // len(layers)
    return max(0, frozen - frozen // gpus - gathered)


@dataclass(frozen=True)
class _Work:
    """What there is to compute, in FLOPs."""

    step: float  # of a batch
    before: float  # of encoding all clips before the training
    batches: float  # of an epoch
    epochs: float

    @classmethod
    def of(cls, settings: PlanSettings, clips: Clips, llm: float, step: StepCost) -> "_Work":
        """The work of a training, given what the LLM's passes of a batch cost."""
        batches = settings.hours * 3600 * VIDEO_FPS / sum(clips.lengths)
        steps = settings.max_steps * settings.accumulate * settings.gpus
        epochs = settings.epochs or steps / batches
        encoders = step.encoders.flops
        if settings.cache_copies:
            return cls(llm, settings.cache_copies * batches * encoders, batches, epochs)
        return cls(llm + encoders, 0, batches, epochs)

    def hours(self, settings: PlanSettings) -> float:
        """Hours that it takes."""
        flops = self.before + self.epochs * self.batches * self.step
        a_second = settings.tflops * 1e12 * settings.utilisation * settings.gpus
        return flops / a_second / 3600


def training_parts(
    step: StepCost, weights: dict[str, int], changes: _Changes | None = None
) -> dict[str, int]:
    """The memory of a step by part; they add up to its peak."""
    changes = changes or _Changes()
    parts = _weights(weights)
    parts["weights: LLM"] -= changes.sharded
    parts["optimizer"] = step.state
    parts["features"] = step.features
    for route, spent in step.passes.items():
        parts[f"kept by the pass of {route}"] = spent.after - spent.before
    if changes.buckets:
        parts["gradients between GPUs"] = changes.buckets
    rest = changes.training(step) - sum(parts.values())
    parts["gradients, logits and working memory"] = rest
    return parts


def _weights(weights: dict[str, int]) -> dict[str, int]:
    return {f"weights: {part}": weights[part] for part in PARTS if weights[part]}


def decoding_parts(decoding: DecodingCost, weights: dict[str, int]) -> dict[str, int]:
    """The memory of decoding a batch by part; they add up to its peak."""
    parts = _weights(weights)
    parts["keys and values"] = decoding.cache
    parts["encoders, logits and working memory"] = max(0, decoding.peak - sum(parts.values()))
    return parts


def largest_batch(
    usable: float, count: int, peaks: Sequence[int], encoding_peak_of: Callable[[int], int]
) -> int:
    """How many clips fit into so many bytes.

    Given are the peaks of the training with so many clips and with twice as many, which grow
    evenly, and that of the encoders with any number, which do not: they work in chunks.
    """
    once, twice = peaks
    fitting = int(count + (usable - once) * count / (twice - once))
    most = min(max(0, fitting), MOST_CLIPS)
    if most and encoding_peak_of(most) <= usable:
        return most
    return bisect_right(range(1, most + 1), usable, key=encoding_peak_of)
