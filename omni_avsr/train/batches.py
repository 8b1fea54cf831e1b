"""The data of a training run: which clips come when, and features that are encoded only once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
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
from omni_avsr.model import Features, Media, OmniAVSR, OmniAVSRProcessor
from omni_avsr.run import Progress, local_rank, with_progress
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import VIDEO_FPS
from omni_avsr.train.features import (
    Encoded,
    EncodedClip,
    EncodedDataset,
    Store,
    bytes_of_features,
    file_facts,
    opened_store,
    padded_features,
)


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
        self.longest_sound = model.config.longest_sound

    def prepare(self, clips: Sequence[Clip], valid: Sequence[Clip]) -> None:
        """Takes the clips, and encodes the training clips if features are cached."""
        settings = self.settings
        self.clips = clips
        self.valid = valid
        augment = self._augmentation()
        dataset = ClipDataset(clips, augment, settings.seed, self.modalities, self.longest_sound)
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
        dataset = ClipDataset(
            self.valid, modalities=self.modalities, longest_sound=self.longest_sound
        )
        return self._loader(dataset, batches)

    def _loader(self, dataset: Dataset, batches: Iterable[list[ClipKey]]) -> DataLoader:
        collate = partial(_collated, self.processor)  # without the model, as workers unpickle it
        workers = self.settings.workers
        return DataLoader(dataset, batch_sampler=batches, collate_fn=collate, num_workers=workers)

    def _augmentation(self) -> Augmentation:
        settings = self.settings
        noise = np.zeros(1)
        if settings.noise_probability and "audio" in self.modalities:
            noise = babble_of_clips(self.clips, settings.seed, "babble")
        return Augmentation(
            noise=noise,
            probability=settings.noise_probability,
            snrs=settings.noise_snr,
            audio_mask=settings.audio_mask,
            video_mask=settings.video_mask,
        )

    def _encoded(self, dataset: ClipDataset) -> EncodedDataset:
        """The encoded copies of all clips, from the feature cache as far as it has them."""
        copies = self.settings.cache_copies
        groups = buckets([clip.frames for clip in dataset.clips], self.settings.max_frames)
        batches = []
        for copy in range(copies):
            batches += [[ClipKey(index, copy) for index in group] for group in groups]
        folder = self.settings.feature_cache
        facts = self._cache_key(dataset) if folder else None
        with opened_store(folder, facts) as store:
            todo = [batch for batch in batches if any(key not in store for key in batch)]
            if todo:
                store.refuse(self._bytes_of(dataset.clips, todo))
                self._encode(dataset, todo, store)
        return EncodedDataset(dataset.clips, copies, store)

    def _bytes_of(self, clips: Sequence[Clip], batches: Sequence[Sequence[ClipKey]]) -> int:
        """The estimated size of the features of these batches."""
        frames = sum(clips[key.clip].frames for batch in batches for key in batch)
        config = self.model.config
        widths = {name: getattr(config, f"{name}_config").hidden_size for name in self.modalities}
        return bytes_of_features(frames / VIDEO_FPS, widths)

    def _cache_key(self, dataset: ClipDataset) -> tuple[object, ...]:
        """Everything that cached features depend on."""
        settings = self.settings
        config = self.model.config
        encoders = {kind: origin for kind, origin in config.towers.items() if kind != "llm"}
        files = []
        for clip in dataset.clips:
            path_of = {"audio": clip.sound, "video": clip.video}
            facts = [file_facts(path_of[modality]) for modality in self.modalities]
            files.append((clip.id, clip.frames, clip.track, facts))
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
            files,
        )

    @torch.no_grad()
    def _encode(self, dataset: ClipDataset, batches: Sequence[list[ClipKey]], store: Store) -> None:
        """Adds the features of the clips in these batches to the store."""
        device = "cpu"
        if torch.cuda.is_available():
            device = f"cuda:{local_rank()}"
        for encoder in (self.model.audio_encoder, self.model.video_encoder):
            if encoder is not None:
                encoder.to(device)
        loader = self._loader(dataset, batches)
        loaded = with_progress(loader, "Encoding clips", len(batches), self.progress)
        for keys, batch in zip(batches, loaded, strict=True):
            encoded = {key: Encoded(0.0, {}) for key in keys}  # what remains of unreadable clips
            if batch.media is not None:
                features = self.model.encode(batch.media.to(device))
                encoded |= _of_each_clip(batch, features)
            store.update(encoded)


def _collated(
    processor: OmniAVSRProcessor, clips: Sequence[LoadedClip | EncodedClip | UnreadableClip]
) -> TrainingBatch:
    """The clips as a batch."""
    unreadable = [clip.id for clip in clips if isinstance(clip, UnreadableClip)]
    loaded = [clip for clip in clips if isinstance(clip, LoadedClip)]
    encoded = [clip for clip in clips if isinstance(clip, EncodedClip)]
    kept: list[LoadedClip | EncodedClip] = [*loaded, *encoded]
    media = features = None
    if loaded:
        audio, video = stream_of(loaded, "audio"), stream_of(loaded, "video")
        media = processor.media(audio, video, training=True)
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


def _of_each_clip(batch: TrainingBatch, features: Features) -> dict[ClipKey, Encoded]:
    """The features of each clip of a batch, without padding and in half precision."""
    encoded = {}
    for place, key in enumerate(batch.keys):
        own = {}
        for modality in features.modalities:
            values, lengths = features.of(modality)
            own[modality] = values[place, : lengths[place]].half().cpu()
        encoded[key] = Encoded(batch.seconds[place], own)
    return encoded
