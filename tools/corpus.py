"""The toy corpus in the memory of the training device, without files or a data loader.

All clips lie one after another in a few long tensors. A clip of T video frames has 640 T samples
and 2 T Whisper frames, so one table of offsets serves them all. Batches are gathered, augmented and
normalised on the device.
"""

import copy
import itertools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from omni_avsr.errors import InputError
from omni_avsr.model import Features, Media
from omni_avsr.model.avhubert import REACH
from omni_avsr.model.compress import length_mask
from omni_avsr.model.config import IGNORED
from omni_avsr.settings.shared import LANGUAGES
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
from omni_avsr.toy.sentences import sentences
from tools.augment import CENTRE, Noise, add_babble, hide, normalise, random_crops, relight
from tools.terminal import console

UPLOAD = 512  # clips that go to the device together
SENTENCES = 240_000  # of all sets, that the language models read as plain text
POOL = 16  # batches that are sorted by length together
SHOW_EVERY = 5  # seconds

ENGLISH = ("grid", "open")
OTHERS = LANGUAGES[1:]
SETS = {  # world and language of each set of clips
    "grid": ("grid", "en"),
    "open": ("open", "en"),
    **{language: ("open", language) for language in OTHERS},
}

# Encoder frames of each modality per video frame.
FRAME_FACTORS = {modality: rate // VIDEO_FPS for modality, rate in FRAME_RATES.items()}


def sets_to_watch(clips: int) -> dict[str, int]:
    """Returns how many clips of each set the encoders learn from: half of them are English."""
    return {
        **dict.fromkeys(ENGLISH, clips // 4),
        **dict.fromkeys(OTHERS, clips // 2 // len(OTHERS)),
    }


def sets_to_read(clips: int) -> dict[str, int]:
    """Returns how many clips of each set the language models learn from."""
    others = clips // 3 // len(OTHERS)
    return {"grid": clips // 6, "open": clips // 2, **dict.fromkeys(OTHERS, others)}


def sentences_of(sets: Collection[str], seed: int) -> list[str]:
    """Returns sentences of the training split, of each set as many as its share of the clips."""
    texts: list[str] = []
    for name, count in sets_to_read(SENTENCES).items():
        if name in sets:
            world, language = SETS[name]
            texts += itertools.islice(sentences(world, "train", seed, language), count)
    return texts


@dataclass(frozen=True)
class Source:
    """How clips are made."""

    seed: int
    processes: int

    def clips(self, sets: Mapping[str, int], split: str, shift: int = 0) -> Iterator[ToyClip]:
        """Yields so many clips of each set; another shift of the seed gives other clips."""
        seed = self.seed + shift
        for name, count in sets.items():
            world, language = SETS[name]
            yield from generate_shards(world, split, count, seed, self.processes, language)


@dataclass(frozen=True)
class ClipBatch:
    """Some clips as the encoders take them, or the features of the encoders."""

    clips: list[int]  # places in the corpus
    lengths: list[int]  # video frames
    media: Media = field(default_factory=Media)
    features: Features | None = None


class Clips:
    """The clips of a corpus, in batches of similar lengths."""

    texts: list[str]
    lengths: list[int]  # video frames
    labels: dict[str, list[Tensor]]  # phoneme class of each encoder frame, of each clip

    def __init__(self, device: torch.device):
        self.texts = []
        self.lengths = []
        self.labels = {modality: [] for modality in MODALITIES}
        self.device = device

    def __len__(self) -> int:
        return len(self.lengths)

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

    def targets(self, batch: ClipBatch, modality: str) -> Tensor:
        """Returns the class of each encoder frame, IGNORED where a clip is padded: (B, T)."""
        rows = [self.labels[modality][clip].long() for clip in batch.clips]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORED)
        return padded.to(self.device)


class Corpus(Clips):
    """Clips as media, or only as what is heard or seen of them."""

    def __init__(
        self,
        clips: Iterable[ToyClip],
        device: torch.device,
        modalities: Collection[str] = MODALITIES,
    ):
        super().__init__(device)
        self.modalities = modalities
        self.lips: list[Tensor] = []  # (T, 6) lip parameters
        parts: dict[str, list[Tensor]] = {modality: [] for modality in modalities}
        started = shown = time.monotonic()
        for some in chunks(clips, UPLOAD):
            _refuse_unequal(some)
            self._describe(some)
            for modality in modalities:
                joined = np.concatenate([getattr(clip, modality) for clip in some])
                parts[modality].append(torch.from_numpy(joined).to(device))
            now = time.monotonic()
            if now - shown > SHOW_EVERY:
                shown = now
                console.print(f"corpus: {len(self)} clips, {now - started:.0f} s")
        # Samples (640 * frames,) in int16 and mouths (frames, 96, 96) in uint8.
        self.media = {modality: torch.cat(joined) for modality, joined in parts.items()}
        self.starts = list(itertools.accumulate(self.lengths, initial=0))  # video frames

    def only(self, modality: str) -> "Corpus":
        """Returns the same corpus with batches of one modality."""
        narrow = copy.copy(self)
        narrow.modalities = (modality,)
        return narrow

    def _describe(self, clips: Sequence[ToyClip]) -> None:
        for clip in clips:
            self.texts.append(clip.text)
            self.lengths.append(len(clip.video))
            self.lips.append(torch.from_numpy(clip.lips).float())
            for modality, labels in self.labels.items():
                frames = FRAME_FACTORS[modality] * len(clip.video)
                classes = frame_labels(clip.phonemes, frames, FRAME_RATES[modality])
                labels.append(torch.from_numpy(classes.astype(np.uint8)))

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

    def _audio(
        self, clips: list[int], frames: Tensor, noise: Noise | None, random: torch.Generator
    ) -> Tensor:
        """Returns normalised waveforms (B, S)."""
        longest = int(frames.max())
        samples = self.media["audio"].view(-1, SAMPLES_PER_VIDEO_FRAME)
        starts = torch.tensor([self.starts[clip] for clip in clips], device=self.device)
        places = starts[:, None] + torch.arange(longest, device=self.device)  # (B, T)
        audio = samples[places.clamp(max=len(samples) - 1)].float() / 32768  # (B, T, 640)
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
            mouths = self.media["video"][self.starts[clip] : self.starts[clip + 1]]
            row[: len(mouths)] = crop.of(mouths)
        video = (video / 255 - PIXEL_MEAN) / PIXEL_STD
        if augment:
            video = hide(relight(video, random), 1, random)
        return video * length_mask(frames, longest)[..., None, None]


class Frames(Clips):
    """Every frame of a corpus as a clip of its own: a window of the frames around it.

    Neighbouring frames look alike, so a front end learns more from single frames of many clips than
    from whole clips.
    """

    def __init__(self, corpus: Corpus):
        super().__init__(corpus.device)
        self.mouths = corpus.media["video"]
        self.lengths = [1] * len(self.mouths)
        self.lips = torch.cat(corpus.lips).to(corpus.device)  # (frames, 6)
        self.classes = torch.cat(corpus.labels["video"]).long().to(corpus.device)  # (frames,)
        lengths = torch.tensor(corpus.lengths, device=corpus.device)
        starts = torch.tensor(corpus.starts[:-1], device=corpus.device)
        self.first = starts.repeat_interleave(lengths)  # of the frame's clip
        self.last = (starts + lengths - 1).repeat_interleave(lengths)

    def batch(self, clips: list[int], seed: int, noise: Noise | None) -> ClipBatch:
        random = torch.Generator(self.device).manual_seed(seed)
        frames = torch.tensor(clips, device=self.device)[:, None]  # (N, 1)
        places = frames + torch.arange(-REACH, REACH + 1, device=self.device)  # (N, 5)
        inside = (places >= self.first[frames]) & (places <= self.last[frames])
        mouths = self.mouths[places.clamp(0, len(self.mouths) - 1)]  # (N, 5, 96, 96)
        crops = [CENTRE] * len(clips) if noise is None else random_crops(len(clips), random)
        cropped = torch.stack([crop.of(mouth) for mouth, crop in zip(mouths, crops, strict=True)])
        windows = (cropped / 255 - PIXEL_MEAN) / PIXEL_STD
        if noise is not None:
            windows = relight(windows, random)
        return ClipBatch(clips, [1] * len(clips), Media(video=windows * inside[..., None, None]))


def _refuse_unequal(clips: Sequence[ToyClip]) -> None:
    wrong = []
    for clip in clips:
        if len(clip.audio) != SAMPLES_PER_VIDEO_FRAME * len(clip.video):
            wrong.append(clip.id)
    if wrong:
        raise InputError(f"audio and video are not equally long in the clips {', '.join(wrong)}")


def chunks(clips: Iterable[ToyClip], size: int) -> Iterator[list[ToyClip]]:
    """Yields the clips in lists of this length."""
    remaining = iter(clips)
    while True:
        chunk = list(itertools.islice(remaining, size))
        if not chunk:
            return
        yield chunk


def _slices(items: list[int], size: int) -> list[list[int]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
