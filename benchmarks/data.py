"""From mp4 and wav to a batch: clips per second and core, and how long a training step waits.

python -m benchmarks.data
"""

import json
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from benchmarks import yardstick
from benchmarks.step import Step
from omni_avsr.data import manifest
from omni_avsr.run import no_progress
from omni_avsr.settings import TrainSettings
from omni_avsr.toy import toy_corpus
from omni_avsr.train.batches import Batches, TrainingBatch

MODULE = "benchmarks.data"
CLIPS = 160
STEPS = 6
WORKERS = 2  # processes that read clips while a step is computed


def main(
    threads: Annotated[int, typer.Option(help="Threads of the step.")] = 2,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints how fast clips are read, and how long a step waits for them."""
    if one:
        measure = {"reading": reading, "waiting": waiting}[one]
        print(json.dumps(measure()))
    else:
        yardstick.show(sheet(threads))


def sheet(threads: int) -> yardstick.Sheet:
    """The table of both measurements."""
    read = yardstick.apart(MODULE, "--one", "reading", threads=1)
    waited = yardstick.apart(MODULE, "--one", "waiting", threads=threads)
    rows = [
        ("clips per second and core, augmented, in batches", f"{read['clips']:.0f}"),
        ("seconds of video per second and core", f"{read['seconds']:.0f}"),
        (f"seconds of a step of {waited['batch']:.0f} clips", f"{waited['step']:.2f}"),
        (f"share of it that it waits for {WORKERS} workers", f"{waited['share']:.1%}"),
    ]
    return yardstick.Sheet(f"Data, {yardstick.machine(threads)}", ("", ""), rows)


def training_batches(workers: int) -> Iterator[TrainingBatch]:
    """Endless training batches of toy clips, as `omni-avsr train` makes them."""
    settings = TrainSettings(
        toy_world="open",
        toy_clips=CLIPS,
        workers=workers,
        cache_copies=0,
        max_frames=1200,
        audio_mask=0.4,
        video_mask=0.4,
    )
    model, processor = yardstick.model_and_processor()
    label_file = toy_corpus(settings, ["train"], no_progress)["train"]
    batches = Batches(model, processor, settings, no_progress)
    batches.prepare(manifest.read(label_file), [])
    return iter(batches.training())


def reading() -> dict[str, float]:
    """Clips, and seconds of video, that this process reads, augments and collates per second."""
    batches = training_batches(workers=0)
    next(batches)
    clips = 0
    seconds = 0.0
    started = time.perf_counter()
    while clips < CLIPS:
        batch = next(batches)
        clips += len(batch.texts)
        seconds += sum(batch.seconds)
    spent = time.perf_counter() - started
    return {"clips": clips / spent, "seconds": seconds / spent}


def waiting() -> dict[str, float]:
    """The share of training that is spent waiting for the workers."""
    step = Step(*yardstick.model_and_processor())
    batches = training_batches(WORKERS)
    next(batches)
    waited = 0.0
    clips = 0
    started = time.perf_counter()
    for _ in range(STEPS):
        asked = time.perf_counter()
        step.batch = next(batches)
        waited += time.perf_counter() - asked
        clips += len(step.batch.texts)
        step()
    spent = time.perf_counter() - started
    return {"share": waited / spent, "step": spent / STEPS, "batch": clips / STEPS}


if __name__ == "__main__":
    typer.run(main)
