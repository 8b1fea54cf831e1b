"""The data of a training run: which clips come when, and features that are encoded only once."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from omni_avsr.data.augment import Augmentation
from omni_avsr.data.loading import (
    ClipDataset,
    ClipKey,
    EndlessBatches,
    LoadedClip,
    UnreadableClip,
    buckets,
    stream_of,
)
from omni_avsr.data.manifest import Clip
from omni_avsr.data.noise import babble_of_clips
from omni_avsr.data.seed import generator
from omni_avsr.files import write_atomically
from omni_avsr.model import Features, Media, OmniAVSR, OmniAVSRProcessor
from omni_avsr.run import Progress, with_progress
from omni_avsr.settings import TrainSettings


@dataclass(frozen=True)
class TrainingBatch:
    """Clips with their texts, as media or as features that were encoded before."""

    keys: list[ClipKey] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)  # ids of clips that cannot be read
    media: Media | None = None
    features: Features | None = None

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The same on another device."""
        media = None if self.media is None else self.media.to(device)
        features = None if self.features is None else self.features.to(device)
        return replace(self, media=media, features=features)


@dataclass(frozen=True)
class EncodedClip:
    """A clip whose features are known, in half precision."""

    key: ClipKey
    id: str
    text: str
    seconds: float
    features: dict[str, Tensor]  # (T, D) of each modality


class Batches:
    """The batches of a training run.

    With frozen encoders every augmented copy of a clip is encoded once and kept.
    """

    def __init__(
        self,
        model: OmniAVSR,
        processor: OmniAVSRProcessor,
        settings: TrainSettings,
        progress: Progress,
    ):
        self.model = model
        self.processor = processor
        self.settings = settings
        self.progress = progress
        self.modalities = model.config.streams

    def prepare(self, clips: Sequence[Clip], valid: Sequence[Clip]) -> None:
        """Takes the clips, and encodes the training clips if features are cached."""
        settings = self.settings
        self.clips = clips
        self.valid = valid
        dataset = ClipDataset(clips, self._augmentation(), settings.seed, self.modalities)
        lengths = [clip.frames for clip in clips]
        self.sampler = EndlessBatches(lengths, settings.max_frames, settings.seed)
        self.dataset: Dataset = self._encoded(dataset) if settings.cache_copies else dataset

    def training(self, start: int = 0, rank: int = 0, ranks: int = 1) -> DataLoader:
        """Endless shuffled batches of augmented clips, after the first `start` ones.

        Each of several ranks has its own.
        """
        self.sampler.start = start
        self.sampler.rank = rank
        self.sampler.ranks = ranks
        return self._loader(self.dataset, self.sampler)

    def validation(self, rank: int = 0, ranks: int = 1) -> DataLoader:
        """Each clip once, without augmentation; each of several ranks has its own."""
        lengths = [clip.frames for clip in self.valid]
        own = buckets(lengths, self.settings.max_frames)[rank::ranks]
        batches = [[ClipKey(index, 0) for index in bucket] for bucket in own]
        if not batches:  # fewer batches than ranks: every rank needs one
            batches = [[]]
        return self._loader(ClipDataset(self.valid, modalities=self.modalities), batches)

    def _loader(self, dataset: Dataset, batches: Iterable[list[ClipKey]]) -> DataLoader:
        workers = self.settings.workers
        return DataLoader(
            dataset, batch_sampler=batches, collate_fn=self._collate, num_workers=workers
        )

    def _augmentation(self) -> Augmentation:
        settings = self.settings
        noise = np.zeros(1)
        if settings.noise_probability and "audio" in self.modalities:
            noise = babble_of_clips(self.clips, generator(settings.seed, "babble"))
        return Augmentation(
            noise=noise,
            probability=settings.noise_probability,
            snrs=settings.noise_snr,
            audio_mask=settings.audio_mask,
            video_mask=settings.video_mask,
        )

    def _collate(self, clips: Sequence[LoadedClip | EncodedClip | UnreadableClip]) -> TrainingBatch:
        unreadable = [clip.id for clip in clips if isinstance(clip, UnreadableClip)]
        loaded = [clip for clip in clips if isinstance(clip, LoadedClip)]
        encoded = [clip for clip in clips if isinstance(clip, EncodedClip)]
        kept: list[LoadedClip | EncodedClip] = [*loaded, *encoded]
        media = features = None
        if loaded:
            audio, video = stream_of(loaded, "audio"), stream_of(loaded, "video")
            media = self.processor.media(audio, video, training=True)
        elif encoded:
            features = padded_features([clip.features for clip in encoded])
        return TrainingBatch(
            keys=[clip.key for clip in kept],
            ids=[clip.id for clip in kept],
            texts=[clip.text for clip in kept],
            seconds=[clip.seconds for clip in kept],
            unreadable=unreadable,
            media=media,
            features=features,
        )

    def _encoded(self, dataset: ClipDataset) -> "EncodedDataset":
        """The encoded copies of all clips, from the feature cache if it has them."""
        folder = self.settings.feature_cache
        if not folder:
            return self._encode(dataset)
        key = hashlib.sha256(repr(self._cache_key(dataset)).encode()).hexdigest()
        file = folder / f"{key[:16]}.pt"
        if file.is_file():
            return EncodedDataset(dataset.clips, torch.load(file, weights_only=True))
        encoded = self._encode(dataset)
        write_atomically(file, lambda part: torch.save(encoded.copies, part))
        return encoded

    def _cache_key(self, dataset: ClipDataset) -> tuple[object, ...]:
        """Everything that cached features depend on."""
        settings = self.settings
        config = self.model.config
        encoders = {kind: origin for kind, origin in config.towers.items() if kind != "llm"}
        return (
            self.modalities,
            encoders,
            config.audio_context,
            settings.noise_probability,
            settings.noise_snr,
            settings.audio_mask,
            settings.video_mask,
            settings.seed,
            settings.max_frames,
            settings.cache_copies,
            [(str(clip.video.absolute()), clip.text) for clip in dataset.clips],
        )

    @torch.no_grad()
    def _encode(self, dataset: ClipDataset) -> "EncodedDataset":
        """The features of all clips in every augmented copy."""
        device = "cpu"
        if torch.cuda.is_available():
            device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
        for encoder in (self.model.audio_encoder, self.model.video_encoder):
            if encoder is not None:
                encoder.to(device)
        lengths = [clip.frames for clip in dataset.clips]
        groups = buckets(lengths, self.settings.max_frames)
        copies = self.settings.cache_copies
        batches = []
        for copy in range(copies):
            batches += [[ClipKey(index, copy) for index in group] for group in groups]
        encoded = EncodedDataset(dataset.clips, [{} for _ in range(copies)])
        loader = self._loader(dataset, batches)
        for batch in with_progress(loader, "Encoding clips", len(batches), self.progress):
            if batch.media is not None:
                encoded.add(batch, self.model.encode(batch.media.to(device)))
        return encoded


