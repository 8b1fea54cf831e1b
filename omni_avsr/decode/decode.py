"""Clips to text: batched by length, on any routes, clean or in noise.

Decoding is deterministic: the noise of a clip is fixed by its id, the kind of noise, the ratio, the
seed and, if it is babble, the voices of its file, whatever the clip is batched with.
"""

import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
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
from omni_avsr.decode.confidence import Evidence, evidence_of, probabilities
from omni_avsr.decode.hypothesis import Hypothesis
from omni_avsr.decode.remote import AT_A_TIME, EngineError, Remote
from omni_avsr.errors import InputError
from omni_avsr.files import Journal
from omni_avsr.model import Batch, Features, Media, OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import plain
from omni_avsr.model.aligner import Place
from omni_avsr.model.beams import Generated, Search
from omni_avsr.model.precision import allow_tf32, chosen_dtype, dtype_name
from omni_avsr.model.sums import all_sums
from omni_avsr.run import Progress, no_progress, with_progress
from omni_avsr.settings import CheckpointOptions, DecodingOptions
from omni_avsr.tasks import CLEAN, Condition, Route, Row

LOOKS_EVERY = 0.01  # seconds, for transcripts of an LLM that runs elsewhere
REFILL = 0.25  # of the clips that are decoded at a time; so many are added together


@dataclass(frozen=True)
class Decoded:
    """A transcript, and how sure the model is of it."""

    text: str
    confidence: float  # geometric mean of the tokens' probabilities, 0..1
    is_cut: bool  # whether it reached its limit without an end
    ids: list[int]  # of its tokens, padded
    sums: list[float]  # log-probability as far as each token


@dataclass(frozen=True)
class Decoder:
    """A model that is ready to decode, with its processor."""

    model: OmniAVSR
    processor: OmniAVSRProcessor
    name: str  # of the checkpoint
    remote: Remote | None = None  # what runs the LLM, if the model does not

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
        stream = self.stream(route, beams, max_new_tokens)
        found = dict([*stream.add(features), *stream.finish()])
        return [found[clip] for clip in sorted(found)]

    def stream(
        self, route: Route, beams: int, max_new_tokens: int | None, room: int = 0
    ) -> "Stream | RemoteStream":
        """What decodes clips on a route, at least so many at a time."""
        if self.remote is not None:
            return RemoteStream(self, self.remote, route, max_new_tokens)
        return Stream(self, route, beams, max_new_tokens, room=room)

    def continued(self, batch: Batch, beams: int, max_new_tokens: int | None) -> list[Decoded]:
        """The transcripts of a batch, or their rest if they have begun."""
        if self.remote is None:
            return self.decoded(self.model.generate_with_scores(batch, beams, max_new_tokens))
        found = self.remote.begin(self.model, batch, max_new_tokens)
        return [self.decoded(future.result())[0] for future in found]

    def decoded(self, found: Generated) -> list[Decoded]:
        """The texts of what a search has found."""
        found = found.without_loops(self.model.config.pad_token_id)
        if not found.scores.isfinite().all():
            raise InputError(f"{self.name} computes NaN or infinity: its weights may be damaged")
        texts = self.processor.batch_decode(found.ids)
        confidences = found.scores.exp()
        facts = (confidences, found.is_cut, found.ids, found.sums)
        rows = zip(texts, *(values.tolist() for values in facts), strict=True)
        return [Decoded(*of_clip) for of_clip in rows]

    def evidence(
        self, decoded: Decoded, places: Sequence[Sequence[Place] | None]
    ) -> list[Evidence | None]:
        """The evidence for each word, given its characters; None for a word without any."""
        said = self.processor.word_probabilities(decoded.ids, decoded.sums)
        evidence: list[Evidence | None] = []
        for probability, own in zip(said, places, strict=True):
            evidence.append(evidence_of(probability, own) if own else None)
        return evidence


