"""AV-HuBERT's features equal the recorded ones."""

import json

import pytest
import torch
from safetensors.torch import load_file

from omni_avsr import AVHubertEncoder
from omni_avsr.convert.avhubert import avhubert_name, convert_avhubert
from omni_avsr.model.adapters import add_adapters
from omni_avsr.tasks import PIXEL_MEAN, PIXEL_STD
from tests.support.recorded import DATA, WHOLE, needs_whole_set, read_json

AVHUBERT = WHOLE / "avhubert"


def with_lora(encoder, weights):
    """The encoder with its recorded LoRA, of rank 4 and factor 2."""
    wrapped = add_adapters(encoder, ["video"], 4, 8.0)
    parameters = {}
    for name, parameter in wrapped.named_parameters():
        parameters[name.replace("base_model.model.", "", 1)] = parameter
    with torch.no_grad():
        for name, weight in weights.items():
            parameters[avhubert_name(name)].copy_(weight)
    return wrapped.eval()


def check(encoder, tag, recorded, video):
    """Without and with a padding mask; of the padded frames nothing is expected."""
    valid = ~recorded["padding_mask"]
    with torch.no_grad():
        difference = encoder(video) - recorded[f"{tag}.out"]
        assert difference.abs().max() < 1e-4
        difference = encoder(video, ~valid) - recorded[f"{tag}.out_padding_mask"]
        assert difference[valid].abs().max() < 1e-4
    assert recorded[f"{tag}.out"].std() > 0.5  # outputs of order one


def test_a_fairseq_checkpoint_gives_the_recorded_features(tmp_path):
    convert_avhubert(DATA / "avhubert_narrow.pt", tmp_path / "out")
    encoder = AVHubertEncoder.from_pretrained(tmp_path / "out").eval()
    recorded = load_file(DATA / "avhubert_narrow_io.safetensors")
    video = (recorded["video"] / 255 - PIXEL_MEAN) / PIXEL_STD
    check(encoder, "narrow", recorded, video)
    lora = {}
    for name, weight in recorded.items():
        if name.startswith("lora."):
            lora[name.removeprefix("lora.")] = weight
    check(with_lora(encoder, lora), "narrow_lora", recorded, video)


@needs_whole_set
@pytest.mark.parametrize(
    ("tag", "file", "lora_file"),
    [
        ("full", "avhubert_full_fp16exact", None),
        ("full_lora", "avhubert_full_fp16exact", "avhubert_full_lora"),
        ("narrow_postnorm", "avhubert_narrow_postnorm", None),
    ],
)
def test_both_norm_orders_and_the_full_front_end_give_the_recorded_features(
    tmp_path, tag, file, lora_file
):
    if tag == "narrow_postnorm":
        config = read_json(AVHUBERT / "avhubert_other_configs.json")["postnorm"]
    else:
        config = read_json(AVHUBERT / "avhubert_config.json")["model"]
    config_file = tmp_path / "config.json"
    config_file.write_text(json.dumps({"model": config}))
    convert_avhubert(AVHUBERT / f"{file}.safetensors", tmp_path / "out", config_file)
    encoder = AVHubertEncoder.from_pretrained(tmp_path / "out").eval()
    if lora_file:
        encoder = with_lora(encoder, load_file(AVHUBERT / f"{lora_file}.safetensors"))
    recorded = load_file(AVHUBERT / "avhubert_io.safetensors")
    check(encoder, tag, recorded, recorded["video"][:, 0])
