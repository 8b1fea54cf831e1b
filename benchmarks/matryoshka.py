"""The cost of a step as rates are added: sampled, at all rates, and at one fixed rate.

    python -m benchmarks.matryoshka

The encoders run once per step, whatever the rates. They are left out: their features are given.
"""

import json
from functools import partial
from typing import Annotated

import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import yardstick
from benchmarks.step import Step

MODULE = "benchmarks.matryoshka"
AUDIO_RATES = (4, 6, 8, 12, 16)
VIDEO_RATES = (2, 3, 4, 5, 6)
STEPS = 4  # whose mean is the cost of a sampled one
COLUMNS = (
    "rates in a step",
    "rates per modality",
    "passes",
    "GFLOP",
    "seconds",
    "MiB over the model",
)


def main(
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each choice of rates and number of rates per modality."""
    if one:
        rates_in_a_step, count = one.split(",")
        print(json.dumps(measure(rates_in_a_step, int(count))))
    else:
        yardstick.show(sheet(threads))


def sheet(threads: int) -> yardstick.Sheet:
    """The table of all choices."""
    rows = []
    for rates_in_a_step in ("fixed", "sampled", "all"):
        for count in (1, 2, 3, 5):
            cost = yardstick.apart(MODULE, "--one", f"{rates_in_a_step},{count}", threads=threads)
            row = (
                rates_in_a_step,
                str(count),
                f"{cost['passes']:.0f}",
                f"{cost['gflops']:.0f}",
                f"{cost['wall']:.2f}",
                f"{cost['mib']:.0f}",
            )
            rows.append(row)
    return yardstick.Sheet(f"Matryoshka, {yardstick.machine(threads)}", COLUMNS, rows)


def measure(rates_in_a_step: str, count: int) -> dict[str, float]:
    """The mean cost of a step of the LLM."""
    audio_rates = AUDIO_RATES[:count]
    video_rates = VIDEO_RATES[:count]
    model, processor = yardstick.model_and_processor(
        audio_rates=audio_rates, video_rates=video_rates, video_lora_rank=0
    )
    step = Step(
        model,
        processor,
        audio_rates=audio_rates,
        video_rates=video_rates,
        rates_in_a_step=rates_in_a_step,
    )
    step.encode()
    before = yardstick.resident_mib()
    step()
    walls = [yardstick.timed(partial(step, number)).wall for number in range(STEPS)]
    mib = yardstick.peak_mib() - before
    with FlopCounterMode(display=False) as counter:
        for number in range(STEPS):
            step(number)
    return {
        "wall": sum(walls) / STEPS,
        "mib": mib,
        "gflops": counter.get_total_flops() / STEPS / 1e9,
        "passes": len(model.config.routes()) if rates_in_a_step == "all" else 3,
    }


if __name__ == "__main__":
    typer.run(main)
