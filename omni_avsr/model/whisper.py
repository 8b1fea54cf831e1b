"""Waveforms to Whisper features: log-mel in torch on the model's device, and the encoder on the clip's true length."""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omni_avsr.model.compress import length_mask
from omni_avsr.tasks import AUDIO_FPS, MEL_HOP, MEL_WINDOW, SAMPLE_RATE


def encode_audio(encoder: WhisperEncoder, audio: Tensor, lengths: Tensor, padded: bool) -> Tensor:
    """The encoder's features of zero-padded waveforms, whose true lengths are given in encoder frames.

    padded=True runs on Whisper's full 30 s, as published; otherwise on the clip alone, blind to what pads it.
    """
    longest = int(lengths.max())
    limit = encoder.config.max_source_positions
    if longest > limit:
        raise ValueError(
            f"audio of {longest / AUDIO_FPS:.1f} s is longer than this encoder's {limit / AUDIO_FPS:.0f} s"
        )
    if padded:
        mel = log_mel(audio, encoder.config.num_mel_bins, limit).to(encoder.dtype)
        return encoder(mel).last_hidden_state[:, :longest]  # (B, mels, 2 * limit) -> (B, longest, D)
    inside = length_mask(2 * lengths, 2 * longest)[:, None]
    mel = log_mel(audio, encoder.config.num_mel_bins, longest, inside).to(encoder.dtype)
    return _encode_clip(encoder, mel, length_mask(lengths, longest))


def _encode_clip(encoder: WhisperEncoder, mel: Tensor, valid: Tensor) -> Tensor:
    hidden = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).transpose(1, 2)  # (B, mels, 2T) -> (B, T, D)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    mask = create_bidirectional_mask(config=encoder.config, inputs_embeds=hidden, attention_mask=valid)
    for layer in encoder.layers:
        hidden = layer(hidden, mask)
    return encoder.layer_norm(hidden)


def log_mel(audio: Tensor, mels: int, frames: int, inside: Tensor | None = None) -> Tensor:
    """Whisper's log-mel spectrogram, two columns for each encoder frame.

    Columns that are not inside a clip (B, 1, columns) do not count for its maximum and become zero, which is what the
    encoder's convolutions see beyond a clip's end.
    """
    samples = 2 * frames * MEL_HOP
    audio = F.pad(audio.float(), (0, max(0, samples + MEL_WINDOW - audio.shape[1])))[:, : samples + MEL_WINDOW]
    window = torch.hann_window(MEL_WINDOW, device=audio.device)
    power = torch.stft(audio, MEL_WINDOW, MEL_HOP, window=window, return_complex=True).abs() ** 2
    mel = (_filters(mels, audio.device) @ power[..., : 2 * frames]).clamp(min=1e-10).log10()  # (B, mels, 2 * frames)
    if inside is None:
        inside = torch.ones_like(mel[:, :1], dtype=torch.bool)
    loudest = mel.masked_fill(~inside, -torch.inf).amax((1, 2), keepdim=True)
    return (mel.maximum(loudest - 8) + 4) / 4 * inside


@lru_cache(maxsize=8)
def _filters(mels: int, device: torch.device) -> Tensor:
    bank = mel_filter_bank(MEL_WINDOW // 2 + 1, mels, 0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney")
    return torch.tensor(bank, dtype=torch.float32, device=device).T
