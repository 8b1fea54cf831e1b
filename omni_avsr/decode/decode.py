"""Clips to text: batched by length, at any tasks and rates, clean or in noise. Nothing is drawn: the noise of a clip is
fixed by its id, its kind, the ratio and the seed, whatever the clip is batched with."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from omni_avsr.data import augment, loading, manifest
from omni_avsr.files import Journal
from omni_avsr.measure.results import Hypothesis, Row, result_row, write_hypotheses
from omni_avsr.media import streams as media
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor, Route
from omni_avsr.run import Report, counted, locked, newest_model, silent
from omni_avsr.settings import DecodeSettings, Decoding, EvaluateSettings, numbers
from omni_avsr.tasks import Task
from omni_avsr.toy import toy_corpus


@dataclass
class Decoded:
    """What one task at its rates gave, and how long it took with its encoders."""

    found: dict[int, Hypothesis] = field(default_factory=dict)  # by the clip's place in its file
    audio_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def hypotheses(self) -> list[Hypothesis]:
        """Them in the order of the file."""
        return [self.found[index] for index in sorted(self.found)]

    def add(self, index: int, hypothesis: Hypothesis, audio_seconds: float, decode_seconds: float) -> None:
        """Takes one clip."""
        self.found[index] = hypothesis
        self.audio_seconds += audio_seconds
        self.decode_seconds += decode_seconds

    def row(self, **facts: Any) -> Row:
        """Its results row."""
        return result_row(
            self.hypotheses, audio_seconds=self.audio_seconds, decode_seconds=self.decode_seconds, **facts
        )


@dataclass(frozen=True)
class Noise:
    """Noise tracks, one of them mixed in at an exact ratio in dB; used where training augments."""

    kind: str
    snr: float
    tracks: Sequence[np.ndarray | Path]

    def __call__(
        self, audio: loading.Stream, video: loading.Stream, rng: np.random.Generator
    ) -> tuple[loading.Stream, loading.Stream]:
        if audio is None:
            return audio, video
        track = self.tracks[int(rng.integers(len(self.tracks)))] if len(self.tracks) > 1 else self.tracks[0]
        return augment.mix(audio, media.read_audio(track) if isinstance(track, Path) else track, self.snr, rng), video


def make_noise(kind: str, snr: float, clips: Sequence[manifest.Clip], seed: int) -> Noise:
    """Babble of the clips' own voices, white noise, or the sounds of a folder such as MUSAN's noise."""
    rng = augment.generator(seed, kind)
    if kind == "white":
        return Noise(kind, snr, [augment.white(rng)])
    if kind == "babble":
        return Noise(kind, snr, [loading.babble_of(clips, rng)])
    if not Path(kind).is_dir():
        raise ValueError(f"unknown noise {kind!r}; available: babble, white, or a folder of sounds")
    sounds = [path for path in manifest.media_files(Path(kind)) if path.suffix.lower() in manifest.AUDIO_SUFFIXES]
    if not sounds:
        raise ValueError(f"{kind} holds no sounds to mix in")
    return Noise(kind, snr, sounds)


@torch.no_grad()
def decode(
    model: OmniAVSR,
    processor: OmniAVSRProcessor,
    clips: Sequence[manifest.Clip],
    routes: Sequence[Route],
    settings: Decoding,
    noise: Noise | None = None,
    report: Report = silent,
    journal: Journal | None = None,
) -> dict[Route, Decoded]:
    """Each route's hypotheses of all clips that can be read; the encoders run once for all routes.

    Clips of the journal are not decoded again.
    """
    condition = (noise.snr, noise.kind) if noise else (None, None)
    streams = model.config.streams([task for task, *_ in routes])
    kind = "folder" if noise and Path(noise.kind).is_dir() else condition[1]  # wherever the folder is
    dataset = loading.ClipDataset(clips, noise, (settings.seed, kind, condition[0]), streams)
    journal = journal or Journal(None)
    decoded = _known(journal, routes, condition)
    rest = [i for i in range(len(clips)) if any(i not in known.found for known in decoded.values())]
    buckets = loading.buckets([clips[i].frames for i in rest], settings.max_frames) if rest else []
    loader = DataLoader(dataset, batch_sampler=[[(rest[i], 0) for i in b] for b in buckets], collate_fn=_readable)
    name = f"Decoding {noise.kind} {noise.snr:g} dB" if noise else "Decoding"
    for batch in counted(loader, name, len(buckets), report):
        if batch:
            found = _decode_batch(
                model, processor, [(clips[clip["keys"][0]], clip) for clip in batch], routes, settings
            )
            lines = [{**line, "snr": condition[0], "noise": condition[1]} for line in found]
            journal.add(lines)
            for line in lines:
                _take(decoded, line)
    return decoded


def _known(journal: Journal, routes: Sequence[Route], condition: tuple) -> dict[Route, Decoded]:
    """What a journal has of these routes in this noise."""
    decoded = {route: Decoded() for route in routes}
    for line in journal.lines:
        if (line["snr"], line["noise"]) == condition:
            _take(decoded, line)
    return decoded


def _take(decoded: dict[Route, Decoded], line: dict[str, Any]) -> None:
    line = {**line, "task": Task(line["task"])}
    index, spoken, spent = (line.pop(name) for name in ("index", "audio_seconds", "decode_seconds"))
    hypothesis = Hypothesis(**line)
    decoded[hypothesis.setting].add(index, hypothesis, spoken, spent)


def _readable(clips: list[dict | loading.Unreadable]) -> list[dict]:
    return [clip for clip in clips if not isinstance(clip, loading.Unreadable)]


def _decode_batch(model, processor, batch, routes: Sequence[Route], settings: Decoding) -> Iterator[dict[str, Any]]:
    """A line for each route and clip."""
    read = [clip for _, clip in batch]
    inputs = processor.media(loading.stream(read, "audio"), loading.stream(read, "video"), training=False)
    inputs = {name: values.to(model.device) for name, values in inputs.items()}
    features: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    spent: dict[str, float] = {}
    for modality in [name for name in ("audio", "video") if name in inputs]:
        started = _now(model)
        features |= model.encode(**{name: inputs[name] for name in (modality, f"{modality}_lengths")})
        spent[modality] = _now(model) - started
    for task, audio_rate, video_rate in routes:
        started = _now(model)
        rates = model.config.choose(task, audio_rate, video_rate)
        options = {"num_beams": settings.beams, "max_new_tokens": settings.max_new_tokens}
        texts, confidences = say(model, processor, inputs, features, task, rates, **options)
        seconds = (_now(model) - started + sum(spent[modality] for modality in rates)) / len(batch)
        for (clip, given), said, confidence in zip(batch, texts, confidences, strict=True):
            yield {
                "index": given["keys"][0],
                "id": clip.id,
                "reference": clip.text,
                "hypothesis": said,
                "task": str(task),
                "audio_rate": rates.get("audio"),
                "video_rate": rates.get("video"),
                "confidence": confidence,
                "normaliser": settings.normaliser,
                "audio_seconds": given["seconds"],
                "decode_seconds": seconds,
            }


def _now(model: OmniAVSR) -> float:
    """The time, once the device has done what it was given."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
    return time.perf_counter()


