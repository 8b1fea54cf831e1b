"""AV-HuBERT features equal the recorded ones."""

import json

import pytest
import torch
from safetensors.torch import load_file

from omni_avsr import AVHubertEncoder
from omni_avsr.convert.official import _avhubert_name, convert_avhubert
from omni_avsr.model.adapters import add_adapters
from tests.support.recorded import DATA, WHOLE, needs_whole_set


def with_lora(encoder, weights):
    """The encoder with its recorded LoRA: width 4, factor 2."""
    wrapped = add_adapters(encoder, ["video"], 4, 8.0)
    parameters = {name.replace("base_model.model.", "", 1): w for name, w in wrapped.named_parameters()}
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[_avhubert_name(name)].copy_(weight)
    return wrapped.eval()


def check(encoder, tag, io, video):
    valid = ~io["padding_mask"]
    with torch.no_grad():
        assert (encoder(video) - io[f"{tag}.out"]).abs().max() < 1e-4
        assert (encoder(video, ~valid) - io[f"{tag}.out_padding_mask"])[valid].abs().max() < 1e-4
    assert io[f"{tag}.out"].std() > 0.5  # outputs of order one


def test_a_fairseq_checkpoint_gives_the_recorded_features(tmp_path):
    convert_avhubert(DATA / "avhubert_narrow.pt", tmp_path / "out")
    encoder = AVHubertEncoder.from_pretrained(tmp_path / "out").eval()
    io = load_file(DATA / "avhubert_narrow_io.safetensors")
    video = (io["video"] / 255 - 0.421) / 0.165
    check(encoder, "narrow", io, video)
    lora = {name.removeprefix("lora."): w for name, w in io.items() if name.startswith("lora.")}
    check(with_lora(encoder, lora), "narrow_lora", io, video)


@needs_whole_set
@pytest.mark.parametrize(
    ("tag", "file", "lora"),
    [
        ("full", "avhubert_full_fp16exact", None),
        ("full_lora", "avhubert_full_fp16exact", "avhubert_full_lora"),
        ("narrow_postnorm", "avhubert_narrow_postnorm", None),
    ],
)
def test_both_norm_orders_and_the_full_front_end_give_the_recorded_features(tmp_path, tag, file, lora):
    configs = json.loads((WHOLE / "avhubert/avhubert_other_configs.json").read_text())
    large = json.loads((WHOLE / "avhubert/avhubert_config.json").read_text())["model"]
    (tmp_path / "config.json").write_text(json.dumps({"model": configs["postnorm"] if "postnorm" in tag else large}))
    convert_avhubert(WHOLE / f"avhubert/{file}.safetensors", tmp_path / "out", tmp_path / "config.json")
    encoder = AVHubertEncoder.from_pretrained(tmp_path / "out").eval()
    if lora:
        encoder = with_lora(encoder, load_file(WHOLE / f"avhubert/{lora}.safetensors"))
    io = load_file(WHOLE / "avhubert/avhubert_io.safetensors")
    check(encoder, tag, io, io["video"][:, 0])
