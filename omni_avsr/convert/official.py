"""Published Omni-AVSR, Llama-MTSK and Llama-AVSR checkpoints, to folders of an OmniAVSR.

Which variant a file holds is read from the names and shapes of its weights.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from omni_avsr.convert.avhubert import avhubert_config, avhubert_name
from omni_avsr.convert.weights import (
    Renamed,
    Weights,
    count,
    fill,
    read_config,
    read_weights,
    refuse_overwrite,
    require,
)
from omni_avsr.errors import InputError
from omni_avsr.methods import ConfigFields
from omni_avsr.model import OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor
from omni_avsr.model.config import MARKERS, PLACEHOLDERS
from omni_avsr.model.vocabulary import add_special_tokens
from omni_avsr.tasks import Task

Rates = Mapping[str, tuple[int, ...]]  # by modality, in the order of training

TASK_NAMES = {"audio": Task.ASR, "video": Task.VSR, "audiovisual": Task.AVSR}
EMBEDDINGS = "llm.model.embed_tokens.weight"
HEAD = "llm.lm_head.weight"
NORM = "llm.model.norm.weight"
LLM_LORA = re.compile(
    r"\.lora_(?P<direction>down|up)_(?P<target>[QV])"
    r"(_shared|\.(?P<task>audio|video|audiovisual))?\.weight$"
)
PROJECTOR = re.compile(r"(?P<modality>audio|video)_proj\.((?P<place>\d+)\.)?(?P<rest>\d+\.\w+)$")


@dataclass(frozen=True)
class LoraScales:
    """The factors of the LoRAs, which the file does not hold; by default the published ones."""

    llm: float = 0.125
    video: float = 2.0


@dataclass(frozen=True)
class _Towers:
    """The configs of the towers in the file."""

    llm: PreTrainedConfig
    audio: PreTrainedConfig | None
    video: PreTrainedConfig | None


@dataclass(frozen=True)
class _Projectors:
    """The projectors of a modality."""

    rates: tuple[int, ...]  # of the projectors, in their order
    per_rate: bool  # rather than one for all rates
    width: int
    norm: bool
    frames: tuple[float, ...]  # encoder frames that each takes side by side


def convert_official(
    file: Path,
    out: Path,
    llm: str,
    audio_encoder: str | None = None,
    audio_rates: tuple[int, ...] = (),
    video_rates: tuple[int, ...] = (),
    video_config: Path | None = None,
    lora_scales: LoraScales = LoraScales(),
) -> list[Renamed]:
    """Writes the folder of an OmniAVSR with all its weights from a published checkpoint.

    `llm` and `audio_encoder`, hub ids or folders, are needed for their configs and the tokenizer;
    all weights are in the file. Returns the weights' old and new names.
    """
    refuse_overwrite(out)
    weights = read_weights(file).weights
    require(weights, [EMBEDDINGS, HEAD, NORM])
    tokenizer = _from_pretrained(AutoTokenizer, llm)
    rates = {"audio": audio_rates, "video": video_rates}
    towers = _Towers(
        llm=_llm_config(weights, llm),
        audio=_audio_config(weights, audio_encoder),
        video=_video_config(weights, video_config),
    )
    config = _model_config(weights, towers, rates, tokenizer, lora_scales)
    model = OmniAVSR(config)
    names = [Renamed(name, official_name(name, rates)) for name in weights]
    fill(model, weights, names)
    processor = OmniAVSRProcessor(tokenizer, config)
    _check_prompts(weights, processor)
    model.to(weights[NORM].dtype)  # type: ignore[arg-type]  # transformers' wrapper has no types
    model.save_pretrained(out, full=True)
    processor.save_pretrained(out)
    return names


def _from_pretrained(kind: Any, name: str) -> Any:
    """A config or tokenizer of a hub id or folder."""
    try:
        return kind.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"nothing can be read from {name!r}, a folder or a hub id expected: {reason}"
        ) from None


def _llm_config(weights: Weights, llm: str) -> PreTrainedConfig:
    config = _from_pretrained(AutoConfig, llm)
    config.vocab_size = len(weights[EMBEDDINGS])
    config.tie_word_embeddings = torch.equal(weights[HEAD], weights[EMBEDDINGS])
    return config


def _audio_config(weights: Weights, audio_encoder: str | None) -> PreTrainedConfig | None:
    if not any(name.startswith("audio_encoder.") for name in weights):
        return None
    if audio_encoder is None:
        raise InputError(
            "the file has an audio encoder: name it with --audio-encoder, "
            "such as openai/whisper-medium.en"
        )
    return _from_pretrained(AutoConfig, audio_encoder)


def _video_config(weights: Weights, config_file: Path | None) -> PreTrainedConfig | None:
    prefix = "video_encoder."
    own = {}
    for name, weight in weights.items():
        if name.startswith(prefix):
            own[name.removeprefix(prefix)] = weight
    if not own:
        return None
    return avhubert_config(own, read_config(config_file) if config_file else None)


def _model_config(
    weights: Weights,
    towers: _Towers,
    rates: Rates,
    tokenizer: PreTrainedTokenizerBase,
    scales: LoraScales,
) -> OmniAVSRConfig:
    names = ["<pad>", *MARKERS, *PLACEHOLDERS.values()]
    special_tokens = add_special_tokens(names, tokenizer, towers.llm.vocab_size)
    lora_rank = _lora_rank(weights, "llm.")
    video_lora_rank = _lora_rank(weights, "video_encoder.")
    return OmniAVSRConfig(
        llm_config=towers.llm,
        audio_config=towers.audio,
        video_config=towers.video,
        tasks=_tasks(weights, towers),
        **_projector_settings(weights, towers, rates),
        adapters=_adapters(weights),
        lora_rank=lora_rank,
        lora_alpha=scales.llm * lora_rank,
        video_lora_rank=video_lora_rank,
        video_lora_alpha=scales.video * video_lora_rank,
        special_tokens=special_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=special_tokens["<pad>"],
        # what the published code does differently from ours
        task_tokens={},
        keep_tail=False,
        mask_padding=False,
        exact_audio_length=False,
        audio_context="padded",
    )


def _tasks(weights: Weights, towers: _Towers) -> tuple[Task, ...]:
    """The tasks whose prompts the file holds; models of one task hold none."""
    prompted = [task for name, task in TASK_NAMES.items() if f"prompt_{name}" in weights]
    if prompted:
        return tuple(prompted)
    if towers.video is None:
        return (Task.ASR,)
    if towers.audio is None:
        return (Task.VSR,)
    return (Task.AVSR,)


def _adapters(weights: Weights) -> list[str]:
    """What the LLM's LoRAs belong to."""
    factors = set()
    for name in weights:
        match = LLM_LORA.search(name)
        if match and name.startswith("llm."):
            factors.add("task" if match["task"] else "shared")
    return sorted(factors)


