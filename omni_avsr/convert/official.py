"""Foreign weights to our folders: AV-HuBERT as fairseq saves it, and the published Omni-AVSR family.

A file is read by what its keys and shapes say. Nothing of it is ever executed: torch's restricted loader reads it, and
the few foreign classes that fairseq puts beside the weights become inert objects.
"""

import json
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from omni_avsr.model import AVHubertConfig, AVHubertEncoder, OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor
from omni_avsr.model.config import MARKERS, PLACEHOLDERS
from omni_avsr.model.towers import add_special_tokens
from omni_avsr.tasks import Task

Weights = dict[str, Tensor]
Renamed = list[tuple[str, str | None]]  # old name, new name; None where the model has no use for it

OFFICIAL_TASKS = {"audio": Task.ASR, "video": Task.VSR, "audiovisual": Task.AVSR}
# The two published AV-HuBERT sizes: what shapes do not tell.
KNOWN_AVHUBERT = {
    768: {"num_attention_heads": 12, "do_stable_layer_norm": False},
    1024: {"num_attention_heads": 16, "do_stable_layer_norm": True},
}
INERT_CLASSES = (
    "fairseq.data.dictionary.Dictionary",
    "argparse.Namespace",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
)

AVHUBERT_NAMES = (
    (r"^feature_extractor_video\.resnet\.frontend3D\.0\.", "frontend.conv3d."),
    (r"^feature_extractor_video\.resnet\.frontend3D\.1\.", "frontend.bn3d."),
    (r"^feature_extractor_video\.resnet\.frontend3D\.2\.", "frontend.relu3d."),
    (r"^feature_extractor_video\.resnet\.trunk\.layer(\d)\.", lambda m: f"frontend.trunk.{int(m[1]) - 1}."),
    (r"^feature_extractor_video\.proj\.", "video_proj."),
    (r"^post_extract_proj\.", "fused_proj."),
    (r"^encoder\.pos_conv\.0\.weight_g$", "encoder.pos_conv_embed.conv.parametrizations.weight.original0"),
    (r"^encoder\.pos_conv\.0\.weight_v$", "encoder.pos_conv_embed.conv.parametrizations.weight.original1"),
    (r"^encoder\.pos_conv\.0\.bias$", "encoder.pos_conv_embed.conv.bias"),
    (r"\.self_attn\.lora_down_([QV])\.", lambda m: f".attention.{m[1].lower()}_proj.lora_A.video."),
    (r"\.self_attn\.lora_up_([QV])\.", lambda m: f".attention.{m[1].lower()}_proj.lora_B.video."),
    (r"\.self_attn\.", ".attention."),
    (r"\.self_attn_layer_norm\.", ".layer_norm."),
    (r"\.fc1\.", ".feed_forward.intermediate_dense."),
    (r"\.fc2\.", ".feed_forward.output_dense."),
)
# AV-HuBERT's audio input and its pre-training heads
AVHUBERT_UNUSED = re.compile(r"^(mask_emb|label_embs_concat|final_proj\..*|feature_extractor_audio\.proj\..*)$")
LLM_LORA = re.compile(r"\.lora_(down|up)_([QV])(?:_(shared)|\.(audio|video|audiovisual))?\.weight$")


class _Inert:
    """Stands for a foreign class in a checkpoint: holds what it is given and does nothing."""

    def __init__(self, *_: Any):
        pass


def read(file: Path) -> tuple[Weights, dict]:
    """The weights of a .safetensors or torch file, and whatever else it holds; nothing in it is executed."""
    inert = [(_Inert, name) for name in INERT_CLASSES]
    try:
        if file.suffix == ".safetensors":
            return load_file(file), {}
        with torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        if wanted is None:
            raise ValueError(f"{file} is not a checkpoint that torch can read") from None
        raise ValueError(f"{file} refused: it wants to use {wanted[1]}, not just weights") from None
    except (SafetensorError, EOFError, LookupError, RuntimeError) as error:
        raise ValueError(f"{file} is not a checkpoint that torch or safetensors can read: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, not named weights")
    for key, prefix in (("model", ""), ("state_dict", "model.")):
        if isinstance(content.get(key), dict):
            return {name.removeprefix(prefix): w for name, w in content.pop(key).items()}, content
    return content, {}


