"""Published-style state dicts of any variant, spelled from the layout's description, on one of our models."""

import re

from torch import Tensor

from omni_avsr import OmniAVSR

TASKS = {"asr": "audio", "vsr": "video", "avsr": "audiovisual"}
VIDEO = (
    (r"^frontend\.conv3d", "feature_extractor_video.resnet.frontend3D.0"),
    (r"^frontend\.bn3d", "feature_extractor_video.resnet.frontend3D.1"),
    (r"^frontend\.relu3d", "feature_extractor_video.resnet.frontend3D.2"),
    (r"^frontend\.trunk\.(\d)", lambda m: f"feature_extractor_video.resnet.trunk.layer{int(m[1]) + 1}"),
    (r"^video_proj", "feature_extractor_video.proj"),
    (r"^fused_proj", "post_extract_proj"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", "pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", "pos_conv.0.weight_v"),
    (r"pos_conv_embed\.conv\.bias", "pos_conv.0.bias"),
    (r"(layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"),
    (r"attention\.([qv])_proj\.lora_A\.video", lambda m: f"self_attn.lora_down_{m[1].upper()}"),
    (r"attention\.([qv])_proj\.lora_B\.video", lambda m: f"self_attn.lora_up_{m[1].upper()}"),
    (r"\.attention\.", ".self_attn."),
    (r"feed_forward\.intermediate_dense", "fc1"),
    (r"feed_forward\.output_dense", "fc2"),
)


def official_state(model: OmniAVSR) -> dict[str, Tensor]:
    """The model's weights as the published code would have saved them."""
    factors = list(model.config.adapters)
    state = {}
    for name, weight in model.state_dict().items():
        name = name.replace("base_model.model.", "", 1).replace(".base_layer.", ".")
        state[_official(name, model, factors)] = weight.clone()
    embeddings = state["llm.model.embed_tokens.weight"]
    for task, official in TASKS.items():
        if len(model.config.tasks) == 3:
            state[f"prompt_{official}"] = embeddings[PROMPT_IDS[task]][None]
    return state


PROMPT_IDS: dict[str, list[int]] = {}


def _official(name: str, model: OmniAVSR, factors: list[str]) -> str:
    if name.startswith("video_encoder."):
        name = name.removeprefix("video_encoder.")
        for pattern, replacement in VIDEO:
            name = re.sub(pattern, replacement, name)
        return f"video_encoder.{name}"
    projector = re.match(r"(audio|video)_compressor\.projectors\.(\w+)\.(.*)", name)
    if projector:
        modality, rate, rest = projector.groups()
        index = "" if rate == "all" else f"{list(model.config.rates(modality)).index(int(rate))}."
        return f"{modality}_proj.{index}{rest}"
    lora = re.match(r"(.*self_attn)\.([qv])_proj\.lora_([AB])\.(\w+)\.weight", name)
    if lora:
        layer, target, matrix, adapter = lora.groups()
        shared = "_shared" if "task" in factors else ""
        suffix = shared if adapter == "shared" else f".{TASKS[adapter]}"
        return f"{layer}.lora_{'down' if matrix == 'A' else 'up'}_{target.upper()}{suffix}.weight"
    return name
