"""The frozen towers: built from a hub id, a local folder or a config, and recognised again by revision or checksum."""

import copy
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from huggingface_hub import HfApi
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, WhisperModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from omni_avsr.model.avhubert import AVHubertEncoder
from omni_avsr.model.config import MARKERS, PLACEHOLDERS
from omni_avsr.model.whisper import WhisperEncoder

FAMILIES: dict[str, Iterable[str]] = {
    "audio": ("whisper",),
    "video": ("avhubert",),
    "llm": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
}

Source: TypeAlias = str | Path | PreTrainedConfig | PreTrainedModel


def build(kind: str, source: Source, dtype: torch.dtype, revision: str | None = None) -> PreTrainedModel:
    """The tower, frozen: weights from a hub id or folder, random ones from a config."""
    if isinstance(source, PreTrainedModel):
        tower = source
    elif isinstance(source, PreTrainedConfig):
        # A copy: a composite config unsets the attention implementation of the configs that it is given.
        tower = _from_config(kind, copy.deepcopy(source)).to(dtype)
    else:
        tower = _from_name(kind, str(source), dtype=dtype, revision=revision)
    _check_family(kind, tower.config)
    return tower.requires_grad_(False).eval()


def _from_config(kind: str, config: PreTrainedConfig) -> PreTrainedModel:
    _check_family(kind, config)
    if kind == "llm":
        return AutoModelForCausalLM.from_config(config)
    return {"audio": WhisperEncoder, "video": AVHubertEncoder}[kind](config)


def _from_name(kind: str, name: str, **options: Any) -> PreTrainedModel:
    config = AutoConfig.from_pretrained(name, revision=options["revision"])
    _check_family(kind, config)
    if kind == "llm":
        return AutoModelForCausalLM.from_pretrained(name, **options)
    if kind == "video":
        return AVHubertEncoder.from_pretrained(name, **options)
    if "WhisperEncoder" in (config.architectures or ()):
        return WhisperEncoder.from_pretrained(name, **options)
    return WhisperModel.from_pretrained(name, **options).get_encoder()


def _check_family(kind: str, config: PreTrainedConfig) -> None:
    if config.model_type not in FAMILIES[kind]:
        known = "any causal language model of transformers" if kind == "llm" else ", ".join(FAMILIES[kind])
        raise ValueError(f"unknown {kind} family {config.model_type!r}; available: {known}")


def record(source: Source) -> dict | None:
    """How to find these very weights again: a hub id's commit or a folder's checksum; None for random weights."""
    if not isinstance(source, (str, Path)):
        return None
    if Path(source).is_dir():
        return {"name": str(Path(source).resolve()), "revision": None, "sha256": checksum(Path(source))}
    return {"name": str(source), "revision": HfApi().model_info(str(source)).sha, "sha256": None}


def find(kind: str, known: dict | None, folder: Path, override: Source | None) -> tuple[Source, str | None]:
    """Where a saved model's tower lies and at which revision; refuses a folder whose weights are other ones."""
    if override is not None:
        known = {**(known or {}), "name": str(override), "revision": None}
    if known is None:
        raise ValueError(f"the {kind} tower of {folder} has no name; give towers={{{kind!r}: folder or hub id}}")
    path = folder / known["name"]  # an absolute name stays as it is
    if path.is_dir():
        _verify(kind, path, known.get("sha256"))
        return path, None
    if Path(known["name"]).is_absolute():
        raise ValueError(f"the {kind} tower {path} is gone; give towers={{{kind!r}: its new folder}}")
    return known["name"], known.get("revision")


def _verify(kind: str, path: Path, expected: str | None) -> None:
    found = checksum(path)
    if expected and found != expected:
        raise ValueError(
            f"the {kind} tower {path} is not the one of this checkpoint: sha256 {found[:12]}, {expected[:12]} expected"
        )


def checksum(folder: Path) -> str:
    """SHA-256 over the folder's weight files, by name."""
    digest = hashlib.sha256()
    files = sorted(path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    if not files:
        raise ValueError(f"{folder} holds no weights (*.safetensors or *.bin)")
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def special_token_names(task_tokens: dict[str, str]) -> list[str]:
    """What the vocabulary gains: the markers, the task tokens, and last the placeholders, which need no embedding."""
    return list(dict.fromkeys([*MARKERS, *filter(None, task_tokens.values()), *PLACEHOLDERS.values()]))


def special_token_ids(names: list[str], tokenizer, vocab_size: int) -> dict[str, int]:
    """The id of each name, added to the tokenizer where it lacks it; without a tokenizer they follow the vocabulary."""
    if tokenizer is None:
        return {name: vocab_size + i for i, name in enumerate(names)}
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([name for name in names if name not in known], special_tokens=True)
    return {name: tokenizer.convert_tokens_to_ids(name) for name in names}