def convert_avhubert(file: Path, out: Path, config_file: Path | None = None) -> Renamed:
    """Writes an AVHubertEncoder folder of a fairseq checkpoint."""
    _refuse_overwrite(out)
    weights, rest = read(file)
    known = _read_config(config_file) if config_file else (rest.get("cfg") or {}).get("model")
    model = AVHubertEncoder(avhubert_config(weights, known))
    renamed = _fill(model, weights, [(name, _avhubert_name(name)) for name in weights])
    model.save_pretrained(out)
    return renamed


def avhubert_config(weights: Weights, known: dict | None = None) -> AVHubertConfig:
    """The config that the shapes show; heads and the order of the norms come from `known`, fairseq's or ours."""
    _require(weights, "post_extract_proj.weight", "encoder.pos_conv.0.weight_v", "encoder.layers.0.fc1.weight")
    width = len(weights["post_extract_proj.weight"])
    known = known or KNOWN_AVHUBERT.get(width) or {}
    heads = known.get("encoder_attention_heads", known.get("num_attention_heads"))
    norm_first = known.get("layer_norm_first", known.get("do_stable_layer_norm"))
    if heads is None or norm_first is None:
        sizes = " nor ".join(map(str, KNOWN_AVHUBERT))
        raise ValueError(
            f"AV-HuBERT of width {width} is neither {sizes}: its heads and norms cannot be told from the weights; "
            "give its config, fairseq's as JSON or a converted folder (--video-encoder; for convert avhubert --config)"
        )
    position = weights["encoder.pos_conv.0.weight_v"]  # (width, width / groups, kernel)
    stages = range(1, 1 + _count(weights, r"^feature_extractor_video\.resnet\.trunk\.layer(\d+)\."))
    stage = "feature_extractor_video.resnet.trunk.layer{}.0.conv1.weight"
    return AVHubertConfig(
        hidden_size=width,
        num_hidden_layers=_count(weights, r"^encoder\.layers\.(\d+)\."),
        num_attention_heads=heads,
        intermediate_size=len(weights["encoder.layers.0.fc1.weight"]),
        do_stable_layer_norm=norm_first,
        num_conv_pos_embeddings=position.shape[2],
        num_conv_pos_embedding_groups=width // position.shape[1],
        resnet_widths=[len(weights[stage.format(i)]) for i in stages],
        blank_padding=False,
    )


def convert_official(
    file: Path,
    out: Path,
    llm: str,
    audio_encoder: str | None = None,
    audio_rates: list[int] | None = None,
    video_rates: list[int] | None = None,
    video_config: Path | None = None,
    lora_scales: tuple[float, float] = (0.125, 2.0),
) -> Renamed:
    """Writes a full OmniAVSR folder of a published checkpoint.

    The file has all weights; `llm` and `audio_encoder` (hub ids or folders) give configs and the tokenizer alone. The
    scales of the LLM's and the video encoder's LoRA are not in the file; the defaults are the published recipe's.
    """
    _refuse_overwrite(out)
    weights, _ = read(file)
    _require(weights, "llm.model.embed_tokens.weight", "llm.lm_head.weight", "llm.model.norm.weight")
    tokenizer = AutoTokenizer.from_pretrained(llm)
    rates = {"audio": audio_rates or [], "video": video_rates or []}
    towers = _official_towers(weights, llm, audio_encoder, video_config)
    config = _official_config(weights, towers, rates, tokenizer, lora_scales)
    model = OmniAVSR(config)
    renamed = _fill(model, weights, [(name, _official_name(name, rates)) for name in weights])
    processor = OmniAVSRProcessor(tokenizer, config)
    _check_prompts(weights, processor)
    model.to(weights["llm.model.norm.weight"].dtype).save_pretrained(out, full=True)
    processor.save_pretrained(out)
    return renamed


