"""A checkpoint folder: config.json, what was trained, and the names or the weights of the frozen towers.

config.json           OmniAVSRConfig
model.safetensors     projectors, and the embeddings of the tokens that the LLM did not have
adapters/NAME/        one PEFT folder per LoRA of the LLM
video_adapter/video/  the video encoder's LoRA
towers/KIND/          with full=True
"""

import inspect
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors.torch import load_file, save_file
from torch import Tensor

from omni_avsr.model import adapters
from omni_avsr.model.config import PLACEHOLDERS, OmniAVSRConfig
from omni_avsr.model.towers import build, checksum, find, locate, verify

WEIGHTS = "model.safetensors"
FROM_AUTO_MODEL = {"adapter_kwargs", "trust_remote_code"}  # what AutoModel passes on, whatever the model
KINDS = ("audio", "video", "llm")


def embedded_ids(config: OmniAVSRConfig) -> list[int]:
    """The ids of the special tokens that have an embedding, in rising order."""
    return sorted(i for name, i in config.special_tokens.items() if name not in PLACEHOLDERS.values())


def save(model, folder: Path, full: bool) -> None:
    """Writes the folder; without full every tower must be one that can be found again."""
    modules = {"audio": model.audio_encoder, "video": model.video_encoder, "llm": model.llm}
    modules = {kind: module for kind, module in modules.items() if module is not None}
    known = model.config.towers or {}
    nameless = [kind for kind in modules if not known.get(kind)]
    if nameless and not full:
        raise ValueError(f"the {', '.join(nameless)} towers have no name to find them by; save with full=True")
    folder.mkdir(parents=True, exist_ok=True)
    config = OmniAVSRConfig.from_dict(model.config.to_dict())
    if full:
        config.towers = {kind: _save_tower(kind, module, folder) for kind, module in modules.items()}
    adapters.save_adapters(model.llm, folder / "adapters")
    adapters.save_adapters(model.video_encoder, folder / "video_adapter")
    save_file({n: w.contiguous() for n, w in _own_state(model).items()}, folder / WEIGHTS, {"format": "pt"})
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def _save_tower(kind: str, module, folder: Path) -> dict:
    name = f"towers/{kind}"
    adapters.plain(module).save_pretrained(folder / name, state_dict=adapters.plain_state_dict(module))
    return {"name": name, "revision": None, "sha256": checksum(folder / name)}


def _own_state(model) -> dict[str, Tensor]:
    state = {name: w for name, w in model.state_dict().items() if "_compressor." in name}
    return state | {name: matrix[embedded_ids(model.config)] for name, matrix in _token_matrices(model).items()}


def _token_matrices(model) -> dict[str, Tensor]:
    """The LLM's token embeddings, and its output matrix unless that is the same."""
    llm = adapters.plain(model.llm)
    inputs, outputs = llm.get_input_embeddings().weight, llm.get_output_embeddings().weight
    return {"markers.input": inputs} | ({} if outputs is inputs else {"markers.output": outputs})


def load(
    cls,
    name: str | Path,
    *,
    config: OmniAVSRConfig | None = None,
    towers: dict[str, str | Path] | None = None,
    dtype: str | torch.dtype = torch.float32,
    **hub: Any,
):
    """The model of a folder or hub id, its towers in this dtype.

    `hub` is what huggingface_hub's snapshot_download takes, such as revision and token.
    """
    unknown = hub.keys() - inspect.signature(snapshot_download).parameters.keys() - FROM_AUTO_MODEL
    unknown |= (towers or {}).keys() - set(KINDS)
    if unknown:
        raise TypeError(f"from_pretrained does not know {', '.join(sorted(unknown))}")
    folder = _folder(name, {key: value for key, value in hub.items() if key not in FROM_AUTO_MODEL})
    config = config or OmniAVSRConfig.from_pretrained(folder)
    model = cls(config, _load_towers(config, folder, towers or {}, to_dtype(dtype)), load_from=folder)
    _load_own_state(model, load_file(folder / WEIGHTS))
    return model


def _folder(name: str | Path, hub: dict[str, Any]) -> Path:
    """The folder itself, one that ships with the package, or one fetched from the hub."""
    name = locate(name)
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(str(name), **hub))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ValueError(f"{name} is no folder here, and the hub does not give it: {type(error).__name__}") from None


def to_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """The dtype, given by itself or by its name."""
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def _load_towers(config: OmniAVSRConfig, folder: Path, moved: dict, dtype: torch.dtype) -> dict:
    """The towers; where they were found is noted in the config, so that the model can be saved again anywhere."""
    modules = {}
    for kind in KINDS:
        if getattr(config, f"{kind}_config") is not None:
            found = find(kind, config.towers.get(kind), folder, moved.get(kind))
            verify(kind, found)
            modules[kind] = build(kind, found["name"], dtype, found["revision"])
            config.towers[kind] = found
    return modules


@torch.no_grad()
def _load_own_state(model, saved: dict[str, Tensor]) -> None:
    expected = _own_state(model)
    if saved.keys() != expected.keys():
        wrong = ", ".join(sorted(saved.keys() ^ expected.keys()))
        raise ValueError(f"{WEIGHTS} and config.json do not belong together; keys of only one of them: {wrong}")
    for name, matrix in _token_matrices(model).items():
        matrix[embedded_ids(model.config)] = saved.pop(name).to(matrix.dtype)
    own = dict(model.named_parameters())
    for name, weight in saved.items():
        own[name].copy_(weight)
