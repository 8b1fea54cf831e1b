"""The sizes of published towers by their hub names, for plans and tests without a network.

The table has what decides parameters, memory and FLOPs. What only changes values, such as the base
of rotary angles, is at the defaults of transformers: these configs are not for loading weights.
"""

from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config, WhisperConfig

from omni_avsr.model import AVHubertConfig

LONGEST = 8192  # positions; more than any clip takes
SUFFIXES = ("-Instruct", "-Base", "-hf")  # of names whose sizes are those without it
MEL_BANDS = 80
MEL_BANDS_V3 = 128


@dataclass(frozen=True)
class _Decoder:
    """A language model's sizes."""

    family: Any  # its class of configs
    sizes: tuple[int, ...]  # width, layers, heads, key-value heads, inner width
    vocabulary: int
    tied: bool  # whether input and output embeddings are one matrix
    head_width: int = 0  # 0: width / heads
    bos: int | None = None
    eos: int = 0

    def config(self) -> PreTrainedConfig:
        """Its config."""
        width, layers, heads, key_value_heads, inner = self.sizes
        return self.family(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads,
            intermediate_size=inner,
            vocab_size=self.vocabulary,
            tie_word_embeddings=self.tied,
            head_dim=self.head_width or width // heads,
            max_position_embeddings=LONGEST,
            bos_token_id=self.bos,
            eos_token_id=self.eos,
        )


def _llama(*sizes: int, tied: bool) -> _Decoder:
    return _Decoder(LlamaConfig, sizes, 128_256, tied, bos=128_000, eos=128_001)


def _smollm(*sizes: int) -> _Decoder:
    return _Decoder(LlamaConfig, sizes, 49_152, tied=True, bos=0, eos=0)


def _qwen2(*sizes: int, vocabulary: int = 151_936, tied: bool = True) -> _Decoder:
    return _Decoder(Qwen2Config, sizes, vocabulary, tied, eos=151_643)


def _qwen3(*sizes: int, tied: bool = True) -> _Decoder:
    return _Decoder(Qwen3Config, sizes, 151_936, tied, head_width=128, eos=151_643)


# Width, layers, heads, key-value heads, inner width
DECODERS = {
    "meta-llama/Llama-2-7b": _Decoder(
        LlamaConfig, (4096, 32, 32, 32, 11_008), 32_000, tied=False, bos=1, eos=2
    ),
    "meta-llama/Llama-3.1-8B": _llama(4096, 32, 32, 8, 14_336, tied=False),
    "meta-llama/Llama-3.2-1B": _llama(2048, 16, 32, 8, 8192, tied=True),
    "meta-llama/Llama-3.2-3B": _llama(3072, 28, 24, 8, 8192, tied=True),
    "Qwen/Qwen2.5-0.5B": _qwen2(896, 24, 14, 2, 4864),
    "Qwen/Qwen2.5-1.5B": _qwen2(1536, 28, 12, 2, 8960),
    "Qwen/Qwen2.5-3B": _qwen2(2048, 36, 16, 2, 11_008),
    "Qwen/Qwen2.5-7B": _qwen2(3584, 28, 28, 4, 18_944, vocabulary=152_064, tied=False),
    "Qwen/Qwen3-0.6B": _qwen3(1024, 28, 16, 8, 3072),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 28, 16, 8, 6144),
    "Qwen/Qwen3-4B": _qwen3(2560, 36, 32, 8, 9728),
    "Qwen/Qwen3-8B": _qwen3(4096, 36, 32, 8, 12_288, tied=False),
    "HuggingFaceTB/SmolLM2-135M": _smollm(576, 30, 9, 3, 1536),
    "HuggingFaceTB/SmolLM2-360M": _smollm(960, 32, 15, 5, 2560),
    "HuggingFaceTB/SmolLM2-1.7B": _smollm(2048, 24, 32, 32, 8192),
}

# Width, layers of the encoder, heads, layers of the decoder, mel bands
WHISPERS = {
    "openai/whisper-tiny": (384, 4, 6, 4, MEL_BANDS),
    "openai/whisper-base": (512, 6, 8, 6, MEL_BANDS),
    "openai/whisper-small": (768, 12, 12, 12, MEL_BANDS),
    "openai/whisper-medium": (1024, 24, 16, 24, MEL_BANDS),
    "openai/whisper-large": (1280, 32, 20, 32, MEL_BANDS),
    "openai/whisper-large-v2": (1280, 32, 20, 32, MEL_BANDS),
    "openai/whisper-large-v3": (1280, 32, 20, 32, MEL_BANDS_V3),
    "openai/whisper-large-v3-turbo": (1280, 32, 20, 4, MEL_BANDS_V3),
}
ENGLISH = ("tiny", "base", "small", "medium")  # which there are as .en too
TOKENS = {"english": 51_864, "multilingual": 51_865, "v3": 51_866}

# Width, layers, heads, norm before each block
AV_HUBERTS = {"base": (768, 12, 12, False), "large": (1024, 24, 16, True)}


def known_sizes(kind: str) -> list[str]:
    """The names of a kind of towers, audio, video or llm, whose sizes are known."""
    english = [f"openai/whisper-{size}.en" for size in ENGLISH]
    names = {"audio": [*WHISPERS, *english], "video": [*AV_HUBERTS], "llm": [*DECODERS]}
    return names[kind]


def config_of(kind: str, name: str) -> PreTrainedConfig | None:
    """The config of a tower by its hub name; None if the table does not have it."""
    if kind == "llm":
        decoder = DECODERS.get(_without_suffix(name))
        return decoder.config() if decoder else None
    if name not in known_sizes(kind):
        return None
    return _whisper(name) if kind == "audio" else _av_hubert(name)


def _without_suffix(name: str) -> str:
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _whisper(name: str) -> WhisperConfig:
    width, layers, heads, decoder_layers, bands = WHISPERS[name.removesuffix(".en")]
    tokens = "english" if name.endswith(".en") else "multilingual"
    if bands == MEL_BANDS_V3:
        tokens = "v3"
    return WhisperConfig(
        d_model=width,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_layers=decoder_layers,
        decoder_attention_heads=heads,
        decoder_ffn_dim=4 * width,
        num_mel_bins=bands,
        vocab_size=TOKENS[tokens],
    )


def _av_hubert(name: str) -> AVHubertConfig:
    width, layers, heads, norm_first = AV_HUBERTS[name]
    return AVHubertConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        do_stable_layer_norm=norm_first,
    )
