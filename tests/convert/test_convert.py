"""Foreign files are safe to read, converted by their keys, and refused when a key does not fit."""

import json
import os
import pickle
import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.cli.app import app
from omni_avsr.convert.avhubert import convert_avhubert
from omni_avsr.convert.official import (
    convert_official,
    nearest_method,
    official_name,
    published_name,
)
from omni_avsr.convert.weights import read_config, read_weights
from omni_avsr.errors import InputError
from omni_avsr.methods import METHODS
from tests.support.official import AS_PUBLISHED, official_state
from tests.support.recorded import DATA, save
from tests.support.towers import TEXTS, clips

HEADS = {"encoder_attention_heads": 2, "layer_norm_first": True}
NARROW = DATA / "avhubert_narrow.pt"


class Malicious:
    """Runs a command when an unrestricted unpickler reads it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_is_refused_and_nothing_runs(tmp_path, zipped):
    file = tmp_path / "x.pt"
    state = {
        "model": read_weights(NARROW).weights,
        "task_state": {"dictionaries": [Malicious(tmp_path / "ran")]},
    }
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"x.pt is refused: it uses (os|posix)\.system"):
        convert_avhubert(file, tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_a_bare_pickle_is_refused_and_nothing_runs(tmp_path):
    content = pickle.dumps({"model": Malicious(tmp_path / "ran")})
    (tmp_path / "x.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.pt is (refused|not a checkpoint)"):
        convert_avhubert(tmp_path / "x.pt", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_left_over_and_missing_keys_are_named(tmp_path):
    content = read_weights(NARROW)
    weights = content.weights
    weights["decoder.embed.weight"] = weights.pop("encoder.layers.1.fc1.bias")
    config = {"model": content.extra["cfg"]["model"]}
    file = save({"model": weights, "cfg": config}, tmp_path / "x.pt")
    message = r"2 keys do not fit: decoder\.embed\.weight has no place"
    with pytest.raises(InputError, match=message) as error:
        convert_avhubert(file, tmp_path / "out")
    assert "encoder.layers.1.fc1.bias is missing" in str(error.value)


def test_an_unknown_size_asks_for_its_config(tmp_path):
    file = save(read_weights(NARROW).weights, tmp_path / "x.pt")
    message = r"AV-HuBERT of width 64 is neither 768 nor 1024: .* give its config"
    with pytest.raises(InputError, match=message):
        convert_avhubert(file, tmp_path / "out")


@pytest.mark.parametrize("content", ["no JSON", "[1]"])
def test_a_config_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json is not a config"):
        read_config(tmp_path / "x.json")


@pytest.mark.parametrize("content", [b"", b"some text", b"\x89PNG"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content, suffix):
    file = tmp_path / f"x.{suffix}"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"not a checkpoint|refused"):
        read_weights(file)


def test_a_full_folder_is_not_overwritten(tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        convert_avhubert(NARROW, tmp_path)


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="is the current folder"):
        convert_avhubert(NARROW, Path("."))


@pytest.fixture
def official(make, tmp_path, tower_folders):
    """Builds a published-style file of a variant.

    Returns the model it was made of, its processor, and the arguments of convert_official.
    """

    def build(change=None, **settings):
        model, processor = make(**{**AS_PUBLISHED, "lora_alpha": 0.5, **settings})
        weights = official_state(model, processor)
        if change:
            change(weights)
        heads = tmp_path / "heads.json"
        heads.write_text(json.dumps(HEADS))
        arguments = {
            "file": save(weights, tmp_path / "model_avg_1.pth"),
            "llm": tower_folders["llm"],
            "audio_encoder": tower_folders["audio"],
            "audio_rates": tuple(model.config.audio_rates),
            "video_rates": tuple(model.config.video_rates),
            "video_config": heads,
        }
        return model, processor, arguments

    return build


ONE_RATE = {"audio_rates": (4,), "video_rates": (2,)}
VARIANTS = {
    "S": {"method": "omni-avsr-s"},
    "T": {"method": "omni-avsr-t"},
    "ST": {},
    "stacking": {"compression": "stack", "video_projector_norm": False},
    "one projector": {"projectors": "one"},
    "no norm": {"audio_projector_norm": False, "video_projector_norm": False},
    "three rates": {"audio_rates": (2, 4, 16), "video_rates": (5, 1)},
    "stacking, one rate": {"compression": "stack", "method": "llama-mt"},
    "Llama-AVSR": {"method": "llama-avsr"},
    "Llama-MT": {"method": "llama-mt"},
    "Llama-MTSK-MS": {"method": "llama-mtsk-ms"},
    "no LoRA": {
        "method": "omni-avsr-s",
        "adapters": [],
        "lora_rank": 0,
        "lora_alpha": 0.0,
        "video_lora_rank": 0,
    },
}
READ_FROM_KEYS = (
    "method",
    "tasks",
    "adapters",
    "projectors",
    "compression",
    "lora_rank",
    "lora_alpha",
    "video_lora_rank",
)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_read_from_its_keys(official, tmp_path, settings):
    model, processor, arguments = official(**settings)
    convert_official(**arguments, out=tmp_path / "out")
    converted = OmniAVSR.from_pretrained(tmp_path / "out")
    converted_processor = OmniAVSRProcessor.from_pretrained(tmp_path / "out")
    for field in READ_FROM_KEYS:
        assert list_or_value(converted, field) == list_or_value(model, field), field
    for task in model.config.tasks:
        expected = model(processor(**clips(40, 35), text=TEXTS[:2], task=task))
        found = converted(converted_processor(**clips(40, 35), text=TEXTS[:2], task=task))
        torch.testing.assert_close(found.loss, expected.loss)


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_the_published_name_of_every_weight_is_known(official, settings):
    model, processor, arguments = official(**settings)
    rates = {"audio": arguments["audio_rates"], "video": arguments["video_rates"]}
    shared = "_shared" if "task" in model.config.adapters else ""
    for name in official_state(model, processor):
        ours = official_name(name, rates)
        if ours is not None:
            assert published_name(ours, rates, shared) == name


@pytest.mark.parametrize("name", METHODS)
def test_the_row_of_a_method_is_recognised(make, name):
    model, _ = make(method=name)
    assert nearest_method(model.config) == name


def prompts(*names):
    return {f"prompt_{name}" for name in names}


def keep_prompts(*names):
    """A change of weights: drops the other prompts."""

    def change(weights):
        for name in prompts("audio", "video", "audiovisual") - prompts(*names):
            del weights[name]

    return change


@pytest.mark.parametrize(
    ("kept", "settings", "missing"),
    [
        (("audio", "video"), {"method": "omni-avsr-s"}, "prompt_audiovisual not found"),
        (("audiovisual",), {"method": "llama-mt"}, "prompt_audio, prompt_video not found"),
        ((), {}, "prompt_audio, prompt_video, prompt_audiovisual not found"),
    ],
)
def test_no_task_is_lost_in_silence(official, tmp_path, kept, settings, missing):
    _, _, arguments = official(keep_prompts(*kept), **settings)
    with pytest.raises(InputError, match=missing + ".* name its tasks with --tasks"):
        convert_official(**arguments, out=tmp_path / "out")


def test_tasks_that_are_given_need_no_prompts(official, tmp_path):
    _, _, arguments = official(keep_prompts("audio"), method="omni-avsr-s")
    for tasks in (("asr", "vsr"), ("asr", "vsr", "avsr")):
        out = tmp_path / "-".join(tasks)
        convert_official(**arguments, out=out, tasks=tasks)
        assert list(OmniAVSR.from_pretrained(out).config.tasks) == list(tasks)


def test_a_prompt_without_its_encoder_is_refused(official, tmp_path):
    def drop_video(weights):
        for name in list(weights):
            if name.startswith("video_"):
                del weights[name]

    _, _, arguments = official(drop_video, method="omni-avsr-s")
    with pytest.raises(InputError, match=r"prompt_video is of the task vsr, for which"):
        convert_official(**arguments, out=tmp_path / "out")


def list_or_value(model, field):
    """A field of the config; tuples become lists, as they do in a file."""
    value = getattr(model.config, field)
    return list(value) if isinstance(value, tuple) else value


def test_one_modality_is_read_from_its_keys(official, tmp_path):
    def drop_video(weights):
        for name in list(weights):
            if name.startswith(("video_", "prompt_")):
                del weights[name]

    settings = {"tasks": ["asr"], "projectors": "one", "adapters": ["shared"], **ONE_RATE}
    model, processor, arguments = official(drop_video, **settings)
    convert_official(**arguments, out=tmp_path / "out")
    converted = OmniAVSR.from_pretrained(tmp_path / "out")
    assert list(converted.config.tasks) == ["asr"]
    assert converted.video_encoder is None
    batch = processor(audio=clips(40)["audio"], text=TEXTS[:1], task="asr")
    torch.testing.assert_close(converted(batch).loss, model(batch).loss)


def spoil(name, value=None):
    """A change of weights: drops one, or replaces it with a function of it."""

    def change(weights):
        old = weights.pop(name)
        if value is not None:
            weights[name] = value(old)

    return change


def drop_encoders(weights):
    for name in list(weights):
        if not name.startswith("llm."):
            del weights[name]


@pytest.mark.parametrize(
    ("change", "changed_arguments", "message"),
    [
        (
            spoil("audio_proj.1.2.bias"),
            {},
            r"model_avg_1\.pth: 1 keys do not fit: audio_proj\.1\.2\.bias is missing",
        ),
        (
            spoil("llm.model.norm.weight", lambda w: w[:3]),
            {},
            r"llm\.model\.norm\.weight has shape \(3,\), \(32,\) expected",
        ),
        (
            spoil("prompt_video", lambda w: w + 1),
            {},
            "prompt_video in the file is not 'Transcribe video to text.'",
        ),
        (
            None,
            {"audio_rates": (4, 8, 16)},
            "the file has 2 audio projectors, audio rates 4,8,16 were given",
        ),
        (None, {"video_rates": ()}, "video rates none were given"),
        (None, {"audio_encoder": None}, "the file has an audio encoder: name it"),
        (None, {"llm": "/nonexistent"}, "nothing can be read from '/nonexistent'"),
        (drop_encoders, {}, "neither an audio nor a video encoder"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    official, tmp_path, change, changed_arguments, message
):
    _, _, arguments = official(change)
    arguments |= changed_arguments
    with pytest.raises(InputError, match=message):
        convert_official(**arguments, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def run(*command):
    arguments = [str(argument) for argument in command]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_print_what_was_renamed(official, tmp_path):
    _, _, arguments = official()
    output = run(
        *("convert", "official", arguments["file"], tmp_path / "out"),
        *("--llm", arguments["llm"], "--audio-encoder", arguments["audio_encoder"]),
        *("--audio-rates", "4,16", "--video-rates", "2,5"),
        *("--video-encoder", arguments["video_config"], "--tasks", "asr,vsr,avsr"),
    )
    old = r"llm\.model\.layers\.N\.self_attn\.lora_down_Q\.audio\.weight"
    assert re.search(old + r".*lora_A\.asr\.weight.*4", output)
    assert OmniAVSR.from_pretrained(tmp_path / "out").config.tasks == ("asr", "vsr", "avsr")
    output = run("convert", "avhubert", NARROW, tmp_path / "video")
    assert "mask_emb" in output
    assert "not needed" in output
