"""The frozen towers: built from a hub id, a local folder or a config.

They are recognised again by the commit of the hub or by the checksum of the folder.
"""

import copy
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, TypedDict

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils import CONFIG_NAME, cached_file

from omni_avsr.choice import SHIPPED_MODELS
from omni_avsr.errors import InputError
from omni_avsr.model.avhubert import AVHubertEncoder
from omni_avsr.model.gguf import as_folder, is_gguf, readable, where
from omni_avsr.model.gguf import reading_options as reading_options_of_gguf
from omni_avsr.model.quantize import avoid_traps, quantization_of, reading_options

SHIPPED = Path(__file__).parents[1] / "tiny"  # the small towers of the package, a folder each
KINDS = ("audio", "video", "llm")
FAMILIES: dict[str, Iterable[str]] = {
    "audio": ("whisper",),
    "video": ("avhubert",),
    "llm": MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
}
CLASSES: dict[str, Any] = {
    "audio": WhisperEncoder,
    "video": AVHubertEncoder,
    "llm": AutoModelForCausalLM,
}
ENCODER_OF_WHISPER = r"^(model\.)?encoder\."  # before the names of its weights in a whole Whisper
SCALED_LOGITS = (  # settings by which some families change their logits
    "logits_scaling",
    "logit_scale",
    "final_logit_softcapping",
)

Source: TypeAlias = str | Path | PreTrainedConfig

# A whole Whisper's decoder is not read, which nobody needs to be told
WhisperEncoder._keys_to_ignore_on_load_unexpected = [r"^(model\.)?decoder\.", r"^proj_out\."]


class Origin(TypedDict):
    """Where a tower's weights come from."""

    name: str  # a hub id, a folder or a GGUF file
    revision: str | None  # the hub's commit
    sha256: str | None  # the checksum of the folder or file


def locate_model(name: str | Path) -> str | Path:
    """The folder of a model that ships with the package; any other name unchanged."""
    if Path(name).is_dir() or name not in SHIPPED_MODELS:
        return locate(name)
    return _shipped(SHIPPED_MODELS[str(name)])


def locate(name: str | Path) -> str | Path:
    """The folder of a tower that ships with the package; any other name unchanged."""
    if Path(name).is_dir() or is_gguf(name):
        return name
    if str(name).startswith("tiny-"):
        return _shipped(str(name))
    looks_like_a_path = str(name).startswith((".", "/", "~")) or str(name).count("/") > 1
    if looks_like_a_path:
        raise InputError(f"there is no folder {name}")
    return name


def _shipped(name: str) -> Path:
    folder = SHIPPED / name
    if not folder.is_dir():
        raise InputError(
            f"{name} is not in this installation; `python -m tools.tiny_towers` in a clone makes it"
        )
    return folder


def build(
    kind: str,
    source: Source,
    dtype: torch.dtype | None,
    revision: str | None = None,
    quantize: str | None = None,
) -> PreTrainedModel:
    """The frozen tower: weights from a hub id or folder, random ones from a config.

    Without a dtype the weights keep the type of their file, and safetensors are read when they are
    needed. `quantize` is 8bit or 4bit, and for the LLM only.
    """
    bits = quantize if kind == "llm" else None
    if isinstance(source, PreTrainedConfig):
        if bits is not None:
            raise InputError(
                "only an LLM with weights, a hub id or a folder, can be quantised: this is a config"
            )
        # A copy, as a composite config unsets the attention implementation of its parts.
        tower = _from_config(kind, copy.deepcopy(source), dtype)
    else:
        tower = _from_name(kind, str(locate(source)), dtype, revision, bits)
    return tower.requires_grad_(False).eval()


def _from_config(kind: str, config: PreTrainedConfig, dtype: torch.dtype | None) -> PreTrainedModel:
    _check_family(kind, config)
    if kind == "llm":
        return AutoModelForCausalLM.from_config(config, dtype=dtype)
    return CLASSES[kind]._from_config(config, dtype=dtype)


def _from_name(
    kind: str, name: str, dtype: torch.dtype | None, revision: str | None, bits: str | None
) -> PreTrainedModel:
    try:
        with readable(name), _readable_folder(kind, name):
            config = AutoConfig.from_pretrained(**where(name), revision=revision)
    except OSError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"no {kind} tower {name!r}: it is not a folder, does not ship with this package, "
            f"and the hub says: {reason}"
        ) from None
    _check_family(kind, config)
    if bits is not None and is_gguf(name):
        with as_folder(name, config, dtype) as folder:
            return _from_name(kind, folder, dtype, None, bits)
    options: dict[str, Any] = {"dtype": dtype or "auto", "revision": revision}
    if bits is not None:
        options |= reading_options(name, config, bits, dtype)
    if kind == "audio":
        options["key_mapping"] = {ENCODER_OF_WHISPER: ""}
    options |= reading_options_of_gguf(name, config)
    with readable(name), _readable_folder(kind, name):
        tower, found = CLASSES[kind].from_pretrained(
            **where(name), output_loading_info=True, **options
        )
    _refuse_missing(kind, name, found["missing_keys"])
    if kind == "audio":
        tower._weight_conversions = []  # saving would undo the mapping of names, and cannot
    if quantization_of(tower):
        avoid_traps(tower)
    return tower


@contextmanager
def _readable_folder(kind: str, name: str) -> Iterator[None]:
    """Raises InputError where a tower's folder, if it is one, cannot be read."""
    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if not Path(name).is_dir():
            raise
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"the {kind} tower {name} cannot be read, it may be damaged, not complete or of "
            f"another kind: {reason}"
        ) from None


def read_tokenizer(name: str | Path, **options: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, a hub id or a GGUF file."""
    try:
        with readable(name):
            return AutoTokenizer.from_pretrained(**where(name), **options)
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"no tokenizer can be read from {name}: {reason}") from None


def _refuse_missing(kind: str, name: str, missing: Collection[str]) -> None:
    """Refuses a tower some of whose weights would be random."""
    if missing:
        some = ", ".join(sorted(missing)[:3])
        raise InputError(
            f"the {kind} tower {name} lacks {len(missing)} weights, such as {some}: "
            "it was not written or downloaded completely, or its config.json is another model's"
        )


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
    if folder.exists():
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
        found["name"] = str(Path(moved).resolve()) if Path(moved).exists() else str(moved)
        found["revision"] = None
    path = folder / found["name"]  # an absolute path stays as it is
    if path.exists():
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
    if not expected or not path.exists():
        return
    actual = checksum(path)
    if actual != expected:
        raise InputError(
            f"the {kind} tower {path} is not the one of this checkpoint: sha256 {actual[:12]}, "
            f"{expected[:12]} expected"
        )


def checksum(folder: Path) -> str:
    """SHA-256 over the folder's config and its weight files in the order of their names.

    A GGUF file has all of it.
    """
    if is_gguf(folder):
        with folder.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
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
