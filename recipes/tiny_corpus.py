"""The toy corpus in the memory of the training device, for recipes/tiny_towers.py: no file, no data loader.

All clips lie one after another in a few long tensors. A clip of T video frames has 640 T samples and 2 T Whisper
frames, so one table of offsets serves them all. Batches are gathered, augmented and normalised on the device.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from omni_avsr.model.compress import length_mask
from omni_avsr.tasks import (
    AUDIO_FPS,
    CROP_SIZE,
    MOUTH_SIZE,
    PIXEL_MEAN,
    PIXEL_STD,
    SAMPLES_PER_VIDEO_FRAME,
    VIDEO_FPS,
)
from omni_avsr.toy import frame_labels, generate_shards

console = Console(soft_wrap=True, markup=False, highlight=False)

MARGIN = MOUTH_SIZE - CROP_SIZE  # pixels
CHUNK = 512  # clips that go to the device together
BABBLE_VOICES = 6


@dataclass(frozen=True)
class Noise:
    """The share of clips with babble and its range in dB; in training also random crops, light and gaps."""

    share: float = 0.65
    snr: tuple[float, float] = (-5.0, 20.0)
    augment: bool = True


ZERO_DB = Noise(share=1.0, snr=(0.0, 0.0), augment=False)  # for measuring


@dataclass
class Batch:
    """Clips as the encoders take them, padded with zeros."""

    clips: list[int]
    lengths: list[int]  # in video frames
    frames: Tensor  # (B,) the same on the device
    audio: Tensor  # (B, 640 T), each clip normalised
    video: Tensor  # (B, T, 88, 88), normalised
    features: dict[str, tuple[Tensor, Tensor]] | None = None  # where the encoders have seen them before


class Corpus:
    """Clips, and the phoneme class of each of their frames."""

    needed: tuple[str, ...] = ("audio", "video")  # of a batch

    def __init__(self, clips: Iterable[Any], total: int, device: torch.device):
        self.device, self.texts, self.lengths = device, [], []
        started, shown = time.monotonic(), time.monotonic()
        chunks: list[list[Tensor]] = []
        for chunk in _chunks(clips):
            self.texts += [clip.text for clip in chunk]
            self.lengths += [len(clip.video) for clip in chunk]
            chunks.append([torch.from_numpy(part).to(device) for part in _flat(chunk)])
            if time.monotonic() - shown > 5 or len(self.texts) == total:
                shown = time.monotonic()
                console.print(f"corpus: {len(self.texts)}/{total} clips, {shown - started:.0f} s")
        self.audio, self.video, audio_labels, video_labels = (torch.cat(parts) for parts in zip(*chunks, strict=True))
        self.labels = {"audio": audio_labels, "video": video_labels}
        self.starts = list(itertools.accumulate(self.lengths, initial=0))

    def __len__(self) -> int:
        return len(self.texts)

    def batches(self, size: int, seed: int | None) -> list[list[int]]:
        """All clips in batches of similar lengths, in random order if there is a seed."""
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self)) if seed is not None else np.arange(len(self))
        cuts = range(0, len(self), 16 * size)
        pools = [sorted(order[cut : cut + 16 * size], key=self.lengths.__getitem__) for cut in cuts]
        batches = [[int(c) for c in pool[i : i + size]] for pool in pools for i in range(0, len(pool), size)]
        return [batches[i] for i in rng.permutation(len(batches))] if seed is not None else batches

    def batch(self, clips: list[int], seed: int, noise: Noise | None) -> Batch:
        """These clips as they are, cropped to the middle, or with noise spoilt at random."""
        augment = noise is not None and noise.augment
        random = torch.Generator(self.device).manual_seed(seed)
        lengths = [self.lengths[clip] for clip in clips]
        frames = torch.tensor(lengths, device=self.device)
        audio = video = torch.zeros(0, device=self.device)
        if "audio" in self.needed:
            audio = self._audio(self._places(clips, max(lengths)), frames)
            audio = add_babble(audio, frames, noise, random) if noise else audio
            audio = hide(audio, SAMPLES_PER_VIDEO_FRAME, random) if augment else audio
            audio = normalise(audio, frames)
        if "video" in self.needed:
            video = self._video(clips, max(lengths), augment, random)
            video = hide(_relight(video, random), 1, random) if augment else video
            video = video * length_mask(frames, video.shape[1])[..., None, None]
        return Batch(clips, lengths, frames, audio, video)

    def targets(self, batch: Batch, modality: str) -> Tensor:
        """The class of each frame, -100 where a clip is padded: (B, T), for audio (B, 2 T)."""
        factor = AUDIO_FPS // VIDEO_FPS if modality == "audio" else 1
        longest = max(batch.lengths) * factor
        places = self._places(batch.clips, longest, factor)
        known = length_mask(batch.frames * factor, longest)
        return self.labels[modality][places.clamp(max=len(self.labels[modality]) - 1)].long().masked_fill(~known, -100)

    def _places(self, clips: list[int], longest: int, factor: int = 1) -> Tensor:
        starts = torch.tensor([self.starts[clip] * factor for clip in clips], device=self.device)
        return starts[:, None] + torch.arange(longest, device=self.device)  # (B, T)

    def _audio(self, places: Tensor, frames: Tensor) -> Tensor:
        samples = self.audio.view(-1, SAMPLES_PER_VIDEO_FRAME)
        audio = samples[places.clamp(max=len(samples) - 1)].float() / 32768  # (B, T, 640)
        return (audio * length_mask(frames, places.shape[1])[..., None]).flatten(1)

    def _video(self, clips: list[int], longest: int, augment: bool, random: torch.Generator) -> Tensor:
        places = torch.full((len(clips), 3), MARGIN // 2)
        if augment:
            places = torch.randint(MARGIN + 1, places.shape, device=self.device, generator=random).cpu()
        video = torch.zeros(len(clips), longest, CROP_SIZE, CROP_SIZE, device=self.device)
        for row, clip, (top, left, mirrored) in zip(video, clips, places.tolist(), strict=True):
            frames = self.video[self.starts[clip] : self.starts[clip + 1]]
            frames = frames[:, top : top + CROP_SIZE, left : left + CROP_SIZE]
            row[: len(frames)] = frames.flip(2) if mirrored > MARGIN // 2 else frames
        return (video / 255 - PIXEL_MEAN) / PIXEL_STD  # (B, T, 88, 88)


class Encoded(Corpus):
    """A corpus as frozen encoders see one noisy copy of it: all that a machine without a GPU can afford."""

    def __init__(self, corpus: Corpus, encode: Callable[[Batch], dict[str, tuple[Tensor, Tensor]]], file: Path):
        self.device, self.texts, self.lengths = corpus.device, corpus.texts, corpus.lengths
        if not file.is_file():
            torch.save(self._encoded(corpus, encode), file)
        self.rows: list[dict[str, Tensor]] = torch.load(file, weights_only=True)

    @staticmethod
    def _encoded(corpus: Corpus, encode: Callable) -> list[dict[str, Tensor]]:
        rows: list[dict[str, Tensor]] = [{} for _ in corpus.texts]
        batches = corpus.batches(32, 0)
        for number, clips in enumerate(batches):
            for modality, (values, lengths) in encode(corpus.batch(clips, number, Noise())).items():
                for clip, row, length in zip(clips, values, lengths.tolist(), strict=True):
                    rows[clip][modality] = row[:length].half().clone()
            if number % 20 == 0:
                console.print(f"encoded: {number}/{len(batches)} batches")
        return rows

    def batch(self, clips: list[int], seed: int, noise: Noise | None) -> Batch:
        """These clips' features."""
        lengths, nothing = [self.lengths[clip] for clip in clips], torch.zeros(0)
        features = {}
        for modality in ("audio", "video"):
            values = [self.rows[clip][modality].float() for clip in clips]
            counts = torch.tensor([len(value) for value in values])
            features[modality] = torch.nn.utils.rnn.pad_sequence(values, batch_first=True), counts
        return Batch(clips, lengths, torch.tensor(lengths), nothing, nothing, features)


