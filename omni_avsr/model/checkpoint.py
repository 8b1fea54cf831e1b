"""A checkpoint folder: the config, what was trained, and the names or weights of the towers.

config.json           OmniAVSRConfig
model.safetensors     projectors, the aligner, and the embeddings of tokens that are new to the LLM
adapters/NAME/        one PEFT folder per LoRA of the LLM
video_adapter/video/  the video encoder's LoRA
towers/KIND/          with full=True
"""

import inspect
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
)
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

from omni_avsr.errors import InputError
from omni_avsr.model import adapters
from omni_avsr.model.config import OmniAVSRConfig
from omni_avsr.model.precision import Dtypes, of_tower
from omni_avsr.model.quantize import quantization_of
from omni_avsr.model.towers import (
    KINDS,
    Origin,
    build,
    checksum,
    find,
    locate_model,
    saved_name,
    verify,
)
from omni_avsr.model.vocabulary import embedded_ids

if TYPE_CHECKING:
    from omni_avsr.model.omni import OmniAVSR

WEIGHTS = "model.safetensors"
AUTO_MODEL_OPTIONS = {  # AutoModel passes them to any model
    "_from_auto",
    "adapter_kwargs",
    "trust_remote_code",
}


def save(model: "OmniAVSR", folder: Path, full: bool) -> None:
    """Writes the folder; unless full, every tower must have a name to find it by."""
    towers = {"audio": model.audio_encoder, "video": model.video_encoder, "llm": model.llm}
    modules = {kind: module for kind, module in towers.items() if module is not None}
    known = model.config.towers or {}
    nameless = [kind for kind in modules if not known.get(kind)]
    if nameless and not full:
        raise InputError(
            f"the {', '.join(nameless)} towers have no name to find them by; save with full=True"
        )
    bits = quantization_of(adapters.plain(model.llm))
    if full and bits:
        raise InputError(
            f"full=True would write the rounded weights of an LLM in {bits}: load the model "
            "without quantize to save it with its towers"
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_NAME).unlink(missing_ok=True)  # written last: without it, this is no model
    config = OmniAVSRConfig.from_dict(model.config.to_dict())
    if full:
        config.towers = {
            kind: _save_tower(kind, module, folder) for kind, module in modules.items()
        }
    adapters.save_adapters(model.llm, folder / "adapters")
    if model.video_encoder is not None:
        adapters.save_adapters(model.video_encoder, folder / "video_adapter")
    weights = {name: weight.contiguous() for name, weight in _own_state(model).items()}
    save_file(weights, folder / WEIGHTS, {"format": "pt"})
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def _save_tower(kind: str, module: nn.Module, folder: Path) -> Origin:
    name = saved_name(kind)
    weights = adapters.plain_state_dict(module)
    adapters.plain(module).save_pretrained(folder / name, state_dict=weights)
    return {"name": name, "revision": None, "sha256": checksum(folder / name)}


def _own_state(model: "OmniAVSR") -> dict[str, Tensor]:
    """What model.safetensors holds."""
    state = {}
    for name, weight in model.state_dict().items():
        if "_compressor." in name or name.startswith("aligner."):
            state[name] = weight
    for name, matrix in _token_matrices(model).items():
        state[name] = matrix[embedded_ids(model.config)]
    return state


def _token_matrices(model: "OmniAVSR") -> dict[str, Tensor]:
    """The LLM's token embeddings, and its output matrix unless both are the same."""
    llm = adapters.plain(model.llm)
    inputs = llm.get_input_embeddings().weight
    outputs = llm.get_output_embeddings().weight
    if outputs is inputs:
        return {"markers.input": inputs}
    return {"markers.input": inputs, "markers.output": outputs}


def load(
    cls: type["OmniAVSR"],
    name: str | Path,
    *,
    config: OmniAVSRConfig | None = None,
    towers: dict[str, str | Path] | None = None,
    dtype: Dtypes = torch.float32,
    quantize: str | None = None,
    **hub: Any,
) -> "OmniAVSR":
    """The model of a folder or hub id, its towers in this dtype, its LLM in 8bit or 4bit if asked.

    `hub` is what huggingface_hub's snapshot_download takes, such as revision and token.
    """
    moved = towers or {}
    hub_options = inspect.signature(snapshot_download).parameters.keys()
    unknown = hub.keys() - hub_options - AUTO_MODEL_OPTIONS
    unknown |= moved.keys() - set(KINDS)
    if unknown:
        raise TypeError(f"from_pretrained does not know {', '.join(sorted(unknown))}")
    options = {key: value for key, value in hub.items() if key not in AUTO_MODEL_OPTIONS}
    folder = _folder(name, options)
    config = config or OmniAVSRConfig.from_pretrained(folder)
    try:
        modules = _load_towers(config, folder, moved, dtype, quantize)
        model = cls(config, modules, load_from=folder)
        _load_own_state(model, load_file(folder / WEIGHTS))
    except (SafetensorError, FileNotFoundError, json.JSONDecodeError) as error:
        raise InputError(f"{folder} is damaged or not complete: {error}") from None
    return model


def _folder(name: str | Path, options: dict[str, Any]) -> Path:
    """The folder itself, one that ships with the package, or one downloaded from the hub."""
    name = locate_model(name)
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(str(name), **options))
    except (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    ) as error:
        reason = type(error).__name__
        raise InputError(
            f"{name} is not a folder here, and the hub does not provide it: {reason}"
        ) from None


def _load_towers(
    config: OmniAVSRConfig,
    folder: Path,
    moved: dict[str, str | Path],
    dtype: Dtypes,
    quantize: str | None,
) -> dict[str, PreTrainedModel]:
    """The towers. The config notes where they are, so that the model can be saved anywhere."""
    modules: dict[str, PreTrainedModel] = {}
    for kind in KINDS:
        if getattr(config, f"{kind}_config") is None:
            continue
        found = find(kind, config.towers.get(kind), folder, moved.get(kind))
        verify(kind, found)
        modules[kind] = build(
            kind, found["name"], of_tower(dtype, kind), found["revision"], quantize
        )
        config.towers[kind] = found
    return modules


def _shapes(weights: dict[str, Tensor]) -> set[tuple[str, torch.Size]]:
    return {(name, weight.shape) for name, weight in weights.items()}


@torch.no_grad()
def _load_own_state(model: "OmniAVSR", saved: dict[str, Tensor]) -> None:
    expected = _own_state(model)
    different = {name for name, _ in _shapes(saved) ^ _shapes(expected)}
    if different:
        raise InputError(
            f"{WEIGHTS} and {CONFIG_NAME} do not belong together: only one of them has, or in "
            f"another shape, {', '.join(sorted(different))}"
        )
    for name, matrix in _token_matrices(model).items():
        matrix[embedded_ids(model.config)] = saved.pop(name).to(matrix.dtype)
    own = dict(model.named_parameters())
    for name, weight in saved.items():
        own[name].copy_(weight)
