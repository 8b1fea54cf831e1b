"""The way from mp4 and wav to a batch: clips a second and core, and how long a training step waits for its data.

python -m benchmarks.data
"""

import json
import time
from typing import Annotated

import typer
from torch.utils.data import DataLoader

from benchmarks import yardstick
from benchmarks.step import Step
from omni_avsr.data import manifest
from omni_avsr.run import silent
from omni_avsr.settings import TrainSettings
from omni_avsr.toy import toy_corpus
from omni_avsr.train.batches import Batches

MODULE = "benchmarks.data"
CLIPS = 160
STEPS = 6


def main(
    threads: Annotated[int, typer.Option(help="Threads of the step.")] = 2,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints both."""
    if one:
        print(json.dumps({"reading": reading, "waiting": waiting}[one]()))
    else:
        yardstick.show(sheet(threads))


def sheet(threads: int) -> yardstick.Sheet:
    """What was measured."""
    read, waited = (
        yardstick.apart(MODULE, "--one", what, threads=count) for what, count in (("reading", 1), ("waiting", threads))
    )
    rows = [
        ("clips a second and core, augmented, in batches", f"{read['clips']:.0f}"),
        ("seconds of video a second and core", f"{read['seconds']:.0f}"),
        (f"seconds of a step of {waited['batch']:.0f} clips", f"{waited['step']:.2f}"),
        ("of which it waits for two workers", f"{waited['share']:.1%}"),
    ]
    return yardstick.Sheet(f"Data, {yardstick.machine(threads)}", ("", ""), rows)


def loader(workers: int) -> DataLoader:
    """Training batches of toy clips, as `omni-avsr train` makes them."""
    model, processor = yardstick.model_and_processor()
    clips = manifest.read(toy_corpus("open", CLIPS, silent)["train"])
    settings = TrainSettings(workers=workers, cache_copies=0, max_frames=1200, audio_mask=0.4, video_mask=0.4)
    batches = Batches(model, processor, settings, silent)
    batches.prepare(clips, [])
    return batches.training()


def reading() -> dict[str, float]:
    """Reading, augmenting and collating in this process."""
    batches = iter(loader(0))
    next(batches)
    count, seconds, started = 0, 0.0, time.perf_counter()
    while count < CLIPS:
        batch = next(batches)
        count, seconds = count + len(batch["text"]), seconds + sum(batch["seconds"])
    spent = time.perf_counter() - started
    return {"clips": count / spent, "seconds": seconds / spent}


def waiting() -> dict[str, float]:
    """The share of training that is spent in waiting for two workers."""
    step, batches, waited, clips = Step(*yardstick.model_and_processor()), iter(loader(2)), 0.0, 0
    next(batches)
    started = time.perf_counter()
    for _ in range(STEPS):
        asked = time.perf_counter()
        step.batch = next(batches)
        waited, clips = waited + time.perf_counter() - asked, clips + len(step.batch["text"])
        step()
    spent = time.perf_counter() - started
    return {"share": waited / spent, "step": spent / STEPS, "batch": clips / STEPS}


if __name__ == "__main__":
    typer.run(main)
