"""Stage 1 of recipes/tiny_towers.py: the ear and the eye, trained to name the phoneme of every frame."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, WhisperConfig

from omni_avsr.model import AVHubertConfig, AVHubertEncoder
from omni_avsr.model.compress import length_mask
from omni_avsr.model.whisper import WhisperEncoder, encode_audio
from omni_avsr.tasks import AUDIO_FPS, VIDEO_FPS
from omni_avsr.toy import PHONEMES

from .tiny_corpus import ZERO_DB, Batch, Corpus, Noise, console
from .tiny_loop import Plan, autocast, train

FOLDERS = {"audio": "tiny-audio", "video": "tiny-video"}
DROPOUT = 0.1
LONGEST = 16 * AUDIO_FPS  # frames
FRAMES = AUDIO_FPS // VIDEO_FPS  # of the ear for one of the eye


def new_encoder(modality: str) -> PreTrainedModel:
    """A random encoder of about a million parameters."""
    if modality == "audio":
        shape = {"d_model": 144, "encoder_layers": 3, "encoder_attention_heads": 4, "encoder_ffn_dim": 576}
        no_decoder = {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 576, "vocab_size": 8}
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        tokens: dict[str, Any] = {**ids, "suppress_tokens": None, "begin_suppress_tokens": None}
        config = WhisperConfig(
            num_mel_bins=80, max_source_positions=LONGEST, dropout=DROPOUT, **shape, **no_decoder, **tokens
        )
        return WhisperEncoder(config)
    dropouts = {f"{place}_dropout": DROPOUT for place in ("hidden", "activation", "attention")}
    return AVHubertEncoder(
        AVHubertConfig(
            hidden_size=128,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=512,
            num_conv_pos_embeddings=32,
            num_conv_pos_embedding_groups=8,
            resnet_widths=[16, 32, 64, 96],
            frontend_stride=4,
            do_stable_layer_norm=True,
            layerdrop=0.0,
            **dropouts,
        )
    )


def features(modality: str, encoder: nn.Module, batch: Batch) -> Tensor:
    """What OmniAVSR.encode gives for this batch: (B, T, D)."""
    if modality == "audio":
        return encode_audio(encoder, batch.audio, batch.frames * FRAMES, padded=False)
    return encoder(batch.video, ~length_mask(batch.frames, max(batch.lengths)))


def pretrain(modality: str, corpus: Corpus, held_out: dict[str, Corpus], plan: Plan, out: Path) -> dict[str, Any]:
    """Trains one encoder, writes its folder, and returns what it can do on clips that it never saw."""
    torch.manual_seed(plan.seed)
    encoder = new_encoder(modality).to(corpus.device)
    head = nn.Linear(encoder.config.hidden_size, len(PHONEMES)).to(corpus.device)

    def loss_of(batch: Batch, _: int) -> dict[str, Tensor]:
        targets = corpus.targets(batch, modality).flatten()
        logits = head(features(modality, encoder, batch)).flatten(0, 1).float()
        right = (logits.argmax(1) == targets).sum() / (targets >= 0).sum()
        return {"loss": F.cross_entropy(logits, targets, label_smoothing=0.1), "accuracy": right}

    for clips in (corpus, *held_out.values()):
        clips.needed = (modality,)
    row: dict[str, Any] = train(plan, {"encoder": encoder, "head": head}, loss_of, corpus, Noise())
    row |= {"parameters": sum(p.numel() for p in encoder.parameters() if p.requires_grad)}
    row |= {n: frame_accuracy(modality, encoder, head, c, None) for n, c in held_out.items()}
    if modality == "audio":
        row |= {f"{n}_0dB": frame_accuracy(modality, encoder, head, c, ZERO_DB) for n, c in held_out.items()}
    for clips in (corpus, *held_out.values()):
        clips.needed = ("audio", "video")
    encoder.eval().half().save_pretrained(out / FOLDERS[modality])
    console.print(f"{plan.name}: {row}")
    return row


@torch.no_grad()
def frame_accuracy(modality: str, encoder: nn.Module, head: nn.Module, corpus: Corpus, noise: Noise | None) -> float:
    """The share of frames whose phoneme is named."""
    encoder.eval()
    right = total = 0
    for number, clips in enumerate(corpus.batches(128, None)):
        batch = corpus.batch(clips, number, noise)
        with autocast(corpus.device):
            guesses = head(features(modality, encoder, batch)).argmax(-1)
        targets = corpus.targets(batch, modality)
        right, total = right + int((guesses == targets).sum()), total + int((targets >= 0).sum())
    return round(right / total, 4)
