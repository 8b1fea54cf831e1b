"""The model as a whole: routing, loss, decoding, merging, and one clear message per mistake."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoConfig

from omni_avsr import OmniAVSR, OmniAVSRConfig, OmniAVSRProcessor
from omni_avsr.errors import InputError
from omni_avsr.model import Features, loss
from omni_avsr.tasks import MODALITIES, VIDEO_FPS, Route, Task, longest_transcript
from tests.support.towers import (
    SMALL,
    TEXTS,
    avhubert_config,
    clips,
    llm_config,
    one_clip,
    whisper_config,
)

UNEVEN = (60, 6, 25, 11)  # lengths of clips, in video frames


@pytest.fixture(scope="module")
def default(make):
    """The default model and its processor, for tests that leave its weights alone."""
    return make()


@pytest.fixture(scope="module", params=[["shared", "task"], ["task", "scale"], []], ids="+".join)
def adapted(make, request):
    """A model with other adapters, and its processor, for tests that leave its weights alone."""
    return make(adapters=request.param)


def hidden_states(model, batch):
    """What each layer of the language model makes of a batch, computed in one plain pass."""
    llm = model.llm.get_base_model().model
    embeds = model.embed(batch)
    output = llm(
        inputs_embeds=embeds, attention_mask=batch.attention_mask, output_hidden_states=True
    )
    return output.hidden_states


def plain_loss(model, hidden, labels):
    """The cross-entropy of the labels after the last hidden states (B, L, D)."""
    logits = model.llm.get_output_embeddings()(hidden)[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())


def gradients(model, value):
    model.zero_grad()
    value.backward()
    named = model.named_parameters()
    return {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


@pytest.mark.parametrize("task", Task)
def test_the_loss_of_a_clip_does_not_depend_on_its_batch(default, task):
    model, processor = default
    together = model(processor(**clips(*UNEVEN), text=TEXTS, task=task)).loss
    total = tokens = 0
    for index, text in enumerate(TEXTS):
        batch = processor(**one_clip(clips(*UNEVEN), index), text=[text], task=task)
        count = int((batch.labels != -100).sum())
        total += model(batch).loss.item() * count
        tokens += count
    assert together.item() == pytest.approx(total / tokens, rel=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("task", Task)
def test_a_clip_is_decoded_alike_in_a_batch_and_by_itself(default, task, beams):
    model, processor = default
    options = {"num_beams": beams, "max_new_tokens": 12}
    together = model.generate(processor(**clips(*UNEVEN), task=task), **options)
    for index, ids in enumerate(together):
        batch = processor(**one_clip(clips(*UNEVEN), index), task=task)
        by_itself = model.generate(batch, **options)[0]
        assert ids[: len(by_itself)].tolist() == by_itself.tolist()
        assert (ids[len(by_itself) :] == model.config.pad_token_id).all()
    assert len({tuple(ids.tolist()) for ids in together}) > 1  # not the same for every clip


@pytest.mark.parametrize("task", Task)
def test_the_limit_of_a_transcript_grows_with_its_clip_and_not_with_its_batch(
    default, task, monkeypatch
):
    model, processor = default
    monkeypatch.setattr(model.config, "eos_token_id", -1)  # no transcript ends by itself
    lengths = (50, 6)
    batch = processor(**clips(*lengths), task=task)
    found = model.generate_with_scores(batch)
    assert found.is_cut.all()
    for place, frames in enumerate(lengths):
        limit = longest_transcript(frames / VIDEO_FPS)
        assert limit == 16 + int(20 * frames / 25)
        alone = model.generate(processor(**one_clip(clips(*lengths), place), task=task))
        assert alone.shape == (1, limit)
        assert torch.equal(found.ids[place, :limit], alone[0])
        assert (found.ids[place, limit:] == model.config.pad_token_id).all()
    shorter = model.generate(batch, max_new_tokens=[5, 3])
    assert shorter.shape == (2, 5)
    assert torch.equal(shorter[1, :3], found.ids[1, :3])
    with pytest.raises(InputError, match="3 limits in max_new_tokens for 2 clips"):
        model.generate(batch, max_new_tokens=[1, 2, 3])


@pytest.mark.parametrize("task", Task)
def test_only_the_modalities_of_a_task_change_its_loss(default, task):
    model, processor = default
    original = model(processor(**clips(20), text=TEXTS[:1], task=task)).loss
    for modality in MODALITIES:
        media = {**clips(20), modality: clips(20, seed=1)[modality]}
        changed = model(processor(**media, text=TEXTS[:1], task=task)).loss
        assert (changed != original) == (modality in task.modalities)


def test_features_serve_every_route(default):
    model, processor = default
    media = processor.media(**clips(30, 12))
    features = model.encode(media)
    for route in model.config.routes():
        of_media = processor.batch(media, route, TEXTS[:2])
        of_features = processor.batch(features, route, TEXTS[:2])
        torch.testing.assert_close(model(of_features).loss, model(of_media).loss)


@pytest.mark.parametrize("rank", [0, 4])
@pytest.mark.parametrize("blank", [False, True])
def test_what_frozen_layers_make_of_clips_can_be_kept(make, rank, blank):
    model, processor = make(video_lora_rank=rank)
    model.video_encoder.config.blank_padding = blank
    given = clips(20, 31, 8, 24)
    media = processor.media(given["audio"], given["video"])
    frozen = model.encode_frozen(media)
    width = model.config.frozen_width("video")
    assert frozen.video.shape == (4, 31, width)
    assert not frozen.video.requires_grad
    rest, whole = model.encode_rest(frozen), model.encode(media)
    for modality in ("audio", "video"):
        (values, lengths), (expected, true) = rest.of(modality), whole.of(modality)
        assert torch.equal(lengths, true)
        torch.testing.assert_close(values, expected, atol=1e-5, rtol=1e-4)


def test_the_features_are_as_long_as_the_media(default):
    model, processor = default
    features = model.encode(processor.media(**clips(30, 12)))
    assert features.modalities == MODALITIES
    assert features.of("audio")[0].shape[:2] == (2, 60)
    assert features.of("audio")[1].tolist() == [60, 24]
    assert features.of("video")[0].shape[:2] == (2, 30)
    assert features.of("video")[1].tolist() == [30, 12]


def test_a_batch_without_labels_gives_the_logits_of_its_last_position(default):
    model, processor = default
    batch = processor(**clips(30, 12), task="avsr")
    output = model(batch)
    assert output.loss is None
    first_tokens = model.generate(batch, max_new_tokens=1)
    assert torch.equal(output.logits.argmax(1), first_tokens[:, 0])


def test_the_score_of_a_transcript_is_the_loss_of_its_tokens(default):
    model, processor = default
    decoding = processor(**clips(20), task="avsr")
    ids, scores, *_ = model.generate_with_scores(decoding, num_beams=2, max_new_tokens=6)
    prefix = decoding.input_ids
    scored = replace(
        decoding,
        input_ids=torch.cat([prefix, ids], 1),
        attention_mask=torch.ones(1, prefix.shape[1] + ids.shape[1]).long(),
        labels=torch.cat([torch.full_like(prefix, -100), ids], 1),
    )
    assert scores.item() == pytest.approx(-model(scored).loss.item(), abs=1e-5)


def test_encoders_stay_in_eval_mode_during_training(make):
    model, processor = make()
    model.train()
    assert model.llm.training
    assert not any(module.training for module in model.video_encoder.modules())
    norm = model.video_encoder.get_base_model().frontend.bn3d
    before = norm.running_mean.clone()
    model(processor(**clips(12), text=TEXTS[:1], task="vsr"))
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("training", [True, False])
def test_decoding_restores_the_training_mode(make, training):
    model, processor = make()
    model.train(training)
    model.generate(processor(**clips(12), task="asr"), max_new_tokens=2)
    assert model.training == training
    assert model.llm.training == training


def test_the_tasks_differ_in_their_token_and_their_prompt(default):
    model, processor = default
    prompts = {}
    for task in Task:
        ids = processor(**clips(12), task=task).input_ids[0]
        assert model.config.special_tokens[f"<|{task}|>"] in ids
        prompts[task] = processor.tokenizer.decode(ids).split(">")[-1]
    assert prompts == {
        Task.ASR: "Transcribe speech to text.",
        Task.VSR: "Transcribe video to text.",
        Task.AVSR: "Transcribe speech and video to text.",
    }


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_sink_loss_is_the_squared_cosine_to_the_first_position(make, checkpointing):
    model, processor = make(sink_loss_weight=0.5)
    model.train()
    if checkpointing:
        model.activation_checkpointing_enable()
    batch = processor(**clips(12, 30), text=TEXTS[:2], task="avsr")
    output = model(batch)
    states = hidden_states(model, batch)
    special = model.config.special_tokens
    media = torch.tensor([special["<|audio|>"], special["<|video|>"]])
    places = torch.isin(batch.input_ids, media).nonzero().tolist()
    cosines = []
    for hidden in states[2:4]:  # the middle two of four layers
        for row, position in places:
            cosines.append(F.cosine_similarity(hidden[row, 0], hidden[row, position], dim=0))
    sink_loss = torch.stack(cosines).square().mean().item()
    assert output.sink_loss.item() == pytest.approx(sink_loss, rel=1e-4)
    total = plain_loss(model, states[-1], batch.labels).item() + 0.5 * sink_loss
    assert output.loss.item() == pytest.approx(total, rel=1e-5)
    output.loss.backward()
    first_layer = "base_model.model.model.layers.0.self_attn.q_proj"
    assert model.llm.get_parameter(f"{first_layer}.lora_A.avsr.weight").grad.any()


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_the_loss_in_chunks_has_the_value_and_gradients_of_the_plain_loss(
    default, monkeypatch, rows
):
    """Logits are computed a few rows at a time, and clips of similar length together."""
    model, processor = default
    batch = processor(**clips(*UNEVEN), text=TEXTS, task="avsr")
    plain = plain_loss(model, hidden_states(model, batch)[-1], batch.labels)
    expected = gradients(model, plain)
    vocabulary = model.llm.get_output_embeddings().out_features
    monkeypatch.setattr(loss, "LOGITS_AT_A_TIME", rows * vocabulary)
    found = model(batch).loss
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(gradients(model, found), expected, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model(batch).loss, plain)


def test_compiled_layers_give_the_same_loss(make):
    """Compiled by a backend that only traces; the real one takes a minute."""
    model, processor = make()
    batch = processor(**clips(20, 12), text=TEXTS[:2], task="avsr")
    expected = model(batch).loss
    torch._dynamo.reset()
    model.compile_layers(backend="eager")
    torch.testing.assert_close(model(batch).loss, expected)
    torch._dynamo.reset()


def test_layers_are_compiled_for_every_route_however_many_there_are(make):
    rates = {"audio_rates": [2, 4, 16], "video_rates": [2]}
    model, processor = make(method="llama-mtsk-ss", video_lora_rank=0, **rates)
    compiled = []

    def backend(graph, _):
        compiled.append(graph)
        return graph.forward

    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=2, accumulated_recompile_limit=2):
        model.compile_layers(backend=backend)
        with torch.no_grad():
            features = model.encode(processor.media(**clips(20, 12)))
        for route in model.config.routes():
            model(processor.batch(features, route, TEXTS[:2])).loss.backward()
    torch._dynamo.reset()
    assert len(compiled) == 3


@pytest.mark.parametrize("task", Task)
def test_a_merged_model_has_no_adapters_and_the_same_loss(adapted, tmp_path, task):
    model, processor = adapted
    route = model.config.choose(task, 16, 5)
    merged = model.merge(route)
    assert not [name for name, _ in merged.named_parameters() if "lora" in name]
    assert merged.config.tasks == (task,)
    assert merged.config.tasks[0] is task
    merged.save_pretrained(tmp_path, full=True)
    batch = processor.batch(processor.media(**clips(30, 12)), route, TEXTS[:2])
    expected = model(batch).loss
    for other in (merged, OmniAVSR.from_pretrained(tmp_path)):
        torch.testing.assert_close(other(batch).loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_model_can_be_built_from_configs(family, tokenizer):
    llm = llm_config(family)
    if family == "qwen2":
        tokenizer.bos_token = None
    towers = {"audio": whisper_config(), "video": avhubert_config(), "llm": llm}
    model = OmniAVSR.from_towers(**towers, tokenizer=tokenizer, **SMALL)
    processor = OmniAVSRProcessor(tokenizer, model.config)
    batch = processor(**clips(12), text=TEXTS[:1], task="avsr")
    begins_with_bos = batch.input_ids[0, 0].item() == 0
    assert begins_with_bos == (family == "llama")
    assert model(batch).loss.isfinite()


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_without_a_tokenizer_the_special_tokens_follow_the_vocabulary(family):
    llm = llm_config(family)
    towers = {
        "audio_config": whisper_config(),
        "video_config": avhubert_config(),
        "llm_config": llm,
    }
    model = OmniAVSR(OmniAVSRConfig(**towers, **SMALL))
    assert min(model.config.special_tokens.values()) == llm.vocab_size


def test_a_model_of_one_modality_needs_only_its_tower(tower_folders):
    towers = {kind: tower_folders[kind] for kind in ("video", "llm")}
    model = OmniAVSR.from_towers(**towers, tasks=["vsr"], **SMALL)
    assert model.audio_encoder is None
    with pytest.raises(InputError, match="tasks asr, vsr need a tower for audio, none is given"):
        OmniAVSR.from_towers(**towers, tasks=["asr", "vsr"], **SMALL)


def test_a_model_without_a_tower_refuses_its_media(tower_folders, default):
    towers = {kind: tower_folders[kind] for kind in ("video", "llm")}
    model = OmniAVSR.from_towers(**towers, tasks=["vsr"], **SMALL)
    media = default[1].media(**clips(12))
    with pytest.raises(InputError, match="this model has no audio tower: it only does vsr"):
        model.encode(media)
    assert model.encode(replace(media, audio=None)).modalities == ("video",)


def test_one_projector_for_all_rates_works_at_rates_that_were_not_trained(make):
    model, processor = make(projectors="one", audio_rates=[4], video_rates=[2])
    batch = processor(**clips(30), text=TEXTS[:1], task="asr", audio_rate=7)
    assert model(batch).loss.isfinite()


def test_a_batch_of_a_route_that_was_not_trained_is_refused(default):
    model, processor = default
    batch = processor(**clips(30), task="asr")
    with pytest.raises(InputError, match="audio rate 8 was not trained; this model has 4, 16"):
        model.generate(replace(batch, route=Route(Task.ASR, 8)))


def test_a_batch_that_lacks_a_modality_of_its_task_is_refused(default):
    model, processor = default
    batch = processor(**clips(12), task="avsr")
    audio_only = replace(batch.media, video=None, video_lengths=None)
    without_video = [
        replace(batch, media=audio_only),
        replace(batch, features=model.encode(audio_only)),
    ]
    for incomplete in without_video:
        with pytest.raises(InputError, match="task 'avsr' needs video, given: audio"):
            model.generate(incomplete)
    nothing = replace(batch, media=None, features=Features())
    with pytest.raises(InputError, match="task 'avsr' needs audio and video, given: nothing"):
        model.generate(nothing)


def test_features_with_nan_are_refused_with_their_clip(default):
    model, processor = default
    media = clips(12, 30)
    media["audio"][1][100] = torch.nan
    batch = processor(**media, text=TEXTS[:2], task="asr")
    message = r"NaN or infinite audio features in clips \[1\] of the batch, \d+ frames"
    with pytest.raises(InputError, match=message):
        model(batch)


def test_a_batch_that_was_made_at_other_rates_is_refused(default):
    model, processor = default
    batch = processor(**clips(30), text=TEXTS[:1], task="asr", audio_rate=4)
    with pytest.raises(InputError, match="15 placeholders for 4 audio tokens"):
        model(replace(batch, route=Route(Task.ASR, 16)))


def test_layers_that_the_llm_does_not_have_are_named(tower_folders):
    with pytest.raises(InputError, match=r"LlamaForCausalLM has no layers named q, v"):
        OmniAVSR.from_towers(**tower_folders, **SMALL, lora_targets=["q", "v"])


def test_a_tokenizer_with_more_tokens_than_the_llm_is_refused(tower_folders, tokenizer):
    given = {**tower_folders, **SMALL}
    tokenizer.add_special_tokens({"sep_token": "<sep>"})  # a special token is no part of a text
    tokenizer.add_special_tokens({"cls_token": "<cls>"})
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    OmniAVSR.from_towers(**given, tokenizer=tokenizer)
    tokenizer.add_tokens([f"word{i}" for i in range(9)])
    with pytest.raises(InputError, match="the LLM embeddings of 320 tokens: is it the tokenizer"):
        OmniAVSR.from_towers(**given, tokenizer=tokenizer)


def test_a_batch_for_training_cannot_be_decoded(default):
    model, processor = default
    batch = processor(**clips(30, 12), text=TEXTS[:2], task="asr")
    with pytest.raises(InputError, match="padding on the left"):
        model.generate(batch)


@pytest.mark.parametrize(
    "options", [{"num_beams": 0}, {"max_new_tokens": 0}, {"max_new_tokens": [0]}]
)
def test_decoding_needs_at_least_one_beam_and_one_token(default, options):
    model, processor = default
    with pytest.raises(InputError, match=r"num_beams .* and max_new_tokens .* must be 1 or more"):
        model.generate(processor(**clips(12), task="asr"), **options)


def test_more_beams_than_the_vocabulary_allows_are_refused(default):
    model, processor = default
    with pytest.raises(InputError, match=r"num_beams 161 is more than 160, half of the LLM's"):
        model.generate(processor(**clips(12), task="asr"), num_beams=161)


@pytest.mark.parametrize("kind", ["audio", "video", "llm"])
def test_a_tower_of_another_family_is_refused(tower_folders, kind):
    towers = {**tower_folders, kind: AutoConfig.for_model("wav2vec2")}
    with pytest.raises(InputError, match=f"unknown {kind} family 'wav2vec2'; available: "):
        OmniAVSR.from_towers(**towers)


def test_an_llm_that_scales_its_logits_is_refused(tower_folders):
    towers = {**tower_folders, "llm": AutoConfig.for_model("cohere")}
    with pytest.raises(InputError, match="'cohere' changes its logits"):
        OmniAVSR.from_towers(**towers)
