"""The options of `omni-avsr train`, in groups."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from omni_avsr import methods
from omni_avsr.settings.base import COUNT, DECIBELS, POSITIVE, SEED, SHARE, WHOLE, Settings, option
from omni_avsr.settings.shared import LabelOptions, PrecisionOptions, ToyOptions
from omni_avsr.tasks import Task

# What makes a model beside its towers; those that are not given are the method's
MODEL_OPTIONS = (
    "method",
    "tasks",
    "audio_rates",
    "video_rates",
    "adapters",
    "projectors",
    "lora_rank",
    "lora_alpha",
    "lora_targets",
    "video_lora_rank",
    "video_lora_alpha",
    "projector_width",
    "sink_loss_weight",
    "audio_context",
)


@dataclass(frozen=True)
class MethodOptions(Settings):
    """The method, and what overrides its row of the table."""

    method: str = option(
        "omni-avsr-st", f"A row of the method table: {', '.join(methods.METHODS)}."
    )
    tasks: tuple[Task, ...] | None = option(
        None, "Tasks, such as asr,vsr,avsr.  [default: the method's]"
    )
    audio_rates: tuple[int, ...] | None = option(
        None,
        "Audio frames (50 per second) per token, such as 4,16.  [default: 4,16, or 4 if fixed]",
        bounds=COUNT,
    )
    video_rates: tuple[int, ...] | None = option(
        None,
        "Video frames (25 per second) per token, such as 2,5.  [default: 2,5, or 2 if fixed]",
        bounds=COUNT,
    )
    rates_in_a_step: str | None = option(
        None, "fixed, all or sampled.  [default: the method's]", ("fixed", "all", "sampled")
    )
    adapters: tuple[str, ...] | None = option(
        None, "LoRAs: of shared,task,scale.  [default: the method's]", ("shared", "task", "scale")
    )
    projectors: str | None = option(
        None, "one, or per_rate.  [default: the method's]", ("one", "per_rate")
    )
    task_weights: tuple[float, ...] = option(
        (1.0, 1.5, 1.0),
        "Weights of the losses of ASR, VSR and AVSR, such as 1,1.5,1.",
        bounds=WHOLE,
    )

    @property
    def weights(self) -> dict[Task, float]:
        """The loss weight of each task."""
        return dict(zip(Task, self.task_weights, strict=True))

    @property
    def step_rates(self) -> str:
        """How the rates of a step are chosen: fixed, all or sampled."""
        return self.rates_in_a_step or methods.method(self.method).rates_in_a_step

    def problems(self) -> Iterator[str]:
        if self.method not in methods.METHODS:
            yield f"unknown method {self.method!r}; available: {', '.join(methods.METHODS)}"
            return
        if len(self.task_weights) != len(Task):
            given = ",".join(f"{weight:g}" for weight in self.task_weights)
            yield f"task_weights {given} are not three numbers, for ASR, VSR and AVSR"
        tasks = self.tasks or ()
        if methods.method(self.method).tasks == "one" and len(tasks) > 1:
            yield (
                f"{self.method} trains one task, {','.join(tasks)} were given; "
                "omni-avsr-s, -t and -st train several"
            )


@dataclass(frozen=True)
class ModelOptions(PrecisionOptions):
    """The towers, and the sizes of what is trained between them."""

    from_: str | None = option(
        None,
        "Start from the weights of a run, of a model's folder or hub id, or tiny; its method, "
        "sizes and towers are kept.  [default: new weights]",
    )
    audio_encoder: str = option("tiny-audio", "A Whisper: hub id, folder, or tiny-audio.")
    video_encoder: str = option("tiny-video", "An AV-HuBERT: folder, or tiny-video.")
    llm: str = option(
        "tiny-m",
        "A causal language model: hub id, folder, GGUF file, or tiny-s, tiny-m, tiny-l, "
        "tiny-multi.",
    )
    lora_rank: int = option(16, "Rank of the LLM's LoRAs.", bounds=WHOLE)
    lora_alpha: float = option(
        32.0, "Alpha of the LLM's LoRAs, which are scaled by alpha / rank.", bounds=POSITIVE
    )
    lora_targets: tuple[str, ...] = option(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        "The layers they adapt, such as q_proj,v_proj.",
    )
    video_lora_rank: int = option(
        0, "Rank of the video encoder's LoRA; 0 keeps the encoder as it is.", bounds=WHOLE
    )
    video_lora_alpha: float = option(32.0, "Alpha of the video encoder's LoRA.", bounds=POSITIVE)
    projector_width: int = option(256, "Hidden width of the projectors.", bounds=COUNT)
    sink_loss_weight: float = option(
        0.0, "Weight of the attention-sink decorrelation loss.", bounds=WHOLE
    )
    aligner: str = option(
        "with",
        "Learn when each word is said, in a small head on each encoder: with the rest; only that, "
        "for a model that is complete (--from); or no, which leaves the head of --from as it is.",
        ("with", "only", "no"),
    )
    audio_context: str = option(
        "clip",
        "What Whisper runs on: clip, or padded to 30 s, as published.",
        ("clip", "padded"),
    )


@dataclass(frozen=True)
class OptimizerOptions(Settings):
    """How long and how fast the training goes, and in which batches."""

    max_steps: int = option(300, "Optimizer steps.", bounds=COUNT)
    seed: int = option(1, "Seed of everything random.", bounds=SEED)
    max_frames: int = option(
        1200, "Video frames in a batch; a longer clip is left out.", bounds=COUNT
    )
    accumulate: int = option(1, "Batches per optimizer step.", bounds=COUNT)
    lr: float = option(2e-3, "Peak learning rate of AdamW.", bounds=POSITIVE)
    warmup_steps: int = option(
        30, "Steps until the peak; a cosine then falls to zero.", bounds=WHOLE
    )
    weight_decay: float = option(
        0.1, "Weight decay of matrices; never of norms and biases.", bounds=WHOLE
    )
    clip: float = option(1.0, "Largest norm of the gradient; 0 does not clip.", bounds=WHOLE)
    noise_probability: float = option(
        0.5, "Share of training clips with babble, made of other training clips.", bounds=SHARE
    )
    noise_snr: tuple[float, ...] = option(
        (-5.0, 0.0, 5.0, 10.0, 15.0, 20.0),
        "Signal-to-noise ratios of the babble in dB, drawn at random.",
        bounds=DECIBELS,
    )
    audio_mask: float = option(
        0.0,
        "Longest time mask on the waveform, in seconds per second; published 0.4.",
        bounds=WHOLE,
    )
    video_mask: float = option(
        0.0, "Longest time mask on the video, in seconds per second; published 0.4.", bounds=WHOLE
    )
    cache_copies: int = option(
        1,
        "Augmented copies of each clip that are encoded once and kept; 0 encodes in every step.",
        bounds=WHOLE,
    )
    feature_cache: Path | None = option(
        None, "Folder to keep encoded copies in, for runs on the same data and encoders."
    )
    gradient_checkpointing: bool = option(
        False, "Recompute the LLM's layers in the backward pass, which saves memory."
    )
    compile: bool = option(
        False, "Compile the LLM's layers, which takes a minute or more at the start."
    )


@dataclass(frozen=True)
class RunOptions(Settings):
    """Where the run's files go, when it validates and saves, and on which devices it runs."""

    out: Path = option(Path("runs/train"), "The run's folder.")
    valid_every: int = option(
        0, "Steps between validations; 0 validates only at the end.", bounds=WHOLE
    )
    keep: int = option(
        0,
        "How many checkpoints to keep, one per validation, for `omni-avsr average`.",
        bounds=WHOLE,
    )
    valid_clips: int = option(48, "Validation clips used.", bounds=COUNT)
    max_new_tokens: int | None = option(
        None,
        "Longest transcript in a validation, in tokens.  [default: 16, and 20 per second]",
        bounds=COUNT,
    )
    save_every: int = option(
        100, "Steps between the checkpoints that a run can be resumed from.", bounds=COUNT
    )
    resume: str = option(
        "auto",
        "auto resumes the run in --out if there is one, never refuses to; or a checkpoint file.",
    )
    max_unreadable: float = option(
        0.01, "Share of clips that may be unreadable before the run stops.", bounds=SHARE
    )
    precision: str | None = option(
        None,
        "What the passes compute in: 32-true, bf16-mixed or 16-mixed.  [default: as --dtype if "
        "that is half precision; else 32-true on a CPU, and bf16-mixed on a GPU, or 16-mixed on "
        "one without bfloat16]",
        ("32-true", "bf16-mixed", "16-mixed"),
    )
    devices: str = option("auto", "How many devices of a machine: a number, or auto.")
    nodes: int = option(1, "Machines, each with as many devices.", bounds=COUNT)
    strategy: str = option(
        "auto",
        "ddp; fsdp, which shards the LLM's layers; auto is ddp if there are several devices.",
        ("auto", "ddp", "fsdp"),
    )
    workers: int | None = option(
        None,
        "Processes that read clips ahead.  [default: up to 4 for each GPU, 0 without one and for "
        "features in memory]",
        bounds=WHOLE,
    )
    logger: str = option(
        "tensorboard",
        "tensorboard, wandb, csv or none; all but none write metrics.csv.",
        ("tensorboard", "wandb", "csv", "none"),
    )


