"""Clips to text: batched by length, on any routes, clean or in noise.

Decoding is deterministic: the noise of a clip is fixed by its id, the kind of noise, the ratio, the
seed and, if it is babble, the voices of its file, whatever the clip is batched with.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from omni_avsr.choice import chosen_model
from omni_avsr.data.loading import (
    ClipDataset,
    ClipKey,
    LoadedClip,
    UnreadableClip,
    buckets,
    readable,
    stream_of,
)
from omni_avsr.data.manifest import Clip
from omni_avsr.data.noise import Noise
from omni_avsr.data.workers import loader_of, told_of_workers, workers_for
from omni_avsr.decode.hypothesis import Hypothesis
from omni_avsr.errors import InputError
from omni_avsr.files import Journal
from omni_avsr.model import Features, Media, OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import plain
from omni_avsr.model.precision import allow_tf32, chosen_dtype, dtype_name
from omni_avsr.run import Progress, no_progress, with_progress
from omni_avsr.settings import CheckpointOptions, DecodingOptions
from omni_avsr.tasks import CLEAN, Condition, Route, Row


@dataclass(frozen=True)
class Decoded:
    """A transcript, and how sure the model is of it."""

    text: str
    confidence: float  # geometric mean of the tokens' probabilities, 0..1
    is_cut: bool  # whether it reached its limit without an end


@dataclass(frozen=True)
class Decoder:
    """A model that is ready to decode, with its processor."""

    model: OmniAVSR
    processor: OmniAVSRProcessor
    name: str  # of the checkpoint

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> str:
        """The type of the frozen towers."""
        return dtype_name(plain(self.model.llm).dtype)

    def now(self) -> float:
        """The time in seconds, once the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def transcribe(
        self, features: Features, route: Route, beams: int, max_new_tokens: int | None
    ) -> list[Decoded]:
        """The transcripts of clips whose features are known, without endless repetitions."""
        batch = self.processor.batch(features, route).to(self.device)
        found = self.model.generate_with_scores(batch, beams, max_new_tokens)
        found = found.without_loops(self.model.config.pad_token_id)
        if not found.scores.isfinite().all():
            raise InputError(f"{self.name} computes NaN or infinity: its weights may be damaged")
        texts = self.processor.batch_decode(found.ids)
        facts = zip(texts, found.scores.exp().tolist(), found.is_cut.tolist(), strict=True)
        return [Decoded(*of_clip) for of_clip in facts]


def load_decoder(options: CheckpointOptions) -> Decoder:
    """The model of a run, a folder or a hub id; by default of the newest run, or else tiny."""
    device = _device(options.device)
    name = chosen_model(options.checkpoint)
    towers: dict[str, str | Path] = {**options.towers}
    dtype = chosen_dtype(options.dtype, device)
    allow_tf32()
    model = OmniAVSR.from_pretrained(name, towers=towers, dtype=dtype, quantize=options.quantize)
    model.to(device)  # type: ignore[arg-type]  # transformers' wrapper has no types
    model.eval()
    return Decoder(model, OmniAVSRProcessor.from_pretrained(name, towers=towers), name)