def _official_towers(weights: Weights, llm: str, audio_encoder: str | None, video_config: Path | None) -> dict:
    """The towers' configs, of those that the file has."""
    towers: dict[str, Any] = {}
    if any(name.startswith("audio_encoder.") for name in weights):
        if audio_encoder is None:
            raise ValueError("the file has an audio encoder: name it (such as openai/whisper-medium.en)")
        towers["audio_config"] = AutoConfig.from_pretrained(audio_encoder)
    video = {n.removeprefix("video_encoder."): w for n, w in weights.items() if n.startswith("video_encoder.")}
    if video:
        towers["video_config"] = avhubert_config(video, _read_config(video_config) if video_config else None)
    embeddings = weights["llm.model.embed_tokens.weight"]
    towers["llm_config"] = AutoConfig.from_pretrained(llm)
    towers["llm_config"].vocab_size = len(embeddings)
    towers["llm_config"].tie_word_embeddings = torch.equal(weights["llm.lm_head.weight"], embeddings)
    return towers


def _official_config(weights: Weights, towers: dict, rates: dict, tokenizer, lora_scales) -> OmniAVSRConfig:
    ids = add_special_tokens(["<pad>", *MARKERS, *PLACEHOLDERS.values()], tokenizer, towers["llm_config"].vocab_size)
    prompted = [task for name, task in OFFICIAL_TASKS.items() if f"prompt_{name}" in weights]
    alone = {("audio_config",): Task.ASR, ("video_config",): Task.VSR}
    return OmniAVSRConfig(
        **towers,
        **_projectors(weights, towers, rates),
        **_loras(weights, lora_scales),
        tasks=prompted or [alone.get(tuple(k for k in towers if k != "llm_config"), Task.AVSR)],
        special_tokens=ids,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=ids["<pad>"],
        task_tokens={},
        keep_tail=False,
        mask_padding=False,
        exact_audio_length=False,
        audio_context="padded",
    )


def _projectors(weights: Weights, towers: dict, rates: dict[str, list[int]]) -> dict[str, Any]:
    """The compressors' settings, by keys (audio_proj.{rate index}.{layer} or audio_proj.{layer}) and shapes."""
    settings: dict[str, Any] = {}
    layouts, windows = set(), []
    for modality in [m for m in ("audio", "video") if f"{m}_config" in towers]:
        count = _count(weights, rf"^{modality}_proj\.(\d+)\.\d+\.")
        wanted = rates[modality]
        if not wanted or count not in (0, len(wanted)):
            raise ValueError(f"the file has {count or 1} {modality} projectors, {modality} rates {wanted} were given")
        names = [f"{modality}_proj.{i}.0.weight" for i in range(count)] or [f"{modality}_proj.0.weight"]
        _require(weights, *names)
        width = towers[f"{modality}_config"].hidden_size
        windows += [(weights[name].shape[1] / width, rate) for name, rate in zip(names, wanted, strict=False)]
        layouts.add(("per_rate" if count else "one", len(weights[names[0]])))
        last = re.compile(rf"^{modality}_proj\.(\d+\.)?3\.weight$")
        settings[f"{modality}_projector_norm"] = any(map(last.match, weights))
        settings[f"{modality}_rates"] = wanted
    if len(layouts) > 1:
        raise ValueError(f"the projectors of audio and video differ: {sorted(layouts)}")
    projectors, projector_width = layouts.pop()
    return settings | {
        "projectors": projectors,
        "projector_width": projector_width,
        "compression": _compression(windows),
    }


def _compression(windows: list[tuple[float, int]]) -> str:
    """Stacking if projectors take `rate` frames side by side, average if they take one."""
    if all(frames == 1 for frames, _ in windows):
        return "average"
    if all(frames == rate for frames, rate in windows):
        return "stack"
    raise ValueError(
        f"the projectors take {[f'{frames:g}' for frames, _ in windows]} frames at rates {[r for _, r in windows]}"
    )


