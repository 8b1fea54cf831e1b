"""Decoding eight clips with a beam of 15, ours against the published way with the same modules: clips a second.

    python -m benchmarks.decode

The published way takes one clip at a time, Whisper on 30 s, the prefix run once per beam, its logits at every position.
Weights are random, so that every clip takes all of its 32 new tokens.
"""

import json
from itertools import product
from typing import Annotated

import torch
import typer
from transformers import PreTrainedModel

from benchmarks import yardstick
from omni_avsr.model import beams as search

MODULE = "benchmarks.decode"
BEAMS, NEW_TOKENS = 15, 32


def main(
    vocabularies: Annotated[str, typer.Option(help="Sizes of the vocabulary.")] = "32000,128000",
    tasks: Annotated[str, typer.Option(help="Tasks.")] = "asr,vsr,avsr",
    threads: Annotated[int, typer.Option(help="Threads.")] = 1,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each vocabulary and task."""
    if one:
        print(json.dumps(measure(int(vocabularies), tasks, one)))
    else:
        yardstick.show(sheet(vocabularies, tasks, threads))


def sheet(vocabularies: str, tasks: str, threads: int) -> yardstick.Sheet:
    """What was measured."""
    rows = []
    for vocabulary, task in product(vocabularies.split(","), tasks.split(",")):
        arguments = (MODULE, "--vocabularies", vocabulary, "--tasks", task, "--one")
        old, new, greedy, merged = (
            yardstick.apart(*arguments, way, threads=threads) for way in ("published", "ours", "greedy", "merged")
        )
        times = f"{old['cpu']:.1f}", f"{new['cpu']:.1f}", f"{old['wall'] / new['wall']:.1f}", f"{merged['cpu']:.1f}"
        rest = f"{len(yardstick.SECONDS) / greedy['wall']:.1f}", f"{old['mib']:.0f}", f"{new['mib']:.0f}"
        rows.append((vocabulary, task, *times, *rest))
    columns = (
        "vocabulary", "task", "published: CPU s", "ours: CPU s", "times faster", "merged: CPU s", "greedy: clips/s",
        "published: MiB", "ours: MiB",
    )  # fmt: skip
    return yardstick.Sheet(f"Decoding, {yardstick.machine(threads)}", columns, rows)


def measure(vocabulary: int, task: str, way: str) -> dict[str, float]:
    """Seconds for the eight clips, media to ids, and the process's peak memory."""
    model, processor = yardstick.model_and_processor(vocabulary, way == "published")
    clips = yardstick.clips()
    del clips["text"]
    batches = [{name: clips[name] for name in model.config.modalities(task)}]
    if way == "published":
        search.SharedSteps.fits = lambda _: False
        search.Steps = PublishedSteps  # type: ignore[misc]
        batches = [
            {m: [clip] for m, clip in zip(batches[0], pair, strict=True)}
            for pair in zip(*batches[0].values(), strict=True)
        ]
    if way == "merged":
        model = model.merge(task)
    beams = 1 if way == "greedy" else BEAMS

    def decode() -> None:
        for batch in batches:
            model.generate(**processor(**batch, task=task), num_beams=beams, max_new_tokens=NEW_TOKENS)

    if way != "published":  # whose first time is as long as any other
        decode()
    wall, cpu = yardstick.timed(decode)
    return {"wall": wall, "cpu": cpu, "mib": yardstick.peak_mib()}


class PublishedSteps(search.Steps):
    """The prefix of one clip once per beam, its logits at every position, and a cache that is copied at each step."""

    def __init__(self, llm: PreTrainedModel, embeds: torch.Tensor, mask: torch.Tensor):
        super().__init__(llm, embeds.repeat(BEAMS, 1, 1), mask.repeat(BEAMS, 1))
        self.beams = 1

    def best(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.head(self.decoder(**self.inputs, past_key_values=self.cache, use_cache=True).last_hidden_state)
        return logits.float()[None, : self.beams, -1].log_softmax(-1).topk(count)

    def advance(self, clips: torch.Tensor, origins: torch.Tensor, tokens: torch.Tensor) -> None:
        super().advance(clips, origins, tokens)
        self.beams = BEAMS


if __name__ == "__main__":
    typer.run(main)
