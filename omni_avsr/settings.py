"""What a user can choose, with defaults and help: each dataclass is a command's options. Standard library only."""

from dataclasses import dataclass, field
from typing import Any

from omni_avsr import methods
from omni_avsr.tasks import NORMALISERS, Task


def option(default: Any, help: str) -> Any:
    """A field that is also a command-line option."""
    return field(default=default, metadata={"help": help})


def numbers(text: str) -> list[int]:
    """The whole numbers of a list such as 4,16."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"{text!r} is not a list of whole numbers such as 4,16") from None


CHOICES = {
    "rates_in_a_step": ("fixed", "all", "sampled"),
    "strategy": ("auto", "ddp", "fsdp"),
    "logger": ("tensorboard", "wandb", "csv", "none"),
}


@dataclass(frozen=True)
class TrainSettings:
    """The options of `omni-avsr train`; the defaults train the tiny towers on the toy corpus."""

    method: str = option("omni-avsr-st", "A row of the method table: " + ", ".join(methods.METHODS) + ".")
    tasks: str | None = option(None, "Tasks, such as asr,vsr,avsr.  [default: the method's]")
    audio_rates: str | None = option(None, "Audio frames per token, such as 4,16.  [default: 4,16, or 4 if fixed]")
    video_rates: str | None = option(None, "Video frames per token, such as 2,5.  [default: 2,5, or 2 if fixed]")
    rates_in_a_step: str | None = option(None, "fixed, all or sampled.  [default: the method's]")
    adapters: str | None = option(None, "Of shared,task,scale.  [default: the method's]")
    projectors: str | None = option(None, "one, or per_rate.  [default: the method's]")
    task_weights: str = option("1,1.5,1", "Weights of the losses of ASR, VSR and AVSR.")

    audio_encoder: str = option("tiny-audio", "A Whisper: hub id, folder, or tiny-audio.")
    video_encoder: str = option("tiny-video", "An AV-HuBERT: folder, or tiny-video.")
    llm: str = option("tiny-m", "A causal language model: hub id, folder, or tiny-s, tiny-m, tiny-l.")
    lora_rank: int = option(16, "Rank of the LLM's LoRAs.")
    lora_alpha: float = option(32.0, "Their alpha; they are scaled by alpha / rank.")
    lora_targets: str = option("q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj", "The layers they adapt.")
    video_lora_rank: int = option(0, "Rank of the video encoder's LoRA; 0 keeps the encoder as it is.")
    video_lora_alpha: float = option(32.0, "Its alpha.")
    projector_width: int = option(256, "Width of the projectors.")
    sink_loss_weight: float = option(0.0, "Weight of the attention-sink decorrelation loss.")
    audio_context: str = option("clip", "What Whisper runs on: clip, or padded to 30 s, as published.")

    data: str | None = option(None, "Label file of the training clips.  [default: the toy corpus]")
    valid: str | None = option(None, "Label file of the validation clips.  [default: the toy corpus's]")
    test: str | None = option(None, "Label file of the test clips, to make sure that they do not validate.")
    validate_on_test: bool = option(False, "Let clips of the test file validate.")
    root: str | None = option(None, "Folder that the files' paths start from.  [default: as their format has it]")
    format: str | None = option(None, "The label files' format, where it is not guessed right.  [default: guessed]")
    tokens: str | None = option(
        None, "What names token ids: a list of pieces and ids, or Auto-AVSR's .model beside it."
    )
    toy_world: str = option("grid", "World of the toy corpus: grid, open or mixed.")
    toy_clips: int = option(1600, "Its training clips; an eighth more are test clips.")

    out: str = option("runs/train", "The run's folder.")
    max_steps: int = option(300, "Optimizer steps.")
    seed: int = option(1, "Seed of everything random.")
    max_frames: int = option(1200, "Video frames in a batch; a longer clip is skipped.")
    accumulate: int = option(1, "Batches per optimizer step.")
    lr: float = option(2e-3, "Peak learning rate of AdamW.")
    warmup_steps: int = option(30, "Steps up to it; a cosine leads down to zero.")
    weight_decay: float = option(0.1, "Of matrices; never of norms and biases.")
    clip: float = option(1.0, "Largest norm of the gradient.")
    noise_probability: float = option(0.5, "Share of training clips with babble, made of other training clips.")
    noise_snr: str = option("-5,0,5,10,15,20", "Its signal-to-noise ratios in dB, drawn at random.")
    audio_mask: float = option(0.0, "Longest time mask on the waveform, in seconds per second; published 0.4.")
    video_mask: float = option(0.0, "Longest time mask on the video, in seconds per second; published 0.4.")
    cache_copies: int = option(1, "Augmented copies encoded once and kept; 0 encodes at every step.")
    feature_cache: str | None = option(None, "Folder to keep encoded copies in, for runs on the same data and towers.")
    gradient_checkpointing: bool = option(False, "Recompute the LLM's layers in the backward pass: less memory.")
    compile: bool = option(False, "Compile the LLM's layers, which takes a minute or more at the start.")

    valid_every: int = option(0, "Steps between validations; 0 validates at the end alone.")
    keep: int = option(0, "Checkpoints of the last validations to keep, for `omni-avsr average`.")
    valid_clips: int = option(48, "Validation clips used.")
    save_every: int = option(100, "Steps between the checkpoints that a run which is cut off goes on from.")
    resume: str = option(
        "auto", "auto goes on with the run in --out, never refuses it; or a checkpoint that a new run begins from."
    )
    max_unreadable: float = option(0.01, "Share of clips that may be unreadable before the run stops.")
    precision: str | None = option(None, "Lightning's precision.  [default: bf16-mixed on a GPU, else 32-true]")
    devices: str = option("auto", "Lightning's devices: a number, or auto.")
    nodes: int = option(1, "Machines, each with as many devices.")
    strategy: str = option(
        "auto", "ddp; fsdp, which shares out the LLM's layers; auto is ddp if there are several devices."
    )
    workers: int = option(0, "Processes that read clips.")
    logger: str = option("tensorboard", "tensorboard, wandb, csv or none; metrics.csv is written by all but none.")

    def __post_init__(self):
        row = methods.method(self.method)
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"unknown {name} {value!r}; available: {', '.join(allowed)}")
        if len(self.task_weights.split(",")) != len(Task):
            raise ValueError(f"task_weights {self.task_weights!r} are not three numbers, for ASR, VSR and AVSR")
        if self.cache_copies and self.video_lora_rank:
            raise ValueError("cached features and a trained video encoder exclude each other: set cache_copies to 0")
        if row.tasks == "one" and self.tasks and "," in self.tasks:
            raise ValueError(
                f"{self.method} trains one task, {self.tasks} were given; omni-avsr-s, -t and -st train several"
            )

    @property
    def weights(self) -> dict[Task, float]:
        """The loss weight of each task."""
        return dict(zip(Task, map(float, self.task_weights.split(",")), strict=True))

    @property
    def step_rates(self) -> str:
        """How rates are chosen in a step."""
        return self.rates_in_a_step or methods.method(self.method).rates_in_a_step

    def model_settings(self) -> dict[str, Any]:
        """What OmniAVSR.from_towers takes beside the towers; only what overrides the method."""
        lists = {"tasks": self.tasks, "adapters": self.adapters, "lora_targets": self.lora_targets}
        rates = {"audio_rates": self.audio_rates, "video_rates": self.video_rates}
        chosen: dict[str, Any] = {name: text.split(",") for name, text in lists.items() if text}
        chosen |= {name: numbers(text) for name, text in rates.items() if text}
        chosen |= {"projectors": self.projectors} if self.projectors else {}
        names = (
            "lora_rank",
            "lora_alpha",
            "video_lora_rank",
            "video_lora_alpha",
            "projector_width",
            "sink_loss_weight",
            "audio_context",
        )
        return {"method": self.method, **chosen, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class Decoding:
    """What `omni-avsr decode` and `evaluate` share."""

    checkpoint: str | None = option(
        None, "A run, a model's folder or hub id, or tiny.  [default: the newest under runs/, else tiny]"
    )
    data: str | None = option(None, "Label file.  [default: the toy corpus's test clips]")
    root: str | None = option(None, "Folder that the file's paths start from.  [default: as its format has it]")
    format: str | None = option(None, "The label file's format, where it is not guessed right.  [default: guessed]")
    tokens: str | None = option(
        None, "What names token ids: a list of pieces and ids, or Auto-AVSR's .model beside it."
    )
    toy_world: str = option("grid", "World of the toy corpus: grid, open or mixed.")
    toy_clips: int = option(1600, "Size of the toy corpus, of which an eighth more are test clips.")
    beams: int = option(1, "Width of the beam search; 1 is greedy.")
    max_new_tokens: int = option(48, "Longest transcript, in tokens.")
    normaliser: str = option("lower", "How texts are scored: lower, 13a or whisper.")
    max_frames: int = option(3000, "Video frames in a batch.")
    seed: int = option(1, "Seed of the noise.")
    device: str = option("auto", "auto, cpu or cuda.")

    def __post_init__(self):
        if self.normaliser not in NORMALISERS:  # which else would be noticed after hours of decoding
            raise ValueError(f"unknown normaliser {self.normaliser!r}; available: {', '.join(NORMALISERS)}")


@dataclass(frozen=True)
class DecodeSettings(Decoding):
    """The options of `omni-avsr decode`."""

    task: str = option("avsr", "asr, vsr or avsr.")
    audio_rate: int | None = option(None, "Audio frames per token.  [default: the first trained]")
    video_rate: int | None = option(None, "Video frames per token.  [default: the first trained]")
    snr: float | None = option(None, "Mix noise in at this signal-to-noise ratio, in dB.  [default: clean]")
    noise: str = option("babble", "babble of 30 of the file's own voices at a time, white, or a folder of sounds.")
    merge: bool = option(False, "Add the task's adapters into the LLM's weights first: a copy of it, and faster.")
    out: str | None = option(None, "Write the hypotheses here, as JSON lines.")


@dataclass(frozen=True)
class EvaluateSettings(Decoding):
    """The options of `omni-avsr evaluate`."""

    tasks: str | None = option(None, "Such as asr,avsr.  [default: the model's]")
    audio_rates: str | None = option(None, "Such as 4,16.  [default: the trained ones]")
    video_rates: str | None = option(None, "Such as 2,5.  [default: the trained ones]")
    snr: str = option("clean", "Signal-to-noise ratios in dB, such as clean,10,5,0,-5.")
    noise: str = option("babble", "Kinds: babble of the file's own voices, white, or folders of sounds.")
    out: str = option("runs/evaluate", "Folder for results.json, hypotheses.jsonl and report.html.")

    def __post_init__(self):
        super().__post_init__()
        if self.tasks == "vsr" and "clean" not in self.snr.split(","):
            raise ValueError("lips do not hear noise: add clean to --snr")

    @property
    def conditions(self) -> list[tuple[str, float] | None]:
        """Each kind of noise at each ratio; None is clean."""
        ratios = self.snr.split(",")
        noisy = [(kind, _ratio(snr)) for kind in self.noise.split(",") for snr in ratios if snr != "clean"]
        return [*([None] if "clean" in ratios else []), *noisy]


def _ratio(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is no signal-to-noise ratio in dB, nor clean") from None


@dataclass(frozen=True)
class DemoSettings:
    """The options of `omni-avsr demo`."""

    out: str = option("runs/demo", "The run's folder.")
    seed: int = option(1, "Seed of everything random.")
    max_steps: int = option(TrainSettings.max_steps, "Optimizer steps.")
    toy_clips: int = option(1600, "Training clips; an eighth more are test clips.")
    snr: float = option(0.0, "Signal-to-noise ratio of the babble, in dB.")


@dataclass(frozen=True)
class ToySettings:
    """The options of `omni-avsr toy`."""

    clips: int = option(1600, "Training clips.")
    world: str = option("grid", "grid: six-word commands; open: sentences of over 500 words; mixed: both.")
    seed: int = option(1, "Seed of sentences, voices and mouths.")
    processes: int = option(0, "Processes; 0 takes one per core. The corpus does not depend on it.")


@dataclass(frozen=True)
class CheckSettings:
    """The options of `omni-avsr data check`."""

    root: str | None = option(None, "Folder that the file's paths start from.  [default: as the format has it]")
    format: str | None = option(None, "The format, where it is not guessed right.  [default: guessed]")
    tokens: str | None = option(
        None, "What names token ids: a list of pieces and ids, or Auto-AVSR's .model beside it."
    )
    sample: int = option(100, "Clips that are read whole; 0 reads all.")
    raw: bool = option(False, "Raw videos, whose frames need not be mouths of 96 x 96 pixels at 25 a second.")
    write: str | None = option(None, "Write the clips here, as JSON lines.")


@dataclass(frozen=True)
class PrepareSettings:
    """The options of `omni-avsr prepare`."""

    dataset: str = option("folder", "lrs3, lrs2, or folder: any videos, each with its text beside it as .txt or none.")
    name: str | None = option(None, "The dataset's name in the label files.  [default: lrs3, lrs2 or the folder's]")
    seconds: int = option(16, "Longest piece of a pretraining clip, which is cut between words.")
    landmarks: str | None = option(None, "Folder of .pkl files with landmarks, instead of a detector.")
    audio: str | None = option(None, "Folder of the sounds, at the videos' paths, as VoxCeleb2 has them.")
    detector: str | None = option(None, "The face detector's file, YuNet as ONNX.  [default: found or downloaded]")
    download: bool = option(True, "Whether the detector may be downloaded.")
    face: int | None = option(None, "Which face: 1 is the one seen longest.  [default: the one that speaks]")
    processes: int = option(0, "Processes; 0 takes one per core.")
    shard: str = option("1/1", "The part of the videos to do, such as 3/8, for job arrays.")
    sheet: str | None = option(None, "Write a contact sheet of the first clips here, as PNG.")

    def __post_init__(self):
        if self.dataset not in ("lrs3", "lrs2", "folder"):
            raise ValueError(f"unknown dataset {self.dataset!r}; available: lrs3, lrs2, folder")
        if self.face is not None and self.face < 1:
            raise ValueError(f"face {self.face}: faces count from 1, the one seen longest")
        _ = self.part

    @property
    def part(self) -> tuple[int, int]:
        """The shard's number and how many there are."""
        index, _, count = self.shard.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ValueError(f"shard {self.shard!r} is none such as 3/8")
        return int(index), int(count)


