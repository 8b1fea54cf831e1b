"""Trained models of omni-avsr-st on the tiny towers, in half precision."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from omni_avsr.files import write_text
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import plain
from omni_avsr.model.aligner import characters_of
from omni_avsr.model.towers import checksum
from tools.augment import Noise
from tools.corpus import Clips, Corpus
from tools.encoders import FOLDERS
from tools.loop import Plan, Result, train
from tools.reading import Lesson, reading_loss, show_result, word_errors

METHOD = "omni-avsr-st"
MODELS = {METHOD: "tiny-m", f"{METHOD}-multi": "tiny-multi"}  # and the language model of each
RANKS = {METHOD: 16, f"{METHOD}-multi": 8}  # of their LoRAs: the package has a limit of size
AUDIO_RATES, VIDEO_RATES = (4, 16), (2, 5)
MEASURED_RATES = [(4, 2), (16, 5)]
LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def adapt(name: str, clips: Clips, held_out: Mapping[str, Corpus], plan: Plan, out: Path) -> Result:
    """Trains adapters and projectors, writes their folder, and returns the result."""
    torch.manual_seed(plan.seed)
    model = new_model(name, out)
    model.add_aligner(characters_of(clips.texts))
    modules = nn.ModuleDict({"model": model}).to(clips.device)
    processor = OmniAVSRProcessor.of(model)
    loss = reading_loss(model, processor, clips.texts, plan, Lesson())
    result = train(plan, modules, loss, clips, Noise())
    save(name, model, out)
    shipped = OmniAVSR.from_pretrained(out / name)  # in half precision
    shipped.to(clips.device)  # type: ignore[arg-type]
    result["wer"] = word_errors(shipped, processor, held_out, MEASURED_RATES)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    result["parameters"] = sum(weight.numel() for weight in trained)
    show_result(name, result)
    return result


def towers(name: str) -> dict[str, str]:
    """Returns the folders of a model's towers."""
    return {**FOLDERS, "llm": MODELS[name]}


def new_model(name: str, out: Path) -> OmniAVSR:
    """Returns a new model on the towers of this folder."""
    folders = towers(name)
    model = OmniAVSR.from_towers(
        audio=out.resolve() / folders["audio"],
        video=out.resolve() / folders["video"],
        llm=out.resolve() / folders["llm"],
        method=METHOD,
        audio_rates=AUDIO_RATES,
        video_rates=VIDEO_RATES,
        lora_rank=RANKS[name],
        lora_alpha=2.0 * RANKS[name],
        lora_targets=LINEAR_LAYERS,
        video_lora_rank=0,
        projector_width=256,
    )
    plain(model.llm).set_attn_implementation("eager")  # twice as fast to train on CPUs
    return model


def save(name: str, model: OmniAVSR, out: Path) -> None:
    """Writes the model in half precision; its towers are the folders beside it."""
    folder = out / name
    model.save_pretrained(folder)
    for path in folder.rglob("*.safetensors"):
        _halve(path)
    for path in folder.rglob("adapter_config.json"):
        _edit(path, base_model_name_or_path=None)
    origins = {}
    for kind, tower in towers(name).items():
        origins[kind] = {"name": f"../{tower}", "revision": None, "sha256": checksum(out / tower)}
    _edit(folder / "config.json", towers=origins)


def _halve(path: Path) -> None:
    """Rewrites a file of weights in half precision."""
    weights = load_file(path)
    for name, weight in weights.items():
        if weight.is_floating_point():
            weights[name] = weight.half()
    save_file(weights, path, {"format": "pt"})


def _edit(path: Path, **values: object) -> None:
    """Sets values of a JSON file."""
    known = json.loads(path.read_text())
    write_text(path, json.dumps(known | values, indent=2, sort_keys=True) + "\n")
