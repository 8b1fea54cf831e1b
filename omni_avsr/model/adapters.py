"""LoRA through PEFT, and the one place where adapters are switched.

No other module knows PEFT. Two traps are avoided here:

PEFT's own set_adapter freezes the adapters that it deactivates. Switched between the forward passes
of a step, it drops the gradient of every task but the last. `activate` switches without freezing.

Gradient checkpointing runs a forward pass again during backward, when another task's adapters may
be active. `recompute_context` restores the ones of the first run.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.error import NoMatchingPeftModuleError
from torch import Tensor, nn
from transformers import PreTrainedModel

from omni_avsr.errors import InputError
from omni_avsr.model.quantize import quantization_of
from omni_avsr.model.sums import name_of_sum


def add_adapters(
    model: nn.Module,
    names: Sequence[str],
    rank: int,
    alpha: float,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    dropout: float = 0.0,
) -> nn.Module:
    """The model with one trainable LoRA per name; the model itself if there is no name."""
    if not names:
        return model

    def lora() -> LoraConfig:
        return LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  # PEFT takes fractions too
            target_modules=list(targets),
            lora_dropout=dropout,
        )

    try:
        wrapped = get_peft_model(model, lora(), adapter_name=names[0])
    except NoMatchingPeftModuleError:
        raise InputError(
            f"{type(plain(model)).__name__} has no layers named {', '.join(targets)}: name those "
            "that get a LoRA with lora_targets (--lora-targets)"
        ) from None
    for name in names[1:]:
        wrapped.add_adapter(name, lora())
    activate(wrapped, names)
    return wrapped


def activate(model: nn.Module, names: Sequence[str]) -> None:
    """Sums these adapters from now on; every adapter stays trainable."""
    if isinstance(model, PeftModel) and model.active_adapters != list(names):
        tuner: Any = model.base_model
        tuner.set_adapter(list(names))
        model.set_requires_grad(list(model.peft_config), True)


def leave_casting_to_autocast(model: nn.Module) -> None:
    """Stops the LoRAs from casting their inputs to float32, to run under autocast only.

    Autocast would cast them back, and each copy would be kept for the backward pass: a third more.
    """
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            tuner: Any = layer
            tuner.cast_input_dtype_enabled = False


def recompute_context(model: nn.Module) -> tuple[AbstractContextManager, AbstractContextManager]:
    """The two contexts of a checkpointed forward pass: of its first run, and of its second.

    The second run gets the adapters that are active now.
    """
    if not isinstance(model, PeftModel):
        return nullcontext(), nullcontext()
    return nullcontext(), _activated(model, list(model.active_adapters))


@contextmanager
def _activated(model: PeftModel, names: Sequence[str]) -> Iterator[None]:
    before = list(model.active_adapters)
    activate(model, names)
    try:
        yield
    finally:
        activate(model, before)


def plain(model: nn.Module) -> PreTrainedModel:
    """The model under its adapters, which stay in its layers."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(base, PreTrainedModel)
    return base


def plain_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The weights under the adapters, by the names that they have without adapters."""
    weights = {}
    for name, weight in plain(model).state_dict().items():
        if ".lora_" not in name:
            weights[name.replace(".base_layer.", ".")] = weight
    return weights


def save_adapters(model: nn.Module, folder: Path) -> None:
    """Writes one folder per adapter, in PEFT's format."""
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def save_sums(model: nn.Module, sums: Iterable[Sequence[str]], folder: Path) -> None:
    """Writes one folder for each sum of adapters: one LoRA of all their ranks, exactly equal."""
    if not isinstance(model, PeftModel):
        return
    tuner: Any = model.base_model
    for names in sums:
        name = name_of_sum(names)
        if len(names) > 1:
            tuner.add_weighted_adapter(list(names), [1.0] * len(names), name, "cat")
        model.save_pretrained(str(folder), selected_adapters=[name], save_embedding_layers=False)
        if len(names) > 1:
            tuner.delete_adapter(name)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def load_adapters(model: nn.Module, folder: Path, names: Sequence[str]) -> nn.Module:
    """The model with the saved adapters of these names."""
    weights = {name: folder / name / "adapter_model.safetensors" for name in names}
    missing = [name for name, file in weights.items() if not file.is_file()]
    if missing:
        raise InputError(f"{folder} lacks the adapters {', '.join(missing)}")
    if not names:
        return model
    first = str(folder / names[0])
    wrapped = PeftModel.from_pretrained(model, first, adapter_name=names[0], is_trainable=True)
    for name in names[1:]:
        wrapped.load_adapter(str(folder / name), adapter_name=name, is_trainable=True)
    activate(wrapped, names)
    return wrapped


def merge(model: nn.Module, names: Sequence[str]) -> nn.Module:
    """A plain copy of the model with these adapters merged into its weights.

    The weights that no adapter changes are not copied: both models read the same memory.
    """
    bits = quantization_of(plain(model))
    if bits:
        raise InputError(
            f"adapters cannot be merged into an LLM in {bits}, whose weights are rounded: "
            "load the model without quantize (--quantize)"
        )
    merged = copy.deepcopy(model, _shared_weights(model))
    if isinstance(merged, PeftModel):
        return merged.merge_and_unload(adapter_names=list(names))
    return merged


def _shared_weights(model: nn.Module) -> dict[int, nn.Parameter]:
    """What deepcopy takes instead of copies, by the id of the weight."""
    changed: set[int] = set()
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            changed |= {id(weight) for weight in layer.get_base_layer().parameters()}
    shared = {}
    for weight in model.parameters():
        if id(weight) not in changed:
            shared[id(weight)] = nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
    return shared
