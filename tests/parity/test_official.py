"""Converted published models give the recorded losses, gradients and transcripts."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.convert.official import _official_name, convert_official, read
from tests.support.recorded import (
    DATA,
    TASKS,
    WHOLE,
    config_folder,
    needs_whole_set,
    relative_error,
    save,
    whole_state_dict,
)
from tests.support.towers import whisper_config

SCALES = (0.5, 2.0)  # of the recorded LoRAs
RATES = {"audio": [4, 16], "video": [2, 5]}


def convert(weights, tmp_path, llm_config, whisper, rates, **options):
    """The converted model and its processor, from a state dict and two configs."""
    file = save(weights, tmp_path / "model_avg_1.pth")
    llm = config_folder(tmp_path / "llm", llm_config)
    AutoTokenizer.from_pretrained(DATA / "tokenizer").save_pretrained(llm)
    whisper = config_folder(tmp_path / "whisper", whisper)
    convert_official(file, tmp_path / "out", llm, whisper, *rates.values(), lora_scales=SCALES, **options)
    return OmniAVSR.from_pretrained(tmp_path / "out"), OmniAVSRProcessor.from_pretrained(tmp_path / "out")


def rates_of(name: str) -> dict[str, int]:
    return {
        f"{'audio' if m[1] == 'a' else 'video'}_rate": int(m[2])
        for m in re.finditer(r"\b_?([av])(\d+)", name.replace("_", " "))
    }


@pytest.fixture(scope="module")
def published_st(tmp_path_factory):
    """Omni-AVSR-ST: the recorded projectors, LLM and LoRAs, the recorded AV-HuBERT, any Whisper of that width."""
    weights = load_file(DATA / "omni_st.safetensors")
    features = {m: weights.pop(f"features.{m}") for m in ("audio", "video")}
    tokens = weights.pop("tokens")
    weights["llm.lm_head.weight"] = weights["llm.model.embed_tokens.weight"].clone()
    video, _ = read(DATA / "avhubert_narrow.pt")
    weights |= {f"video_encoder.{name}": w for name, w in video.items()}
    from omni_avsr.model.towers import build

    config = whisper_config()
    config.d_model, config.encoder_attention_heads = features["audio"].shape[2], 4
    weights |= {f"audio_encoder.{n}": w for n, w in build("audio", config, torch.float32).state_dict().items()}
    recorded = json.loads((DATA / "omni_st.json").read_text())
    folder = tmp_path_factory.mktemp("official")
    (folder / "avhubert.json").write_text(json.dumps({"encoder_attention_heads": 4, "layer_norm_first": True}))
    options = {"video_config": folder / "avhubert.json"}
    parts = (weights, folder, recorded["llm_config"], config.to_dict(), RATES)
    return *convert(*parts, **options), features, tokens, recorded


def batch(model, processor, features, task, rates, tokens=None):
    """What the published code makes of features: frames that pad a clip are tokens."""
    frames = {m: torch.full((len(f),), f.shape[1]) for m, f in features.items()}
    media = {**features, "audio_lengths": 320 * frames["audio"], "video_lengths": frames["video"]}
    text = None if tokens is None else [processor.tokenizer.decode(t, skip_special_tokens=True) for t in tokens]
    ids = processor.tokens(
        media, task, model.config.choose(task, rates.get("audio_rate"), rates.get("video_rate")), text
    )
    return {**ids, "task": task, "features": {m: (f, frames[m]) for m, f in features.items()}, **rates}


def test_losses_from_features_on_are_the_recorded_ones(published_st):
    model, processor, features, tokens, recorded = published_st
    for pair, losses in recorded["losses"].items():
        for name, expected in losses.items():
            loss = model(**batch(model, processor, features, TASKS[name], rates_of(pair), tokens)).loss
            assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_transcripts_from_features_on_are_the_recorded_ones(published_st):
    model, processor, features, _, recorded = published_st
    first = {m: f[:1] for m, f in features.items()}
    assert len(recorded["generated"]) == 16
    for key, expected in recorded["generated"].items():
        _, name, pair, _, beams = key.split(".")
        inputs = batch(model, processor, first, TASKS[name], rates_of(pair))
        ids = model.generate(**inputs, num_beams=int(beams.removeprefix("beam")), max_new_tokens=12)
        assert ids[0].tolist() == expected, key


VARIANTS = ["ST_avg_narrow", "ST_avg", "S_avg", "MT_avg", "LlamaAVSR_av_avg", "LlamaMTSK_av_avg"]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    """A whole published-style model, converted, with what was recorded of it."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    settings = json.loads((WHOLE / "omni/ST_avg.json").read_text())
    single = name in ("MT_avg", "LlamaAVSR_av_avg")
    rates = {"audio": [4], "video": [2]} if single else RATES
    parts = (whole_state_dict(name), folder, settings["llama_config"], settings["whisper_config"], rates)
    model, processor = convert(*parts, video_config=WHOLE / "avhubert/avhubert_config.json")
    return name, model, processor, rates


