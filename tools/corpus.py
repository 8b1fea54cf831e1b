"""The toy corpus in the memory of the training device, without files or a data loader.

All clips lie one after another in a few long tensors. A clip of T video frames has 640 T samples
and 2 T Whisper frames, so one table of offsets serves them all. Batches are gathered, augmented and
normalised on the device.
"""

import copy
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from omni_avsr.errors import InputError
from omni_avsr.model import Features, Media
from omni_avsr.model.compress import length_mask
from omni_avsr.model.config import IGNORED
from omni_avsr.tasks import (
    CROP_SIZE,
    FRAME_RATES,
    MODALITIES,
    PIXEL_MEAN,
    PIXEL_STD,
    SAMPLES_PER_VIDEO_FRAME,
    VIDEO_FPS,
)
from omni_avsr.toy import ToyClip, frame_labels, generate_shards
from tools.augment import CENTRE, Noise, add_babble, hide, normalise, random_crops, relight
from tools.terminal import console

UPLOAD = 512  # clips that go to the device together
POOL = 16  # batches that are sorted by length together
SHOW_EVERY = 5  # seconds

# Encoder frames of each modality per video frame.
FRAME_FACTORS = {modality: rate // VIDEO_FPS for modality, rate in FRAME_RATES.items()}


@dataclass(frozen=True)
class ClipBatch:
    """Some clips as the encoders take them, or the features of the encoders."""

    clips: list[int]  # places in the corpus
    lengths: list[int]  # video frames
    media: Media = field(default_factory=Media)
    features: Features | None = None


class Clips:
    """The clips of a corpus, in batches of similar lengths."""

    def __init__(self, texts: list[str], lengths: list[int], device: torch.device):
        self.texts = texts
        self.lengths = lengths  # video frames
        self.device = device

    def __len__(self) -> int:
        return len(self.texts)

    def batches(self, size: int, seed: int | None) -> list[list[int]]:
        """Returns all clips in batches, in random order if there is a seed."""
        rng = np.random.default_rng(seed)
        order = np.arange(len(self)) if seed is None else rng.permutation(len(self))
        batches: list[list[int]] = []
        for pool in _slices(order.tolist(), POOL * size):
            pool.sort(key=lambda clip: self.lengths[clip])
            batches += _slices(pool, size)
        if seed is None:
            return batches
        return [batches[place] for place in rng.permutation(len(batches))]

    def batch(self, clips: list[int], seed: int, noise: Noise | None) -> ClipBatch:
        """Returns these clips: clean and cropped to the middle, or with random noise."""
        raise NotImplementedError


class Corpus(Clips):
    """Clips as media, and the phoneme class of each of their frames."""

    def __init__(self, clips: Iterable[ToyClip], total: int, device: torch.device):
        super().__init__([], [], device)
        self.modalities: tuple[str, ...] = MODALITIES  # of a batch
        parts: list[_Part] = []
        started = shown = time.monotonic()
        for some in _chunks(clips, UPLOAD):
            parts.append(_Part.of(some, device))
            self.texts += [clip.text for clip in some]
            self.lengths += [len(clip.video) for clip in some]
            now = time.monotonic()
            if now - shown > SHOW_EVERY or len(self) == total:
                shown = now
                console.print(f"corpus: {len(self)}/{total} clips, {now - started:.0f} s")
        self.audio = torch.cat([part.audio for part in parts])  # (640 * frames,) int16
        self.video = torch.cat([part.video for part in parts])  # (frames, 96, 96) uint8
        self.labels = {
            modality: torch.cat([part.labels[modality] for part in parts])
            for modality in MODALITIES
        }
        self.starts = list(itertools.accumulate(self.lengths, initial=0))  # video frames

    def only(self, modality: str) -> "Corpus":
        """Returns the same corpus with batches of one modality."""
        narrow = copy.copy(self)
        narrow.modalities = (modality,)
        return narrow

    def batch(self, clips: list[int], seed: int, noise: Noise | None) -> ClipBatch:
        random = torch.Generator(self.device).manual_seed(seed)
        lengths = [self.lengths[clip] for clip in clips]
        frames = torch.tensor(lengths, device=self.device)  # (B,)
        audio = video = None
        if "audio" in self.modalities:
            audio = self._audio(clips, frames, noise, random)
        if "video" in self.modalities:
            video = self._video(clips, frames, noise, random)
        media = Media(audio, frames * SAMPLES_PER_VIDEO_FRAME, video, frames)
        return ClipBatch(clips, lengths, media)

    def targets(self, batch: ClipBatch, modality: str) -> Tensor:
        """Returns the class of each encoder frame, IGNORED where a clip is padded: (B, T)."""
        factor = FRAME_FACTORS[modality]
        longest = max(batch.lengths) * factor
        labels = self.labels[modality]
        places = self._places(batch.clips, longest, factor)
        classes = labels[places.clamp(max=len(labels) - 1)].long()
        lengths = torch.tensor(batch.lengths, device=self.device) * factor
        return classes.masked_fill(~length_mask(lengths, longest), IGNORED)

    def _places(self, clips: list[int], longest: int, factor: int = 1) -> Tensor:
        """Returns where the frames of the clips lie, which may be beyond a clip's end: (B, T)."""
        starts = torch.tensor([self.starts[clip] for clip in clips], device=self.device)
        frames = torch.arange(longest, device=self.device)
        return starts[:, None] * factor + frames

    def _audio(
        self, clips: list[int], frames: Tensor, noise: Noise | None, random: torch.Generator
    ) -> Tensor:
        """Returns normalised waveforms (B, S)."""
        longest = int(frames.max())
        samples = self.audio.view(-1, SAMPLES_PER_VIDEO_FRAME)
        places = self._places(clips, longest).clamp(max=len(samples) - 1)
        audio = samples[places].float() / 32768  # (B, T, 640)
        audio = (audio * length_mask(frames, longest)[..., None]).flatten(1)
        if noise is not None:
            audio = add_babble(audio, frames, noise, random)
            if noise.augment:
                audio = hide(audio, SAMPLES_PER_VIDEO_FRAME, random)
        return normalise(audio, frames)

    def _video(
        self, clips: list[int], frames: Tensor, noise: Noise | None, random: torch.Generator
    ) -> Tensor:
        """Returns normalised mouths (B, T, 88, 88)."""
        longest = int(frames.max())
        augment = noise is not None and noise.augment
        crops = [CENTRE] * len(clips)
        if augment:
            crops = random_crops(len(clips), random)
        video = torch.zeros(len(clips), longest, CROP_SIZE, CROP_SIZE, device=self.device)
        for row, clip, crop in zip(video, clips, crops, strict=True):
            mouths = self.video[self.starts[clip] : self.starts[clip + 1]]
            row[: len(mouths)] = crop.of(mouths)
        video = (video / 255 - PIXEL_MEAN) / PIXEL_STD
        if augment:
            video = hide(relight(video, random), 1, random)
        return video * length_mask(frames, longest)[..., None, None]


@dataclass(frozen=True)
class Source:
    """How corpora are made."""

    seed: int
    processes: int
    device: torch.device

    def generate(self, world: str, split: str, *counts: int) -> list[Corpus]:
        """Returns consecutive parts of a split; they share no sentence."""
        clips = generate_shards(world, split, sum(counts), self.seed, self.processes)
        corpora = []
        for count in counts:
            part = itertools.islice(clips, count)
            corpora.append(Corpus(part, count, self.device))
        return corpora


@dataclass(frozen=True)
class _Part:
    """Some clips in one piece, on the device."""

    audio: Tensor  # (640 * frames,)
    video: Tensor  # (frames, 96, 96)
    labels: dict[str, Tensor]  # of the encoder frames of each modality

    @classmethod
    def of(cls, clips: Sequence[ToyClip], device: torch.device) -> "_Part":
        _refuse_unequal(clips)
        labels = {name: _labels(clips, name).to(device) for name in MODALITIES}
        audio = _joined([clip.audio for clip in clips])
        video = _joined([clip.video for clip in clips])
        return cls(audio.to(device), video.to(device), labels)


def _refuse_unequal(clips: Sequence[ToyClip]) -> None:
    wrong = []
    for clip in clips:
        if len(clip.audio) != SAMPLES_PER_VIDEO_FRAME * len(clip.video):
            wrong.append(clip.id)
    if wrong:
        raise InputError(f"audio and video are not equally long in the clips {', '.join(wrong)}")


def _labels(clips: Sequence[ToyClip], modality: str) -> Tensor:
    labels = []
    for clip in clips:
        frames = FRAME_FACTORS[modality] * len(clip.video)
        classes = frame_labels(clip.phonemes, frames, FRAME_RATES[modality])
        labels.append(classes.astype(np.uint8))
    return _joined(labels)


def _joined(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _chunks(clips: Iterable[ToyClip], size: int) -> Iterator[list[ToyClip]]:
    remaining = iter(clips)
    while True:
        chunk = list(itertools.islice(remaining, size))
        if not chunk:
            return
        yield chunk


def _slices(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