@dataclass(frozen=True)
class TranscribeSettings:
    """The options of `omni-avsr transcribe`."""

    task: str = option("auto", "asr, vsr, avsr, or auto: what the file has, a voice, a face, or both.")
    format: str = option("text", "text, json, jsonl, srt, vtt or trn.")
    checkpoint: str | None = option(
        None, "A run, a model's folder or hub id, or tiny.  [default: the newest under runs/, else tiny]"
    )
    audio_rate: int | None = option(None, "Audio frames per token.  [default: the first trained]")
    video_rate: int | None = option(None, "Video frames per token.  [default: the first trained]")
    beams: int = option(1, "Width of the beam search; 1 is greedy.")
    max_new_tokens: int = option(128, "Longest transcript of a window, in tokens.")
    max_seconds_per_window: float = option(16.0, "Longer speech is cut at its quietest place.")
    pause: float = option(0.5, "A pause of so many seconds ends a window.")
    max_frames: int = option(1500, "Video frames in a batch.")
    detector: str | None = option(None, "The face detector's file, YuNet as ONNX.  [default: found or downloaded]")
    download: bool = option(True, "Whether the detector may be downloaded.")
    face: int | None = option(None, "Which face: 1 is the one seen longest.  [default: the one that speaks]")
    device: str = option("auto", "auto, cpu or cuda.")
    out: str | None = option(None, "Write here instead of to the terminal.")

    def __post_init__(self):
        if self.task != "auto":
            Task(self.task)
        if self.format not in TRANSCRIPTS:
            raise ValueError(f"unknown format {self.format!r}; available: {', '.join(TRANSCRIPTS)}")


TRANSCRIPTS = ("text", "json", "jsonl", "srt", "vtt", "trn")
