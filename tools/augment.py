"""Noise and augmentation of whole batches on the training device."""

from dataclasses import dataclass

import torch
from torch import Tensor

from omni_avsr.model.compress import length_mask
from omni_avsr.tasks import CROP_SIZE, MOUTH_SIZE, SAMPLES_PER_VIDEO_FRAME

BABBLE_VOICES = 6
MOST_GAPS = 2  # in a clip
LONGEST_GAP = 8  # video frames
MARGIN = MOUTH_SIZE - CROP_SIZE  # pixels
CONTRAST = 0.15  # deviation of its logarithm
BRIGHTNESS = 0.2  # deviation, in units of normalised pixels


@dataclass(frozen=True)
class Noise:
    """How clips are corrupted."""

    share: float = 0.65  # of the clips that get babble
    snr: tuple[float, float] = (-5.0, 20.0)  # dB, from the lowest to the highest
    augment: bool = True  # random crops, light and gaps, too


ZERO_DB = Noise(share=1.0, snr=(0.0, 0.0), augment=False)  # to measure in


def add_babble(audio: Tensor, frames: Tensor, noise: Noise, random: torch.Generator) -> Tensor:
    """Returns the clips (B, S), some of them mixed with other clips of the batch.

    The true lengths (B,) are in video frames.
    """
    count, samples = audio.shape
    inside = length_mask(frames * SAMPLES_PER_VIDEO_FRAME, samples)
    babble = _babble(audio, random) * inside
    low, high = noise.snr
    snr = low + (high - low) * _uniform(random, count)
    is_noisy = _uniform(random, count) < noise.share

    power = audio.square().sum(1)  # over the clip's own length, beyond which it is zero
    babble_power = babble.square().sum(1).clamp(min=1e-9)
    scale = (power / babble_power * 10 ** (-snr / 10)).sqrt()  # (B,)
    return audio + babble * (scale * is_noisy)[:, None]


def _babble(audio: Tensor, random: torch.Generator) -> Tensor:
    """Returns for each clip the sum of some other clips, each equally loud and shifted in time."""
    count, samples = audio.shape
    distance = 1 + _integers(random, max(count - 1, 1), count, BABBLE_VOICES)
    shifts = _integers(random, samples, BABBLE_VOICES)
    own = torch.arange(count, device=audio.device)[:, None]
    others = (own + distance) % count  # (B, voices)
    power = audio.square().mean(1, keepdim=True).clamp(min=1e-9)
    equally_loud = audio / power.sqrt()
    babble = torch.zeros_like(audio)
    for voice, shift in enumerate(shifts.tolist()):
        babble += equally_loud[others[:, voice]].roll(shift, 1)
    return babble


def hide(values: Tensor, rate: int, random: torch.Generator) -> Tensor:
    """Returns the clips (B, T * rate, ...) with random gaps of a few video frames set to zero."""
    count, total = values.shape[:2]
    frame = torch.arange(total, device=values.device) // rate
    hidden = torch.zeros(count, total, dtype=torch.bool, device=values.device)
    for _ in range(MOST_GAPS):
        start = _integers(random, max(1, total // rate), count, 1)
        width = _integers(random, LONGEST_GAP + 1, count, 1)
        exists = _uniform(random, count, 1) < 0.5
        hidden |= exists & (frame >= start) & (frame < start + width)
    while hidden.dim() < values.dim():
        hidden = hidden[..., None]
    return values.masked_fill(hidden, 0)


def normalise(audio: Tensor, frames: Tensor) -> Tensor:
    """Returns the clips (B, S) with mean 0 and variance 1 over their own lengths.

    OmniAVSRProcessor normalises single clips in the same way.
    """
    samples = frames[:, None] * SAMPLES_PER_VIDEO_FRAME  # (B, 1)
    inside = length_mask(samples[:, 0], audio.shape[1])
    mean = audio.sum(1, keepdim=True) / samples
    centred = (audio - mean) * inside
    variance = centred.square().sum(1, keepdim=True) / samples
    return centred / (variance + 1e-8).sqrt()


@dataclass(frozen=True)
class Crop:
    """Which part of a mouth clip the encoder sees."""

    top: int
    left: int
    is_mirrored: bool = False

    def of(self, mouths: Tensor) -> Tensor:
        """Returns the part of (T, 96, 96): (T, 88, 88)."""
        rows = slice(self.top, self.top + CROP_SIZE)
        columns = slice(self.left, self.left + CROP_SIZE)
        part = mouths[:, rows, columns]
        return part.flip(2) if self.is_mirrored else part


CENTRE = Crop(MARGIN // 2, MARGIN // 2)


def random_crops(count: int, random: torch.Generator) -> list[Crop]:
    """Returns crops at random places, half of them mirrored."""
    draws = _integers(random, MARGIN + 1, count, 3)
    crops = []
    for top, left, side in draws.tolist():
        crops.append(Crop(top, left, is_mirrored=side > MARGIN // 2))
    return crops


def relight(video: Tensor, random: torch.Generator) -> Tensor:
    """Returns the clips (B, T, H, W), each with another contrast and brightness."""
    shape = (2, len(video), 1, 1, 1)
    contrast, brightness = torch.randn(shape, device=random.device, generator=random)
    return video * (CONTRAST * contrast).exp() + BRIGHTNESS * brightness


def _uniform(random: torch.Generator, *shape: int) -> Tensor:
    """Returns random numbers from 0 to 1."""
    return torch.rand(shape, device=random.device, generator=random)


def _integers(random: torch.Generator, stop: int, *shape: int) -> Tensor:
    """Returns random whole numbers from 0 to stop - 1."""
    return torch.randint(stop, shape, device=random.device, generator=random)
