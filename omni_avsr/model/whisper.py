"""Waveforms to Whisper features: log-mel in torch on the model's device, and the encoder.

New models run the encoder on each clip's true length instead of 30 s of mostly silence.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.audio_utils import mel_filter_bank
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from omni_avsr.errors import InputError
from omni_avsr.model.compress import length_mask, sent
from omni_avsr.tasks import AUDIO_FPS, MEL_HOP, MEL_WINDOW, SAMPLE_RATE

QUIETEST = 1e-10  # power below which the logarithm is cut off
RANGE = 8  # powers of ten below the loudest value that are kept


def encode_audio(encoder: WhisperEncoder, audio: Tensor, lengths: Tensor, padded: bool) -> Tensor:
    """The encoder's features (B, T, D) of zero-padded waveforms (B, S).

    The true lengths (B,) are on the CPU, in encoder frames. With padded=True the encoder runs on
    Whisper's full 30 s, as published; otherwise on the clips only, with their padding masked.
    """
    longest = int(lengths.max())
    limit = encoder.config.max_source_positions
    if longest > limit:
        seconds = longest / AUDIO_FPS
        raise InputError(
            f"audio of {seconds:.1f} s is longer than this encoder's {limit / AUDIO_FPS:.0f} s"
        )
    mels = encoder.config.num_mel_bins
    if padded:
        mel = log_mel(audio, mels, limit).to(encoder.dtype)
        return encoder(mel).last_hidden_state[:, :longest]  # (B, mels, 2 * limit) -> (B, T, D)
    inside = length_mask(2 * lengths, 2 * longest)[:, None]  # (B, 1, columns)
    mel = log_mel(audio, mels, longest, sent(inside, audio.device)).to(encoder.dtype)
    valid = length_mask(lengths, longest)
    return _encode_clips(encoder, mel, None if valid.all() else sent(valid, audio.device))


def _encode_clips(encoder: WhisperEncoder, mel: Tensor, valid: Tensor | None) -> Tensor:
    hidden = F.gelu(encoder.conv1(mel))
    hidden = F.gelu(encoder.conv2(hidden)).transpose(1, 2)  # (B, mels, 2T) -> (B, T, D)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    mask = None
    if valid is not None:
        mask = create_bidirectional_mask(
            config=encoder.config,
            inputs_embeds=hidden,
            attention_mask=valid,
            allow_is_bidirectional_skip=False,  # there is padding, so a GPU need not look for it
        )
    for layer in encoder.layers:
        hidden = layer(hidden, mask)
    return encoder.layer_norm(hidden)


def log_mel(audio: Tensor, mels: int, frames: int, inside: Tensor | None = None) -> Tensor:
    """Whisper's log-mel spectrogram (B, mels, 2 * frames): two columns per encoder frame.

    Columns that are not inside a clip (B, 1, columns) do not count for its maximum and become
    zero, which is what the encoder's convolutions see beyond a clip's end.
    """
    samples = 2 * frames * MEL_HOP + MEL_WINDOW
    audio = F.pad(audio.float(), (0, max(0, samples - audio.shape[1])))[:, :samples]
    window = torch.hann_window(MEL_WINDOW, device=audio.device)
    spectrum = torch.stft(audio, MEL_WINDOW, MEL_HOP, window=window, return_complex=True)
    power = spectrum.abs() ** 2  # (B, MEL_WINDOW / 2 + 1, columns)
    mel = _exact_product(_mel_filters(mels, audio.device), power[..., : 2 * frames])
    mel = mel.clamp(min=QUIETEST).log10()
    if inside is None:
        inside = torch.ones_like(mel[:, :1], dtype=torch.bool)
    loudest = mel.masked_fill(~inside, -torch.inf).amax((1, 2), keepdim=True)
    return (mel.maximum(loudest - RANGE) + 4) / 4 * inside


def _exact_product(filters: Tensor, power: Tensor) -> Tensor:
    """Their product in single precision: half precision would overflow at a click."""
    with torch.autocast(power.device.type, enabled=False):
        if power.device.type == "cuda":  # where float32 may be rounded to TF32
            return (filters.double() @ power.double()).float()
        return filters @ power


@lru_cache(maxsize=8)
def _mel_filters(mels: int, device: torch.device) -> Tensor:
    frequencies = MEL_WINDOW // 2 + 1
    bank = mel_filter_bank(frequencies, mels, 0, SAMPLE_RATE / 2, SAMPLE_RATE, "slaney", "slaney")
    return torch.tensor(bank, dtype=torch.float32, device=device).T  # (mels, frequencies)
