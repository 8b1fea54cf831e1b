"""One training step, ours against the published way: seconds, memory, share of the machine's peak.

    python -m benchmarks.step

A step is all three tasks at rates (4, 2): forward, backward, clipping and AdamW, in fp32, on a
batch of eight clips. Both ways have the same modules. Cached, what the encoders' frozen layers make
of the clips is known; filling the cache with it is measured too.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import yardstick
from omni_avsr.model import OmniAVSR, OmniAVSRProcessor
from omni_avsr.model.precision import AUTOCAST
from omni_avsr.settings import TrainSettings
from omni_avsr.train.batches import TrainingBatch
from omni_avsr.train.step import Training

MODULE = "benchmarks.step"
REPEATS = 2  # whose fastest counts
COLUMNS = (
    "vocabulary",
    "threads",
    "published: CPU s",
    "ours: CPU s",
    "times faster",
    "published: MiB",
    "ours: MiB",
    "share of memory",
    "of the GEMM peak",
    "checkpointing: CPU s",
    "share of memory",
    "cached: CPU s",
    "times faster",
    "share of memory",
    "filling: CPU s",
)


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
    """The table of both ways."""
    rows = []
    for vocabulary, count in product(vocabularies.split(","), threads.split(",")):
        arguments = (MODULE, "--vocabularies", vocabulary, "--one")
        published = yardstick.apart(*arguments, "published", threads=int(count))
        ours = yardstick.apart(*arguments, "ours", threads=int(count))
        checkpointing = yardstick.apart(*arguments, "checkpointing", threads=int(count))
        cached = yardstick.apart(*arguments, "cached", threads=int(count))
        row = (
            vocabulary,
            count,
            f"{published['cpu']:.1f}",
            f"{ours['cpu']:.1f}",
            f"{published['wall'] / ours['wall']:.1f}",
            f"{published['mib']:.0f}",
            f"{ours['mib']:.0f}",
            f"{ours['mib'] / published['mib']:.2f}",
            f"{ours['share']:.0%}",
            f"{checkpointing['cpu']:.1f}",
            f"{checkpointing['mib'] / published['mib']:.2f}",
            f"{cached['cpu']:.1f}",
            f"{published['wall'] / cached['wall']:.1f}",
            f"{cached['mib'] / published['mib']:.2f}",
            f"{cached['filling']:.1f}",
        )
        rows.append(row)
    return yardstick.Sheet(f"A training step, {yardstick.machine(threads)}", COLUMNS, rows)


def measure(vocabulary: int, way: str) -> dict[str, float]:
    """The fastest step, the process's peak memory, and the share of the peak of matrix products."""
    step = Step(*yardstick.model_and_processor(vocabulary, way == "published"))
    if way == "checkpointing":
        step.training.model.activation_checkpointing_enable()
    filling = yardstick.timed(step.encode).cpu if way == "cached" else 0.0
    fastest = min(yardstick.timed(step) for _ in range(REPEATS))
    mib = yardstick.peak_mib()
    with FlopCounterMode(display=False) as counter:
        if way != "published":
            step()
    share = counter.get_total_flops() / fastest.wall / yardstick.gemm_peak()
    return {
        "wall": fastest.wall,
        "cpu": fastest.cpu,
        "mib": mib,
        "share": share,
        "filling": filling,
    }


class Step:
    """A training step on random clips of these lengths, as `omni-avsr train` computes it."""

    def __init__(
        self,
        model: OmniAVSR,
        processor: OmniAVSRProcessor,
        seconds: Sequence[float] = yardstick.SECONDS,
        precision: str = "32-true",
        **settings: Any,
    ):
        options = {
            "cache_copies": 0,
            "audio_rates": (4,),
            "video_rates": (2,),
            "rates_in_a_step": "fixed",
            **settings,
        }
        no_data: Any = SimpleNamespace(clips=[None])
        self.training = Training(model.train(), processor, TrainSettings(**options), no_data)
        self.training.to(model.device)
        self.training.log_dict = lambda *_, **__: None  # there is no trainer that logs
        trainer: Any = SimpleNamespace(precision=precision)
        self.training.trainer = trainer
        device = model.device.type
        half = AUTOCAST.get(precision)
        self.autocast = torch.autocast(device, half, enabled=half is not None)
        self.scaler = torch.amp.GradScaler(device, enabled=half is torch.float16)
        self.optimizer: Any = self.training.configure_optimizers()["optimizer"]
        clips = yardstick.clips(seconds)
        self.batch = TrainingBatch(
            texts=clips.texts,
            seconds=list(seconds),
            media=processor.media(clips.audio, clips.video, training=True),
        )

    @torch.no_grad()
    def encode(self) -> None:
        """Replaces the media of the batch by what the encoders' frozen layers make of them."""
        assert self.batch.media is not None
        features = self.training.model.encode_frozen(self.batch.media)
        self.batch = replace(self.batch, media=None, features=features)

    def __call__(self, number: int = 0) -> None:
        with self.autocast:
            loss = self.training.training_step(self.batch, number)
        assert loss is not None
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        self.training.configure_gradient_clipping(self.optimizer)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()


if __name__ == "__main__":
    typer.run(main)
