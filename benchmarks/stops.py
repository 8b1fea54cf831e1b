"""Decoding toy clips with the shipped model, whose transcripts end where they end.

    python -m benchmarks.stops

`decode` lets clips that are done make room for waiting ones ("joined"). It is compared with one
batch after another ("batches"), and with the published way, which takes one clip at a time and runs
the prefix once per beam ("published"). Whisper hears no more than the clip in all three, so that
their transcripts must be the same.
"""

import json
from itertools import product
from typing import Annotated, Any

import torch
import typer

from benchmarks import decode, yardstick
from omni_avsr.data.loading import buckets
from omni_avsr.decode.decode import Decoded, Stream, load_decoder
from omni_avsr.run import silence_libraries
from omni_avsr.settings import CheckpointOptions
from omni_avsr.settings.decode import DecodingOptions
from omni_avsr.tasks import Task
from omni_avsr.toy import generate_shards

MODULE = "benchmarks.stops"
WORLD = "open"
WAYS = ("published", "batches", "joined")
COLUMNS = ("beams", "task", *(f"{way}: s" for way in WAYS), "times faster", "other transcripts")


def main(
    tasks: Annotated[str, typer.Option(help="Tasks.")] = "asr,vsr,avsr",
    beams: Annotated[str, typer.Option(help="Numbers of beams.")] = "15",
    clips: Annotated[int, typer.Option(help="Clips of the open world.")] = 120,
    threads: Annotated[int, typer.Option(help="Threads.")] = 1,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each number of beams and each task."""
    if one:
        print(json.dumps(measure(one, Task(tasks), int(beams), clips)))
    else:
        yardstick.show(sheet(tasks, beams, clips, threads))


def sheet(tasks: str, beams: str, clips: int, threads: int) -> yardstick.Sheet:
    """The table of all ways."""
    rows = []
    for width, task in product(beams.split(","), tasks.split(",")):
        arguments = (MODULE, "--tasks", task, "--beams", width, "--clips", clips, "--one")
        of: dict[str, Any] = {}
        for way in WAYS:
            of[way] = yardstick.apart(*arguments, way, threads=threads)
        texts = zip(of["published"]["texts"], of["joined"]["texts"], strict=True)
        row = (
            width,
            task,
            *(f"{of[way]['wall']:.1f}" for way in WAYS),
            f"{of['published']['wall'] / of['joined']['wall']:.1f}",
            f"{sum(theirs != ours for theirs, ours in texts)}",
        )
        rows.append(row)
    return yardstick.Sheet(f"{clips} toy clips, {yardstick.machine(threads)}", COLUMNS, rows)


@torch.no_grad()
def measure(way: str, task: Task, beams: int, count: int) -> dict[str, Any]:
    """Seconds from media to texts, and the texts."""
    silence_libraries()
    decoder = load_decoder(CheckpointOptions(checkpoint="tiny", device="cpu"))
    clips = list(generate_shards(WORLD, "test", count, seed=0, processes=1))
    batches = buckets([len(clip.video) for clip in clips], DecodingOptions().max_frames)
    if way == "published":
        decode.decode_as_published(beams)
        batches = [[number] for number in range(count)]
    stream = Stream(decoder, decoder.model.config.choose(task), beams, None)
    found: dict[int, Decoded] = {}

    def run() -> None:
        for batch in batches:
            audio = [clips[number].audio / 32768 for number in batch] if task.hears else None
            video = [clips[number].video for number in batch] if task.sees else None
            media = decoder.processor.media(audio, video)
            found.update(stream.add(decoder.model.encode(media)))
            if way != "joined":
                found.update(stream.finish())
        found.update(stream.finish())

    spent = yardstick.timed(run)
    order = [number for batch in batches for number in batch]
    texts = {number: found[place].text for place, number in enumerate(order)}
    return {"wall": spent.wall, "cpu": spent.cpu, "texts": [texts[n] for n in range(count)]}


if __name__ == "__main__":
    typer.run(main)