def say(
    model, processor, inputs: dict, features, task: str, rates: dict[str, int], **options: Any
) -> tuple[list[str], list[float]]:
    """The transcripts of a batch whose features are known, and how sure the model is of each."""
    tokens = {name: ids.to(model.device) for name, ids in processor.tokens(inputs, task, rates, None).items()}
    routing = {f"{modality}_rate": rate for modality, rate in rates.items()}
    ids, scores = model.generate_with_scores(**tokens, task=task, features=features, **routing, **options)
    return processor.batch_decode(ids), scores.exp().tolist()


def load(checkpoint: str | None, device: str = "auto") -> tuple[OmniAVSR, OmniAVSRProcessor, str]:
    """The model, its processor and its name: of a run, a folder or hub id; by default the newest run, else tiny."""
    name: str | Path = checkpoint or newest_model(Path("runs")) or "tiny"
    if (Path(name) / "model" / "config.json").is_file():
        name = Path(name) / "model"
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = OmniAVSR.from_pretrained(name).to(device).eval()
    return model, OmniAVSRProcessor.from_pretrained(name), str(name)


def clips_to_decode(settings: Decoding, report: Report) -> tuple[list[manifest.Clip], str]:
    """The clips to decode and where they are from."""
    if settings.data:
        return manifest.read(settings.data, settings.root, settings.format, settings.tokens), settings.data
    file = toy_corpus(settings.toy_world, settings.toy_clips, report, splits=("test",))["test"]
    return manifest.read(file), str(file)


