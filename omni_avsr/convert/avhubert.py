"""AV-HuBERT as fairseq saves it, to a folder of an AVHubertEncoder.

Sizes are read from the shapes of the weights.
"""

import re
from pathlib import Path
from typing import NamedTuple

from omni_avsr.convert.weights import (
    Renamed,
    Weights,
    count,
    fill,
    read_config,
    read_weights,
    refuse_overwrite,
    require,
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
LORA = re.compile(r"\.self_attn\.lora_(down|up)_([QV])\.")
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
    (".self_attn_layer_norm.", ".layer_norm."),
    (".fc1.", ".feed_forward.intermediate_dense."),
    (".fc2.", ".feed_forward.output_dense."),
)


class Layout(NamedTuple):
    """What the shapes of the weights do not show."""

    heads: int
    norm_first: bool  # a norm before each block rather than after it


KNOWN_LAYOUTS = {768: Layout(12, False), 1024: Layout(16, True)}  # by width: base and large


def convert_avhubert(file: Path, out: Path, config_file: Path | None = None) -> list[Renamed]:
    """Writes the folder of an AVHubertEncoder from a fairseq checkpoint.

    Returns the weights' old and new names.
    """
    refuse_overwrite(out)
    content = read_weights(file)
    weights = content.weights
    saved_config = content.extra.get("cfg") or {}
    config = read_config(config_file) if config_file else saved_config.get("model")
    encoder = AVHubertEncoder(avhubert_config(weights, config))
    names = [Renamed(name, avhubert_name(name)) for name in weights]
    fill(encoder, weights, names)
    encoder.save_pretrained(out)
    return names


def avhubert_config(weights: Weights, known: Row | None = None) -> AVHubertConfig:
    """The config of these weights.

    The shapes do not show the number of heads and the order of the norms. They are taken from
    `known`, a config of fairseq's or ours; without it the width must be a published one.
    """
    projection = "post_extract_proj.weight"
    position = "encoder.pos_conv.0.weight_v"
    first_layer = "encoder.layers.0.fc1.weight"
    require(weights, [projection, position, first_layer])
    width = len(weights[projection])
    layout = _layout(width, known)
    _, group_width, kernel = weights[position].shape
    return AVHubertConfig(
        hidden_size=width,
        num_hidden_layers=count(weights, r"encoder\.layers\.(\d+)\."),
        num_attention_heads=layout.heads,
        intermediate_size=len(weights[first_layer]),
        do_stable_layer_norm=layout.norm_first,
        num_conv_pos_embeddings=kernel,
        num_conv_pos_embedding_groups=width // group_width,
        resnet_widths=_resnet_widths(weights),
        blank_padding=False,
    )


def _layout(width: int, known: Row | None) -> Layout:
    if not known and width in KNOWN_LAYOUTS:
        return KNOWN_LAYOUTS[width]
    known = known or {}
    heads = known.get("encoder_attention_heads", known.get("num_attention_heads"))
    norm_first = known.get("layer_norm_first", known.get("do_stable_layer_norm"))
    if heads is None or norm_first is None:
        sizes = " nor ".join(str(size) for size in KNOWN_LAYOUTS)
        raise InputError(
            f"AV-HuBERT of width {width} is neither {sizes}: its number of heads and the order of "
            "its norms do not follow from the weights; give its config, fairseq's as JSON or a "
            "converted folder (convert avhubert --config, convert official --video-encoder)"
        )
    return Layout(heads, norm_first)


def _resnet_widths(weights: Weights) -> list[int]:
    stages = count(weights, STAGE.pattern)
    names = [f"{RESNET}.trunk.layer{stage}.0.conv1.weight" for stage in range(1, stages + 1)]
    require(weights, names)
    return [len(weights[name]) for name in names]


def avhubert_name(name: str) -> str | None:
    """Our name of a weight of fairseq's; None if it is not needed."""
    if UNUSED.match(name):
        return None
    name = STAGE.sub(_stage_name, name)
    name = LORA.sub(_lora_name, name)
    for old, new in PARTS:
        name = name.replace(old, new)
    return name


def _stage_name(match: re.Match) -> str:
    stage = int(match[1])
    return f"frontend.trunk.{stage - 1}."


def _lora_name(match: re.Match) -> str:
    direction, target = match.groups()
    matrix = "A" if direction == "down" else "B"
    return f".attention.{target.lower()}_proj.lora_{matrix}.video."
