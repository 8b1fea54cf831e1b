"""Small random towers of the real classes, and clips of random sound and mouths."""

import torch
from transformers import LlamaConfig, Qwen2Config, WhisperConfig

from omni_avsr import AVHubertConfig
from omni_avsr.tasks import SAMPLES_PER_VIDEO_FRAME

TEXTS = ["set white by g two now", "bin blue at f nine please", "the quick brown fox went home", "we talk in public"]
LLM = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")
SMALL = {"projector_width": 16, "lora_rank": 4, "lora_alpha": 8.0, "video_lora_rank": 4, "video_lora_alpha": 8.0}


def whisper_config() -> WhisperConfig:
    sizes = {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 48}
    return WhisperConfig(
        **sizes, decoder_layers=1, decoder_attention_heads=2, vocab_size=64, num_mel_bins=20, **dict.fromkeys(TOKENS, 0)
    )


def avhubert_config(**changes) -> AVHubertConfig:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    position = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    return AVHubertConfig(**{**sizes, **position, "resnet_widths": [4, 4, 8, 8], **changes})


def llm_config(family: str = "llama"):
    if family == "qwen2":
        return Qwen2Config(**LLM, num_key_value_heads=2, vocab_size=320, bos_token_id=None, eos_token_id=1)
    return LlamaConfig(**LLM, num_key_value_heads=2, vocab_size=320, bos_token_id=0, eos_token_id=1)


def spread(model: torch.nn.Module) -> None:
    """Larger random weights, so that outputs depend on inputs visibly."""
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name else 0.15)


def clips(*frames: int, seed: int = 0) -> dict[str, list[torch.Tensor]]:
    """Random sounds and mouths of these lengths in video frames."""
    generator = torch.Generator().manual_seed(seed)
    audio = [torch.randn(n * SAMPLES_PER_VIDEO_FRAME, generator=generator) for n in frames]
    video = [torch.randint(256, (n, 96, 96), generator=generator, dtype=torch.uint8) for n in frames]
    return {"audio": audio, "video": video}
