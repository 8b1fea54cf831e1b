"""Published Omni-AVSR, Llama-MTSK and Llama-AVSR checkpoints, to folders of an OmniAVSR.

Which variant a file holds is read from the names and shapes of its weights.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from omni_avsr.convert.avhubert import avhubert_config, avhubert_name, fairseq_name
from omni_avsr.convert.folder import Renamed, fill, new_folder, refuse_overwrite
from omni_avsr.convert.weights import (
    Weights,
    count,
    naming,
    read_config,
    read_weights,
    require,
    shape_of,
)
from omni_avsr.errors import InputError
from omni_avsr.methods import METHODS, ConfigFields, Method
from omni_avsr.model import OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor
from omni_avsr.model.config import MARKERS, PLACEHOLDERS
from omni_avsr.model.towers import FAMILIES
from omni_avsr.model.vocabulary import add_special_tokens
from omni_avsr.tasks import Row, Task

Rates = Mapping[str, tuple[int, ...]]  # by modality, in the order of training

TASK_NAMES = {"audio": Task.ASR, "video": Task.VSR, "audiovisual": Task.AVSR}
PROMPTS = {f"prompt_{name}": task for name, task in TASK_NAMES.items()}
EMBEDDINGS = "llm.model.embed_tokens.weight"
HEAD = "llm.lm_head.weight"
NORM = "llm.model.norm.weight"
LLM_LORA = re.compile(
    r"\.lora_(?P<direction>down|up)_(?P<target>[QV])"
    r"(_shared|\.(?P<task>audio|video|audiovisual))?\.weight$"
)
OUR_LLM_LORA = re.compile(
    r"\.(?P<target>[qv])_proj\.lora_(?P<matrix>[AB])\.(?P<adapter>\w+)\.weight$"
)
PROJECTOR = re.compile(r"(?P<modality>audio|video)_proj\.((?P<place>\d+)\.)?(?P<rest>\d+\.\w+)$")
OUR_PROJECTOR = re.compile(
    r"(?P<modality>audio|video)_compressor\.projectors\.(?P<rate>\w+)\.(?P<rest>\d+\.\w+)$"
)


@dataclass(frozen=True)
class LoraScales:
    """The factors of the LoRAs, which the file does not hold; by default the published ones."""

    llm: float = 0.125
    video: float = 2.0

    def __post_init__(self) -> None:
        for scale in (self.llm, self.video):
            if not (math.isfinite(scale) and scale > 0):
                raise InputError(f"a LoRA's factor is a number above zero, not {scale}")


@dataclass(frozen=True)
class _Towers:
    """The configs of the towers in the file."""

    llm: PreTrainedConfig
    audio: PreTrainedConfig | None
    video: PreTrainedConfig | None

    @property
    def modalities(self) -> set[str]:
        """The modalities that have an encoder."""
        found = {"audio": self.audio, "video": self.video}
        return {modality for modality, config in found.items() if config is not None}


@dataclass(frozen=True)
class _Projectors:
    """The projectors of a modality."""

    rates: tuple[int, ...]  # of the projectors, in their order
    per_rate: bool  # rather than one for all rates
    width: int
    norm: bool
    frames: tuple[float, ...]  # encoder frames that each takes side by side


def convert_official(  # noqa: PLR0913 - what the file does not hold, one by one
    file: Path,
    out: Path,
    llm: str,
    audio_encoder: str | None = None,
    audio_rates: tuple[int, ...] = (),
    video_rates: tuple[int, ...] = (),
    video_config: Path | None = None,
    lora_scales: LoraScales = LoraScales(),
    tasks: Sequence[Task] = (),
) -> list[Renamed]:
    """Writes the folder of an OmniAVSR with all its weights from a published checkpoint.

    `llm` and `audio_encoder`, hub ids or folders, are needed for their configs and the tokenizer;
    all weights are in the file. `tasks` are those that the prompts in the file tell unless they are
    given. Returns the weights' old and new names.
    """
    refuse_overwrite(out)
    weights = read_weights(file).weights
    rates = {"audio": audio_rates, "video": video_rates}
    names = [Renamed(name, official_name(name, rates)) for name in weights]
    known_video = read_config(video_config) if video_config else {}
    with naming(file):
        require(weights, [EMBEDDINGS, HEAD, NORM])
        tokenizer = _tokenizer(weights, llm)
        towers = _Towers(
            llm=_llm_config(weights, llm),
            audio=_audio_config(weights, audio_encoder),
            video=_video_config(weights, known_video),
        )
        if not towers.modalities:
            raise InputError("the file has neither an audio nor a video encoder")
        config = _model_config(weights, towers, rates, tokenizer, lora_scales, tasks)
        model = _model(config)
        shared = "" if "task" not in config.adapters else "_shared"
        fill(model, weights, names, partial(published_name, rates=rates, shared=shared))
        processor = OmniAVSRProcessor(tokenizer, config)
        _check_prompts(weights, processor)
    model.to(_common_dtype(weights))  # type: ignore[arg-type]  # the wrapper has no types
    with new_folder(out) as folder:
        model.save_pretrained(folder, full=True)
        processor.save_pretrained(folder)
    return names


def _from_pretrained(kind: Any, name: str) -> Any:
    """A config or tokenizer of a hub id or folder."""
    try:
        return kind.from_pretrained(name)
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        reason = str(error).partition("\n")[0]
    except StrictDataclassError as error:
        reason = " ".join(str(error).split())
    raise InputError(f"nothing can be read from {name!r}, a folder or a hub id expected: {reason}")


def _tokenizer(weights: Weights, llm: str) -> PreTrainedTokenizerBase:
    """The LLM's tokenizer with the tokens that the published code adds."""
    tokenizer = _from_pretrained(AutoTokenizer, llm)
    if tokenizer.eos_token_id is None:
        raise InputError(f"the tokenizer of {llm!r} has no eos token, so no transcript would end")
    rows, _ = shape_of(weights, EMBEDDINGS, 2)
    add_special_tokens(["<pad>", *MARKERS], tokenizer, rows)
    needed = 1 + max(tokenizer.get_vocab().values())
    if needed > rows:
        raise InputError(
            f"the tokenizer of {llm!r} needs {needed} tokens with <pad> and the markers, "
            f"{EMBEDDINGS} has {rows}: is it the LLM that the model was trained with?"
        )
    return tokenizer


