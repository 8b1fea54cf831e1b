"""Encodes clips in a process of several, and writes what it then has, and how much it has done."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from omni_avsr import OmniAVSR, OmniAVSRProcessor
from omni_avsr.data import manifest
from omni_avsr.data.loading import ClipKey
from omni_avsr.model import Features, Media
from omni_avsr.run import no_progress
from omni_avsr.settings import TrainSettings
from omni_avsr.train.batches import Batches
from omni_avsr.train.features import EncodedDataset


def encode(settings: TrainSettings, folder: Path) -> None:
    """Encodes in memory, and then into a feature cache, with the other process."""
    dist.init_process_group("gloo")
    model = OmniAVSR.from_towers(
        settings.audio_encoder, settings.video_encoder, settings.llm, **settings.model_settings()
    )
    processor = OmniAVSRProcessor.of(model)
    batches: list[int] = []
    encode_media = model.encode

    def counted(media: Media) -> Features:
        batches.append(len(media.audio))
        return encode_media(media)

    model.encode = counted
    for cache in (None, folder / "features"):
        batches.clear()
        own = replace(settings, feature_cache=cache)
        data = Batches(model, processor, own, no_progress)
        clips = manifest.read(own.data)
        data.prepare(clips, clips)
        data.encode()
        file = folder / f"{'memory' if cache is None else 'disk'}-{dist.get_rank()}.pt"
        torch.save({"batches": batches, "features": features_of(data.dataset)}, file)
    dist.destroy_process_group()


def features_of(dataset: EncodedDataset) -> dict[str, torch.Tensor]:
    """The features of every copy of every clip."""
    found = {}
    for copy in range(dataset.copies):
        for index in range(len(dataset.clips)):
            clip = dataset[ClipKey(index, copy)]
            for modality, values in clip.features.items():
                found[f"{copy} {clip.id} {modality}"] = values
    return found