@dataclass
class Stream:
    """Decodes clips on a route; they are numbered in the order in which they are added.

    Clips that are done make room for others, so that a long transcript does not hold up short ones.
    At most as many as the largest batch has are decoded at a time.
    """

    decoder: Decoder
    route: Route
    beams: int
    max_new_tokens: int | None
    search: Search | None = None
    room: int = 0  # clips
    added: int = 0

    def add(self, features: Features) -> Iterator[tuple[int, Decoded]]:
        """Takes in a batch; yields the numbers and transcripts of clips that are done meanwhile."""
        count = features.clips
        self.room = max(self.room, count)
        first = 0
        while first < count:
            free = self.room - self.running
            wanted = min(count - first, math.ceil(self.room * REFILL))
            if self.running and (free < wanted or not self._joins):
                yield from self.step()
            else:
                last = min(count, first + free)
                yield from self._begin(features.of_clips(first, last))
                first = last

    def finish(self) -> Iterator[tuple[int, Decoded]]:
        """Yields the numbers and transcripts of all clips that are not done yet."""
        while self.running:
            yield from self.step()

    @property
    def running(self) -> int:
        """How many clips are decoded."""
        return self.search.clips if self.search else 0

    @property
    def _joins(self) -> bool:
        return self.search is not None and self.search.steps.joins

    def _begin(self, features: Features) -> Iterator[tuple[int, Decoded]]:
        model = self.decoder.model
        batch = self.decoder.processor.batch(features, self.route).to(model.device)
        search = model.search(batch, self.beams, self.max_new_tokens, self.added)
        self.added += features.clips
        yield from self._done(search)
        if self.running and self.search and search.clips:
            self.search.join(search)
        elif search.clips:
            self.search = search

    def step(self) -> Iterator[tuple[int, Decoded]]:
        """Runs the LLM once; yields the numbers and transcripts of clips that are done."""
        assert self.search is not None
        self.decoder.model.activate_adapters(self.route)
        yield from self._done(self.search)
        if not self.search.clips:
            self.search = None  # with its cache

    def drop(self) -> None:
        """Forgets the clips that are decoded."""
        self.search = None

    def _done(self, search: Search) -> Iterator[tuple[int, Decoded]]:
        """Runs a step of a search; yields the clips that are done."""
        clips, found = search.step()
        if clips:
            yield from zip(clips, self.decoder.decoded(found), strict=True)


@dataclass
class RemoteStream:
    """Decodes clips on a route as `Stream` does, but its LLM runs elsewhere, and meanwhile."""

    decoder: Decoder
    remote: Remote
    route: Route
    max_new_tokens: int | None
    pending: dict[Future[Generated], int] = field(default_factory=dict)  # the number of the clip
    added: int = 0

    def add(self, features: Features) -> Iterator[tuple[int, Decoded]]:
        """Takes in a batch; yields the numbers and transcripts of clips that are done meanwhile."""
        model = self.decoder.model
        batch = self.decoder.processor.batch(features, self.route).to(model.device)
        for future in self.remote.begin(model, batch, self.max_new_tokens):
            self.pending[future] = self.added
            self.added += 1
        while self.running > AT_A_TIME:
            yield from self.step()

    def finish(self) -> Iterator[tuple[int, Decoded]]:
        """Yields the numbers and transcripts of all clips that are not done yet."""
        while self.running:
            yield from self.step()

    @property
    def running(self) -> int:
        """How many clips are decoded."""
        return len(self.pending)

    def step(self) -> Iterator[tuple[int, Decoded]]:
        """Waits a little; yields the numbers and transcripts of clips that are done."""
        done, _ = wait(self.pending, timeout=LOOKS_EVERY, return_when=FIRST_COMPLETED)
        for future in done:
            number = self.pending.pop(future)
            try:
                found = future.result()
            except EngineError as error:
                error.clip = number
                raise
            yield number, self.decoder.decoded(found)[0]

    def drop(self) -> None:
        """Forgets the clips that are decoded."""
        for future in self.pending:
            future.cancel()
        self.pending.clear()


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
    remote = _remote(model, options.engine_url, name)
    return Decoder(model, OmniAVSRProcessor.from_pretrained(name, towers=towers), name, remote)


def _remote(model: OmniAVSR, url: str | None, name: str) -> Remote | None:
    """What runs the LLM, if it is not the model; refuses one that lacks an adapter."""
    config = model.config
    if url is None:
        if config.llm_config.num_hidden_layers == 0:
            raise InputError(
                f"{name} has no layers of its LLM, which an engine runs: give --engine-url"
            )
        return None
    remote = Remote(url, config.eos_token_id)
    remote.refuse_missing(all_sums(config))
    return remote


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
    decode_seconds: float  # its share of the batch's time, encoders included
    evidence: list[Evidence | None] | None = None  # for each word, if the model has an aligner

    def as_row(self) -> Row:
        """Its row of a journal."""
        return {
            **self.hypothesis.as_row(),
            "index": self.index,
            "decode_seconds": self.decode_seconds,
            "normaliser": self.hypothesis.normaliser,
            "evidence": self.evidence,
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
            probabilities=row["probabilities"],
            seconds=row["audio_seconds"],
        )
        return cls(row["index"], hypothesis, row["decode_seconds"], row["evidence"])


