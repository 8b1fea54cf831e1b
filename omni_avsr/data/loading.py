"""Clips to training batches: bucketed by length under a frame budget, reshuffled each epoch, augmented, and with the
rates of the step already drawn. All randomness of training is here, keyed by seed, epoch and clip."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from omni_avsr.data.augment import babble, generator, mix, random_crop, time_mask
from omni_avsr.data.manifest import Clip
from omni_avsr.media import streams as media
from omni_avsr.tasks import SAMPLE_RATE, VIDEO_FPS

log = logging.getLogger(__name__)

BABBLE_CLIPS = 300  # whose voices make the babble


Stream: TypeAlias = np.ndarray | None  # the sound or the mouths of a clip; None if they are not wanted
Augment = Callable[[Stream, Stream, np.random.Generator], tuple[Stream, Stream]]
Batch = list[tuple[int, int]]  # (index, epoch) of its clips


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training clip."""

    noise: np.ndarray
    probability: float
    snrs: tuple[float, ...]
    audio_mask: float  # seconds per second
    video_mask: float

    def __call__(self, audio: Stream, video: Stream, rng: np.random.Generator) -> tuple[Stream, Stream]:
        """The clip with noise, masks and a random crop."""
        if audio is not None:
            if rng.random() < self.probability:
                audio = mix(audio, self.noise, float(rng.choice(self.snrs)), rng)
            audio = time_mask(audio, SAMPLE_RATE, self.audio_mask, rng)
        if video is not None:
            video = time_mask(random_crop(video, rng), VIDEO_FPS, self.video_mask, rng)
        return audio, video


class Unreadable(NamedTuple):
    """What stands for a clip that cannot be read."""

    id: str


class ClipDataset(Dataset):
    """Clips read from their files, or of them what is wanted; one that cannot be read is named in the log."""

    def __init__(
        self,
        clips: Sequence[Clip],
        augment: Augment | None = None,
        seed: object = 0,
        streams: Sequence[str] = ("audio", "video"),
    ):
        self.clips, self.augment, self.seed, self.streams = clips, augment, seed, streams

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any] | Unreadable:
        """The clip of (index, epoch): the same augmentation whenever it is read."""
        index, epoch = key
        clip = self.clips[index]
        try:
            audio = media.read_audio(clip.sound) if "audio" in self.streams else None
            video = media.read_video(clip.video) if "video" in self.streams else None
        except ValueError as error:
            log.warning("clip skipped: %s", error)
            return Unreadable(clip.id)
        if self.augment:
            audio, video = self.augment(audio, video, generator(self.seed, epoch, clip.id))
        both = {"audio": (audio, SAMPLE_RATE), "video": (video, VIDEO_FPS)}
        given = {name: (torch.from_numpy(values), fps) for name, (values, fps) in both.items() if values is not None}
        seconds = [len(values) / fps for values, fps in given.values()]
        return {
            "keys": key,
            "text": clip.text,
            "seconds": seconds[0],
            **{n: values for n, (values, _) in given.items()},
        }


def stream(clips: Sequence[dict[str, Any]], name: str) -> list[torch.Tensor] | None:
    """The sounds or the mouths of clips that were read; None if they were not wanted."""
    return [clip[name] for clip in clips] if name in clips[0] else None


def babble_of(clips: Sequence[Clip], rng: np.random.Generator) -> np.ndarray:
    """A track of 30 voices at once, from some of the clips; one that cannot be read is left out."""
    speech = []
    for index in rng.permutation(len(clips))[:BABBLE_CLIPS]:
        try:
            speech.append(media.read_audio(clips[index].sound))
        except ValueError as error:
            log.warning("no voice for the babble: %s", error)
    if not speech:
        raise ValueError(f"none of {len(clips)} clips could be read to make babble of")
    return babble(speech, rng)


def within_budget(clips: Sequence[Clip], max_frames: int) -> list[Clip]:
    """The clips that fit a batch on their own; the others are named in the log."""
    for clip in clips:
        if clip.frames > max_frames:
            log.warning("clip skipped: %s has %d frames, over the budget of %d", clip.id, clip.frames, max_frames)
    kept = [clip for clip in clips if clip.frames <= max_frames]
    if len(kept) < len(clips):
        log.warning("%d of %d clips skipped, longer than %d frames", len(clips) - len(kept), len(clips), max_frames)
    if not kept:
        raise ValueError(f"all {len(clips)} clips are longer than the budget of {max_frames} frames in a batch")
    return kept


def buckets(lengths: Sequence[int], max_frames: int, rng: np.random.Generator | None = None) -> list[list[int]]:
    """Batches of similar lengths, padded frames included in the budget; with a generator in random order."""
    jitter = rng.uniform(0.95, 1.05, len(lengths)) if rng else np.ones(len(lengths))
    batches: list[list[int]] = [[]]
    for index in np.argsort(np.asarray(lengths) * jitter, kind="stable").tolist():
        longest = max(lengths[i] for i in [*batches[-1], index])
        if batches[-1] and longest * (len(batches[-1]) + 1) > max_frames:
            batches.append([])
        batches[-1].append(index)
    if rng:
        rng.shuffle(batches)
    return batches


class EndlessBatches(Sampler[Batch]):
    """Batches epoch after epoch, each shuffled anew; of several processes, each takes its turn."""

    def __init__(self, lengths: Sequence[int], max_frames: int, seed: int):
        self.lengths, self.max_frames, self.seed = lengths, max_frames, seed
        self.start, self.rank, self.ranks = 0, 0, 1  # batches that were had before; which process of how many

    def __iter__(self) -> Iterator[Batch]:
        return islice(self._all(), self.rank + self.start * self.ranks, None, self.ranks)

    def _all(self) -> Iterator[Batch]:
        for epoch in count():
            rng = generator(self.seed, "batches", epoch)
            for batch in buckets(self.lengths, self.max_frames, rng):
                yield [(index, epoch) for index in batch]
