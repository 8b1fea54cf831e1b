"""What a model is made of and what it costs: parameters, tokens, and FLOPs at each rate."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from omni_avsr.decode.decode import load
from omni_avsr.measure.results import tokens_per_second
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor, Route
from omni_avsr.model.adapters import adapter_names
from omni_avsr.tasks import CROP_SIZE, SAMPLE_RATE, VIDEO_FPS

SECONDS = 4  # of the speech whose FLOPs are counted
PARTS = {
    "audio encoder": ("audio_encoder.",),
    "video encoder": ("video_encoder.",),
    "LLM": ("llm.",),
    "projectors": ("audio_compressor.", "video_compressor."),
}


def inspect(checkpoint: str | None) -> dict[str, Any]:
    """The facts of a checkpoint, as JSON has them."""
    model, processor, name = load(checkpoint, "cpu")
    config = model.config
    return {
        "checkpoint": name,
        "tasks": list(config.tasks),
        "audio_rates": list(config.audio_rates),
        "video_rates": list(config.video_rates),
        "towers": {kind: tower.get("name") for kind, tower in config.towers.items()},
        "adapters": sorted(getattr(model.llm, "peft_config", {})),
        "parameters": parameters(model),
        "costs": [cost(model, processor, route) for route in config.routes()],
        "trained": trained(Path(name)),
    }


def parameters(model: OmniAVSR) -> dict[str, int]:
    """Of each part; LoRA weights are counted on their own, whatever they are on."""
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    lora = {name for name in sizes if ".lora_" in name}
    rows = {
        part: sum(n for name, n in sizes.items() if name.startswith(starts) and name not in lora)
        for part, starts in PARTS.items()
    }
    rows["LoRAs"] = sum(sizes[name] for name in lora)
    rows["total"] = sum(sizes.values())
    rows["trainable"] = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return rows


def active(model: OmniAVSR, route: Route) -> int:
    """The parameters that a task uses at its rates: its encoders, projectors and adapters, and the LLM."""
    task, *wishes = route
    rates = model.config.choose(task, *wishes)
    names = adapter_names(model.config.adapters, task, rates)
    total = 0
    for name, weight in model.named_parameters():
        part = name.split("_")[0].split(".")[0]
        if part in ("audio", "video") and part not in rates:
            continue
        if name.startswith("llm.") and ".lora_" in name and not any(f".{adapter}." in name for adapter in names):
            continue
        total += weight.numel()
    unused = [
        sum(w.numel() for w in projector.parameters())
        for modality, rate in rates.items()
        for key, projector in getattr(model, f"{modality}_compressor").projectors.items()
        if model.config.projectors == "per_rate" and key != str(rate)
    ]
    return total - sum(unused)


def cost(model: OmniAVSR, processor: OmniAVSRProcessor, route: Route) -> dict[str, Any]:
    """What a second of speech costs at this task and its rates: the pass that reads it and its transcript, and back."""
    task, audio_rate, video_rate = route
    rates = model.config.choose(task, audio_rate, video_rate)
    sound = [torch.zeros(SECONDS * SAMPLE_RATE)] if "audio" in rates else None
    mouth = [torch.zeros(SECONDS * VIDEO_FPS, CROP_SIZE, CROP_SIZE)] if "video" in rates else None
    media = processor.media(sound, mouth)
    tokens = processor.tokens(media, task, rates, ["three words a second"])
    routing = {f"{m}_rate": rate for m, rate in rates.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not know what the CPU's other kernels compute
        with FlopCounterMode(display=False) as encoders, torch.no_grad():
            features = model.encode(**media)
        with FlopCounterMode(display=False) as llm:
            loss = model(**tokens, task=task, features=features, **routing).loss
        with FlopCounterMode(display=False) as backward:
            loss.backward() if loss.requires_grad else None
    model.zero_grad(set_to_none=True)
    with torch.autograd.graph.saved_tensors_hooks(kept := _Kept(model), lambda tensor: tensor):
        model(**tokens, task=task, features=features, **routing)
    return {
        "task": task,
        "audio_rate": audio_rate,
        "video_rate": video_rate,
        "active_parameters": active(model, route),
        "llm_tokens_per_second": tokens_per_second(task, audio_rate, video_rate),
        "encoder_gflops_per_second": encoders.get_total_flops() / SECONDS / 1e9,
        "llm_gflops_per_second": llm.get_total_flops() / SECONDS / 1e9,
        "training_gflops_per_second": (llm.get_total_flops() + backward.get_total_flops()) / SECONDS / 1e9,
        "kept_megabytes_per_second": kept.bytes / SECONDS / 1e6,
    }


class _Kept:
    """Counts what a forward pass keeps for the backward one, the weights left out."""

    def __init__(self, model: OmniAVSR):
        self.seen = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        self.bytes = 0
        self.tensors: list[torch.Tensor] = []  # alive, so that no address comes twice

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:
            self.seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
            self.tensors.append(tensor)
        return tensor


def trained(folder: Path) -> dict[str, Any]:
    """What a run's folder says of its training; nothing if the model is in none."""
    file = folder.parent / "run.json"
    if not file.is_file():
        return {}
    run = json.loads(file.read_text(encoding="utf-8"))
    data = ("data",) if run["settings"].get("data") else ("toy_world", "toy_clips")
    wanted = ("method", *data, "max_steps", "seed")
    return {"started": run["started"], "commit": run["commit"], **{key: run["settings"].get(key) for key in wanted}}