@torch.no_grad()
def decode(
    decoder: Decoder,
    clips: Sequence[Clip],
    routes: Sequence[Route],
    settings: DecodingOptions,
    noise: Noise | None = None,
    progress: Progress = no_progress,
    journal: Journal | None = None,
    only: Collection[int] | None = None,
) -> dict[Route, list[DecodedClip]]:
    """Decodes every readable clip on each route; returns them in the order of their label file.

    The encoders run once for all routes. Clips that the journal has on all routes are skipped, and
    others if only those at some places of the label file are wanted.
    """
    journal = journal or Journal()
    condition = noise.condition if noise else CLEAN
    decoded = _known(journal, routes, condition)
    wanted = range(len(clips)) if only is None else sorted(only)
    todo = [i for i in wanted if any(i not in known for known in decoded.values())]
    what = f"Decoding {condition}" if noise else "Decoding"
    loader = _loader(decoder, clips, todo, routes, settings, noise)
    streams = [_RouteStream.of(decoder, route, condition, settings) for route in routes]

    def keep(found: Sequence[DecodedClip]) -> None:
        journal.add(clip.as_row() for clip in found)
        for clip in found:
            decoded[clip.hypothesis.route][clip.index] = clip

    with told_of_workers():
        for loaded in with_progress(loader, what, len(loader), progress):
            if loaded.clips:
                features, seconds = _encode(decoder, loaded.media.to(decoder.device))
                for stream in streams:
                    keep(stream.add(clips, loaded, features, seconds))
                    if len(routes) > 1 and not decoder.remote:  # there is memory for one cache
                        keep(stream.finish())
        for stream in streams:
            keep(stream.finish())
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


@dataclass(frozen=True)
class _Given:
    """A clip that a route is to decode."""

    index: int
    clip: Clip
    seconds: float
    named: np.ndarray | None  # what the aligner finds in each frame, if there is one


@dataclass
class _RouteStream:
    """The stream of a route, with the clips that it decodes and the time that it takes."""

    stream: Stream | RemoteStream
    condition: Condition
    normaliser: str
    clips: list[_Given] = field(default_factory=list)
    spent: float = 0.0  # seconds that no clip was charged with yet

    @classmethod
    def of(
        cls, decoder: Decoder, route: Route, condition: Condition, settings: DecodingOptions
    ) -> "_RouteStream":
        stream = decoder.stream(route, settings.beams, settings.max_new_tokens)
        return cls(stream, condition, settings.normaliser)

    def add(
        self,
        clips: Sequence[Clip],
        loaded: _Loaded,
        features: Features,
        encode_seconds: Mapping[str, float],
    ) -> list[DecodedClip]:
        """Takes in a batch; returns the clips that are done meanwhile."""
        aligner = self.stream.decoder.model.aligner
        named: Sequence[np.ndarray | None] = [None] * len(loaded.clips)
        if aligner is not None:
            named = aligner.named(features.only(self.stream.route.modalities))
        for index, seconds, own in zip(loaded.clips, loaded.seconds, named, strict=True):
            self.clips.append(_Given(index, clips[index], seconds, own))
        self.spent += sum(encode_seconds[name] for name in self.stream.route.modalities)
        return self._timed(self.stream.add(features))

    def finish(self) -> list[DecodedClip]:
        """The clips that are not done yet."""
        return self._timed(self.stream.finish())

    def _timed(self, transcripts: Iterable[tuple[int, Decoded]]) -> list[DecodedClip]:
        """The clips of these transcripts, which share the time since the last ones."""
        started = self.stream.decoder.now()
        found = list(transcripts)
        self.spent += self.stream.decoder.now() - started
        if not found:
            return []
        share, self.spent = self.spent / len(found), 0.0
        return [self._clip(number, transcript, share) for number, transcript in found]

    def _clip(self, number: int, transcript: Decoded, share: float) -> DecodedClip:
        given, route = self.clips[number], self.stream.route
        evidence = self._evidence(given, transcript)
        weights = self.stream.decoder.model.config.calibration.get(route.task)
        hypothesis = Hypothesis(
            id=given.clip.id,
            reference=given.clip.text,
            hypothesis=transcript.text,
            route=route,
            condition=self.condition,
            confidence=round(transcript.confidence, 4),  # the rest depends on the batch
            normaliser=self.normaliser,
            is_cut=transcript.is_cut,
            probabilities=None if evidence is None else probabilities(evidence, weights),
            seconds=given.seconds,
        )
        return DecodedClip(given.index, hypothesis, share, evidence)

    def _evidence(self, given: _Given, transcript: Decoded) -> list[Evidence | None] | None:
        """The evidence for each word, if there is an aligner."""
        decoder = self.stream.decoder
        if given.named is None or decoder.model.aligner is None:
            return None
        words = transcript.text.split()
        places = decoder.model.aligner.places(given.named, words)
        return decoder.evidence(transcript, [places.get(n) for n in range(len(words))])


def _encode(decoder: Decoder, media: Media) -> tuple[Features, dict[str, float]]:
    """The features, and the seconds that each encoder took."""
    started = decoder.now()
    heard = decoder.model.encode(Media(audio=media.audio, audio_lengths=media.audio_lengths))
    between = decoder.now()
    seen = decoder.model.encode(Media(video=media.video, video_lengths=media.video_lengths))
    seconds = {"audio": between - started, "video": decoder.now() - between}
    features = Features(heard.audio, heard.audio_lengths, seen.video, seen.video_lengths)
    return features, seconds
