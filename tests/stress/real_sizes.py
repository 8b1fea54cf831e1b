"""The published sizes with random weights: decoding and a training step, on two cores.

    MALLOC_MMAP_THRESHOLD_=65536 MALLOC_TRIM_THRESHOLD_=65536 python -m tests.stress.real_sizes

Whisper-medium.en, AV-HuBERT large and Llama-3.2-1B in bfloat16, as omni-avsr-st at rates (4, 2)
with two clips of six seconds. Prints the seconds and the peak memory of each part beside what
`omni-avsr plan` counts for it, and fails if all of it takes over 15 minutes or 14 GB. The variables
make the C library give memory back, so that peaks are of what is in use.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
import typer
from torch import Tensor

from benchmarks import yardstick
from omni_avsr.measure.rehearsal import Clips, Rehearsal, built
from omni_avsr.model import Features, Media, OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.adapters import leave_casting_to_autocast
from omni_avsr.run import silence_libraries
from omni_avsr.settings import TrainSettings
from omni_avsr.tasks import Route
from omni_avsr.train.batches import TrainingBatch
from omni_avsr.train.step import Training

DTYPE = torch.bfloat16
PRECISION = "bf16-mixed"
SETTINGS = TrainSettings(
    audio_encoder="openai/whisper-medium.en",
    video_encoder="large",
    llm="meta-llama/Llama-3.2-1B",
    audio_rates=(4,),
    video_rates=(2,),
    rates_in_a_step="fixed",
    cache_copies=0,
)
CLIPS = Clips(count=2, frames=150, tokens=24)
BEAMS = 3
NEW_TOKENS = 16
MOST_SECONDS = 15 * 60
MOST_MIB = 14e9 / 2**20
COLUMNS = ("part", "seconds", "CPU s", "peak: MiB", "plan: MiB")


@dataclass(frozen=True)
class Part:
    """What a part of the work took."""

    name: str
    seconds: float
    cpu: float  # seconds of all threads
    peak: float  # MiB, above what the process held before there was a model
    planned: float | None  # MiB


class Parts:
    """Measures one part after another."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.before = yardstick.resident_mib()
        self.plan: dict[str, int] = {}  # bytes by part
        self.done: list[Part] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measures what is done inside."""
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is held now
        started, cpu = time.perf_counter(), time.process_time()
        yield
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        planned = self.plan[name] / 2**20 if name in self.plan else None
        part = Part(name, seconds, cpu, yardstick.peak_mib() - self.before, planned)
        print(f"{name}: {seconds:.1f} s, {part.peak:.0f} MiB", flush=True)
        self.done.append(part)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.started

    @property
    def peak(self) -> float:
        """The most MiB that the process has held, with its libraries."""
        return self.before + max(part.peak for part in self.done)

    def sheet(self) -> yardstick.Sheet:
        """The table of all parts."""
        rows = []
        for part in self.done:
            planned = "" if part.planned is None else f"{part.planned:.0f}"
            spent = f"{part.seconds:.1f}", f"{part.cpu:.1f}"
            rows.append((part.name, *spent, f"{part.peak:.0f}", planned))
        title = f"At real sizes, {yardstick.machine(torch.get_num_threads())}"
        return yardstick.Sheet(title, COLUMNS, rows)


def main() -> None:
    """Prints what each part took, or fails."""
    silence_libraries()
    torch.manual_seed(0)
    parts = Parts()
    with parts.part("plan"):
        parts.plan = plan()
    with parts.part("weights"):
        model, processor = built(SETTINGS, DTYPE, "cpu")
    decode(model, processor, parts)
    train(model, processor, parts)
    yardstick.show(parts.sheet())
    print(f"{parts.seconds:.0f} s, at most {parts.peak:.0f} MiB with the libraries")
    assert parts.seconds < MOST_SECONDS
    assert parts.peak < MOST_MIB


def plan() -> dict[str, int]:
    """The bytes at the peak of each part, as the plan counts them."""
    rehearsal = Rehearsal(SETTINGS, DTYPE, PRECISION, gpu=False)
    weights = rehearsal.phantoms.alive
    decoding = rehearsal.decode(CLIPS, BEAMS, NEW_TOKENS)
    step = rehearsal.train(CLIPS)
    planned = {
        "weights": weights,
        "decoding: encoders": decoding.encoders,
        "decoding: tokens": max(decoding.prefix, decoding.last_token),
        "step: encoders": step.encoders.peak,
        "step: backward": step.learning.peak,
    }
    for route, spent in step.passes.items():
        planned[f"step: {route}"] = spent.peak
    return planned


def random_media() -> Media:
    """Noise, to be heard and seen."""
    media = CLIPS.media(("audio", "video"))
    for values in (media.audio, media.video):
        assert values is not None
        values.normal_()
    return media


def decode(model: OmniAVSR, processor: OmniAVSRProcessor, parts: Parts) -> None:
    """Decodes the clips, as `omni-avsr decode` does."""
    with torch.no_grad(), parts.part("decoding: encoders"):
        features = model.encode(random_media())
    batch = processor.batch(features, model.config.choose("avsr"))
    with parts.part("decoding: tokens"):
        ids = model.generate(batch, BEAMS, NEW_TOKENS)
    assert ids.shape == (CLIPS.count, NEW_TOKENS)


def train(model: OmniAVSR, processor: OmniAVSRProcessor, parts: Parts) -> None:
    """Does a training step."""
    leave_casting_to_autocast(model)
    step = Step(model.train(), processor, parts)
    batch = CLIPS.batch(random_media(), None)
    with torch.autocast("cpu", DTYPE):
        loss = step.training_step(batch, 0)
    assert loss is not None
    with parts.part("step: backward"):
        loss.backward()
    optimizer = step.configure_optimizers()["optimizer"]
    with parts.part("step: optimizer"):
        step.configure_gradient_clipping(optimizer)
        optimizer.step()


class Step(Training):
    """A training step that measures its parts."""

    def __init__(self, model: OmniAVSR, processor: OmniAVSRProcessor, parts: Parts):
        super().__init__(model, processor, SETTINGS, SimpleNamespace(clips=[None]))
        self.parts = parts

    def _features(self, batch: TrainingBatch) -> Features:
        with self.parts.part("step: encoders"):
            return super()._features(batch)

    def _loss(self, features: Features, route: Route, texts: Sequence[str]) -> Tensor:
        with self.parts.part(f"step: {route}"):
            return super()._loss(features, route, texts)

    def _show(self, *_: object) -> None:
        """Shows nothing, as there is no trainer."""


if __name__ == "__main__":
    typer.run(main)
