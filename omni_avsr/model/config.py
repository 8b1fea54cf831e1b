"""The model's settings.

They travel inside the checkpoint, so that decoding needs no option that the checkpoint knows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, HubertConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from omni_avsr.errors import InputError
from omni_avsr.tasks import MODALITIES, SAMPLES_PER_AUDIO_FRAME, Route, Task

FORMAT = 1  # of checkpoint folders; newer ones are refused
IGNORED = -100  # the label of positions that do not count in the loss
FACTORS = ("shared", "task", "scale")  # what a LoRA can belong to
MARKERS = ("<audio>", "</audio>", "<video>", "</video>")
PLACEHOLDERS = {
    "audio": "<|audio|>",
    "video": "<|video|>",
}  # one per compressed token; never embedded
TASK_TOKENS = {task.value: f"<|{task}|>" for task in Task}
PROMPTS = {
    "asr": "Transcribe speech to text.",
    "vsr": "Transcribe video to text.",
    "avsr": "Transcribe speech and video to text.",
}


@strict
class AVHubertConfig(HubertConfig):
    """HuBERT's transformer after a 3-D convolution and a ResNet; defaults to AV-HuBERT large."""

    model_type = "avhubert"

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    do_stable_layer_norm: bool = True  # norm before each block (large) or after it (base)
    resnet_widths: list[int] | tuple[int, ...] = (64, 128, 256, 512)
    frontend_stride: int = 2  # of the 3-D convolution, in pixels
    # The published encoder's 3-D convolution sees two frames of padding; ours blanks them first.
    blank_padding: bool = True


