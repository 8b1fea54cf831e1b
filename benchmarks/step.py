"""One training step, ours against the published way with the same modules: seconds, memory, share of the peak.

    python -m benchmarks.step

A step is all three tasks at rates (4, 2): forward, backward, clip, AdamW, in fp32, on a batch of eight clips.
"""

import json
from itertools import product
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import yardstick
from omni_avsr.settings import TrainSettings
from omni_avsr.train.fit import Training

MODULE = "benchmarks.step"
REPEATS = 2  # whose fastest counts


def main(
    vocabularies: Annotated[str, typer.Option(help="Sizes of the vocabulary.")] = "32000,128000",
    threads: Annotated[str, typer.Option(help="Numbers of threads.")] = "1,2",
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each vocabulary and number of threads."""
    if one:
        print(json.dumps(measure(int(vocabularies), one)))
    else:
        yardstick.show(sheet(vocabularies, threads))


def sheet(vocabularies: str, threads: str) -> yardstick.Sheet:
    """What was measured."""
    rows = []
    for vocabulary, count in product(vocabularies.split(","), map(int, threads.split(","))):
        arguments = (MODULE, "--vocabularies", vocabulary, "--one")
        old, new, less = (
            yardstick.apart(*arguments, way, threads=count) for way in ("published", "ours", "checkpointing")
        )
        times = f"{old['cpu']:.1f}", f"{new['cpu']:.1f}", f"{old['wall'] / new['wall']:.1f}"
        sizes = f"{old['mib']:.0f}", f"{new['mib']:.0f}", f"{new['mib'] / old['mib']:.2f}"
        frugal = f"{less['cpu']:.1f}", f"{less['mib'] / old['mib']:.2f}"
        rows.append((vocabulary, str(count), *times, *sizes, f"{new['share']:.0%}", *frugal))
    columns = (
        "vocabulary", "threads", "published: CPU s", "ours: CPU s", "times faster", "published: MiB", "ours: MiB",
        "share of memory", "of the GEMM peak", "checkpointing: CPU s", "share of memory",
    )  # fmt: skip
    return yardstick.Sheet(f"A training step, {yardstick.machine(threads)}", columns, rows)


def measure(vocabulary: int, way: str) -> dict[str, float]:
    """Seconds of the fastest step, the process's peak memory, and the share of what matrix products reach."""
    step = Step(*yardstick.model_and_processor(vocabulary, way == "published"))
    if way == "checkpointing":
        step.training.model.activation_checkpointing_enable()
    wall, cpu = min(yardstick.timed(step) for _ in range(REPEATS))
    mib = yardstick.peak_mib()
    with FlopCounterMode(display=False) as counter:
        if way != "published":
            step()
    return {"wall": wall, "cpu": cpu, "mib": mib, "share": counter.get_total_flops() / wall / yardstick.gemm_peak()}


class Step:
    """A training step on the eight clips, or on others."""

    def __init__(self, model, processor, seconds: tuple[float, ...] = yardstick.SECONDS, **settings: Any):
        options = {"cache_copies": 0, "audio_rates": "4", "video_rates": "2", "rates_in_a_step": "fixed", **settings}
        self.training = Training(model.train(), processor, TrainSettings(**options), SimpleNamespace(clips=[None]))
        self.training.log_dict = lambda *_, **__: None
        self.optimizer = self.training.configure_optimizers()["optimizer"]
        clips = yardstick.clips(seconds)
        self.batch = {
            "media": processor.media(clips["audio"], clips["video"]), "text": clips["text"],
            "seconds": list(seconds), "unreadable": [],
            "keys": [],
        }  # fmt: skip

    def __call__(self, number: int = 0) -> None:
        self.training.training_step(self.batch, number).backward()
        trained = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


if __name__ == "__main__":
    typer.run(main)
