"""Clips read from their files, and batched by length under a budget of frames.

All randomness of training is in this folder. It is keyed by seed, epoch and clip.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from omni_avsr.data.manifest import Clip
from omni_avsr.data.seed import generator
from omni_avsr.errors import InputError
from omni_avsr.media import streams
from omni_avsr.tasks import (
    CROP_SIZE,
    MODALITIES,
    MOUTH_SIZE,
    SAMPLE_RATE,
    SAMPLES_PER_VIDEO_FRAME,
    VIDEO_FPS,
)

log = logging.getLogger(__name__)

MOUTH_SIZES = ((MOUTH_SIZE, MOUTH_SIZE), (CROP_SIZE, CROP_SIZE))  # pixels, of prepared clips
JITTER = (0.95, 1.05)  # of lengths, so that the batches of each epoch are different

Waves = np.ndarray | None  # a clip's waveform (S,) or mouths (T, H, W); None if not wanted
Augment = Callable[[Waves, Waves, np.random.Generator], tuple[Waves, Waves]]


class ClipKey(NamedTuple):
    """Which clip of a dataset is read, in which epoch; the epoch seeds its augmentation."""

    clip: int  # its index
    epoch: int


@dataclass(frozen=True)
class LoadedClip:
    """A clip that was read."""

    key: ClipKey
    id: str
    text: str
    seconds: float
    audio: Tensor | None  # (S,); None if not wanted
    video: Tensor | None  # (T, H, W)


@dataclass(frozen=True)
class UnreadableClip:
    """Stands for a clip that cannot be read, or that the model cannot take."""

    id: str


class ClipDataset(Dataset):
    """Clips, or only their sound or mouths, read from their files.

    Clips that cannot be read, whose sound has more samples than `longest_sound`, or whose frames
    are not of prepared mouths are named in the log.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        augment: Augment | None = None,
        seed: object = 0,
        modalities: Sequence[str] = MODALITIES,
        longest_sound: int | None = None,
    ):
        self.clips = clips
        self.augment = augment
        self.seed = seed
        self.modalities = modalities
        self.longest_sound = longest_sound

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: ClipKey) -> LoadedClip | UnreadableClip:
        """The clip of a key; its augmentation is the same whenever it is read."""
        index, epoch = key
        clip = self.clips[index]
        try:
            audio = self._sound(clip) if "audio" in self.modalities else None
            video = _mouths(clip) if "video" in self.modalities else None
        except InputError as error:
            log.warning("clip skipped: %s", error)
            return UnreadableClip(clip.id)
        if self.augment:
            rng = generator(self.seed, epoch, clip.id)
            audio, video = self.augment(audio, video, rng)
        if audio is not None:
            seconds = len(audio) / SAMPLE_RATE
        else:
            assert video is not None
            seconds = len(video) / VIDEO_FPS
        return LoadedClip(
            ClipKey(index, epoch),
            clip.id,
            clip.text,
            seconds,
            _tensor(audio),
            _tensor(video),
        )

    def _sound(self, clip: Clip) -> np.ndarray:
        audio = streams.read_audio(clip.sound, clip.track)
        if self.longest_sound is not None and len(audio) > self.longest_sound:
            raise InputError(
                f"{clip.id} has {len(audio) / SAMPLE_RATE:.2f} s of sound ({len(audio)} samples), "
                f"the audio encoder takes {self.longest_sound / SAMPLE_RATE:.3g} s"
            )
        return audio


def _mouths(clip: Clip) -> np.ndarray:
    video = streams.read_video(clip.video)
    size = video.shape[1:]
    if size not in MOUTH_SIZES:
        given, *expected = [" x ".join(map(str, pixels)) for pixels in (size, *MOUTH_SIZES)]
        raise InputError(
            f"{clip.video} has frames of {given} pixels, {' or '.join(expected)} expected: "
            "`omni-avsr prepare` cuts out the mouths"
        )
    return video


def _tensor(values: Waves) -> Tensor | None:
    return None if values is None else torch.from_numpy(values)


def stream_of(clips: Sequence[LoadedClip], modality: str) -> list[Tensor] | None:
    """The sounds or the mouths of clips; None if they were not wanted."""
    values = [getattr(clip, modality) for clip in clips]
    return None if values[0] is None else values


def readable(clips: Sequence[LoadedClip | UnreadableClip]) -> list[LoadedClip]:
    """The clips that could be read."""
    return [clip for clip in clips if isinstance(clip, LoadedClip)]


def drop_long_clips(
    clips: Sequence[Clip], max_frames: int, longest_sound: int | None = None
) -> list[Clip]:
    """The clips that fit a batch on their own, and the audio encoder.

    Longer ones are left out and named in the log.
    """
    most, of_what = max_frames, "a batch"
    if longest_sound is not None and longest_sound < max_frames * SAMPLES_PER_VIDEO_FRAME:
        most, of_what = longest_sound // SAMPLES_PER_VIDEO_FRAME, "the audio encoder"
    kept = []
    for clip in clips:
        if clip.frames <= most:
            kept.append(clip)
        else:
            log.warning(
                "clip skipped: %s has %d frames, at most %d fit", clip.id, clip.frames, most
            )
    left_out = len(clips) - len(kept)
    if not kept:
        raise InputError(f"all {len(clips)} clips are longer than the {most} frames of {of_what}")
    if left_out:
        log.warning(
            "%d of %d clips are longer than the %d frames of %s",
            left_out,
            len(clips),
            most,
            of_what,
        )
    return kept


def buckets(
    lengths: Sequence[int], max_frames: int, rng: np.random.Generator | None = None
) -> list[list[int]]:
    """Batches of indices of similar lengths; padded frames count towards the budget.

    A clip of unknown length, 0, has a batch of its own. With a generator the batches are in random
    order, and not the same every time.
    """
    lengths = [length or max_frames for length in lengths]
    jitter = rng.uniform(*JITTER, len(lengths)) if rng else np.ones(len(lengths))
    order = np.argsort(np.asarray(lengths) * jitter, kind="stable").tolist()
    batches: list[list[int]] = []
    longest = 0  # of the batch at hand
    for index in order:
        longest = max(longest, lengths[index])
        if not batches or longest * (len(batches[-1]) + 1) > max_frames:
            batches.append([])
            longest = lengths[index]
        batches[-1].append(index)
    if rng:
        rng.shuffle(batches)
    return batches


class EndlessBatches(Sampler[list[ClipKey]]):
    """Batches for epoch after epoch, each shuffled anew; processes take turns."""

    def __init__(self, lengths: Sequence[int], max_frames: int, seed: int):
        self.lengths = lengths
        self.max_frames = max_frames
        self.seed = seed
        self.start = 0  # batches that were taken before a run was resumed
        self.rank = 0  # of this process
        self.ranks = 1  # how many processes there are

    def __iter__(self) -> Iterator[list[ClipKey]]:
        first = self.rank + self.start * self.ranks
        return islice(self._all(), first, None, self.ranks)

    def _all(self) -> Iterator[list[ClipKey]]:
        for epoch in count():
            rng = generator(self.seed, "batches", epoch)
            for batch in buckets(self.lengths, self.max_frames, rng):
                yield [ClipKey(index, epoch) for index in batch]
