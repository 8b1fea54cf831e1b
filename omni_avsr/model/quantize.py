"""An LLM whose layers are kept in 8 or 4 bits, through transformers and bitsandbytes.

The weights are quantised as they are read, on the CPU, and move to a GPU afterwards. Embeddings,
norms and the output matrix stay as they are. Two traps of bitsandbytes are avoided here:

On some CPUs a layer that has decoded repacks its weights, and gives no gradient from then on.

The scales of an 8-bit layer stay behind when a model that holds it moves to another device.
"""

import logging
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedConfig

from omni_avsr.errors import InputError

EXTRA = "pip install 'omni-avsr[quantize]'"


def reading_options(
    name: str, config: PreTrainedConfig, bits: str, dtype: torch.dtype | None
) -> dict[str, Any]:
    """What from_pretrained takes to quantise the LLM of this name and config as it is read."""
    if bits not in ("8bit", "4bit"):
        raise InputError(f"unknown quantisation {bits!r}; available: 8bit, 4bit")
    if find_spec("bitsandbytes") is None:
        raise InputError(f"an LLM in {bits} needs bitsandbytes: {EXTRA}")
    if getattr(config, "quantization_config", None) is not None:
        raise InputError(f"the LLM {name} is quantised already: leave quantize (--quantize) out")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns in each pass of a layer
    return {"quantization_config": _settings(bits, dtype), "device_map": {"": "cpu"}}


def _settings(bits: str, dtype: torch.dtype | None) -> BitsAndBytesConfig:
    """As published for LLM.int8 (arXiv 2208.07339) and QLoRA (arXiv 2305.14314)."""
    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def avoid_traps(llm: nn.Module) -> None:
    """Makes the layers of a quantised LLM fit for training, and for moving to a device."""
    layer: Any
    for layer in llm.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
        if hasattr(layer, "init_8bit_state"):
            layer.register_forward_pre_hook(_follow_the_weights)


def _follow_the_weights(layer: Any, _: object) -> None:
    """Takes the scales of an 8-bit layer to where its weights are."""
    weight = layer.weight
    if weight.SCB is None:
        weight.CB = None  # a moved weight claims its scales, which its layer keeps
    for holder in (weight, layer.state):
        if holder.CB is not None:
            holder.CB = weight.data
            holder.SCB = holder.SCB.to(weight.device)


def quantization_of(llm: nn.Module) -> str | None:
    """How an LLM is quantised, such as 8bit or 4bit; None if it is not."""
    for bits in ("8bit", "4bit"):
        if getattr(llm, f"is_loaded_in_{bits}", False):
            return bits
    is_quantized = getattr(llm, "is_quantized", False)
    return str(llm.quantization_method) if is_quantized else None