def _lora_rank(weights: Weights, prefix: str) -> int:
    """The rank of a tower's LoRA; 0 if it has none."""
    for name, weight in weights.items():
        if name.startswith(prefix) and ".lora_down_" in name:
            return len(weight)
    return 0


def _projector_settings(weights: Weights, towers: _Towers, rates: Rates) -> ConfigFields:
    """The fields of OmniAVSRConfig that the projectors tell."""
    found = {}
    if towers.audio:
        found["audio"] = _projectors(weights, "audio", towers.audio.hidden_size, rates["audio"])
    if towers.video:
        found["video"] = _projectors(weights, "video", towers.video.hidden_size, rates["video"])
    if not found:
        raise InputError("the file has neither an audio nor a video encoder")
    first, *others = found.values()
    for other in others:
        if (other.per_rate, other.width) != (first.per_rate, first.width):
            raise InputError(
                "the projectors of audio and video differ in their widths, "
                f"{first.width} and {other.width}, or in whether there is one per rate"
            )
    settings: ConfigFields = {
        "projectors": "per_rate" if first.per_rate else "one",
        "projector_width": first.width,
        "compression": _compression(list(found.values())),
    }
    for modality, projectors in found.items():
        settings[f"{modality}_rates"] = projectors.rates
        settings[f"{modality}_projector_norm"] = projectors.norm
    return settings


def _projectors(
    weights: Weights, modality: str, encoder_width: int, rates: tuple[int, ...]
) -> _Projectors:
    """The projectors of a modality.

    Their layers are audio_proj.PLACE.LAYER, with a place for each rate, or audio_proj.LAYER.
    """
    places = count(weights, rf"{modality}_proj\.(\d+)\.\d+\.")
    if not rates or places not in (0, len(rates)):
        given = ",".join(str(rate) for rate in rates) or "none"
        raise InputError(
            f"the file has {places or 1} {modality} projectors, {modality} rates {given} were "
            f"given: give those of its training, in its order, with --{modality}-rates"
        )
    bases = [f"{modality}_proj.{place}" for place in range(places)] or [f"{modality}_proj"]
    first_layers = [f"{base}.0.weight" for base in bases]
    require(weights, first_layers)
    return _Projectors(
        rates=rates,
        per_rate=places > 0,
        width=len(weights[first_layers[0]]),
        norm=any(f"{base}.3.weight" in weights for base in bases),
        frames=tuple(weights[name].shape[1] / encoder_width for name in first_layers),
    )


def _compression(found: list[_Projectors]) -> str:
    """Stacking if projectors take all frames of a window side by side, average if they take one."""
    frames: list[float] = []
    rates: list[int] = []
    for projectors in found:
        frames += projectors.frames
        rates += projectors.rates[: len(projectors.frames)]  # one projector: its first rate
    if all(number == 1 for number in frames):
        return "average"
    if frames == rates:
        return "stack"
    raise InputError(
        f"the projectors take {frames} frames at rates {rates}, neither one each nor as many as "
        "the rates: give the rates of the training, in its order"
    )


def official_name(name: str, rates: Rates) -> str | None:
    """Our name of a published weight; None if it is not needed."""
    if name.startswith("prompt_"):
        return None
    if name.startswith("video_encoder."):
        inner = avhubert_name(name.removeprefix("video_encoder."))
        return None if inner is None else f"video_encoder.{inner}"
    projector = PROJECTOR.match(name)
    if projector:
        modality, place = projector["modality"], projector["place"]
        rate = "all" if place is None else rates[modality][int(place)]
        return f"{modality}_compressor.projectors.{rate}.{projector['rest']}"
    return LLM_LORA.sub(_lora_name, name)


def _lora_name(match: re.Match) -> str:
    task = match["task"]
    adapter = TASK_NAMES[task] if task else "shared"
    matrix = "A" if match["direction"] == "down" else "B"
    return f".{match['target'].lower()}_proj.lora_{matrix}.{adapter}.weight"


def _check_prompts(weights: Weights, processor: OmniAVSRProcessor) -> None:
    """Raises InputError unless the prompts in the file, which are embeddings, are ours."""
    embeddings = weights[EMBEDDINGS]
    for name, task in TASK_NAMES.items():
        saved = weights.get(f"prompt_{name}")
        prompt = processor.config.prompts[task]
        ids = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if saved is not None and not torch.equal(saved.flatten(0, -2), embeddings[ids]):
            raise InputError(
                f"prompt_{name} in the file is not {prompt!r} with this tokenizer: "
                "is it the LLM that the model was trained with?"
            )