@strict
class OmniAVSRConfig(PreTrainedConfig):
    """Three towers, two compressors and the adapters between them."""

    model_type = "omni-avsr"
    sub_configs_defaults: ClassVar = {
        "audio_config": SubConfigSpec(config_class=AutoConfig, model_type="whisper", optional=True),
        "video_config": SubConfigSpec(
            config_class=AVHubertConfig, model_type="avhubert", optional=True
        ),
        "llm_config": SubConfigSpec(config_class=AutoConfig, model_type="llama"),
    }

    audio_config: Any = None
    video_config: Any = None
    llm_config: Any = None
    # Where the frozen weights come from: {"llm": {"name", "revision", "sha256"}, ...}
    towers: dict = field(default_factory=dict)
    format: int = FORMAT

    method: str = "omni-avsr-st"  # the row of methods.py that it was made with
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

    characters: str = ""  # that the aligner tells apart; without any there is no aligner
    calibration: dict = field(default_factory=dict)  # task -> what a word is judged by
    ladders: dict = field(default_factory=dict)  # two routes -> when the first is in doubt

    special_tokens: dict = field(default_factory=dict)  # text -> id, set with the towers
    bos_token_id: int | None = None  # None in families without one
    eos_token_id: int = 0
    pad_token_id: int = 0
    task_tokens: dict = field(default_factory=TASK_TOKENS.copy)  # empty in models without them
    prompts: dict = field(default_factory=PROMPTS.copy)

    sink_loss_weight: float = 0.0  # decorrelation of attention sinks, arXiv 2510.22603; 0 is off

    # What the published code does differently. New models keep these; converted ones differ.
    keep_tail: bool = True  # published: drops the last partial window, up to 15 frames at rate 16
    mask_padding: bool = True  # published: in training, padded frames become tokens like others
    exact_audio_length: bool = True  # published: in float32, one short at some lengths, at least 25
    audio_context: str = "clip"  # published: "padded", Whisper always runs on 30 s

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.prompts = {**PROMPTS, **self.prompts}
        self.tasks = tuple(Task(task) for task in self.tasks)
        problems = [*self._unknown_choices(), *self._problems()]
        if problems:
            raise InputError("; ".join(problems))

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """The config of a dictionary; a newer format is refused before its fields are read."""
        if config_dict.get("model_type") != cls.model_type:
            raise InputError(
                f"no config.json of a model of type {cls.model_type} was found: this is another "
                "folder, or the model was not written completely"
            )
        if config_dict.get("format", FORMAT) > FORMAT:
            raise InputError(
                f"this checkpoint has format {config_dict['format']}, made by a newer omni-avsr; "
                f"this version reads up to {FORMAT}: upgrade with `pip install -U omni-avsr`"
            )
        try:
            return super().from_dict(config_dict, **kwargs)
        except StrictDataclassError as error:
            raise InputError(f"config.json: {' '.join(str(error).split())}") from None

    def _unknown_choices(self) -> Iterator[str]:
        for name, values, allowed in (
            ("compression", [self.compression], ("average", "stack")),
            ("projectors", [self.projectors], ("one", "per_rate")),
            ("audio_context", [self.audio_context], ("clip", "padded")),
            ("adapters", self.adapters, FACTORS),
        ):
            for value in values:
                if value not in allowed:
                    yield f"unknown {name} {value!r}; available: {', '.join(allowed)}"

    def _problems(self) -> Iterator[str]:
        for modality in self.streams:
            yield from self._rate_problems(modality)
        if not self.tasks:
            yield "no task given"
        if len(set(self.adapters)) < len(self.adapters):
            yield f"adapters {list(self.adapters)} name a factor twice"
        if self.adapters and self.lora_rank < 1:
            yield f"lora_rank {self.lora_rank} is not a rank for the adapters {list(self.adapters)}"
        for modality in self.streams:
            if getattr(self, f"{modality}_config") is None:
                tasks = ", ".join(self.tasks)
                yield f"tasks {tasks} need a tower for {modality}, none is given"

    def _rate_problems(self, modality: str) -> Iterator[str]:
        rates = list(self.rates(modality))
        if not rates or min(rates) < 1 or len(set(rates)) != len(rates):
            yield f"{modality}_rates {rates} must be different positive whole numbers"
        if self.compression == "stack" and self.projectors == "one" and len(rates) > 1:
            yield f"one projector cannot serve stacked windows of different lengths {rates}"

    def rates(self, modality: str) -> Sequence[int]:
        """The rates that a modality was trained at."""
        return self.audio_rates if modality == "audio" else self.video_rates

    @property
    def streams(self) -> tuple[str, ...]:
        """The modalities that the tasks need between them."""
        needed = {modality for task in self.tasks for modality in Task(task).modalities}
        return tuple(modality for modality in MODALITIES if modality in needed)

    def frozen_width(self, modality: str) -> int:
        """The numbers of a frame that leave the encoder's layers before the first trained one."""
        if modality == "video" and self.video_lora_rank:
            return self.video_config.resnet_widths[-1]
        return getattr(self, f"{modality}_config").hidden_size

    @property
    def longest_sound(self) -> int | None:
        """Samples of the longest sound that the audio encoder takes; None if no task hears."""
        if "audio" not in self.streams:
            return None
        longest = self.audio_config.max_source_positions * SAMPLES_PER_AUDIO_FRAME
        # Without exact lengths a started frame does not count
        return longest if self.exact_audio_length else longest + SAMPLES_PER_AUDIO_FRAME - 1

    def choose(
        self, task: str, audio_rate: int | None = None, video_rate: int | None = None
    ) -> Route:
        """The route of a task; rates that are not given are the first that were trained.

        This is the one place that refuses a task or a rate.
        """
        task = Task(task)
        if task not in self.tasks:
            raise InputError(
                f"task '{task}' was not trained; this model has {', '.join(self.tasks)}"
            )
        return Route(
            task,
            self._rate("audio", audio_rate) if task.hears else None,
            self._rate("video", video_rate) if task.sees else None,
        )

    def _rate(self, modality: str, wish: int | None) -> int:
        trained = self.rates(modality)
        rate = trained[0] if wish is None else wish
        any_rate = (
            self.projectors == "one"
            and self.compression == "average"
            and "scale" not in self.adapters
        )
        if rate in trained or (any_rate and rate >= 1):
            return rate
        known = ", ".join(map(str, trained))
        raise InputError(f"{modality} rate {rate} was not trained; this model has {known}")

    def routes(
        self,
        audio_rates: Sequence[int] | None = None,
        video_rates: Sequence[int] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> list[Route]:
        """Every task at every rate or pair of rates, each once; the trained ones by default."""
        chosen: dict[Route, None] = {}
        for task in tasks or self.tasks:
            for video_rate in video_rates or self.video_rates:
                for audio_rate in audio_rates or self.audio_rates:
                    chosen[self.choose(task, audio_rate, video_rate)] = None
        return list(chosen)


AutoConfig.register(AVHubertConfig.model_type, AVHubertConfig)
AutoConfig.register(OmniAVSRConfig.model_type, OmniAVSRConfig)