def decode_file(settings: DecodeSettings, report: Report = silent) -> tuple[Decoded, Row, int]:
    """What `omni-avsr decode` does: the hypotheses, their results row, and how many clips could not be read.

    With --out the hypotheses are written there; what is decoded until then is beside it, for a run that is cut off.
    """
    model, processor, name = load(settings.checkpoint, settings.device)
    rates = model.config.choose(settings.task, settings.audio_rate, settings.video_rate)
    if settings.merge:
        model = model.merge(settings.task, settings.audio_rate, settings.video_rate)
    clips, file = clips_to_decode(settings, report)
    noise = None if settings.snr is None else make_noise(settings.noise, settings.snr, clips, settings.seed)
    route = (settings.task, rates.get("audio"), rates.get("video"))
    with _journal(Path(settings.out) if settings.out else None, settings, name, clips) as journal:
        decoded = decode(model, processor, clips, [route], settings, noise, report, journal)[route]
        if not decoded.hypotheses:
            raise ValueError(f"none of the {len(clips)} clips of {file} could be read")
        if settings.out:
            write_hypotheses(settings.out, decoded.hypotheses)
        journal.done()
    row = decoded.row(beams=settings.beams, seed=settings.seed, checkpoint=name, manifest=file)
    return decoded, row, len(clips) - len(decoded.hypotheses)


@contextmanager
def _journal(out: Path | None, settings: Decoding, name: str, clips: Sequence[manifest.Clip]) -> Iterator[Journal]:
    """The journal beside a file of hypotheses, this process's own; of nothing if there is no such file."""
    if out is None:
        yield Journal(None)
        return
    config = Path(name) / "config.json"
    head: dict[str, Any] = {
        **asdict(settings),
        "checkpoint": name,
        "clips": [(clip.id, clip.text, str(clip.video)) for clip in clips],
    }
    head["trained"] = config.stat().st_mtime_ns if config.is_file() else None
    for place in ("out", "device", "max_frames"):
        head.pop(place)
    with locked(out.parent, f".{out.name}.lock"):
        yield Journal(out.with_name(f"{out.name}.part"), head)


def evaluate(
    settings: EvaluateSettings, report: Report = silent, out: Path | None = None
) -> tuple[list[Row], list[Hypothesis]]:
    """What `omni-avsr evaluate` measures: the rows and hypotheses of every task, at every rate, in every noise.

    A row's `unreadable` are the clips that it lacks. With a folder, what is decoded is kept there until `publish` has
    written all of it: an evaluation that is cut off goes on.
    """
    model, processor, name = load(settings.checkpoint, settings.device)
    routes = grid_routes(model.config, settings)
    clips, file = clips_to_decode(settings, report)
    rows: list[Row] = []
    hypotheses: list[Hypothesis] = []
    noises = [make_noise(*condition, clips, settings.seed) if condition else None for condition in settings.conditions]
    with _journal(out and out / "hypotheses.jsonl", settings, name, clips) as journal:
        for noise in noises:
            heard = [route for route in routes if noise is None or Task(route[0]).hears]  # lips do not hear the noise
            if not heard:
                continue
            for decoded in decode(model, processor, clips, heard, settings, noise, report, journal).values():
                if not decoded.hypotheses:
                    raise ValueError(f"none of the {len(clips)} clips of {file} could be read")
                row = decoded.row(beams=settings.beams, seed=settings.seed, checkpoint=name, manifest=file)
                rows.append({**row, "unreadable": len(clips) - len(decoded.hypotheses)})
                hypotheses += decoded.hypotheses
    return rows, hypotheses


def grid_routes(config, settings: EvaluateSettings) -> list[Route]:
    """What is asked for, else all that the model has."""
    wishes = [numbers(rates) if rates else None for rates in (settings.audio_rates, settings.video_rates)]
    return config.routes(*wishes, tasks=settings.tasks.split(",") if settings.tasks else None)
