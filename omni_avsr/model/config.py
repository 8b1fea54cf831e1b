"""The model's settings. They travel inside the checkpoint: decoding is told nothing that the checkpoint knows."""

from collections.abc import Sequence
from dataclasses import field
from itertools import product
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, HubertConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from omni_avsr.tasks import Task

Route = tuple[str, int | None, int | None]  # task, audio rate, video rate

FORMAT = 1  # of checkpoint folders; a newer one is refused
FACTORS = ("shared", "task", "scale")
MARKERS = ("<audio>", "</audio>", "<video>", "</video>")
PLACEHOLDERS = {"audio": "<|audio|>", "video": "<|video|>"}  # one per compressed token; never embedded
TASK_TOKENS = {task.value: f"<|{task}|>" for task in Task}
PROMPTS = {
    "asr": "Transcribe speech to text.",
    "vsr": "Transcribe video to text.",
    "avsr": "Transcribe speech and video to text.",
}


@strict
class AVHubertConfig(HubertConfig):
    """HuBERT's transformer behind a 3-D convolution and a ResNet; the defaults are AV-HuBERT large."""

    model_type = "avhubert"

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    do_stable_layer_norm: bool = True  # norm before each block (large) or after it (base)
    resnet_widths: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    frontend_stride: int = 2  # of the 3-D convolution, in pixels
    # The published encoder lets its 3-D convolution see two frames of whatever pads a clip; ours blanks them first.
    blank_padding: bool = True