@dataclass(frozen=True)
class Source:
    """How corpora are made."""

    seed: int
    processes: int
    device: torch.device

    def generate(self, world: str, split: str, *counts: int) -> list[Corpus]:
        """Consecutive parts of a split, said by espeak and drawn; no sentence comes twice."""
        clips = generate_shards(world, split, sum(counts), self.seed, self.processes)
        return [Corpus(itertools.islice(clips, count), count, self.device) for count in counts]


def _chunks(clips: Iterable[Any]) -> Iterator[list[Any]]:
    clips = iter(clips)
    while chunk := list(itertools.islice(clips, CHUNK)):
        yield chunk


def _flat(clips: list[Any]) -> list[np.ndarray]:
    """Samples, pixels, and the labels of both kinds of frames, of all clips in one piece each."""
    wrong = [clip.id for clip in clips if len(clip.audio) != SAMPLES_PER_VIDEO_FRAME * len(clip.video)]
    if wrong:
        raise ValueError(f"clips whose sound and video are not equally long: {', '.join(wrong)}")
    frames_a_video_frame = {AUDIO_FPS: AUDIO_FPS // VIDEO_FPS, VIDEO_FPS: 1}
    labels = [
        np.concatenate([frame_labels(clip.phonemes, factor * len(clip.video), fps) for clip in clips]).astype(np.uint8)
        for fps, factor in frames_a_video_frame.items()
    ]
    return [np.concatenate([clip.audio for clip in clips]), np.concatenate([clip.video for clip in clips]), *labels]


def add_babble(audio: Tensor, frames: Tensor, noise: Noise, random: torch.Generator) -> Tensor:
    """The clips (B, S) with other clips of the batch spoken over some of them."""
    count, samples = audio.shape
    factory: dict[str, Any] = {"device": audio.device, "generator": random}
    others = torch.randint(1, max(count, 2), (count, BABBLE_VOICES), **factory)
    shifts = torch.randint(samples, (BABBLE_VOICES,), **factory).tolist()
    rows = (torch.arange(count, device=audio.device)[:, None] + others) % count  # never the clip itself
    loud = audio / audio.square().mean(1, keepdim=True).clamp(min=1e-9).sqrt()
    babble = torch.stack([loud[rows[:, i]].roll(shift, 1) for i, shift in enumerate(shifts)]).sum(0)
    known = length_mask(frames * SAMPLES_PER_VIDEO_FRAME, samples)
    babble = babble * known
    ratio = audio.square().sum(1) / babble.square().sum(1).clamp(min=1e-9)  # of powers over the clip's own length
    low, high = noise.snr
    snr = low + (high - low) * torch.rand(count, **factory)
    noisy = torch.rand(count, **factory) < noise.share
    return audio + (babble * (ratio * 10 ** (-snr / 10)).sqrt()[:, None]) * noisy[:, None]


def hide(frames: Tensor, rate: int, random: torch.Generator, spans: int = 2, longest: int = 8) -> Tensor:
    """The clips (B, T * rate, ...) with up to `longest` video frames set to zero, in some clips twice."""
    count, total = frames.shape[:2]
    factory: dict[str, Any] = {"device": frames.device, "generator": random}
    positions = torch.arange(total, device=frames.device) // rate
    hidden = torch.zeros(count, total, dtype=torch.bool, device=frames.device)
    for _ in range(spans):
        start = torch.randint(max(1, total // rate), (count, 1), **factory)
        width = torch.randint(longest + 1, (count, 1), **factory) * (torch.rand(count, 1, **factory) < 0.5)
        hidden |= (positions >= start) & (positions < start + width)
    return frames.masked_fill(hidden.unflatten(1, (total, *[1] * (frames.dim() - 2))), 0)


def normalise(audio: Tensor, frames: Tensor) -> Tensor:
    """Each clip with mean 0 and variance 1 over its own length, as the processor makes it: (B, S)."""
    samples = frames[:, None] * SAMPLES_PER_VIDEO_FRAME
    known = length_mask(samples[:, 0], audio.shape[1])
    centred = (audio - audio.sum(1, keepdim=True) / samples) * known
    return centred / (centred.square().sum(1, keepdim=True) / samples + 1e-8).sqrt()


def _relight(video: Tensor, random: torch.Generator) -> Tensor:
    """The clips with another brightness and contrast each."""
    contrast, brightness = torch.randn(2, len(video), 1, 1, 1, device=video.device, generator=random)
    return video * (0.15 * contrast).exp() + 0.2 * brightness
