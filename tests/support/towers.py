"""Small random towers of the real classes, and clips of random sound and mouths."""

import torch
from transformers import LlamaConfig, PreTrainedConfig, Qwen2Config, WhisperConfig

from omni_avsr import AVHubertConfig
from omni_avsr.tasks import MOUTH_SIZE, SAMPLES_PER_VIDEO_FRAME

TEXTS = [
    "set white by g two now",
    "bin blue at f nine please",
    "the quick brown fox went home",
    "we talk in public",
]

# Settings of a small model, as OmniAVSR.from_towers takes them.
SMALL = {
    "projector_width": 16,
    "lora_rank": 4,
    "lora_alpha": 8.0,
    "video_lora_rank": 4,
    "video_lora_alpha": 8.0,
}


def whisper_config(**changes) -> WhisperConfig:
    """A Whisper of two layers for 20 mel bands."""
    return WhisperConfig(
        **changes,
        d_model=24,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_layers=1,
        decoder_attention_heads=2,
        vocab_size=64,
        num_mel_bins=20,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )


def avhubert_config(**changes) -> AVHubertConfig:
    """An AV-HuBERT of two layers."""
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "resnet_widths": [4, 4, 8, 8],
    }
    return AVHubertConfig(**{**small, **changes})


def llm_config(family: str = "llama") -> PreTrainedConfig:
    """A language model of four layers; the qwen2 has no bos token."""
    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 320,
        "eos_token_id": 1,
    }
    if family == "qwen2":
        return Qwen2Config(**small, bos_token_id=None)
    return LlamaConfig(**small, bos_token_id=0)


def spread(model: torch.nn.Module) -> None:
    """Draws larger random weights, so that the outputs visibly depend on the inputs."""
    for name, weight in model.named_parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.3 if "embed" in name else 0.15)


def clips(*frames: int, seed: int = 0) -> dict[str, list[torch.Tensor]]:
    """Random sounds and mouths of these lengths in video frames, as the processor takes them."""
    generator = torch.Generator().manual_seed(seed)
    audio = [torch.randn(n * SAMPLES_PER_VIDEO_FRAME, generator=generator) for n in frames]
    video = []
    for n in frames:
        size = (n, MOUTH_SIZE, MOUTH_SIZE)
        video.append(torch.randint(256, size, generator=generator, dtype=torch.uint8))
    return {"audio": audio, "video": video}


def one_clip(media: dict[str, list[torch.Tensor]], index: int) -> dict[str, list[torch.Tensor]]:
    """Only one of the clips."""
    return {modality: [given[index]] for modality, given in media.items()}