def _tower_config(kind: str, name: str) -> PreTrainedConfig:
    config = _from_pretrained(AutoConfig, name)
    if config.model_type not in FAMILIES[kind]:
        raise InputError(f"{name!r} is a {config.model_type}, which cannot be the {kind} tower")
    return config


def _llm_config(weights: Weights, llm: str) -> PreTrainedConfig:
    config = _tower_config("llm", llm)
    rows, width = shape_of(weights, EMBEDDINGS, 2)
    expected = getattr(config, "hidden_size", None)
    if width != expected:
        raise InputError(
            f"{EMBEDDINGS} has shape {(rows, width)}, {llm!r} has a width of {expected}: "
            "is it the LLM that the model was trained with?"
        )
    config.vocab_size = rows
    config.pad_token_id = None  # the model's own config has it
    head, embeddings = weights[HEAD], weights[EMBEDDINGS]
    if head.shape != embeddings.shape:
        shapes = f"{tuple(embeddings.shape)} and {tuple(head.shape)}"
        raise InputError(f"{EMBEDDINGS} and {HEAD} have the shapes {shapes}, the same expected")
    same_type = head.dtype == embeddings.dtype
    config.tie_word_embeddings = same_type and torch.equal(head, embeddings)
    return config


def _audio_config(weights: Weights, audio_encoder: str | None) -> PreTrainedConfig | None:
    if not any(name.startswith("audio_encoder.") for name in weights):
        return None
    if audio_encoder is None:
        raise InputError(
            "the file has an audio encoder: name it with --audio-encoder, "
            "such as openai/whisper-medium.en"
        )
    return _tower_config("audio", audio_encoder)


