"""Converted published models give the recorded losses, gradients and transcripts."""

import json
import re
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.convert.official import LoraScales, convert_official, official_name
from omni_avsr.convert.weights import read_weights
from omni_avsr.model.batch import Features
from omni_avsr.model.towers import build
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME, Route
from tests.support.recorded import (
    DATA,
    TASKS,
    WHOLE,
    config_folder,
    needs_whole_set,
    read_json,
    relative_error,
    save,
    whole_state_dict,
)
from tests.support.towers import whisper_config

SCALES = LoraScales(llm=0.5, video=2.0)  # of the recorded LoRAs
RATES = {"audio": (4, 16), "video": (2, 5)}
TASK_WEIGHTS = {"asr": 1.0, "vsr": 1.5, "avsr": 1.0}
VARIANTS = ["ST_avg_narrow", "ST_avg", "S_avg", "MT_avg", "LlamaAVSR_av_avg", "LlamaMTSK_av_avg"]


@dataclass(frozen=True)
class Published:
    """A converted model and what was recorded of the published one."""

    model: OmniAVSR
    processor: OmniAVSRProcessor
    rates: dict[str, tuple[int, ...]]
    name: str = ""

    def texts(self, tokens):
        """The transcripts of recorded token ids."""
        decode = self.processor.tokenizer.decode
        return [decode(row, skip_special_tokens=True) for row in tokens]


def convert(weights, folder, llm_config, whisper, rates, avhubert_config, name=""):
    """Converts a state dict with these configs of the towers."""
    file = save(weights, folder / "model_avg_1.pth")
    llm = config_folder(folder / "llm", llm_config)
    AutoTokenizer.from_pretrained(DATA / "tokenizer").save_pretrained(llm)
    convert_official(
        file,
        folder / "out",
        llm,
        config_folder(folder / "whisper", whisper),
        audio_rates=rates["audio"],
        video_rates=rates["video"],
        video_config=avhubert_config,
        lora_scales=SCALES,
    )
    return Published(
        model=OmniAVSR.from_pretrained(folder / "out"),
        processor=OmniAVSRProcessor.from_pretrained(folder / "out"),
        rates=rates,
        name=name,
    )


def rates_in(key):
    """The rates in a key such as a4_v2, a4_vNone or r(2, 4); None where it has none."""
    pair = re.search(r"r\((\d+), (\d+)\)", key)
    if pair:
        video_rate, audio_rate = map(int, pair.groups())
        return {"audio_rate": audio_rate, "video_rate": video_rate}
    audio = re.search(r"\ba(\d+)", key)
    video = re.search(r"_v(\d+)", key)
    return {
        "audio_rate": int(audio[1]) if audio else None,
        "video_rate": int(video[1]) if video else None,
    }


def task_in(key):
    """The task in a key such as gen.audio.a4_vNone.clip0.beam1; models of one task have none."""
    name = key.split(".")[1]
    return TASKS.get(name, "avsr")


def number_in(key, word):
    return int(re.search(rf"{word}(\d+)", key)[1])


@pytest.fixture(scope="module")
def recorded_st():
    return read_json(DATA / "omni_st.json")


@pytest.fixture(scope="module")
def recorded_weights():
    """The recorded LLM, LoRAs and projectors, with the encoders' features and the token ids."""
    return load_file(DATA / "omni_st.safetensors")


@pytest.fixture(scope="module")
def published_st(tmp_path_factory, recorded_st, recorded_weights):
    """Omni-AVSR-ST as recorded, with the recorded AV-HuBERT and any Whisper of that width."""
    folder = tmp_path_factory.mktemp("official")
    weights = {}
    for name, weight in recorded_weights.items():
        if name != "tokens" and not name.startswith("features."):
            weights[name] = weight
    weights["llm.lm_head.weight"] = weights["llm.model.embed_tokens.weight"].clone()
    for name, weight in read_weights(DATA / "avhubert_narrow.pt").weights.items():
        weights[f"video_encoder.{name}"] = weight
    whisper = whisper_config()
    whisper.d_model = recorded_weights["features.audio"].shape[2]
    whisper.encoder_attention_heads = 4
    for name, weight in build("audio", whisper, torch.float32).state_dict().items():
        weights[f"audio_encoder.{name}"] = weight
    avhubert_config = folder / "avhubert.json"
    avhubert_config.write_text(json.dumps({"encoder_attention_heads": 4, "layer_norm_first": True}))
    llm_config = recorded_st["llm_config"]
    return convert(weights, folder, llm_config, whisper.to_dict(), RATES, avhubert_config)


def features_of(weights, clips):
    """The recorded features of the first clips; frames that pad a clip count, as published."""
    audio = weights["features.audio"][:clips]
    video = weights["features.video"][:clips]
    return Features(
        audio=audio,
        audio_lengths=torch.full((clips,), audio.shape[1]),
        video=video,
        video_lengths=torch.full((clips,), video.shape[1]),
    )


