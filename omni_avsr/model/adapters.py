"""LoRA through PEFT, and the one place where adapters are switched. Nothing else here knows PEFT.

PEFT's set_adapter freezes what it leaves: switched between the forward passes of a step, it drops the gradient of every
task but the last. `activate` switches without freezing. Gradient checkpointing runs a forward again at backward time,
when another task's adapters may be active: `recompute_context` brings back the ones of the first run.
"""

import copy
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel


def adapter_names(factors: Iterable[str], task: str, rates: dict[str, int]) -> list[str]:
    """The adapters that are summed for a task at its rates, such as shared + avsr + a4v2."""
    scale = "".join(f"{modality[0]}{rate}" for modality, rate in rates.items())
    return [{"shared": "shared", "task": str(task), "scale": scale}[factor] for factor in factors]


def all_adapter_names(config) -> list[str]:
    """Every adapter that a model of this config has."""
    names: dict[str, None] = {}
    for task in config.tasks:
        for audio_rate in config.audio_rates:
            for video_rate in config.video_rates:
                rates = config.choose(task, audio_rate, video_rate)
                names |= dict.fromkeys(adapter_names(config.adapters, task, rates))
    return list(names)


def add_adapters(model: nn.Module, names: Sequence[str], rank: int, alpha: float, **settings) -> nn.Module:
    """The model with one LoRA per name on it, all trainable; the model itself if there is no name."""
    if not names:
        return model
    wrapped = get_peft_model(model, _lora(rank, alpha, **settings), adapter_name=names[0])
    for name in names[1:]:
        wrapped.add_adapter(name, _lora(rank, alpha, **settings))
    activate(wrapped, names)
    return wrapped


def _lora(rank: int, alpha: float, targets: Sequence[str] = ("q_proj", "v_proj"), dropout: float = 0.0) -> LoraConfig:
    return LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=dropout)


def activate(model: nn.Module, names: Sequence[str]) -> None:
    """Sums these adapters from now on; every adapter stays trainable."""
    if isinstance(model, PeftModel) and model.active_adapters != list(names):
        model.base_model.set_adapter(list(names))
        model.set_requires_grad(list(model.peft_config), True)


def recompute_context(model: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """The two contexts of a checkpointed forward: the second runs it again with today's adapters."""
    if not isinstance(model, PeftModel):
        return nullcontext(), nullcontext()
    return nullcontext(), _activated(model, list(model.active_adapters))


@contextmanager
def _activated(model: PeftModel, names: Sequence[str]):
    before = list(model.active_adapters)
    activate(model, names)
    try:
        yield
    finally:
        activate(model, before)


def plain(model: nn.Module) -> PreTrainedModel:
    """The model under its adapters; they stay in its layers."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights under the adapters, under their own names."""
    weights = plain(model).state_dict()
    return {name.replace(".base_layer.", "."): w for name, w in weights.items() if ".lora_" not in name}


def save_adapters(model: nn.Module, folder: Path) -> None:
    """Writes one folder per adapter, as PEFT reads them."""
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # an empty form


def load_adapters(model: nn.Module, folder: Path, names: Sequence[str]) -> nn.Module:
    """The model with the saved adapters of these names on it."""
    missing = [name for name in names if not (folder / name / "adapter_model.safetensors").is_file()]
    if missing:
        raise ValueError(f"{folder} lacks the adapters {', '.join(missing)}")
    if not names:
        return model
    wrapped = PeftModel.from_pretrained(model, str(folder / names[0]), adapter_name=names[0], is_trainable=True)
    for name in names[1:]:
        wrapped.load_adapter(str(folder / name), adapter_name=name, is_trainable=True)
    activate(wrapped, names)
    return wrapped


def merge(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A plain copy of the model with these adapters added into its weights."""
    model = copy.deepcopy(model)
    return model.merge_and_unload(adapter_names=list(names)) if isinstance(model, PeftModel) else model