def _video_config(weights: Weights, known: Row) -> PreTrainedConfig | None:
    prefix = "video_encoder."
    if not any(name.startswith(prefix) for name in weights):
        return None
    return avhubert_config(weights, known, prefix)


def _model(config: OmniAVSRConfig) -> OmniAVSR:
    try:
        return OmniAVSR(config)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"no model has the sizes in the file and the configs: {error}") from None


def _common_dtype(weights: Weights) -> torch.dtype:
    """The dtype that holds every weight without loss."""
    common = weights[NORM].dtype
    for weight in weights.values():
        if weight.is_floating_point():
            common = torch.promote_types(common, weight.dtype)
    return common


def _model_config(
    weights: Weights,
    towers: _Towers,
    rates: Rates,
    tokenizer: PreTrainedTokenizerBase,
    scales: LoraScales,
    tasks: Sequence[Task],
) -> OmniAVSRConfig:
    names = ["<pad>", *MARKERS, *PLACEHOLDERS.values()]
    special_tokens = add_special_tokens(names, tokenizer, towers.llm.vocab_size)
    lora_rank = _lora_rank(weights, "llm.")
    video_lora_rank = _lora_rank(weights, "video_encoder.")
    config = OmniAVSRConfig(
        llm_config=towers.llm,
        audio_config=towers.audio,
        video_config=towers.video,
        tasks=tuple(tasks) or _tasks(weights, towers),
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
    config.method = nearest_method(config)
    return config


def nearest_method(config: OmniAVSRConfig) -> str:
    """The row of the method table that such a model is of, or else the one most like it."""

    def likeness(name: str) -> int:
        return _columns_alike(METHODS[name], config)

    return max(METHODS, key=likeness)


def _columns_alike(method: Method, config: OmniAVSRConfig) -> int:
    has_one_rate = all(len(config.rates(modality)) == 1 for modality in config.streams)
    alike = (
        (method.tasks == "one") == (len(config.tasks) == 1),
        (method.rates_in_a_step == "fixed") == has_one_rate,
        set(method.adapters) == set(config.adapters),
        method.projectors == config.projectors,
    )
    return sum(alike)


def _tasks(weights: Weights, towers: _Towers) -> tuple[Task, ...]:
    """The tasks that the names of prompts and LoRAs tell.

    Published models of several tasks have all that their towers allow, and the prompt of each;
    models of one task have no prompt, and use all their towers.
    """
    possible = [task for task in Task if towers.modalities.issuperset(task.modalities)]
    named = _named_tasks(weights)
    if not named:
        return tuple(possible[-1:])
    for task, name in named.items():
        if task not in possible:
            raise InputError(f"{name} is of the task {task}, for which the file lacks an encoder")
    missing = [name for name, task in PROMPTS.items() if task in possible and name not in weights]
    if missing:
        raise InputError(
            f"{', '.join(missing)} not found: a published model of several tasks has the prompt "
            "of each; name its tasks with --tasks if it was trained for these only"
        )
    return tuple(possible)


def _named_tasks(weights: Weights) -> dict[Task, str]:
    """The tasks that prompts and LoRAs of the LLM are named after, each with such a key."""
    named = {}
    for name in weights:
        if name in PROMPTS:
            named[PROMPTS[name]] = name
        match = LLM_LORA.search(name)
        if match and match["task"] and name.startswith("llm."):
            named[TASK_NAMES[match["task"]]] = name
    return named


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
    for name in weights:
        if name.startswith(prefix) and ".lora_down_" in name:
            rank, _ = shape_of(weights, name, 2)
            return rank
    return 0


def _projector_settings(weights: Weights, towers: _Towers, rates: Rates) -> ConfigFields:
    """The fields of OmniAVSRConfig that the projectors tell."""
    found = {}
    if towers.audio:
        found["audio"] = _projectors(weights, "audio", towers.audio.hidden_size, rates["audio"])
    if towers.video:
        found["video"] = _projectors(weights, "video", towers.video.hidden_size, rates["video"])
    first, *others = found.values()
    for other in others:
        if (other.per_rate, other.width) != (first.per_rate, first.width):
            raise InputError(
                "the projectors audio_proj and video_proj differ in their widths, "
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
    shapes = [shape_of(weights, f"{base}.0.weight", 2) for base in bases]
    width, _ = shapes[0]
    return _Projectors(
        rates=rates,
        per_rate=places > 0,
        width=width,
        norm=any(f"{base}.3.weight" in weights for base in bases),
        frames=tuple(inputs / encoder_width for _, inputs in shapes),
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
    if name in PROMPTS:
        return None
    if name.startswith("video_encoder."):
        inner = avhubert_name(name.removeprefix("video_encoder."))
        return None if inner is None else f"video_encoder.{inner}"
    projector = PROJECTOR.match(name)
    if projector:
        return _our_projector(projector, rates) or name
    return LLM_LORA.sub(_lora_name, name)


def _our_projector(match: re.Match, rates: Rates) -> str | None:
    """Our name of a projector's weight; None if no rate was given for it."""
    modality, place = match["modality"], match["place"]
    base = f"{modality}_compressor.projectors"
    if place is None:
        return f"{base}.all.{match['rest']}"
    known = [str(number) for number in range(len(rates[modality]))]
    if place not in known:
        return None
    return f"{base}.{rates[modality][int(place)]}.{match['rest']}"


def _lora_name(match: re.Match) -> str:
    task = match["task"]
    adapter = TASK_NAMES[task] if task else "shared"
    matrix = "A" if match["direction"] == "down" else "B"
    return f".{match['target'].lower()}_proj.lora_{matrix}.{adapter}.weight"


def published_name(name: str, rates: Rates, shared: str = "") -> str:
    """The published name of a weight of ours: official_name's inverse.

    `shared` follows the names of a shared LoRA: _shared beside LoRAs of tasks, otherwise nothing.
    """
    if name.startswith("video_encoder."):
        return f"video_encoder.{fairseq_name(name.removeprefix('video_encoder.'))}"
    projector = OUR_PROJECTOR.match(name)
    if projector:
        return _published_projector(projector, rates)
    return OUR_LLM_LORA.sub(partial(_published_lora, shared=shared), name)


def _published_projector(match: re.Match, rates: Rates) -> str:
    modality = match["modality"]
    if match["rate"] == "all":
        return f"{modality}_proj.{match['rest']}"
    place = rates[modality].index(int(match["rate"]))
    return f"{modality}_proj.{place}.{match['rest']}"


def _published_lora(match: re.Match, shared: str) -> str:
    published = {f".{adapter}": f".{name}" for name, adapter in TASK_NAMES.items()}
    suffix = {".shared": shared, **published}[f".{match['adapter']}"]
    direction = "down" if match["matrix"] == "A" else "up"
    return f".lora_{direction}_{match['target'].upper()}{suffix}.weight"


def _check_prompts(weights: Weights, processor: OmniAVSRProcessor) -> None:
    """Raises InputError unless the prompts in the file, which are embeddings, are ours."""
    embeddings = weights[EMBEDDINGS]
    for name, task in PROMPTS.items():
        saved = weights.get(name)
        prompt = processor.config.prompts[task]
        ids = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        expected = embeddings[ids]
        if saved is not None and not torch.equal(saved.squeeze(0).to(expected.dtype), expected):
            raise InputError(
                f"{name} in the file is not {prompt!r} with this tokenizer: "
                "is it the LLM that the model was trained with?"
            )
