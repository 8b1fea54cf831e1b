"""The data of a training run: which clips come when, and features that are encoded only once."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor
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
from omni_avsr.data.workers import loader_of, workers_for
from omni_avsr.errors import InputError
from omni_avsr.model import Features, Media, OmniAVSR, OmniAVSRProcessor
from omni_avsr.run import Progress, is_first_process, with_progress
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import VIDEO_FPS
from omni_avsr.train.features import (
    Encoded,
    EncodedClip,
    EncodedDataset,
    MemoryStore,
    Store,
    bytes_of_features,
    file_facts,
    opened_store,
    padded_features,
    planned_store,
)
from omni_avsr.train.processes import gathered, of_first, own_share, processes, processes_of_machine


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

    def pin_memory(self) -> "TrainingBatch":
        """The same in memory that a GPU copies from while it computes."""
        media = None if self.media is None else self.media.pin_memory()
        features = None if self.features is None else self.features.pin_memory()
        return replace(self, media=media, features=features)


class Batches:
    """The batches of a training run.

    What frozen layers of the encoders make of each augmented copy of a clip is computed once.
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
        """Takes the clips; refuses those whose features would be kept and do not fit."""
        settings = self.settings
        self.clips = clips
        self.valid = valid
        augment = self._augmentation()
        self.media = ClipDataset(clips, augment, settings.seed, self.modalities, self.longest_sound)
        self.dataset: Dataset = self.media
        lengths = [clip.frames for clip in clips]
        self.sampler = EndlessBatches(lengths, settings.max_frames, settings.seed)
        if settings.cache_copies and is_first_process():
            self._refuse_features_that_do_not_fit()

    def encode(self) -> None:
        """Encodes the training clips if their features are kept; a run's processes take turns.

        In memory each of them has all features; in a feature cache the first one writes them.
        """
        if not self.settings.cache_copies:
            return
        folder = self.settings.feature_cache
        with opened_store(folder, lambda: self._cache_key) as store:
            todo = of_first(lambda: self._todo(store))
            if todo:
                self._encode(todo, store)
        if self._todo(store):
            raise InputError(f"--feature-cache {folder} must be one folder for all machines")
        self.dataset = EncodedDataset(self.clips, self.settings.cache_copies, store)

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
        return loader_of(dataset, batches, collate, self._workers(dataset), self.model.device)

    def _workers(self, dataset: Dataset) -> int:
        """How many processes read the clips: none where their features are in memory."""
        if self.settings.workers is not None:
            return self.settings.workers
        if isinstance(dataset, EncodedDataset) and isinstance(dataset.store, MemoryStore):
            return 0
        return workers_for(self.model.device, self.settings.max_frames)

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

    def _refuse_features_that_do_not_fit(self) -> None:
        """Before the run's folder is written; all processes of a machine have their own copy."""
        settings = self.settings
        store = planned_store(settings.feature_cache, lambda: self._cache_key)
        needed = self._bytes_of(self._todo(store))
        store.refuse(needed, processes_of_machine(settings.devices))

    def _todo(self, store: Store) -> list[list[ClipKey]]:
        """The batches of clips, in all copies, that the store does not have yet."""
        groups = buckets([clip.frames for clip in self.clips], self.settings.max_frames)
        todo = []
        for copy in range(self.settings.cache_copies):
            for group in groups:
                batch = [ClipKey(index, copy) for index in group]
                if any(key not in store for key in batch):
                    todo.append(batch)
        return todo

    def _bytes_of(self, batches: Sequence[Sequence[ClipKey]]) -> int:
        """The estimated size of the features of these batches."""
        frames = sum(self.clips[key.clip].frames for batch in batches for key in batch)
        config = self.model.config
        widths = {name: config.frozen_width(name) for name in self.modalities}
        return bytes_of_features(frames / VIDEO_FPS, widths)

    @cached_property
    def _cache_key(self) -> tuple[object, ...]:
        """Everything that cached features depend on."""
        settings = self.settings
        config = self.model.config
        encoders = {kind: origin for kind, origin in config.towers.items() if kind != "llm"}
        dtypes = [str(getattr(self.model, f"{name}_encoder").dtype) for name in self.modalities]
        files = []
        for clip in self.clips:
            path_of = {"audio": clip.sound, "video": clip.video}
            facts = [file_facts(path_of[modality]) for modality in self.modalities]
            files.append((clip.id, clip.frames, clip.track, facts))
        return (
            self.modalities,
            encoders,
            dtypes,
            config.audio_context,
            bool(config.video_lora_rank),
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
    def _encode(self, batches: Sequence[list[ClipKey]], store: Store) -> None:
        """Adds the features of the clips in these batches to the store.

        Each process encodes a batch, and gets those of the others, so that none waits for long.
        """
        rounds = math.ceil(len(batches) / processes())
        own = own_share(batches)
        own += [[]] * (rounds - len(own))
        loader = self._loader(self.media, own)
        loaded = with_progress(loader, "Encoding clips", rounds, self.progress)
        for keys, batch in zip(own, loaded, strict=True):
            encoded = {key: Encoded(0.0, {}) for key in keys}  # what remains of unreadable clips
            if batch.media is not None:
                encoded |= _of_each_clip(batch, self._features(batch.media))
            for found in gathered(encoded):
                store.update(found)

    def _features(self, media: Media) -> Features:
        try:
            return self.model.encode_frozen(media.to(self.model.device))
        except torch.OutOfMemoryError as error:
            raise InputError(
                "out of memory while clips are encoded: "
                f"lower --max-frames, now {self.settings.max_frames}"
            ) from error


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
    own: list[dict[str, Tensor]] = [{} for _ in batch.keys]
    for modality in features.modalities:
        values, lengths = features.of(modality)
        values = values.half().cpu()
        for place, length in enumerate(lengths.tolist()):
            own[place][modality] = values[place, :length].clone()  # without the others' memory
    encoded = {}
    for key, seconds, of_clip in zip(batch.keys, batch.seconds, own, strict=True):
        encoded[key] = Encoded(seconds, of_clip)
    return encoded
