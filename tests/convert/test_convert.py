"""Foreign files: safe to read, converted by what their keys say, refused when a key does not fit."""

import json
import os
import pickle
import re

import pytest
import torch
from typer.testing import CliRunner

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.cli.app import app
from omni_avsr.convert.official import convert_avhubert, convert_official, read
from tests.support.official import PROMPT_IDS, official_state
from tests.support.recorded import DATA, save
from tests.support.towers import TEXTS, clips

AS_PUBLISHED = {
    "task_tokens": {},
    "keep_tail": False,
    "mask_padding": False,
    "exact_audio_length": False,
    "audio_context": "padded",
}
HEADS = {"encoder_attention_heads": 2, "layer_norm_first": True}


class Malicious:
    """Runs a command when an unrestricted unpickler meets it."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_checkpoint_is_refused_and_nothing_runs(tmp_path, zipped):
    weights, _ = read(DATA / "avhubert_narrow.pt")
    state = {"model": weights, "task_state": {"dictionaries": [Malicious(tmp_path / "ran")]}}
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"x.pt refused: it wants to use (os|posix)\.system, not just weights"):
        convert_avhubert(tmp_path / "x.pt", tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


def test_a_bare_pickle_is_refused_and_nothing_runs(tmp_path):
    (tmp_path / "x.pt").write_bytes(pickle.dumps({"model": Malicious(tmp_path / "ran")}))
    with pytest.raises(ValueError, match=r"x\.pt (refused|is not a checkpoint)"):
        convert_avhubert(tmp_path / "x.pt", tmp_path / "out")
    assert not (tmp_path / "ran").exists()


def test_left_over_and_missing_keys_are_named(tmp_path):
    weights, rest = read(DATA / "avhubert_narrow.pt")
    weights["decoder.embed.weight"] = weights.pop("encoder.layers.1.fc1.bias")
    file = save({"model": weights, "cfg": {"model": rest["cfg"]["model"]}}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"2 keys do not fit: decoder\.embed\.weight has no place") as error:
        convert_avhubert(file, tmp_path / "out")
    assert "encoder.layers.1.feed_forward.intermediate_dense.bias is missing" in str(error.value)


def test_an_unknown_size_asks_for_its_config(tmp_path):
    weights, _ = read(DATA / "avhubert_narrow.pt")
    with pytest.raises(ValueError, match=r"AV-HuBERT of width 64 is neither 768 nor 1024: .* give its config"):
        convert_avhubert(save(weights, tmp_path / "x.pt"), tmp_path / "out")


@pytest.mark.parametrize("content", [b"", b"some text", b"\x89PNG"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content, suffix):
    (tmp_path / f"x.{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=r"not a checkpoint|refused"):
        read(tmp_path / f"x.{suffix}")


def test_a_full_folder_is_not_overwritten(tmp_path):
    (tmp_path / "note").write_text("mine")
    with pytest.raises(ValueError, match="exists and is not an empty folder"):
        convert_avhubert(DATA / "avhubert_narrow.pt", tmp_path)


@pytest.fixture
def official(make, tmp_path, tower_folders):
    """A published-style file of a variant, the model it stands for, and the command's options."""

    def build(changes=None, **settings):
        model, processor = make(**{**AS_PUBLISHED, "lora_alpha": 0.5, **settings})
        tokenizer = processor.tokenizer
        PROMPT_IDS.update(
            {t: tokenizer(p, add_special_tokens=False)["input_ids"] for t, p in model.config.prompts.items()}
        )
        weights = official_state(model)
        (changes or (lambda _: None))(weights)
        (tmp_path / "heads.json").write_text(json.dumps(HEADS))
        file = save(weights, tmp_path / "model_avg_1.pth")
        options = {"llm": tower_folders["llm"], "audio_encoder": tower_folders["audio"]}
        options |= {"audio_rates": list(model.config.audio_rates), "video_rates": list(model.config.video_rates)}
        return model, processor, {"file": file, **options, "video_config": tmp_path / "heads.json"}

    return build


