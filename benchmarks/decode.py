"""Decoding eight clips with a beam of 15, ours against the published way with the same modules: clips a second.

    python -m benchmarks.decode

The published way takes one clip at a time, Whisper on 30 s, the prefix run once per beam, its logits at every position.
Weights are random, so that every clip takes all of its 32 new tokens.
"""

import json
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

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
        return
    columns = "vocabulary", "task", "published: CPU s", "ours", "faster", "greedy: clips/s", "MiB, published", "ours"
    table = Table(*columns, title=yardstick.machine(threads))
    for vocabulary in vocabularies.split(","):
        for task in tasks.split(","):
            arguments = ("--vocabularies", vocabulary, "--tasks", task, "--one")
            old, new, greedy = (
                json.loads(yardstick.apart(MODULE, *arguments, way, threads=threads))
                for way in ("published", "ours", "greedy")
            )
            cells = f"{old['cpu']:.1f}", f"{new['cpu']:.2f}", f"{old['wall'] / new['wall']:.1f} x"
            rest = f"{len(yardstick.SECONDS) / greedy['wall']:.1f}", f"{old['mib']:.0f}", f"{new['mib']:.0f}"
            table.add_row(vocabulary, task, *cells, *rest)
    Console().print(table)


def measure(vocabulary: int, task: str, way: str) -> dict[str, float]:
    """Seconds for the eight clips, media to ids, and the process's peak memory."""
    model, processor = yardstick.model_and_processor(vocabulary, way == "published")
    clips = yardstick.clips()
    del clips["text"]
    batches = [{name: clips[name] for name in model.config.modalities(task)}]
    if way == "published":
        search.Steps = PublishedSteps  # type: ignore[misc]
        batches = [
            {m: [clip] for m, clip in zip(batches[0], pair, strict=True)}
            for pair in zip(*batches[0].values(), strict=True)
        ]
    beams = 1 if way == "greedy" else BEAMS

    def decode() -> None:
        for batch in batches:
            model.generate(**processor(**batch, task=task), num_beams=beams, max_new_tokens=NEW_TOKENS)

    decode()
    wall, cpu = yardstick.timed(decode)
    return {"wall": wall, "cpu": cpu, "mib": yardstick.peak_mib()}


class PublishedSteps(search.Steps):
    """The prefix once per beam, with the logits of every position."""

    def best(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        if "input_ids" in self.inputs:
            return super().best(count)
        self.mask, self.positions = self.mask.repeat(BEAMS, 1), self.positions.repeat(BEAMS, 1)
        self.inputs = {"inputs_embeds": self.inputs["inputs_embeds"].repeat(BEAMS, 1, 1)}
        state = {"attention_mask": self.mask, "position_ids": self.positions, "past_key_values": self.cache}
        hidden = self.decoder(**self.inputs, **state, use_cache=True).last_hidden_state
        return self.head(hidden).float()[:1, -1].log_softmax(-1).topk(count)


if __name__ == "__main__":
    typer.run(main)