@dataclass(frozen=True)
class TrainSettings(
    RunOptions, OptimizerOptions, ToyOptions, LabelOptions, ModelOptions, MethodOptions
):
    """The options of `omni-avsr train`; the defaults train the tiny towers on the toy corpus."""

    data: Path | None = option(
        None, "Label file of the training clips.  [default: the toy corpus]", must_exist=True
    )
    valid: Path | None = option(
        None,
        "Label file of the validation clips, or a share of the training clips such as 5%.  "
        "[default: the toy corpus's]",
    )
    test: Path | None = option(
        None,
        "Label file of the test clips, to make sure that training does not validate on them.",
        must_exist=True,
    )
    validate_on_test: bool = option(False, "Allow validation on clips of the test file.")

    @property
    def valid_share(self) -> float | None:
        """The share of the training clips to validate on; None if a label file is given."""
        found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%", str(self.valid))
        return float(found[1]) / 100 if found else None

    def problems(self) -> Iterator[str]:
        yield from MethodOptions.problems(self)
        if self.valid_share is not None and not 0 < self.valid_share < 1:
            yield f"valid {self.valid} is no share: more than 0% and less than 100% is one"
        if self.aligner == "only" and self.from_ is None:
            yield "aligner only needs from, the model that is to tell when words are said"
        if self.aligner == "only" and (self.valid_every or self.strategy == "fsdp"):
            yield "aligner only changes no text: leave valid_every and strategy fsdp out"
        if self.strategy == "fsdp" and self.quantize:
            yield (
                f"strategy fsdp cannot shard an LLM in {self.quantize}: use ddp, or leave quantize "
                "out"
            )
        if not re.fullmatch(r"auto|0*[1-9][0-9]*", self.devices):
            yield f"devices {self.devices!r} is neither a number from 1 nor auto"
        if (self.data is None) != (self.valid is None):
            yield "give both data and valid, or neither for the toy corpus"

    def model_settings(self) -> methods.ConfigFields:
        """What OmniAVSR.from_towers takes beside the towers; only what overrides the method."""
        chosen = {name: getattr(self, name) for name in MODEL_OPTIONS}
        return {name: value for name, value in chosen.items() if value is not None}