VARIANTS = {
    "S": {"adapters": ["shared"]},
    "T": {"adapters": ["task"]},
    "ST": {},
    "stacking": {"compression": "stack", "video_projector_norm": False},
    "one projector": {"projectors": "one"},
    "no norm": {"audio_projector_norm": False, "video_projector_norm": False},
    "three rates": {"audio_rates": [2, 4, 16], "video_rates": [5, 1]},
    "stacking, one rate": {"compression": "stack", "projectors": "one", "audio_rates": [4], "video_rates": [2]},
    "Llama-AVSR": {
        "tasks": ["avsr"],
        "projectors": "one",
        "audio_rates": [4],
        "video_rates": [2],
        "adapters": ["shared"],
    },
    "no LoRA": {"adapters": [], "lora_rank": 0, "lora_alpha": 0.0, "video_lora_rank": 0},
}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_read_from_its_keys(official, tmp_path, settings):
    model, processor, options = official(**settings)
    convert_official(**options, out=tmp_path / "out")
    converted, converted_processor = (
        OmniAVSR.from_pretrained(tmp_path / "out"),
        OmniAVSRProcessor.from_pretrained(tmp_path / "out"),
    )
    for field in ("tasks", "adapters", "projectors", "compression", "lora_rank", "lora_alpha", "video_lora_rank"):
        assert getattr(converted.config, field) == getattr(model.config, field), field
    for task in model.config.tasks:
        batches = [p(**clips(40, 35), text=TEXTS[:2], task=task) for p in (processor, converted_processor)]
        torch.testing.assert_close(converted(**batches[1]).loss, model(**batches[0]).loss)


def test_one_modality_is_read_from_its_keys(official, tmp_path):
    def drop_video(weights):
        for name in [n for n in weights if n.startswith(("video_", "prompt_"))]:
            del weights[name]

    settings = {"tasks": ["asr"], "projectors": "one", "audio_rates": [4], "video_rates": [2], "adapters": ["shared"]}
    model, _, options = official(drop_video, **settings)
    convert_official(**options, out=tmp_path / "out")
    converted = OmniAVSR.from_pretrained(tmp_path / "out")
    assert list(converted.config.tasks) == ["asr"]
    batch = OmniAVSRProcessor.from_pretrained(tmp_path / "out")(audio=clips(40)["audio"], text=TEXTS[:1], task="asr")
    assert converted.video_encoder is None
    torch.testing.assert_close(converted(**batch).loss, model(**batch).loss)


def spoil(name, value=None):
    def change(weights):
        old = weights.pop(name)
        if value is not None:
            weights[name] = value(old)

    return change


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (spoil("audio_proj.1.2.bias"), {}, r"audio_compressor\.projectors\.16\.2\.bias is missing"),
        (
            spoil("llm.model.norm.weight", lambda w: w[:3]),
            {},
            r"llm\.model\.norm\.weight has shape \(3,\), \(32,\) expected",
        ),
        (spoil("prompt_video", lambda w: w + 1), {}, "prompt_video in the file is not 'Transcribe video to text.'"),
        (None, {"audio_rates": [4, 8, 16]}, r"the file has 2 audio projectors, audio rates \[4, 8, 16\] were given"),
        (None, {"audio_encoder": None}, "the file has an audio encoder: name it"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(official, tmp_path, change, options, message):
    *_, known = official(change)
    with pytest.raises(ValueError, match=message):
        convert_official(**{**known, **options}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_commands_print_what_was_renamed(official, tmp_path):
    *_, options = official()
    command = ["convert", "official", str(options["file"]), str(tmp_path / "out"), "--llm", options["llm"]]
    command += ["--audio-encoder", options["audio_encoder"], "--audio-rates", "4,16", "--video-rates", "2,5"]
    result = CliRunner().invoke(
        app, [*command, "--video-encoder", str(options["video_config"])], env={"COLUMNS": "200"}
    )
    assert result.exit_code == 0, result.output
    assert re.search(
        r"llm\.model\.layers\.N\.self_attn\.lora_down_Q\.audio\.weight.*lora_A\.asr\.weight.*4", result.output
    )
    result = CliRunner().invoke(app, ["convert", "avhubert", str(DATA / "avhubert_narrow.pt"), str(tmp_path / "video")])
    assert result.exit_code == 0, result.output
    assert "mask_emb" in result.output
    assert "not needed" in result.output
