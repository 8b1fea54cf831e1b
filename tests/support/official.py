"""State dicts as the published code saves them, made from one of our models."""

import re

from torch import Tensor

from omni_avsr import OmniAVSR, OmniAVSRProcessor

AS_PUBLISHED = {
    "task_tokens": {},
    "keep_tail": False,
    "mask_padding": False,
    "exact_audio_length": False,
    "audio_context": "padded",
}
TASK_NAMES = {"asr": "audio", "vsr": "video", "avsr": "audiovisual"}
# (a pattern of our names, the published name), in this order
VIDEO = (
    (r"^frontend\.conv3d", "feature_extractor_video.resnet.frontend3D.0"),
    (r"^frontend\.bn3d", "feature_extractor_video.resnet.frontend3D.1"),
    (r"^frontend\.relu3d", "feature_extractor_video.resnet.frontend3D.2"),
    (r"^frontend\.trunk\.0", "feature_extractor_video.resnet.trunk.layer1"),
    (r"^frontend\.trunk\.1", "feature_extractor_video.resnet.trunk.layer2"),
    (r"^frontend\.trunk\.2", "feature_extractor_video.resnet.trunk.layer3"),
    (r"^frontend\.trunk\.3", "feature_extractor_video.resnet.trunk.layer4"),
    (r"^video_proj", "feature_extractor_video.proj"),
    (r"^fused_proj", "post_extract_proj"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original0", "pos_conv.0.weight_g"),
    (r"pos_conv_embed\.conv\.parametrizations\.weight\.original1", "pos_conv.0.weight_v"),
    (r"pos_conv_embed\.conv\.bias", "pos_conv.0.bias"),
    (r"(layers\.\d+)\.layer_norm", r"\1.self_attn_layer_norm"),
    (r"attention\.q_proj\.lora_A\.video", "self_attn.lora_down_Q"),
    (r"attention\.v_proj\.lora_A\.video", "self_attn.lora_down_V"),
    (r"attention\.q_proj\.lora_B\.video", "self_attn.lora_up_Q"),
    (r"attention\.v_proj\.lora_B\.video", "self_attn.lora_up_V"),
    (r"\.attention\.", ".self_attn."),
    (r"feed_forward\.intermediate_dense", "fc1"),
    (r"feed_forward\.output_dense", "fc2"),
)


def official_state(model: OmniAVSR, processor: OmniAVSRProcessor) -> dict[str, Tensor]:
    """The model's weights as the published code would have saved them."""
    state = {}
    for name, weight in model.state_dict().items():
        plain = name.replace("base_model.model.", "", 1).replace(".base_layer.", ".")
        state[_published_name(plain, model)] = weight.clone()
    if len(model.config.tasks) == 3:
        embeddings = state["llm.model.embed_tokens.weight"]
        for task, published in TASK_NAMES.items():
            prompt = model.config.prompts[task]
            ids = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            state[f"prompt_{published}"] = embeddings[ids][None]
    return state


def _published_name(name: str, model: OmniAVSR) -> str:
    if name.startswith("video_encoder."):
        return f"video_encoder.{_published_video_name(name.removeprefix('video_encoder.'))}"
    projector = re.match(r"(audio|video)_compressor\.projectors\.(\w+)\.(.*)", name)
    if projector:
        modality, rate, rest = projector.groups()
        if rate == "all":
            return f"{modality}_proj.{rest}"
        rates = list(model.config.rates(modality))
        return f"{modality}_proj.{rates.index(int(rate))}.{rest}"
    lora = re.match(r"(.*self_attn)\.([qv])_proj\.lora_([AB])\.(\w+)\.weight", name)
    if lora:
        layer, target, matrix, adapter = lora.groups()
        direction = "down" if matrix == "A" else "up"
        suffix = _adapter_suffix(adapter, model)
        return f"{layer}.lora_{direction}_{target.upper()}{suffix}.weight"
    return name


def _published_video_name(name: str) -> str:
    for pattern, replacement in VIDEO:
        name = re.sub(pattern, replacement, name)
    return name


def _adapter_suffix(adapter: str, model: OmniAVSR) -> str:
    """A shared LoRA is only called so beside those of tasks."""
    if adapter != "shared":
        return f".{TASK_NAMES[adapter]}"
    return "_shared" if "task" in model.config.adapters else ""