def media():
    """The recorded clips, cut to their true lengths."""
    recorded = load_file(WHOLE / "omni/batch.safetensors")
    lengths = recorded["lengths"].tolist()
    audio = [wave[:n, 0] for wave, n in zip(recorded["audio"], lengths, strict=True)]
    video = [frames[: n // 640, 0] for frames, n in zip(recorded["video"], lengths, strict=True)]
    return {"audio": audio, "video": video}, recorded["tokens"]


def recorded_losses(name):
    content = json.loads((WHOLE / f"omni/{name}.json").read_text())
    if name == "LlamaAVSR_av_avg":
        return {("avsr", 4, 2): content["loss"]}
    if name == "LlamaMTSK_av_avg":
        return {
            ("avsr", a, v): c["loss"]
            for (v, a), c in zip([(2, 4), (2, 16), (5, 4), (5, 16)], content["calls"], strict=True)
        }
    pairs = {
        pair: losses["unweighted"]
        for pair, losses in content["losses"].items()
        if pair.startswith("a") and "_v" in pair
    }
    return {(TASKS[t], *rates_of(pair).values()): loss for pair, losses in pairs.items() for t, loss in losses.items()}


@needs_whole_set
def test_losses_and_gradients_are_the_recorded_ones(variant):
    name, model, processor, rates = variant
    clips, tokens = media()
    text = [processor.tokenizer.decode(t, skip_special_tokens=True) for t in tokens]
    losses = {}
    for (task, audio_rate, video_rate), expected in recorded_losses(name).items():
        inputs = processor(**clips, text=text, task=task, audio_rate=audio_rate, video_rate=video_rate)
        losses[task, audio_rate, video_rate] = model(**inputs).loss
        assert losses[task, audio_rate, video_rate].item() == pytest.approx(expected, rel=1e-4)
    weights = {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}
    first = [weights[task] * loss for (task, a, v), loss in losses.items() if (a, v) == (4, 2)]
    (sum(first) / 3 if len(model.config.tasks) == 3 else sum(losses.values()) / len(losses)).backward()
    gradients = load_file(WHOLE / f"omni/{name}_grads.safetensors")
    found = {n.replace("base_model.model.", "", 1): w.grad for n, w in model.named_parameters()}
    checked = 0
    for key, expected in gradients.items():
        if key.startswith("grad.") and expected.any():
            assert relative_error(found[_official_name(key.removeprefix("grad."), rates)], expected) < 1e-3, key
            checked += 1
    assert checked >= 24


@needs_whole_set
def test_transcripts_are_the_recorded_ones(variant):
    name, model, processor, _ = variant
    clips, _ = media()
    generated = json.loads((WHOLE / f"omni/{name}.json").read_text())["generated"]
    for key, expected in generated.items():
        clip, beams = (int(re.search(rf"{word}(\d)", key)[1]) for word in ("clip", "beam"))
        pair = re.search(r"r\((\d+), (\d+)\)", key)
        task = next((TASKS[t] for t in TASKS if f"gen.{t}." in key), "avsr")
        rates = {"video_rate": int(pair[1]), "audio_rate": int(pair[2])} if pair else rates_of(key.split(".")[2])
        inputs = processor(**{m: c[clip : clip + 1] for m, c in clips.items()}, task=task, **rates)
        assert model.generate(**inputs, num_beams=beams, max_new_tokens=12)[0].tolist() == expected, key
    assert len(generated) >= 4
