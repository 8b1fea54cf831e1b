"""A file with a spoiled key, container or config is converted rightly, or refused by name."""

import argparse
import json
import random
import re
import shutil

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from omni_avsr.convert.avhubert import convert_avhubert
from omni_avsr.convert.folder import new_folder
from omni_avsr.convert.official import LoraScales
from omni_avsr.convert.weights import read_weights
from omni_avsr.errors import InputError
from tests.support.recorded import DATA, save
from tests.support.spoiled import WAYS, trial

NARROW = DATA / "avhubert_narrow.pt"


@pytest.fixture
def tried(make, tower_folders, tmp_path):
    return trial(make, tower_folders, tmp_path)


def test_a_spoiled_key_ends_in_a_model_or_a_message(tried):
    chance = random.Random(0)
    for way in WAYS:
        for name in chance.sample(list(tried.state), 2):
            tried(name, way)


def optimizer_state():
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(2))])
    return optimizer.state_dict()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no weights"),
        ({"model": {}}, "holds no weights"),
        ([torch.ones(2)], "holds a list, named weights expected"),
        (torch.ones(2), "holds a Tensor, named weights expected"),
        (None, "holds a NoneType, named weights expected"),
        (optimizer_state(), "param_groups is of type list, not a tensor"),
        ({"module": {"a": torch.ones(2)}}, "module is of type dict, not a tensor; expected are"),
        ({"model": {"module": {"a": torch.ones(2)}}}, "module is of type dict, not a tensor"),
        ({"model": torch.ones(2), "epoch": 3}, "epoch is of type int, not a tensor"),
        ({3: torch.ones(2)}, r"post_extract_proj\.bias not found"),
        ({f"w{i}": None for i in range(30)}, r"w7 is of type NoneType, .*; and 22 more"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    file = save(content, tmp_path / "x.pt")
    with pytest.raises(InputError, match=re.escape(str(file)) + ".*" + message):
        convert_avhubert(file, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_and_an_absent_file_are_refused(tmp_path):
    for file in (tmp_path, tmp_path / "absent.pth"):
        with pytest.raises(InputError, match=re.escape(f"{file} cannot be read as a file")):
            read_weights(file)


def test_the_content_tells_the_kind_of_file_and_not_its_name(tmp_path):
    weights = {"a.weight": torch.ones(2, 3)}
    save_file(weights, tmp_path / "model.pth")
    torch.save(weights, tmp_path / "model.safetensors")
    for name in ("model.pth", "model.safetensors"):
        found = read_weights(tmp_path / name).weights
        torch.testing.assert_close(found, weights)


HEADS = {"encoder_attention_heads": 4, "layer_norm_first": True}


@pytest.mark.parametrize(
    "cfg",
    [
        None,
        [],
        "cfg",
        3,
        {},
        {"model": None},
        {"model": ["heads"]},
        argparse.Namespace(model=HEADS),
        {"model": {"encoder_attention_heads": None, "layer_norm_first": True}},
    ],
)
def test_a_config_in_the_file_that_tells_nothing_is_asked_for(tmp_path, cfg):
    weights = read_weights(NARROW).weights
    file = save({"model": weights, "cfg": cfg}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"x\.pt: AV-HuBERT of width 64 .* give its config"):
        convert_avhubert(file, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder_attention_heads": 5}, "5 heads, a divisor of 64 expected"),
        ({"encoder_attention_heads": 0}, "0 heads"),
        ({"encoder_attention_heads": "4"}, "'4' heads"),
        ({"encoder_attention_heads": True}, "True heads"),
        ({"encoder_attention_heads": [4]}, r"\[4\] heads"),
        ({"layer_norm_first": "yes"}, "layer_norm_first 'yes'"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path, change, message):
    config = tmp_path / "x.json"
    config.write_text(json.dumps({"model": {**HEADS, **change}}))
    with pytest.raises(InputError, match=message):
        convert_avhubert(NARROW, tmp_path / "out", config)


@pytest.mark.parametrize("tower", ["llm", "audio"])
@pytest.mark.parametrize(
    "change",
    [
        [],
        "text",
        None,
        {"model_type": None},
        {"model_type": "bert"},
        {"model_type": "whisper", "d_model": None},
        {"num_attention_heads": 5, "encoder_attention_heads": 5},
        {"num_hidden_layers": 1, "encoder_layers": 1},
        {"hidden_size": 12, "d_model": 12},
        {"intermediate_size": "64", "encoder_ffn_dim": "64"},
    ],
)
def test_an_odd_config_of_a_tower_is_refused(tried, tower_folders, tmp_path, tower, change):
    folder = tmp_path / "odd"
    shutil.copytree(tower_folders[tower], folder)
    config = json.loads((folder / "config.json").read_text())
    content = {**config, **change} if isinstance(change, dict) else change
    (folder / "config.json").write_text(json.dumps(content))
    name = {"llm": "llm", "audio": "audio_encoder"}[tower]
    with pytest.raises(InputError, match=r"whole\.pth: "):
        tried.convert(tmp_path / "whole.pth", tmp_path / "out", **{name: str(folder)})
    assert not list(tmp_path.glob("out*"))


def test_a_tokenizer_with_more_tokens_than_the_file_is_refused(tried, tmp_path):
    short = {
        name: weight[:300] if name.endswith(("embed_tokens.weight", "lm_head.weight")) else weight
        for name, weight in tried.state.items()
    }
    file = save(short, tmp_path / "short.pth")
    with pytest.raises(InputError, match=r"needs \d+ tokens .*embed_tokens\.weight has 300"):
        tried.convert(file, tmp_path / "out")


def test_two_keys_for_one_place_are_refused(tried, tmp_path):
    name = "llm.model.layers.0.self_attn.lora_up_Q_shared.weight"
    twice = name.replace("_shared", "")
    file = save({**tried.state, twice: tried.state[name]}, tmp_path / "twice.pth")
    with pytest.raises(InputError, match=re.escape(f"{twice} has the place of another key too")):
        tried.convert(file, tmp_path / "out")


def test_an_unknown_prompt_is_refused(tried, tmp_path):
    file = save({**tried.state, "prompt_lips": torch.ones(1, 2, 32)}, tmp_path / "x.pth")
    with pytest.raises(InputError, match="prompt_lips has no place"):
        tried.convert(file, tmp_path / "out")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_is_no_factor_is_refused(scale):
    with pytest.raises(InputError, match="a LoRA's factor"):
        LoraScales(llm=scale)


def test_an_existing_empty_folder_is_filled(tried, tmp_path):
    (tmp_path / "out").mkdir()
    tried.convert(tmp_path / "whole.pth", tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


def test_an_interrupted_conversion_leaves_nothing(tried, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("omni_avsr.convert.official.OmniAVSRProcessor.save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tried.convert(tmp_path / "whole.pth", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_disk_that_is_full_ends_a_conversion_with_a_message(tmp_path):
    with (
        pytest.raises(InputError, match=r"out cannot be written: .*No space left"),
        new_folder(tmp_path / "out"),
    ):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_refused(tried, tmp_path):
    out = tmp_path / "whole.pth" / "out"
    with pytest.raises(InputError, match="cannot be written"):
        tried.convert(tmp_path / "whole.pth", out)
