"""The published towers, of which only the shapes are made: nothing is downloaded or computed."""

import pytest
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, WhisperForConditionalGeneration

from omni_avsr import OmniAVSR
from omni_avsr.measure.sizes import config_of
from omni_avsr.model.adapters import plain
from omni_avsr.model.towers import build

# Parameters without a second copy of tied embeddings, as the hub counts most of them
LLMS = {
    "meta-llama/Llama-2-7b": 6_738_415_616,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
}
WHISPERS = {  # with their decoders
    "openai/whisper-tiny": 37_760_640,
    "openai/whisper-base": 72_593_920,
    "openai/whisper-small": 241_734_912,
    "openai/whisper-medium": 763_857_920,
    "openai/whisper-large-v2": 1_543_304_960,
    "openai/whisper-large-v3": 1_543_490_560,
    "openai/whisper-large-v3-turbo": 808_878_080,
}
AV_HUBERTS = {"base": 103, "large": 325}  # millions
NEW_TOKENS = 7  # that get an embedding: four markers and three tasks
ADAPTERS = ["asr", "avsr", "shared", "vsr"]
RANK = 64
FEW_LAYERS = 2


@pytest.fixture(autouse=True)
def meta():
    """Makes tensors without memory."""
    with torch.device("meta"):
        yield


def known(kind: str, name: str, layers: int | None = None) -> PreTrainedConfig:
    """The config of a published tower, with fewer layers if a number is given."""
    config = config_of(kind, name)
    assert config is not None
    if layers is not None:
        config.num_hidden_layers = layers
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[:layers]
    return config


def size(model: nn.Module) -> int:
    """The number of its parameters."""
    return sum(weight.numel() for weight in model.parameters())


def full_model(llm: str, audio: str = "openai/whisper-tiny", video: str = "base") -> OmniAVSR:
    """An omni-avsr-st whose towers have few layers."""
    kinds = {"audio": audio, "video": video, "llm": llm}
    towers = {kind: known(kind, name, FEW_LAYERS) for kind, name in kinds.items()}
    return OmniAVSR.from_towers(**towers, dtype=torch.bfloat16, lora_rank=RANK)


@pytest.mark.parametrize("name", LLMS)
def test_every_llm_has_its_published_number_of_parameters(name):
    llm = build("llm", known("llm", name), torch.bfloat16)
    assert size(llm) == LLMS[name]


@pytest.mark.parametrize("name", WHISPERS)
def test_every_whisper_has_its_published_number_of_parameters(name):
    config = known("audio", name)
    whole = WhisperForConditionalGeneration(config)
    assert size(whole) == WHISPERS[name]
    encoder = build("audio", config, torch.bfloat16)
    assert size(encoder) == size(whole.get_encoder())


@pytest.mark.parametrize("name", AV_HUBERTS)
def test_every_av_hubert_has_its_published_number_of_parameters(name):
    encoder = build("video", known("video", name), torch.bfloat16)
    assert round(size(encoder) / 1e6) == AV_HUBERTS[name]


@pytest.mark.parametrize("name", LLMS)
def test_every_llm_gets_its_loras_and_its_tokens(name):
    model = full_model(name)
    llm = plain(model.llm)
    config = known("llm", name)
    assert_loras(llm, config)
    vocabulary = config.vocab_size + NEW_TOKENS
    inputs, outputs = llm.get_input_embeddings(), llm.get_output_embeddings()
    assert inputs.weight.shape == outputs.weight.shape == (vocabulary, config.hidden_size)
    assert (inputs.weight is outputs.weight) == config.tie_word_embeddings
    embeds = torch.empty(2, 9, config.hidden_size, dtype=torch.bfloat16)
    assert llm(inputs_embeds=embeds).logits.shape == (2, 9, vocabulary)


def assert_loras(llm: PreTrainedModel, config: PreTrainedConfig) -> None:
    """Fails unless each layer's queries and values have all adapters, in float32."""
    widths = {
        "q_proj": config.num_attention_heads * config.head_dim,
        "v_proj": config.num_key_value_heads * config.head_dim,
    }
    expected = set()
    for layer in range(FEW_LAYERS):
        expected |= {f"model.layers.{layer}.self_attn.{target}" for target in widths}
    found = set()
    for name, module in llm.named_modules():
        if hasattr(module, "lora_A"):
            found.add(name)
            for adapter in ADAPTERS:
                matrix_a = module.lora_A[adapter].weight
                matrix_b = module.lora_B[adapter].weight
                assert matrix_a.shape == (RANK, config.hidden_size)
                assert matrix_b.shape == (widths[name.rpartition(".")[2]], RANK)
                assert matrix_a.dtype == matrix_b.dtype == torch.float32
    assert found == expected
    trained = {name for name, weight in llm.named_parameters() if weight.requires_grad}
    assert all(".lora_" in name for name in trained)


def test_llama_8b_with_large_encoders_is_built_whole():
    model = OmniAVSR.from_towers(
        known("audio", "openai/whisper-large-v3"),
        known("video", "large"),
        known("llm", "meta-llama/Llama-3.1-8B"),
        dtype=torch.bfloat16,
        lora_rank=RANK,
    )
    new_rows = 2 * NEW_TOKENS * 4096  # in both matrices
    adapted = 32 * (RANK * (4096 + 4096) + RANK * (4096 + 1024))  # by an adapter
    assert size(model.llm) == 8_030_261_248 + new_rows + len(ADAPTERS) * adapted


@pytest.mark.parametrize("name", WHISPERS)
def test_every_whisper_goes_into_the_llm(name):
    model = full_model("HuggingFaceTB/SmolLM2-135M", audio=name)
    config = model.config.audio_config
    sound = torch.empty(2, config.num_mel_bins, 3000, dtype=torch.bfloat16)
    features = model.audio_encoder(sound).last_hidden_state
    assert features.shape == (2, 1500, config.d_model)
    for projector in model.audio_compressor.projectors.values():
        assert projector(features.float()).shape == (2, 1500, 576)


@pytest.mark.parametrize("name", AV_HUBERTS)
def test_every_av_hubert_goes_into_the_llm(name):
    model = full_model("HuggingFaceTB/SmolLM2-135M", video=name)
    encoder = plain(model.video_encoder)
    width = model.config.video_config.hidden_size
    windows = torch.empty(3, 88, 88, 5, dtype=torch.bfloat16)
    assert encoder.frontend.images(windows).shape == (3, 512)
    fused = torch.empty(2, 40, width, dtype=torch.bfloat16)
    features = encoder.encoder(fused).last_hidden_state
    assert features.shape == (2, 40, width)
    for projector in model.video_compressor.projectors.values():
        assert projector(features.float()).shape == (2, 40, 576)