@strict
class OmniAVSRConfig(PreTrainedConfig):
    """Three towers, two compressors and the adapters between them."""

    model_type = "omni-avsr"
    sub_configs_defaults: ClassVar = {
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="whisper", optional=True),
        "video_config": SubConfigSpec(config_class=AVHubertConfig, model_type="avhubert", optional=True),
        "llm_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    audio_config: Any = None
    video_config: Any = None
    llm_config: Any = None
    towers: dict = field(
        default_factory=dict
    )  # where the frozen weights come from: {"llm": {"name", "revision", "sha256"}, ...}
    format: int = FORMAT

    method: str = "omni-avsr-st"  # the row of methods.py that it was made by
    tasks: list[str] | tuple[str, ...] = tuple(Task)
    audio_rates: list[int] | tuple[int, ...] = (4, 16)  # audio frames per token
    video_rates: list[int] | tuple[int, ...] = (2, 5)  # video frames per token

    compression: str = "average"  # or "stack"
    projectors: str = "per_rate"  # or "one" for all rates
    projector_width: int = 2048
    audio_projector_norm: bool = True
    video_projector_norm: bool = True

    adapters: list[str] | tuple[str, ...] = ("shared", "task")
    lora_rank: int = 64
    lora_alpha: float = 8.0
    lora_dropout: float = 0.0
    lora_targets: list[str] | tuple[str, ...] = ("q_proj", "v_proj")
    video_lora_rank: int = 64  # 0: none
    video_lora_alpha: float = 128.0

    special_tokens: dict = field(default_factory=dict)  # text -> id, set when the towers are put together
    bos_token_id: int | None = None  # None in families that have none
    eos_token_id: int = 0
    pad_token_id: int = 0
    task_tokens: dict = field(default_factory=TASK_TOKENS.copy)  # empty in models that have none
    prompts: dict = field(default_factory=PROMPTS.copy)

    sink_loss_weight: float = 0.0  # decorrelation of attention sinks, arXiv 2510.22603; 0 switches it off

    # What the published code does otherwise. New models keep these; converted ones carry False.
    keep_tail: bool = True  # published: frames of a last partial window are dropped, up to 15 at rate 16
    mask_padding: bool = True  # published: in training, frames that pad a clip become tokens like any other
    exact_audio_length: bool = True  # published: lengths in float32, one frame short at some lengths, 25 at the least
    audio_context: str = "clip"  # published: "padded", Whisper always runs on 30 s of mostly silence

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.prompts = {**PROMPTS, **self.prompts}
        self.tasks = [Task(task).value for task in self.tasks]
        problems = self._problems()
        if problems:
            raise ValueError("; ".join(problems))

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """The config of a dictionary; a newer format is refused before its fields are looked at."""
        if config_dict.get("format", FORMAT) > FORMAT:
            raise ValueError(
                f"this checkpoint has format {config_dict['format']}, made by a newer omni-avsr; this version reads up "
                f"to {FORMAT}: upgrade with `pip install -U omni-avsr`"
            )
        return super().from_dict(config_dict, **kwargs)

    def _problems(self) -> list[str]:
        found = []
        for name, value, allowed in (
            ("compression", [self.compression], ("average", "stack")),
            ("projectors", [self.projectors], ("one", "per_rate")),
            ("audio_context", [self.audio_context], ("clip", "padded")),
            ("adapters", self.adapters, FACTORS),
        ):
            found += [f"unknown {name} {v!r}; available: {', '.join(allowed)}" for v in value if v not in allowed]
        for modality in ("audio", "video"):
            found += self._rate_problems(modality)
        if not self.tasks:
            found.append("no task given")
        if len(set(self.adapters)) < len(self.adapters):
            found.append(f"adapters {list(self.adapters)} name a factor twice")
        if self.adapters and self.lora_rank < 1:
            found.append(f"lora_rank {self.lora_rank} is no rank for the adapters {list(self.adapters)}")
        for modality in {m for task in self.tasks for m in self.modalities(task)}:
            if getattr(self, f"{modality}_config") is None:
                found.append(f"tasks {', '.join(self.tasks)} need an {modality} tower, none is given")
        return found

    def _rate_problems(self, modality: str) -> list[str]:
        rates, found = self.rates(modality), []
        if not rates or min(rates) < 1 or len(set(rates)) != len(rates):
            found.append(f"{modality}_rates {list(rates)} must be different positive whole numbers")
        if self.compression == "stack" and self.projectors == "one" and len(rates) > 1:
            found.append(f"one projector cannot serve stacked windows of different lengths {list(rates)}")
        return found

    def rates(self, modality: str) -> list[int] | tuple[int, ...]:
        """The rates that a modality was trained at."""
        return self.audio_rates if modality == "audio" else self.video_rates

    def streams(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """What of a clip these tasks take, together."""
        return tuple(m for m in ("audio", "video") if any(m in self.modalities(task) for task in tasks))

    def modalities(self, task: str) -> list[str]:
        """What a task needs, in the order of the sequence."""
        return [m for m, needed in (("audio", Task(task).hears), ("video", Task(task).sees)) if needed]

    def choose(self, task: str, audio_rate: int | None, video_rate: int | None) -> dict[str, int]:
        """The checked rate of each modality that the task needs; without a wish the first trained one.

        This is the one place that refuses a task or a rate.
        """
        if Task(task) not in self.tasks:
            raise ValueError(f"task {task!r} was not trained; this model has {', '.join(self.tasks)}")
        wishes = {"audio": audio_rate, "video": video_rate}
        return {m: self._rate(m, wishes[m]) for m in self.modalities(task)}

    def routes(
        self,
        audio_rates: Sequence[int] | None = None,
        video_rates: Sequence[int] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> list[Route]:
        """Every task at every rate, or pair of rates; of all that were trained, or of these."""
        pairs = product(tasks or self.tasks, video_rates or self.video_rates, audio_rates or self.audio_rates)
        chosen = [(task, self.choose(task, audio, video)) for task, video, audio in pairs]
        return list(dict.fromkeys((task, rates.get("audio"), rates.get("video")) for task, rates in chosen))

    def _rate(self, modality: str, wish: int | None) -> int:
        trained = self.rates(modality)
        rate = trained[0] if wish is None else wish
        free = self.projectors == "one" and self.compression == "average" and "scale" not in self.adapters
        if rate in trained or (free and isinstance(rate, int) and rate >= 1):
            return rate
        raise ValueError(f"{modality} rate {rate} was not trained; this model has {', '.join(map(str, trained))}")


AutoConfig.register(AVHubertConfig.model_type, AVHubertConfig)
AutoConfig.register(OmniAVSRConfig.model_type, OmniAVSRConfig)
