"""A small random Whisper, and the files that CTranslate2 and openai would save of it."""

import struct
from pathlib import Path

import torch
from torch import Tensor
from transformers import WhisperConfig, WhisperForConditionalGeneration

ENGLISH = 51864  # tokens of the smallest vocabulary
HEADS = 2
TYPES = [torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16]
LARGEST = {torch.int8: 127, torch.int16: 1023}  # what the largest value of a row becomes

CTRANSLATE2_LAYER = {
    "self_attn_layer_norm": "self_attention/layer_norm",
    "self_attn.out_proj": "self_attention/linear_1",
    "encoder_attn_layer_norm": "attention/layer_norm",
    "encoder_attn.q_proj": "attention/linear_0",
    "encoder_attn.out_proj": "attention/linear_2",
    "final_layer_norm": "ffn/layer_norm",
    "fc1": "ffn/linear_0",
    "fc2": "ffn/linear_1",
}
OPENAI_LAYER = {
    "self_attn_layer_norm": "attn_ln",
    "self_attn.q_proj": "attn.query",
    "self_attn.k_proj": "attn.key",
    "self_attn.v_proj": "attn.value",
    "self_attn.out_proj": "attn.out",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "encoder_attn.q_proj": "cross_attn.query",
    "encoder_attn.k_proj": "cross_attn.key",
    "encoder_attn.v_proj": "cross_attn.value",
    "encoder_attn.out_proj": "cross_attn.out",
    "final_layer_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}


def random_whisper(vocabulary: int = ENGLISH) -> WhisperForConditionalGeneration:
    """A Whisper with two layers of either kind, whose norms and biases are random too."""
    config = WhisperConfig(
        vocab_size=vocabulary,
        d_model=8,
        num_mel_bins=20,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=16,
        decoder_ffn_dim=24,
    )
    model = WhisperForConditionalGeneration(config).eval()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return model


def openai_state(model: WhisperForConditionalGeneration) -> dict:
    """What openai saves of such a model."""
    weights = {}
    for name, weight in model.model.state_dict().items():
        part, _, rest = name.partition(".")
        if rest.startswith("layers."):
            _, number, rest = rest.split(".", 2)
            layer, _, kind = rest.rpartition(".")
            weights[f"{part}.blocks.{number}.{OPENAI_LAYER[layer]}.{kind}"] = weight
        else:
            rest = rest.replace("layer_norm", "ln_post" if part == "encoder" else "ln")
            rest = rest.replace("embed_positions.weight", "positional_embedding")
            weights[f"{part}.{rest.replace('embed_tokens', 'token_embedding')}"] = weight
    sizes = {"n_audio_head": HEADS, "n_text_head": HEADS}
    return {"dims": sizes, "model_state_dict": weights}


def ctranslate2_variables(model: WhisperForConditionalGeneration) -> dict[str, Tensor]:
    """What CTranslate2 saves of such a model."""
    number_of_heads = torch.tensor(HEADS, dtype=torch.int16)
    found = {"encoder/num_heads": number_of_heads, "decoder/num_heads": number_of_heads}
    for part in ("encoder", "decoder"):
        module = getattr(model.model, part)
        found[f"{part}/position_encodings/encodings"] = module.embed_positions.weight
        found.update(_norm(f"{part}/layer_norm", module.layer_norm))
        for place, layer in enumerate(module.layers):
            found.update(_layer(f"{part}/layer_{place}", layer))
    for name in ("conv1", "conv2"):
        convolution = getattr(model.model.encoder, name)
        found[f"encoder/{name}/weight"] = convolution.weight
        found[f"encoder/{name}/bias"] = convolution.bias
    found["decoder/embeddings/weight"] = model.model.decoder.embed_tokens.weight
    return {name: variable.detach() for name, variable in found.items()}


def _layer(start: str, layer) -> dict[str, Tensor]:
    found = {}
    for name, place in CTRANSLATE2_LAYER.items():
        if name.startswith("encoder_attn") and not hasattr(layer, "encoder_attn"):
            continue
        module = layer.get_submodule(name)
        if name.endswith("layer_norm"):
            found.update(_norm(f"{start}/{place}", module))
        else:
            found.update(_linear(f"{start}/{place}", [module]))
    attention = layer.self_attn
    parts = [attention.q_proj, attention.k_proj, attention.v_proj]
    found.update(_linear(f"{start}/self_attention/linear_0", parts))
    if hasattr(layer, "encoder_attn"):
        parts = [layer.encoder_attn.k_proj, layer.encoder_attn.v_proj]
        found.update(_linear(f"{start}/attention/linear_1", parts))
    return found


def _norm(name: str, norm) -> dict[str, Tensor]:
    return {f"{name}/gamma": norm.weight, f"{name}/beta": norm.bias}


def _linear(name: str, parts: list) -> dict[str, Tensor]:
    """Matrices one below the other; keys have no bias, which is written as zeros."""
    biases = []
    for part in parts:
        biases.append(torch.zeros(len(part.weight)) if part.bias is None else part.bias)
    weight = torch.cat([part.weight for part in parts])
    return {f"{name}/weight": weight, f"{name}/bias": torch.cat(biases)}


def quantised(variables: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The same with its matrices as whole numbers: a scale per row in 8 bits, one in 16 bits."""
    found = {}
    for name, variable in variables.items():
        if name.endswith("/weight"):
            rows = variable.flatten(1) if dtype == torch.int8 else variable.reshape(1, -1)
            scale = LARGEST[dtype] / rows.abs().amax(1)
            values = (rows * scale[:, None]).round()
            found[name] = values.reshape(variable.shape).to(dtype)
            found[f"{name}_scale"] = scale if dtype == torch.int8 else scale[0]
        else:
            found[name] = variable
    return found


def write_ctranslate2(variables: dict[str, Tensor], file: Path, kind: str = "WhisperSpec") -> Path:
    """Writes a model.bin, whose output matrix is a second name of the embeddings."""
    parts = [struct.pack("<I", 6), _text(kind), struct.pack("<II", 3, len(variables))]
    for name, variable in variables.items():
        shape = struct.pack(f"<B{variable.ndim}I", variable.ndim, *variable.shape)
        code = struct.pack("<BI", TYPES.index(variable.dtype), variable.nbytes)
        content = variable.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        parts += [_text(name), shape, code, content]
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    if "decoder/embeddings/weight_scale" in variables:
        aliases["decoder/projection/weight_scale"] = "decoder/embeddings/weight_scale"
    parts.append(struct.pack("<I", len(aliases)))
    for alias, name in aliases.items():
        parts += [_text(alias), _text(name)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(parts))
    return file


def _text(text: str) -> bytes:
    """A string with its length, and the zero that ends it in C."""
    content = text.encode() + b"\0"
    return struct.pack("<H", len(content)) + content