def _loras(weights: Weights, scales: tuple[float, float]) -> dict[str, Any]:
    matches = [LLM_LORA.search(name) for name in weights if name.startswith("llm.")]
    factors = {"task" if match[4] else "shared" for match in matches if match}
    ranks = {"llm.": 0, "video_encoder.": 0}
    for name, weight in weights.items():
        if ".lora_down_" in name:
            ranks[name.split(".")[0] + "."] = len(weight)
    return {
        "adapters": sorted(factors),
        "lora_rank": ranks["llm."],
        "lora_alpha": scales[0] * ranks["llm."],
        "video_lora_rank": ranks["video_encoder."],
        "video_lora_alpha": scales[1] * ranks["video_encoder."],
    }


def _official_name(name: str, rates: dict[str, list[int]]) -> str | None:
    if name.startswith("video_encoder."):
        inner = _avhubert_name(name.removeprefix("video_encoder."))
        return inner and f"video_encoder.{inner}"
    if name.startswith("prompt_"):
        return None
    projector = re.match(r"^(audio|video)_proj\.(?:(\d+)\.)?(\d+\.\w+)$", name)
    if projector:
        modality, index, rest = projector.groups()
        return f"{modality}_compressor.projectors.{'all' if index is None else rates[modality][int(index)]}.{rest}"
    return LLM_LORA.sub(_lora_name, name)


def _lora_name(match: re.Match) -> str:
    way, target, _, task = match.groups()
    adapter = OFFICIAL_TASKS[task].value if task else "shared"
    return f".{target.lower()}_proj.lora_{'A' if way == 'down' else 'B'}.{adapter}.weight"


def _avhubert_name(name: str) -> str | None:
    if AVHUBERT_UNUSED.match(name):
        return None
    for pattern, replacement in AVHUBERT_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


@torch.no_grad()
def _fill(model: nn.Module, weights: Weights, renamed: Renamed) -> Renamed:
    """Copies every weight to its new name; refuses any that is left over, missing or of another shape."""
    ours = {
        n.replace("base_model.model.", "", 1).replace(".base_layer.", "."): w for n, w in model.state_dict().items()
    }
    new_names = {new for _, new in renamed}
    problems = [f"{old} has no place" for old, new in renamed if new is not None and new not in ours]
    problems += [f"{name} is missing" for name in ours if name not in new_names]
    for old, new in renamed:
        if new in ours and ours[new].shape != weights[old].shape:
            problems.append(f"{old} has shape {tuple(weights[old].shape)}, {tuple(ours[new].shape)} expected")
    if problems:
        raise ValueError(f"{len(problems)} keys do not fit: {'; '.join(problems)}")
    for old, new in renamed:
        if new is not None:
            ours[new].copy_(weights[old])
    return renamed


def _check_prompts(weights: Weights, processor: OmniAVSRProcessor) -> None:
    """The file holds its prompts as embeddings: they must be those of our prompts."""
    matrix = weights["llm.model.embed_tokens.weight"]
    for name, task in OFFICIAL_TASKS.items():
        prompt = processor.config.prompts[task]
        ids = processor.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        saved = weights.get(f"prompt_{name}")
        if saved is not None and not torch.equal(saved.flatten(0, -2), matrix[ids]):
            raise ValueError(f"prompt_{name} in the file is not {prompt!r} under this tokenizer: is it the right LLM?")


def _require(weights: Weights, *names: str) -> None:
    missing = [name for name in names if name not in weights]
    if missing:
        raise ValueError(f"{', '.join(missing)} not found: the file holds another kind of model, or only a part of one")


def _count(weights: Weights, pattern: str) -> int:
    return len({match[1] for match in map(re.compile(pattern).match, weights) if match})


def _read_config(source: Path) -> dict:
    file = source / "config.json" if source.is_dir() else source
    content = json.loads(file.read_text())
    return content.get("model", content)


def _refuse_overwrite(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder")
