"""The frozen towers: built from a hub id, a local folder or a config.

They are recognised again by the commit of the hub or by the checksum of the folder.
"""

import copy
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    WhisperModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import CONFIG_NAME, cached_file

from omni_avsr.errors import InputError
from omni_avsr.model.avhubert import AVHubertEncoder

SHIPPED = Path(__file__).parents[1] / "tiny"  # the small towers of the package, a folder each
KINDS = ("audio", "video", "llm")
FAMILIES: dict[str, Iterable[str]] = {
    "audio": ("whisper",),
    "video": ("avhubert",),
    "llm": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
}
SCALED_LOGITS = (  # settings by which some families change their logits
    "logits_scaling",
    "logit_scale",
    "final_logit_softcapping",
)

Source: TypeAlias = str | Path | PreTrainedConfig


class Origin(TypedDict):
    """Where a tower's weights come from."""

    name: str  # a hub id or a folder
    revision: str | None  # the hub's commit
    sha256: str | None  # the folder's checksum


def locate(name: str | Path) -> str | Path:
    """The folder of a tower or model that ships with the package; any other name unchanged."""
    if Path(name).is_dir():
        return name
    if name == "tiny" or str(name).startswith("tiny-"):
        shipped = SHIPPED / ("omni-avsr-st" if name == "tiny" else name)
        if not shipped.is_dir():
            raise InputError(
                f"{name} is not in this installation; `python -m tools.tiny_towers` in a clone "
                "makes it"
            )
        return shipped
    looks_like_a_path = str(name).startswith((".", "/", "~")) or str(name).count("/") > 1
    if looks_like_a_path:
        raise InputError(f"there is no folder {name}")
    return name


def build(
    kind: str, source: Source, dtype: torch.dtype, revision: str | None = None
) -> PreTrainedModel:
    """The frozen tower: weights from a hub id or folder, random ones from a config."""
    if isinstance(source, PreTrainedConfig):
        # A copy, as a composite config unsets the attention implementation of its parts.
        tower = _from_config(kind, copy.deepcopy(source), dtype)
    else:
        tower = _from_name(kind, str(locate(source)), dtype, revision)
    return tower.requires_grad_(False).eval()


def _from_config(kind: str, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    _check_family(kind, config)
    if kind == "llm":
        return AutoModelForCausalLM.from_config(config, dtype=dtype)
    encoder: Any = {"audio": WhisperEncoder, "video": AVHubertEncoder}[kind]
    return encoder._from_config(config, dtype=dtype)


def _from_name(kind: str, name: str, dtype: torch.dtype, revision: str | None) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(name, revision=revision)
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"no {kind} tower {name!r}: it is not a folder, does not ship with this package, "
            f"and the hub says: {reason}"
        ) from None
    _check_family(kind, config)
    options: dict[str, Any] = {"dtype": dtype, "revision": revision}
    if kind == "llm":
        return AutoModelForCausalLM.from_pretrained(name, **options)
    if kind == "video":
        return AVHubertEncoder.from_pretrained(name, **options)
    if "WhisperEncoder" in (config.architectures or ()):
        return WhisperEncoder.from_pretrained(name, **options)
    return WhisperModel.from_pretrained(name, **options).get_encoder()


def _check_family(kind: str, config: PreTrainedConfig) -> None:
    family = config.model_type
    if family not in FAMILIES[kind]:
        known = ", ".join(FAMILIES[kind])
        if kind == "llm":
            known = "any causal language model of transformers"
        raise InputError(f"unknown {kind} family {family!r}; available: {known}")
    for setting in SCALED_LOGITS:
        if getattr(config, setting, None) is not None:
            raise InputError(
                f"{kind} family {family!r} changes its logits ({setting}), which is not supported"
            )


def record(source: Source) -> Origin | None:
    """How to find the same weights again; None for random weights."""
    if isinstance(source, PreTrainedConfig):
        return None
    folder = Path(locate(source))
    if folder.is_dir():
        ships = folder.parent == SHIPPED
        name = str(source) if ships else str(folder.resolve())
        return {"name": name, "revision": None, "sha256": checksum(folder)}
    cached = cached_file(str(source), CONFIG_NAME)  # .../snapshots/COMMIT/config.json, just loaded
    assert cached is not None
    return {"name": str(source), "revision": Path(cached).parent.name, "sha256": None}


def saved_name(kind: str) -> str:
    """The name of a tower that is saved with its model: its folder in that of the model."""
    return f"towers/{kind}"


def find(kind: str, known: Origin | None, folder: Path, moved: str | Path | None = None) -> Origin:
    """Where the tower of a saved model is now; `moved` says so if it is not in its old place."""
    if moved is None and known is None:
        raise InputError(
            f"the {kind} tower of {folder} has no name; give towers={{{kind!r}: folder or hub id}}"
        )
    found: Origin = {"name": "", "revision": None, "sha256": None}
    if known is not None:
        found.update(known)
    if moved is not None:
        found["name"] = str(Path(moved).resolve()) if Path(moved).is_dir() else str(moved)
        found["revision"] = None
    path = folder / found["name"]  # an absolute path stays as it is
    if path.is_dir():
        found["name"] = str(path.resolve())
    elif Path(found["name"]).is_absolute() or found["name"] == saved_name(kind):
        raise InputError(
            f"the {kind} tower {path} does not exist; give towers={{{kind!r}: its new folder}}, "
            f"or --tower {kind}=FOLDER"
        )
    return found


def verify(kind: str, found: Origin) -> None:
    """Refuses a folder whose weights or config are not those that were recorded."""
    path = Path(locate(found["name"]))
    expected = found["sha256"]
    if not expected or not path.is_dir():
        return
    actual = checksum(path)
    if actual != expected:
        raise InputError(
            f"the {kind} tower {path} is not the one of this checkpoint: sha256 {actual[:12]}, "
            f"{expected[:12]} expected"
        )


def checksum(folder: Path) -> str:
    """SHA-256 over the folder's config and its weight files in the order of their names."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    if not files:
        raise InputError(f"{folder} holds no weights (*.safetensors or *.bin)")
    config = json.loads((folder / CONFIG_NAME).read_text())
    config.pop("transformers_version", None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
