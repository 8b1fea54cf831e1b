"""The frozen towers: built from a hub id, a local folder or a config, and recognised again by revision or checksum."""

import copy
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel, WhisperModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import CONFIG_NAME, cached_file

from omni_avsr.model.avhubert import AVHubertEncoder
from omni_avsr.model.config import MARKERS, PLACEHOLDERS

SHIPPED = Path(__file__).parents[1] / "tiny"  # the package's own small towers, by the names of their folders
FAMILIES: dict[str, Iterable[str]] = {
    "audio": ("whisper",),
    "video": ("avhubert",),
    "llm": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
}

Source: TypeAlias = str | Path | PreTrainedConfig
SCALED_LOGITS = (
    "logits_scaling",
    "logit_scale",
    "final_logit_softcapping",
)  # by which some families change their logits


def locate(name: str | Path) -> str | Path:
    """The folder of a tower or model that ships with the package, or the name as it is: a folder or hub id."""
    if Path(name).is_dir():
        return name
    if name == "tiny" or str(name).startswith("tiny-"):
        shipped = SHIPPED / ("omni-avsr-st" if name == "tiny" else name)
        if not shipped.is_dir():
            raise ValueError(f"{name} is not in this installation; `python -m recipes.tiny_towers` in a clone makes it")
        return shipped
    if str(name).startswith((".", "/", "~")) or str(name).count("/") > 1:
        raise ValueError(f"there is no folder {name}")
    return name


def build(kind: str, source: Source, dtype: torch.dtype, revision: str | None = None) -> PreTrainedModel:
    """The tower, frozen: weights from a hub id or folder, random ones from a config."""
    if isinstance(source, PreTrainedConfig):
        # A copy: a composite config unsets the attention implementation of the configs that it is given.
        tower = _from_config(kind, copy.deepcopy(source), dtype)
    else:
        tower = _from_name(kind, str(locate(source)), dtype=dtype, revision=revision)
    return tower.requires_grad_(False).eval()


def _from_config(kind: str, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    _check_family(kind, config)
    if kind == "llm":
        return AutoModelForCausalLM.from_config(config, dtype=dtype)
    return {"audio": WhisperEncoder, "video": AVHubertEncoder}[kind](config).to(dtype)


def _from_name(kind: str, name: str, **options: Any) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(name, revision=options["revision"])
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"no {kind} tower {name!r}: no folder, none that ships, and the hub says: {reason}") from None
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
    scaled = [name for name in SCALED_LOGITS if getattr(config, name, None) is not None]
    if scaled:
        raise ValueError(
            f"{kind} family {config.model_type!r} changes its logits ({scaled[0]}), which is not supported"
        )


def record(source: Source) -> dict | None:
    """How to find these very weights again: a hub id's commit or a folder's checksum; None for random weights."""
    if not isinstance(source, (str, Path)):
        return None
    folder = Path(locate(source))
    if folder.is_dir():
        name = str(source) if folder.parent == SHIPPED else str(folder.resolve())
        return {"name": name, "revision": None, "sha256": checksum(folder)}
    cached = Path(cached_file(str(source), CONFIG_NAME))  # .../snapshots/COMMIT/config.json, just loaded
    return {"name": str(source), "revision": cached.parent.name, "sha256": None}


def find(kind: str, known: dict | None, folder: Path, moved: str | Path | None = None) -> dict:
    """Where a saved model's tower lies now, as a record; refuses a folder whose weights are other ones."""
    if moved is None and known is None:
        raise ValueError(f"the {kind} tower of {folder} has no name; give towers={{{kind!r}: folder or hub id}}")
    found = {"revision": None, "sha256": None, **(known or {})}
    if moved is not None:
        found |= {"name": str(Path(moved).resolve()) if Path(moved).is_dir() else str(moved), "revision": None}
    path = folder / found["name"]  # an absolute path stays as it is
    if path.is_dir():
        found["name"] = str(path.resolve())
    elif Path(found["name"]).is_absolute():
        raise ValueError(f"the {kind} tower {path} is gone; give towers={{{kind!r}: its new folder}}")
    return found


def verify(kind: str, found: dict) -> None:
    """Refuses a folder whose weights or config are not those of the record."""
    path = Path(locate(found["name"]))
    if not found["sha256"] or not path.is_dir():
        return
    sha256 = checksum(path)
    if sha256 != found["sha256"]:
        raise ValueError(
            f"the {kind} tower {path} is not the one of this checkpoint: sha256 {sha256[:12]}, "
            f"{found['sha256'][:12]} expected"
        )


def checksum(folder: Path) -> str:
    """SHA-256 over the folder's weight files, by name, and its config."""
    files = sorted(path for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern))
    if not files:
        raise ValueError(f"{folder} holds no weights (*.safetensors or *.bin)")
    config = json.loads((folder / CONFIG_NAME).read_text())
    config.pop("transformers_version", None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def special_token_names(task_tokens: dict[str, str]) -> list[str]:
    """What the vocabulary gains: the markers, the task tokens, and last the placeholders, which need no embedding."""
    return list(dict.fromkeys([*MARKERS, *filter(None, task_tokens.values()), *PLACEHOLDERS.values()]))


def add_special_tokens(names: list[str], tokenizer, vocab_size: int) -> dict[str, int]:
    """Adds the names that the tokenizer lacks and returns all ids; without a tokenizer they follow the vocabulary."""
    if tokenizer is None:
        return {name: vocab_size + i for i, name in enumerate(names)}
    known = tokenizer.get_vocab()
    tokenizer.add_tokens([name for name in names if name not in known], special_tokens=True)
    return {name: tokenizer.convert_tokens_to_ids(name) for name in names}
