"""One training step, ours against the published way with the same modules: seconds, memory, share of the peak.

    python -m benchmarks.step

A step is all three tasks at rates (4, 2): forward, backward, clip, AdamW, in fp32, on a batch of eight clips.
"""

import json
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import yardstick
from omni_avsr.settings import TrainSettings
from omni_avsr.training import Training

MODULE = "benchmarks.step"


def main(
    vocabularies: Annotated[str, typer.Option(help="Sizes of the vocabulary.")] = "32000,128000",
    threads: Annotated[str, typer.Option(help="Numbers of threads.")] = "1,2",
    repeats: Annotated[int, typer.Option(help="Steps of which the fastest counts.")] = 3,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each vocabulary and number of threads."""
    if one:
        print(json.dumps(measure(int(vocabularies), one == "published", repeats)))
        return
    columns = "vocabulary", "threads", "published: CPU s", "MiB", "ours: CPU s", "MiB", "faster", "memory", "of peak"
    table = Table(*columns, title=yardstick.machine(threads))
    for vocabulary in vocabularies.split(","):
        for count in map(int, threads.split(",")):
            arguments = ("--vocabularies", vocabulary, "--repeats", repeats, "--one")
            old, new = (
                json.loads(yardstick.apart(MODULE, *arguments, way, threads=count)) for way in ("published", "ours")
            )
            cells = f"{old['cpu']:.1f}", f"{old['mib']:.0f}", f"{new['cpu']:.2f}", f"{new['mib']:.0f}"
            ratios = f"{old['wall'] / new['wall']:.1f} x", f"{new['mib'] / old['mib']:.2f}", f"{new['share']:.0%}"
            table.add_row(vocabulary, str(count), *cells, *ratios)
    Console().print(table)


def measure(vocabulary: int, published: bool, repeats: int) -> dict[str, float]:
    """Seconds of the fastest step, the process's peak memory, and the share of what matrix products reach."""
    step = Step(*yardstick.model_and_processor(vocabulary, published))
    wall, cpu = min(yardstick.timed(step) for _ in range(repeats))
    mib = yardstick.peak_mib()
    with FlopCounterMode(display=False) as counter:
        step()
    return {"wall": wall, "cpu": cpu, "mib": mib, "share": counter.get_total_flops() / wall / yardstick.gemm_peak()}


class Step:
    """A training step on the eight clips, or on others."""

    def __init__(self, model, processor, seconds: tuple[float, ...] = yardstick.SECONDS, **settings: Any):
        options = {"cache_copies": 0, "audio_rates": "4", "video_rates": "2", "rates_in_a_step": "fixed", **settings}
        self.training = Training(model.train(), processor, TrainSettings(**options))
        self.training.log_dict = lambda *_, **__: None
        self.optimizer = self.training.configure_optimizers()["optimizer"]
        clips = yardstick.clips(seconds)
        self.batch = {
            "media": processor.media(clips["audio"], clips["video"]), "text": clips["text"], "seconds": list(seconds)
        }  # fmt: skip

    def __call__(self) -> None:
        self.training.training_step(self.batch, 0).backward()
        trained = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()


if __name__ == "__main__":
    typer.run(main)
