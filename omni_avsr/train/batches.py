"""The data of a training run: which clips come when, read or encoded once, and what could not be read."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from omni_avsr.data import augment, loading, manifest
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.run import Report, counted, write_whole
from omni_avsr.settings import TrainSettings


class Batches:
    """The data of a training run: media, or features where frozen encoders have seen every copy of a clip before."""

    def __init__(self, model: OmniAVSR, processor: OmniAVSRProcessor, settings: TrainSettings, report: Report):
        self.model, self.processor, self.settings, self.report = model, processor, settings, report
        self.streams = model.config.streams(model.config.tasks)

    def prepare(self, clips: Sequence[manifest.Clip], valid: Sequence[manifest.Clip]) -> None:
        """Takes the clips, and encodes the training clips where that is done once."""
        settings = self.settings
        self.clips, self.valid = clips, valid
        dataset = loading.ClipDataset(clips, self._augmentation(clips), settings.seed, self.streams)
        self.sampler = loading.EndlessBatches([clip.frames for clip in clips], settings.max_frames, settings.seed)
        self.dataset: Dataset = self._kept(dataset, settings.cache_copies) if settings.cache_copies else dataset

    def training(self, start: int = 0, rank: int = 0, ranks: int = 1) -> DataLoader:
        """Endless shuffled batches of augmented clips, from where a run was cut off; each of several ranks its own."""
        self.sampler.start, self.sampler.rank, self.sampler.ranks = start, rank, ranks
        return self._loader(self.dataset, self.sampler)

    def validation(self, rank: int = 0, ranks: int = 1) -> DataLoader:
        """Each clip once, as it is; each of several ranks has its own."""
        batches = loading.buckets([clip.frames for clip in self.valid], self.settings.max_frames)[rank::ranks]
        batches = batches or [[]]  # fewer batches than ranks: every rank has one
        return self._loader(
            loading.ClipDataset(self.valid, streams=self.streams),
            [[(index, 0) for index in batch] for batch in batches],
        )

    def _loader(self, dataset: Dataset, batches: Iterable[loading.Batch]) -> DataLoader:
        return DataLoader(dataset, batch_sampler=batches, collate_fn=self._collate, num_workers=self.settings.workers)

    def _augmentation(self, clips: Sequence[manifest.Clip]) -> loading.Augmentation:
        noise = numpy.zeros(1)
        if self.settings.noise_probability and "audio" in self.streams:
            noise = loading.babble_of(clips, augment.generator(self.settings.seed, "babble"))
        return loading.Augmentation(
            noise=noise,
            probability=self.settings.noise_probability,
            snrs=tuple(float(snr) for snr in self.settings.noise_snr.split(",")),
            audio_mask=self.settings.audio_mask,
            video_mask=self.settings.video_mask,
        )

    def _collate(self, clips: list[dict[str, Any] | loading.Unreadable]) -> dict[str, Any]:
        kept = [clip for clip in clips if not isinstance(clip, loading.Unreadable)]
        batch: dict[str, Any] = {"unreadable": [clip.id for clip in clips if isinstance(clip, loading.Unreadable)]}
        batch |= {name: [clip[name] for clip in kept] for name in ("keys", "text", "seconds")}
        if not kept:
            return batch
        if "features" not in kept[0]:
            return {
                **batch,
                "media": self.processor.media(loading.stream(kept, "audio"), loading.stream(kept, "video")),
            }
        names = [f"{modality}_lengths" for modality in self.streams]
        lengths = {name: torch.stack([clip[name] for clip in kept]) for name in names}
        return {**batch, "media": lengths, "features": _pad([clip["features"] for clip in kept])}

    def _kept(self, dataset: loading.ClipDataset, copies: int) -> "Cached":
        """The encoded copies, of the feature cache if it has them."""
        folder = self.settings.feature_cache
        if not folder:
            return self._cached(dataset, copies)
        settings, towers = self.settings, {k: t for k, t in self.model.config.towers.items() if k != "llm"}
        augmented = (settings.noise_probability, settings.noise_snr, settings.audio_mask, settings.video_mask)
        clips = [(str(clip.video.absolute()), clip.text) for clip in dataset.clips]
        context = self.model.config.audio_context
        key = repr((self.streams, towers, context, augmented, settings.seed, settings.max_frames, copies, clips))
        file = Path(folder) / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.pt"
        if file.is_file():
            return Cached(torch.load(file, weights_only=True), dataset.clips)
        cached = self._cached(dataset, copies)
        write_whole(file, lambda part: torch.save(cached.copies, part))
        return cached

    @torch.no_grad()
    def _cached(self, dataset: loading.ClipDataset, copies: int) -> "Cached":
        """Every clip's features in so many augmented copies."""
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        for encoder in filter(None, (self.model.audio_encoder, self.model.video_encoder)):
            encoder.to(device)
        buckets = loading.buckets([clip.frames for clip in dataset.clips], self.settings.max_frames)
        batches = [[(index, copy) for index in bucket] for copy in range(copies) for bucket in buckets]
        cached = Cached([{} for _ in range(copies)], dataset.clips)
        for batch in counted(self._loader(dataset, batches), "Encoding clips", len(batches), self.report):
            if batch["text"]:
                media = {name: values.to(device) for name, values in batch["media"].items()}
                cached.add(batch, self.model.encode(**media))
        return cached


class Cached(Dataset):
    """Features of augmented copies of each clip, in half precision."""

    def __init__(self, copies: list[dict[int, dict[str, Any]]], clips: Sequence[manifest.Clip]):
        self.copies, self.clips = copies, clips

    def add(self, batch: dict[str, Any], features: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Keeps each clip of a batch under its index and copy."""
        for i, (index, copy) in enumerate(batch["keys"]):
            clip = {name: batch[name][i] for name in ("keys", "text", "seconds")}
            lengths = {f"{name}_lengths": batch["media"][f"{name}_lengths"][i] for name in features}
            own = {m: values[i, : lengths_of[i]].half().cpu() for m, (values, lengths_of) in features.items()}
            self.copies[copy][index] = {**clip, **lengths, "features": own}

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any] | loading.Unreadable:
        index, epoch = key
        kept = self.copies[epoch % len(self.copies)].get(index)
        return loading.Unreadable(self.clips[index].id) if kept is None else {**kept, "keys": key}


def _pad(clips: Sequence[dict[str, Tensor]]) -> dict[str, tuple[Tensor, Tensor]]:
    """Features (T, D) of several clips as the model takes them: (B, T, D) and lengths (B,) for each modality."""
    rows = {modality: [clip[modality].float() for clip in clips] for modality in clips[0]}
    lengths = {modality: torch.tensor([len(row) for row in values]) for modality, values in rows.items()}
    return {m: (torch.nn.utils.rnn.pad_sequence(values, batch_first=True), lengths[m]) for m, values in rows.items()}
