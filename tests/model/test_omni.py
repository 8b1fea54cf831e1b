"""The model as a whole: routing, loss, decoding, and the one clear sentence for each mistake."""

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig

from omni_avsr import OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor
from omni_avsr.model import loss
from omni_avsr.tasks import Task
from tests.support.towers import SMALL, TEXTS, avhubert_config, clips, llm_config, whisper_config

UNEVEN = (60, 6, 25, 11)


@pytest.mark.parametrize("task", Task)
def test_a_clips_loss_does_not_depend_on_its_batch(make, task):
    model, processor = make()
    whole = model(**processor(**clips(*UNEVEN), text=TEXTS, task=task))
    alone = []
    for i, text in enumerate(TEXTS):
        media = {modality: [clip[i]] for modality, clip in clips(*UNEVEN).items()}
        batch = processor(**media, text=[text], task=task)
        alone.append((model(**batch).loss.item(), int((batch["labels"] != -100).sum())))
    tokens = sum(count for _, count in alone)
    assert whole.loss.item() == pytest.approx(sum(loss * count for loss, count in alone) / tokens, rel=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("task", Task)
def test_a_batch_is_decoded_as_its_clips_alone(make, task, beams):
    model, processor = make()
    options = {"num_beams": beams, "max_new_tokens": 12}
    together = model.generate(**processor(**clips(*UNEVEN), task=task), **options)
    for i, ids in enumerate(together):
        media = {modality: [clip[i]] for modality, clip in clips(*UNEVEN).items()}
        alone = model.generate(**processor(**media, task=task), **options)[0]
        assert ids[: len(alone)].tolist() == alone.tolist()
        assert (ids[len(alone) :] == model.config.pad_token_id).all()
    assert len({tuple(ids.tolist()) for ids in together}) > 1  # not a fixed point


@pytest.mark.parametrize("task", Task)
def test_only_what_a_task_needs_reaches_it(make, task):
    model, processor = make()
    loss = model(**processor(**clips(20), text=TEXTS[:1], task=task)).loss
    for modality in ("audio", "video"):
        media = {**clips(20), modality: clips(20, seed=1)[modality]}
        changed = model(**processor(**media, text=TEXTS[:1], task=task)).loss
        assert (changed != loss) == (modality in model.config.modalities(task))


def test_features_serve_every_task_and_rate(make):
    model, processor = make()
    media = processor.media(**clips(30, 12))
    features = model.encode(**media)
    for task, audio_rate, video_rate in (("asr", 16, None), ("vsr", None, 5), ("avsr", 4, 5)):
        batch = processor(**clips(30, 12), text=TEXTS[:2], task=task, audio_rate=audio_rate, video_rate=video_rate)
        shared = {key: value for key, value in batch.items() if key not in media}
        torch.testing.assert_close(model(**shared, features=features).loss, model(**batch).loss)


def test_frozen_encoders_stay_in_eval_mode(make):
    model, processor = make()
    model.train()
    assert model.llm.training
    assert not any(module.training for module in model.video_encoder.modules())
    before = model.video_encoder.get_base_model().frontend.bn3d.running_mean.clone()
    model(**processor(**clips(12), text=TEXTS[:1], task="vsr"))
    assert torch.equal(before, model.video_encoder.get_base_model().frontend.bn3d.running_mean)


def test_the_task_token_and_the_prompt_tell_the_tasks_apart(make):
    model, processor = make()
    rows = [processor(**clips(12), task=task)["input_ids"][0] for task in Task]
    ends = [processor.tokenizer.decode(row[row >= 0]).split(">")[-1] for row in rows]
    assert ends == ["Transcribe speech to text.", "Transcribe video to text.", "Transcribe speech and video to text."]
    for task, row in zip(Task, rows, strict=True):
        assert model.config.special_tokens[f"<|{task}|>"] in row


@pytest.mark.parametrize("checkpointing", [False, True])
def test_sink_loss_is_the_squared_cosine_to_the_first_position(make, checkpointing):
    model, processor = make(sink_loss_weight=0.5)
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable()
    batch = processor(**clips(12, 30), text=TEXTS[:2], task="avsr")
    output = model(**batch)
    embeds = model.embed(**{k: v for k, v in batch.items() if k not in ("labels", "attention_mask")})
    llm = model.llm.get_base_model().model
    states = llm(inputs_embeds=embeds, attention_mask=batch["attention_mask"], output_hidden_states=True).hidden_states
    media = torch.isin(
        batch["input_ids"], torch.tensor([model.config.special_tokens[f"<|{m}|>"] for m in ("audio", "video")])
    )
    cosines = [F.cosine_similarity(h[i, 0], h[i, p], dim=0) for h in states[2:4] for i, p in media.nonzero().tolist()]
    assert output.sink_loss.item() == pytest.approx(torch.stack(cosines).square().mean().item(), rel=1e-4)
    logits = model.llm.get_output_embeddings()(states[-1])
    plain = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    assert output.loss.item() == pytest.approx(plain.item() + 0.5 * output.sink_loss.item(), rel=1e-5)
    output.loss.backward()
    assert model.llm.get_parameter("base_model.model.model.layers.0.self_attn.q_proj.lora_A.avsr.weight").grad.any()


def test_the_loss_and_its_gradients_are_the_plain_ones_whatever_the_chunk(make, monkeypatch):
    """Logits a few rows at a time, rows of similar lengths together."""
    model, processor = make()
    batch = processor(**clips(*UNEVEN), text=TEXTS, task="avsr")
    llm = model.llm.get_base_model()

    def gradients(value):
        model.zero_grad()
        value.backward()
        return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}

    embeds = model.embed(**{k: v for k, v in batch.items() if k not in ("labels", "attention_mask")})
    logits = llm(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits[:, :-1].flatten(0, 1)
    plain = F.cross_entropy(logits, batch["labels"][:, 1:].flatten())
    expected = gradients(plain)
    for rows in (1, 7, 1000):
        monkeypatch.setattr(loss, "LOGITS", rows * logits.shape[1])
        found = model(**batch).loss
        torch.testing.assert_close(found, plain)
        torch.testing.assert_close(gradients(found), expected, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).loss, plain)


