"""Decoding eight clips with a beam of 15, ours against the published way: clips per second.

    python -m benchmarks.decode

The published way takes one clip at a time, runs Whisper on 30 s, runs the prefix once per beam, and
computes the logits of its every position. Both ways have the same modules. Weights are random, so
every clip takes all of its 32 new tokens.
"""

import json
from itertools import product
from typing import Annotated

import typer
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import yardstick
from omni_avsr.model import OmniAVSRProcessor, beams
from omni_avsr.model.batch import Batch
from omni_avsr.tasks import Task

MODULE = "benchmarks.decode"
BEAMS = 15
NEW_TOKENS = 32
COLUMNS = (
    "vocabulary",
    "task",
    "published: CPU s",
    "ours: CPU s",
    "times faster",
    "merged: CPU s",
    "greedy: clips/s",
    "published: MiB",
    "ours: MiB",
)


def main(
    vocabularies: Annotated[str, typer.Option(help="Sizes of the vocabulary.")] = "32000,128000",
    tasks: Annotated[str, typer.Option(help="Tasks.")] = "asr,vsr,avsr",
    threads: Annotated[int, typer.Option(help="Threads.")] = 1,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each vocabulary and task."""
    if one:
        print(json.dumps(measure(int(vocabularies), Task(tasks), one)))
    else:
        yardstick.show(sheet(vocabularies, tasks, threads))


def sheet(vocabularies: str, tasks: str, threads: int) -> yardstick.Sheet:
    """The table of all ways."""
    rows = []
    for vocabulary, task in product(vocabularies.split(","), tasks.split(",")):
        arguments = (MODULE, "--vocabularies", vocabulary, "--tasks", task, "--one")
        published = yardstick.apart(*arguments, "published", threads=threads)
        ours = yardstick.apart(*arguments, "ours", threads=threads)
        greedy = yardstick.apart(*arguments, "greedy", threads=threads)
        merged = yardstick.apart(*arguments, "merged", threads=threads)
        row = (
            vocabulary,
            task,
            f"{published['cpu']:.1f}",
            f"{ours['cpu']:.1f}",
            f"{published['wall'] / ours['wall']:.1f}",
            f"{merged['cpu']:.1f}",
            f"{len(yardstick.SECONDS) / greedy['wall']:.1f}",
            f"{published['mib']:.0f}",
            f"{ours['mib']:.0f}",
        )
        rows.append(row)
    return yardstick.Sheet(f"Decoding, {yardstick.machine(threads)}", COLUMNS, rows)


def measure(vocabulary: int, task: Task, way: str) -> dict[str, float]:
    """Seconds for the eight clips, from media to ids, and the process's peak memory."""
    published = way == "published"
    model, processor = yardstick.model_and_processor(vocabulary, published)
    clips = yardstick.clips()
    groups = [clips]
    if published:
        decode_as_published(BEAMS)
        groups = one_by_one(clips)
    if way == "merged":
        model = model.merge(model.config.choose(task))
    width = 1 if way == "greedy" else BEAMS

    def decode() -> None:
        for group in groups:
            batch = batch_of(processor, group, task)
            model.generate(batch, num_beams=width, max_new_tokens=NEW_TOKENS)

    if not published:  # the first published run takes as long as any other
        decode()
    spent = yardstick.timed(decode)
    return {"wall": spent.wall, "cpu": spent.cpu, "mib": yardstick.peak_mib()}


def batch_of(processor: OmniAVSRProcessor, clips: yardstick.Clips, task: Task) -> Batch:
    """The clips as a task decodes them."""
    audio = clips.audio if task.hears else None
    video = clips.video if task.sees else None
    return processor(audio, video, task=task)


def one_by_one(clips: yardstick.Clips) -> list[yardstick.Clips]:
    """Each clip on its own."""
    groups = []
    for audio, video, text in zip(clips.audio, clips.video, clips.texts, strict=True):
        groups.append(yardstick.Clips([audio], [video], [text]))
    return groups


def decode_as_published(width: int) -> None:
    """Makes the beam search do the work of the published one, with so many beams."""
    PublishedSteps.beams = width
    beams.SharedSteps.supports = staticmethod(lambda llm: False)  # type: ignore[method-assign]
    beams.Steps = PublishedSteps  # type: ignore[misc]


class PublishedSteps(beams.Steps):
    """Runs the prefix once per beam, computes all logits, and copies the cache in each step."""

    beams: int

    def __init__(self, llm: PreTrainedModel, embeds: Tensor, mask: Tensor):
        super().__init__(llm, embeds.repeat(self.beams, 1, 1), mask.repeat(self.beams, 1))
        self.clips = 1  # with a row per beam from the start

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        decoded = self.decoder(**self.inputs, past_key_values=self.cache, use_cache=True)
        logits = self.head(decoded.last_hidden_state).float()  # (beams, L, vocabulary)
        last = logits[: self.width, -1]  # (k, vocabulary)
        best, ids = last.log_softmax(-1).topk(count)
        return best[None], ids[None]


if __name__ == "__main__":
    typer.run(main)