class EncodedDataset(Dataset):
    """The features of every clip in several augmented copies, in half precision."""

    def __init__(self, clips: Sequence[Clip], copies: list[dict[int, dict]]):
        self.clips = clips
        self.copies = copies  # of each copy what is known of a clip, by the clip's index

    def add(self, batch: TrainingBatch, features: Features) -> None:
        """Keeps the features of each clip of a batch."""
        for place, (index, copy) in enumerate(batch.keys):
            own = {}
            for modality in features.modalities:
                values, lengths = features.of(modality)
                own[modality] = values[place, : lengths[place]].half().cpu()
            self.copies[copy][index] = {
                "text": batch.texts[place],
                "seconds": batch.seconds[place],
                "features": own,
            }

    def __getitem__(self, key: ClipKey) -> EncodedClip | UnreadableClip:
        index, epoch = key
        name = self.clips[index].id
        known = self.copies[epoch % len(self.copies)].get(index)
        if known is None:
            return UnreadableClip(name)
        return EncodedClip(
            ClipKey(index, epoch), name, known["text"], known["seconds"], known["features"]
        )


def padded_features(clips: Sequence[dict[str, Tensor]]) -> Features:
    """The features (T, D) of several clips as the model takes them."""
    fields = {}
    for modality in clips[0]:
        rows = [clip[modality].float() for clip in clips]
        fields[modality] = pad_sequence(rows, batch_first=True)  # (B, T, D)
        fields[f"{modality}_lengths"] = torch.tensor([len(row) for row in rows])
    return Features(**fields)