def test_compiled_layers_are_the_same_layers(make):
    """Compiled by a backend that only traces; the real one takes a minute."""
    model, processor = make()
    batch = processor(**clips(20, 12), text=TEXTS[:2], task="avsr")
    expected = model(**batch).loss
    torch._dynamo.reset()
    model.compile_layers(backend="eager")
    torch.testing.assert_close(model(**batch).loss, expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("adapters", [["shared", "task"], ["task", "scale"], []])
@pytest.mark.parametrize("task", Task)
def test_a_merged_model_is_plain_and_equal(make, tmp_path, adapters, task):
    model, processor = make(adapters=adapters)
    merged = model.merge(task, audio_rate=16, video_rate=5)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    merged.save_pretrained(tmp_path, full=True)
    batch = processor(**clips(30, 12), text=TEXTS[:2], task=task, audio_rate=16, video_rate=5)
    for other in (merged, OmniAVSR.from_pretrained(tmp_path)):
        torch.testing.assert_close(other(**batch).loss, model(**batch).loss, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_model_builds_from_configs_alone(family, tokenizer):
    llm = llm_config(family)
    if family == "qwen2":
        tokenizer.bos_token = None
    towers = {"audio": whisper_config(), "video": avhubert_config(), "llm": llm}
    model = OmniAVSR.from_towers(**towers, tokenizer=tokenizer, **SMALL)
    processor = OmniAVSRProcessor(tokenizer, model.config)
    batch = processor(**clips(12), text=TEXTS[:1], task="avsr")
    assert (batch["input_ids"][0, 0].item() == 0) == (family == "llama")
    assert model(**batch).loss.isfinite()
    again = OmniAVSR(OmniAVSRConfig(**{f"{k}_config": c for k, c in towers.items()}, **SMALL))
    assert min(again.config.special_tokens.values()) == llm.vocab_size


def test_one_modality_needs_one_tower(tower_folders):
    towers = {kind: tower_folders[kind] for kind in ("video", "llm")}
    assert OmniAVSR.from_towers(**towers, tasks=["vsr"], **SMALL).audio_encoder is None
    with pytest.raises(ValueError, match="tasks asr, vsr need an audio tower, none is given"):
        OmniAVSR.from_towers(**towers, tasks=["asr", "vsr"], **SMALL)


def test_one_projector_for_all_decodes_at_rates_never_trained(make):
    model, processor = make(projectors="one", audio_rates=[4], video_rates=[2])
    assert model(**processor(**clips(30), text=TEXTS[:1], task="asr", audio_rate=7)).loss.isfinite()


def test_a_rate_that_was_not_trained_is_refused(make):
    _, processor = make()
    with pytest.raises(ValueError, match="audio rate 8 was not trained; this model has 4, 16"):
        processor(**clips(12), task="asr", audio_rate=8)


def test_a_task_without_its_modality_is_refused(make):
    model, processor = make()
    with pytest.raises(ValueError, match="task 'avsr' needs video, given: audio"):
        processor(audio=clips(12)["audio"], task="avsr")
    batch = processor(**clips(12), task="avsr")
    with pytest.raises(ValueError, match="task 'avsr' needs video, given: audio"):
        model.generate(**{k: v for k, v in batch.items() if k not in ("video", "video_lengths")})


def test_a_task_that_was_not_trained_is_refused(make):
    _, processor = make(tasks=["asr", "avsr"])
    with pytest.raises(ValueError, match="task 'vsr' was not trained; this model has asr, avsr"):
        processor(**clips(12), task="vsr")


def test_nan_features_are_refused_with_their_clip(make):
    model, processor = make()
    media = clips(12, 30)
    media["audio"][1][100] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite audio features in clips \[1\] of the batch, \d+ frames"):
        model(**processor(**media, text=TEXTS[:2], task="asr"))


def test_a_batch_of_other_rates_is_refused(make):
    model, processor = make()
    batch = {**processor(**clips(30), text=TEXTS[:1], task="asr", audio_rate=4), "audio_rate": 16}
    with pytest.raises(ValueError, match="15 placeholders for 4 audio tokens"):
        model(**batch)


def test_a_training_batch_is_not_decoded(make):
    model, processor = make()
    with pytest.raises(ValueError, match="padding on the left"):
        model.generate(**processor(**clips(30, 12), text=TEXTS[:2], task="asr"))


def test_a_tower_of_another_family_is_refused(tower_folders):
    for kind in ("audio", "video", "llm"):
        with pytest.raises(ValueError, match=f"unknown {kind} family 'wav2vec2'; available: "):
            OmniAVSR.from_towers(**{**tower_folders, kind: AutoConfig.for_model("wav2vec2")})


def test_an_llm_that_scales_its_logits_is_refused(tower_folders):
    with pytest.raises(ValueError, match="'cohere' changes its logits"):
        OmniAVSR.from_towers(**{**tower_folders, "llm": AutoConfig.for_model("cohere")})


def test_every_unknown_setting_is_named_at_once(tower_folders):
    with pytest.raises(
        ValueError, match=r"unknown compression 'max'.*unknown adapters 'speaker'.*available: shared, task, scale"
    ):
        OmniAVSR.from_towers(**tower_folders, compression="max", adapters=["speaker"])
