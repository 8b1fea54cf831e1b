"""LLMs in 8 and 4 bits: they train, decode, are saved and loaded, and say what they cannot do."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from omni_avsr import OmniAVSR
from omni_avsr.errors import InputError
from omni_avsr.model import quantize
from omni_avsr.model.adapters import plain
from omni_avsr.model.quantize import quantization_of
from omni_avsr.settings import DecodeSettings, TrainSettings
from tests.support.towers import TEXTS, clips, llm_config

BITS = ("8bit", "4bit")
NEAR = {"8bit": 0.01, "4bit": 0.1}  # relative difference of a loss to that of float32


@pytest.fixture(scope="module")
def single(make):
    return make()[0]


@pytest.fixture(scope="module", params=BITS)
def bits(request):
    return request.param


@pytest.fixture(scope="module")
def made(make, bits):
    """A quantised model, not to be changed but by its gradients, and its processor."""
    return make(quantize=bits)


def gradients(model, batch):
    """The gradients of a training step, by the names of the weights."""
    model.train()
    model.zero_grad()
    model(batch).loss.backward()
    named = model.named_parameters()
    return {name: weight.grad for name, weight in named if weight.grad is not None}


def test_only_the_layers_of_the_llm_are_quantised(made, bits):
    model, _ = made
    llm = plain(model.llm)
    assert quantization_of(llm) == bits
    layers = {weight for weight in llm.get_decoder().layers.parameters() if weight.dim() == 2}
    for name, weight in model.named_parameters():
        expected = torch.float32
        if weight in layers and not weight.requires_grad:
            expected = {"8bit": torch.int8, "4bit": torch.uint8}[bits]
        assert weight.dtype == expected, name
    assert type(llm.get_output_embeddings()) is nn.Linear  # whose loss keeps no logits


def test_losses_and_transcripts_are_near_those_of_whole_weights(made, single, bits):
    model, processor = made
    media = clips(30, 12)
    for task in model.config.tasks:
        batch = processor(**media, text=TEXTS[:2], task=task)
        with torch.no_grad():
            expected = single(batch).loss.item()
            assert model(batch).loss.item() == pytest.approx(expected, rel=NEAR[bits])
    prefix = processor(**media, task="avsr")
    for beams in (1, 3):
        found = model.generate_with_scores(prefix, beams, 4)
        expected = single.generate_with_scores(prefix, beams, 4)
        assert torch.allclose(found.scores, expected.scores, rtol=2 * NEAR[bits])


def test_a_step_after_a_validation_has_the_gradients_of_one_before(made, single):
    model, processor = made
    batch = processor(**clips(30, 12), text=TEXTS[:2], task="vsr")
    before = gradients(model, batch)
    assert before.keys() == gradients(single, batch).keys()
    model.generate(processor(**clips(12), task="vsr"), 2, 3)
    after = gradients(model, batch)
    assert before.keys() == after.keys()
    for name, gradient in before.items():
        assert torch.equal(gradient, after[name]), name


def test_recomputed_layers_have_the_same_gradients(make, made, bits):
    model, processor = made
    recomputed, _ = make(quantize=bits)
    recomputed.activation_checkpointing_enable()
    assert_same_gradients(recomputed, model, processor(**clips(30), text=TEXTS[:1], task="asr"))


def test_compiled_layers_have_the_same_gradients(make):
    model, processor = make(quantize="4bit")
    compiled, _ = make(quantize="4bit")
    compiled.compile_layers(backend="eager")
    assert_same_gradients(compiled, model, processor(**clips(30), text=TEXTS[:1], task="asr"))


def assert_same_gradients(one, other, batch):
    expected = gradients(other, batch)
    for name, gradient in gradients(one, batch).items():
        torch.testing.assert_close(gradient, expected[name], msg=name)


def test_the_scales_of_eight_bits_follow_the_weights_to_a_device(make):
    model, processor = make(quantize="8bit")
    model(processor(**clips(12), text=TEXTS[:1], task="asr"))  # keeps the scales beside the weights
    layer = plain(model.llm).get_decoder().layers[0].mlp.up_proj
    layer.weight = layer.weight.to("meta")
    layer.forward = lambda given: given  # there is nothing to multiply
    layer(torch.zeros(1))
    assert layer.state.CB.is_meta
    assert layer.state.SCB.is_meta


def test_a_saved_model_says_nothing_of_bits_and_is_quantised_anew(made, single, bits, tmp_path):
    model, processor = made
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert "bitsandbytes" not in (tmp_path / "config.json").read_text()
    batch = processor(**clips(12), text=TEXTS[:1], task="avsr")
    model.eval()  # training rounds no activations
    with torch.no_grad():
        loaded = OmniAVSR.from_pretrained(tmp_path, quantize=bits)
        assert torch.equal(loaded(batch).loss, model(batch).loss)
        whole = OmniAVSR.from_pretrained(tmp_path)
        assert torch.equal(whole(batch).loss, single(batch).loss)


def test_what_rounded_weights_are_not_good_for_is_refused(made, bits, tmp_path):
    model, _ = made
    with pytest.raises(InputError, match=f"full=True would write the rounded weights .* {bits}"):
        model.save_pretrained(tmp_path, full=True)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=f"cannot be merged into an LLM in {bits}, .*: load the"):
        model.merge(model.config.routes()[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantize": "4bit", "llm": llm_config()}, "a hub id or a folder, can be quantised"),
        ({"quantize": "3bit"}, "unknown quantisation '3bit'; available: 8bit, 4bit"),
    ],
)
def test_what_cannot_be_quantised_is_refused(make, settings, message):
    with pytest.raises(InputError, match=message):
        make(**settings)


def test_without_bitsandbytes_a_sentence_says_how_to_install_it(make, monkeypatch):
    monkeypatch.setattr(quantize, "find_spec", lambda _: None)
    message = r"an LLM in 4bit needs bitsandbytes: pip install 'omni-avsr\[quantize\]'"
    with pytest.raises(InputError, match=message):
        make(quantize="4bit")


def test_an_llm_that_was_saved_in_four_bits_is_taken_as_it_is(made_folder, make):
    with pytest.raises(InputError, match="is quantised already: leave quantize"):
        make(llm=made_folder, quantize="8bit")
    model, processor = make(llm=made_folder)
    assert quantization_of(plain(model.llm)) == "4bit"
    assert gradients(model, processor(**clips(12), text=TEXTS[:1], task="asr"))


@pytest.fixture
def made_folder(tower_folders, tmp_path):
    """An LLM that somebody has quantised and saved, with its tokenizer."""
    settings = BitsAndBytesConfig(load_in_4bit=True)
    llm = AutoModelForCausalLM.from_pretrained(tower_folders["llm"], quantization_config=settings)
    llm.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tower_folders["llm"]).save_pretrained(tmp_path)
    return str(tmp_path)


def test_contradictions_are_refused_before_anything_is_read():
    with pytest.raises(InputError, match="strategy fsdp cannot shard an LLM in 8bit"):
        TrainSettings(strategy="fsdp", quantize="8bit")
    with pytest.raises(InputError, match=r"an LLM in 4bit, .*: leave merge or quantize"):
        DecodeSettings(merge=True, quantize="4bit")
    with pytest.raises(InputError, match="quantize"):
        DecodeSettings(quantize="2bit")
