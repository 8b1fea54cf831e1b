"""AV-HuBERT as fairseq saves it, to a folder of an AVHubertEncoder.

Sizes are read from the shapes of the weights.
"""

import re
from pathlib import Path

from omni_avsr.convert.folder import Renamed, fill, new_folder, refuse_overwrite
from omni_avsr.convert.weights import (
    WeightFile,
    Weights,
    count,
    naming,
    read_config,
    read_weights,
    shape_of,
)
from omni_avsr.errors import InputError
from omni_avsr.model import AVHubertConfig, AVHubertEncoder
from omni_avsr.tasks import Row

# What is not needed: AV-HuBERT's audio input and its pre-training heads.
UNUSED = re.compile(
    r"(mask_emb|label_embs_concat|final_proj\..*|feature_extractor_audio\.proj\..*)$"
)
RESNET = "feature_extractor_video.resnet"
STAGE = re.compile(rf"^{re.escape(RESNET)}\.trunk\.layer(\d)\.")  # numbered from 1
OUR_STAGE = re.compile(r"^frontend\.trunk\.(\d)\.")  # numbered from 0
LORA = re.compile(r"\.self_attn\.lora_(down|up)_([QV])\.")
OUR_LORA = re.compile(r"\.attention\.([qv])_proj\.lora_([AB])\.video\.")
OUR_ATTENTION_NORM = re.compile(r"(layers\.\d+)\.layer_norm\.")
MATRICES = {"down": "A", "up": "B"}
# (what to replace, with what), in this order
PARTS = (
    (f"{RESNET}.frontend3D.0.", "frontend.conv3d."),
    (f"{RESNET}.frontend3D.1.", "frontend.bn3d."),
    (f"{RESNET}.frontend3D.2.", "frontend.relu3d."),
    ("feature_extractor_video.proj.", "video_proj."),
    ("post_extract_proj.", "fused_proj."),
    ("pos_conv.0.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0"),
    ("pos_conv.0.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1"),
    ("pos_conv.0.bias", "pos_conv_embed.conv.bias"),
    (".self_attn.", ".attention."),
    (".fc1.", ".feed_forward.intermediate_dense."),
    (".fc2.", ".feed_forward.output_dense."),
)


# What the shapes of the weights do not show, by width: of base and large
KNOWN_LAYOUTS: dict[int, Row] = {
    768: {"encoder_attention_heads": 12, "layer_norm_first": False},
    1024: {"encoder_attention_heads": 16, "layer_norm_first": True},
}


def convert_avhubert(file: Path, out: Path, config_file: Path | None = None) -> list[Renamed]:
    """Writes the folder of an AVHubertEncoder from a fairseq checkpoint.

    Returns the weights' old and new names.
    """
    refuse_overwrite(out)
    content = read_weights(file)
    weights = content.weights
    config = read_config(config_file) if config_file else _saved_config(content)
    names = [Renamed(name, avhubert_name(name)) for name in weights]
    with naming(file):
        encoder = AVHubertEncoder(avhubert_config(weights, config))
        fill(encoder, weights, names, fairseq_name)
    with new_folder(out) as folder:
        encoder.save_pretrained(folder)
    return names


def _saved_config(content: WeightFile) -> Row:
    """AV-HuBERT's config as fairseq saves it beside the weights; empty where it is none."""
    config = content.extra.get("cfg")
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, dict) else {}


def avhubert_config(weights: Weights, known: Row, prefix: str = "") -> AVHubertConfig:
    """The config of the weights whose names begin so.

    The shapes do not show the number of heads and the order of the norms. They are taken from
    `known`, a config of fairseq's or ours; without them the width must be a published one.
    """
    (width,) = shape_of(weights, f"{prefix}post_extract_proj.bias", 1)
    position = f"{prefix}encoder.pos_conv.0.weight_v"
    _, group_width, kernel = shape_of(weights, position, 3)
    if width % group_width:
        raise InputError(f"{position} has groups of {group_width}, no divisor of {width}")
    inner, _ = shape_of(weights, f"{prefix}encoder.layers.0.fc1.weight", 2)
    heads, norm_first = _layout(width, known)
    return AVHubertConfig(
        hidden_size=width,
        num_hidden_layers=count(weights, rf"{re.escape(prefix)}encoder\.layers\.(\d+)\."),
        num_attention_heads=heads,
        intermediate_size=inner,
        do_stable_layer_norm=norm_first,
        num_conv_pos_embeddings=kernel,
        num_conv_pos_embedding_groups=width // group_width,
        resnet_widths=_resnet_widths(weights, prefix),
        blank_padding=False,
    )


def _layout(width: int, known: Row) -> tuple[int, bool]:
    """The number of heads, and whether a norm precedes each block rather than follows it."""
    known = {**KNOWN_LAYOUTS.get(width, {}), **known}
    heads = known.get("num_attention_heads", known.get("encoder_attention_heads"))
    norm_first = known.get("do_stable_layer_norm", known.get("layer_norm_first"))
    if heads is None or norm_first is None:
        sizes = " nor ".join(str(size) for size in KNOWN_LAYOUTS)
        raise InputError(
            f"AV-HuBERT of width {width} is neither {sizes}: its number of heads and the order of "
            "its norms do not follow from the weights; give its config, fairseq's as JSON or a "
            "converted folder (convert avhubert --config, convert official --video-encoder)"
        )
    if type(heads) is not int or heads < 1 or width % heads:
        raise InputError(f"AV-HuBERT's config has {heads!r} heads, a divisor of {width} expected")
    if type(norm_first) is not bool:
        raise InputError(f"AV-HuBERT's config has layer_norm_first {norm_first!r}, no truth value")
    return heads, norm_first


def _resnet_widths(weights: Weights, prefix: str) -> list[int]:
    trunk = f"{prefix}{RESNET}.trunk.layer"
    widths = []
    for stage in range(1, 1 + count(weights, rf"{re.escape(trunk)}(\d)\.")):
        width, *_ = shape_of(weights, f"{trunk}{stage}.0.conv1.weight", 4)
        widths.append(width)
    return widths


def avhubert_name(name: str) -> str | None:
    """Our name of a weight of fairseq's; None if it is not needed."""
    if UNUSED.match(name):
        return None
    name = STAGE.sub(_stage_name, name)
    name = LORA.sub(_lora_name, name).replace(".self_attn_layer_norm.", ".layer_norm.")
    for old, new in PARTS:
        name = name.replace(old, new)
    return name


def _stage_name(match: re.Match) -> str:
    stage = int(match[1])
    return f"frontend.trunk.{stage - 1}."


def _lora_name(match: re.Match) -> str:
    direction, target = match.groups()
    return f".attention.{target.lower()}_proj.lora_{MATRICES[direction]}.video."


def fairseq_name(name: str) -> str:
    """What fairseq, or the published LoRA, calls a weight of ours: avhubert_name's inverse."""
    name = OUR_STAGE.sub(_fairseq_stage, name)
    name = OUR_LORA.sub(_published_lora, name)
    name = OUR_ATTENTION_NORM.sub(r"\1.self_attn_layer_norm.", name)
    for old, new in reversed(PARTS):
        name = name.replace(new, old)
    return name


def _fairseq_stage(match: re.Match) -> str:
    stage = int(match[1])
    return f"{RESNET}.trunk.layer{stage + 1}."


def _published_lora(match: re.Match) -> str:
    target, matrix = match.groups()
    direction = "down" if matrix == "A" else "up"
    return f".self_attn.lora_{direction}_{target.upper()}."