def test_losses_from_features_on_are_the_recorded_ones(published_st, recorded_st, recorded_weights):
    model, processor = published_st.model, published_st.processor
    tokens = recorded_weights["tokens"]
    features = features_of(recorded_weights, len(tokens))
    text = published_st.texts(tokens)
    checked = 0
    for key, losses in recorded_st["losses"].items():
        for name, expected in losses.items():
            route = model.config.choose(TASKS[name], **rates_in(key))
            loss = model(processor.batch(features, route, text)).loss
            assert loss.item() == pytest.approx(expected, rel=1e-4), (key, name)
            checked += 1
    assert checked == 12


def test_transcripts_from_features_on_are_the_recorded_ones(
    published_st, recorded_st, recorded_weights
):
    model, processor = published_st.model, published_st.processor
    features = features_of(recorded_weights, 1)
    assert len(recorded_st["generated"]) == 16
    for key, expected in recorded_st["generated"].items():
        route = model.config.choose(task_in(key), **rates_in(key))
        batch = processor.batch(features, route)
        ids = model.generate(batch, num_beams=number_in(key, "beam"), max_new_tokens=12)
        assert ids[0].tolist() == expected, key


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    """A whole published-style model, converted."""
    name = request.param
    settings = read_json(WHOLE / "omni/ST_avg.json")
    has_one_rate = name in ("MT_avg", "LlamaAVSR_av_avg")
    return convert(
        whole_state_dict(name),
        tmp_path_factory.mktemp(name),
        settings["llama_config"],
        settings["whisper_config"],
        rates={"audio": (4,), "video": (2,)} if has_one_rate else RATES,
        avhubert_config=WHOLE / "avhubert/avhubert_config.json",
        name=name,
    )


def recorded_clips():
    """The recorded clips, cut to their true lengths, and the token ids of their transcripts."""
    recorded = load_file(WHOLE / "omni/batch.safetensors")
    audio, video = [], []
    clips = zip(recorded["audio"], recorded["video"], recorded["lengths"].tolist(), strict=True)
    for wave, frames, samples in clips:
        audio.append(wave[:samples, 0])
        video.append(frames[: samples // SAMPLES_PER_VIDEO_FRAME, 0])
    return {"audio": audio, "video": video}, recorded["tokens"]


def recorded_losses(name):
    """The recorded (route, loss) pairs; a route of one modality is recorded several times."""
    content = read_json(WHOLE / f"omni/{name}.json")
    if name == "LlamaAVSR_av_avg":
        return [(Route("avsr", 4, 2), content["loss"])]
    if name == "LlamaMTSK_av_avg":
        pairs = [(4, 2), (16, 2), (4, 5), (16, 5)]
        routes = [Route("avsr", *pair) for pair in pairs]
        losses = [call["loss"] for call in content["calls"]]
        return list(zip(routes, losses, strict=True))
    recorded = []
    for key, losses in content["losses"].items():
        if re.fullmatch(r"a\d+_v\d+", key):
            rates = rates_in(key)
            for task, loss in losses["unweighted"].items():
                recorded.append((route_of(TASKS[task], **rates), loss))
    return recorded


def route_of(task, audio_rate, video_rate):
    """The route of a task at a pair of rates, of which it takes what it needs."""
    return Route(
        task,
        None if task == "vsr" else audio_rate,
        None if task == "asr" else video_rate,
    )


@needs_whole_set
def test_losses_and_gradients_are_the_recorded_ones(variant):
    model, processor = variant.model, variant.processor
    clips, tokens = recorded_clips()
    media = processor.media(**clips, training=True)
    text = variant.texts(tokens)
    losses = {}
    for route, expected in recorded_losses(variant.name):
        losses[route] = model(processor.batch(media, route, text)).loss
        assert losses[route].item() == pytest.approx(expected, rel=1e-4), route
    step_loss(model, losses).backward()
    found = {}
    for name, parameter in model.named_parameters():
        found[name.replace("base_model.model.", "", 1)] = parameter.grad
    checked = 0
    for key, expected in load_file(WHOLE / f"omni/{variant.name}_grads.safetensors").items():
        if key.startswith("grad.") and expected.any():
            name = official_name(key.removeprefix("grad."), variant.rates)
            assert relative_error(found[name], expected) < 1e-3, key
            checked += 1
    assert checked >= 24


def step_loss(model, losses):
    """What the published step minimises.

    That is the weighted mean over the tasks at the first rates, or the mean over all rates.
    """
    if len(model.config.tasks) == 1:
        return sum(losses.values()) / len(losses)
    total = 0.0
    for task in model.config.tasks:
        total += TASK_WEIGHTS[task] * losses[route_of(task, audio_rate=4, video_rate=2)]
    return total / 3


@needs_whole_set
def test_transcripts_are_the_recorded_ones(variant):
    model, processor = variant.model, variant.processor
    clips, _ = recorded_clips()
    generated = read_json(WHOLE / f"omni/{variant.name}.json")["generated"]
    assert len(generated) >= 4
    for key, expected in generated.items():
        clip = number_in(key, "clip")
        batch = processor(
            audio=[clips["audio"][clip]],
            video=[clips["video"][clip]],
            task=task_in(key),
            **rates_in(key),
        )
        ids = model.generate(batch, num_beams=number_in(key, "beam"), max_new_tokens=12)
        assert ids[0].tolist() == expected, key
