"""A small random Llama in a GGUF file, with a tokenizer of bytes."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.convert_slow_tokenizer import bytes_to_unicode

TOKENS = ["<s>", "</s>", *bytes_to_unicode().values(), "th"]
LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HEADS = {"attn_q": 4, "attn_k": 2}  # of the matrices whose rows llama.cpp orders otherwise


def random_llama() -> LlamaForCausalLM:
    """A Llama of two layers, all of whose numbers 8 bits hold exactly."""
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    for weight in model.parameters():
        whole = torch.randint(-127, 128, weight.shape)
        whole[..., ::32] = 127  # the largest of each block, which gives its scale
        weight.data = whole / 1024
    return model


def write_gguf(model: LlamaForCausalLM, file: Path) -> Path:
    """Writes the model with its matrices in 8 bits."""
    import gguf

    writer = gguf.GGUFWriter(file, "llama")
    config = model.config
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, weight in _tensors(model).items():
        numbers = weight.detach().numpy().astype(np.float32)
        if weight.ndim == 1:
            writer.add_tensor(name, numbers)
        else:
            packed = gguf.quants.quantize(numbers, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def _tensors(model: LlamaForCausalLM) -> dict[str, Tensor]:
    found = {
        "token_embd.weight": model.model.embed_tokens.weight,
        "output_norm.weight": model.model.norm.weight,
        "output.weight": model.lm_head.weight,
    }
    for place, layer in enumerate(model.model.layers):
        for name, ours in LAYER.items():
            weight = layer.get_submodule(ours).weight
            if name in HEADS:
                weight = _in_pairs(weight, HEADS[name])
            found[f"blk.{place}.{name}.weight"] = weight
    return found


def _in_pairs(weight: Tensor, heads: int) -> Tensor:
    """The rows of each head with the two of a rotated pair side by side."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)