def _device(name: str) -> str:
    """The device of this name; refuses one that this machine does not have."""
    known = ["cpu"]
    if torch.cuda.is_available():
        known += ["cuda", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        known.append("mps")
    if name == "auto":
        return "cuda" if "cuda" in known else "cpu"
    if name not in known:
        raise InputError(f"there is no device {name!r} here; available: auto, {', '.join(known)}")
    return name


@dataclass(frozen=True)
class DecodedClip:
    """The hypothesis of a clip on a route, and what it took."""

    index: int  # of the clip in its label file
    hypothesis: Hypothesis
    audio_seconds: float  # length of the clip
    decode_seconds: float  # its share of the batch's time, encoders included

    def as_row(self) -> Row:
        """Its row of a journal."""
        return {
            **self.hypothesis.as_row(),
            "index": self.index,
            "audio_seconds": self.audio_seconds,
            "decode_seconds": self.decode_seconds,
            "normaliser": self.hypothesis.normaliser,
        }

    @classmethod
    def from_row(cls, row: Row) -> "DecodedClip":
        """The decoded clip of a journal's row."""
        hypothesis = Hypothesis(
            id=row["id"],
            reference=row["reference"],
            hypothesis=row["hypothesis"],
            route=Route.from_row(row),
            condition=Condition.from_row(row),
            confidence=row["confidence"],
            normaliser=row["normaliser"],
            is_cut=row["cut"],
        )
        return cls(row["index"], hypothesis, row["audio_seconds"], row["decode_seconds"])


@torch.no_grad()
def decode(
    decoder: Decoder,
    clips: Sequence[Clip],
    routes: Sequence[Route],
    settings: DecodingOptions,
    noise: Noise | None = None,
    progress: Progress = no_progress,
    journal: Journal | None = None,
) -> dict[Route, list[DecodedClip]]:
    """Decodes every readable clip on each route; returns them in the order of their label file.

    The encoders run once for all routes. Clips that the journal has on all routes are skipped.
    """
    journal = journal or Journal()
    condition = noise.condition if noise else CLEAN
    decoded = _known(journal, routes, condition)
    todo = [i for i in range(len(clips)) if any(i not in known for known in decoded.values())]
    what = f"Decoding {condition}" if noise else "Decoding"
    loader = _loader(decoder, clips, todo, routes, settings, noise)
    with told_of_workers():
        for loaded in with_progress(loader, what, len(loader), progress):
            if not loaded.clips:
                continue
            found = list(_decode_batch(decoder, clips, loaded, routes, condition, settings))
            journal.add(clip.as_row() for clip in found)
            for clip in found:
                decoded[clip.hypothesis.route][clip.index] = clip
    return {route: [known[i] for i in sorted(known)] for route, known in decoded.items()}


def _known(
    journal: Journal, routes: Sequence[Route], condition: Condition
) -> dict[Route, dict[int, DecodedClip]]:
    """What the journal has of these routes in this condition, by the index of the clip."""
    known: dict[Route, dict[int, DecodedClip]] = {route: {} for route in routes}
    for row in journal.rows:
        clip = DecodedClip.from_row(row)
        if clip.hypothesis.condition == condition and clip.hypothesis.route in known:
            known[clip.hypothesis.route][clip.index] = clip
    return known


def _loader(
    decoder: Decoder,
    clips: Sequence[Clip],
    todo: Sequence[int],
    routes: Sequence[Route],
    settings: DecodingOptions,
    noise: Noise | None,
) -> DataLoader:
    """Loads the clips with these indices in batches.

    Clips that are unreadable, or too long for the audio encoder, are left out.
    """
    modalities = {name for route in routes for name in route.modalities}
    kind = noise.kind if noise else None
    seed = (settings.seed, kind, noise.condition.snr if noise else None)
    batches = []
    for bucket in buckets([clips[index].frames for index in todo], settings.max_frames):
        batches.append([ClipKey(todo[place], 0) for place in bucket])
    longest_sound = decoder.model.config.longest_sound
    dataset = ClipDataset(clips, noise, seed, tuple(sorted(modalities)), longest_sound)
    collate = partial(_collated, decoder.processor)  # without the model, as workers unpickle it
    workers = settings.workers
    if workers is None:
        workers = workers_for(decoder.device, settings.max_frames)
    return loader_of(dataset, batches, collate, min(workers, len(batches)), decoder.device)


@dataclass(frozen=True)
class _Loaded:
    """What is decoded together: clips by their index, with their seconds, and their media."""

    clips: list[int]
    seconds: list[float]
    media: Media

    def pin_memory(self) -> "_Loaded":
        """The same in memory that a GPU copies from while the CPU goes on."""
        return replace(self, media=self.media.pin_memory())


def _collated(
    processor: OmniAVSRProcessor, clips: Sequence[LoadedClip | UnreadableClip]
) -> _Loaded:
    """The clips that could be read, as a batch."""
    loaded = readable(clips)
    media = Media()
    if loaded:
        media = processor.media(stream_of(loaded, "audio"), stream_of(loaded, "video"))
    indices = [clip.key.clip for clip in loaded]
    return _Loaded(indices, [clip.seconds for clip in loaded], media)


def _decode_batch(
    decoder: Decoder,
    clips: Sequence[Clip],
    loaded: _Loaded,
    routes: Sequence[Route],
    condition: Condition,
    settings: DecodingOptions,
) -> Iterator[DecodedClip]:
    """Each clip on each route."""
    features, encode_seconds = _encode(decoder, loaded.media.to(decoder.device))
    for route in routes:
        started = decoder.now()
        transcripts = decoder.transcribe(features, route, settings.beams, settings.max_new_tokens)
        seconds = decoder.now() - started
        seconds += sum(encode_seconds[modality] for modality in route.modalities)
        facts = zip(loaded.clips, loaded.seconds, transcripts, strict=True)
        for index, audio_seconds, transcript in facts:
            clip = clips[index]
            hypothesis = Hypothesis(
                id=clip.id,
                reference=clip.text,
                hypothesis=transcript.text,
                route=route,
                condition=condition,
                confidence=transcript.confidence,
                normaliser=settings.normaliser,
                is_cut=transcript.is_cut,
            )
            share = seconds / len(loaded.clips)
            yield DecodedClip(index, hypothesis, audio_seconds, share)


def _encode(decoder: Decoder, media: Media) -> tuple[Features, dict[str, float]]:
    """The features, and the seconds that each encoder took."""
    started = decoder.now()
    heard = decoder.model.encode(Media(audio=media.audio, audio_lengths=media.audio_lengths))
    between = decoder.now()
    seen = decoder.model.encode(Media(video=media.video, video_lengths=media.video_lengths))
    seconds = {"audio": between - started, "video": decoder.now() - between}
    features = Features(heard.audio, heard.audio_lengths, seen.video, seen.video_lengths)
    return features, seconds
