"""One step's cost as rates are added: sampled, on all scales, and at one fixed rate.

    python -m benchmarks.matryoshka

The encoders, which run once a step whatever the rates, are left out: their features are given.
"""

import json
from typing import Annotated

import typer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import yardstick
from benchmarks.step import Step

MODULE = "benchmarks.matryoshka"
AUDIO, VIDEO = (4, 6, 8, 12, 16), (2, 3, 4, 5, 6)
STEPS = 4  # whose mean is the cost of a sampled one


def main(
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each way and number of rates per modality."""
    if one:
        way, count = one.split(",")
        print(json.dumps(measure(way, int(count))))
    else:
        yardstick.show(sheet(threads))


def sheet(threads: int) -> yardstick.Sheet:
    """What was measured."""
    rows = []
    for way in ("fixed", "sampled", "all"):
        for count in (1, 2, 3, 5):
            cost = yardstick.apart(MODULE, "--one", f"{way},{count}", threads=threads)
            figures = f"{cost['gflops']:.0f}", f"{cost['wall']:.2f}", f"{cost['mib']:.0f}"
            rows.append((way, str(count), f"{cost['passes']:.0f}", *figures))
    columns = ("rates in a step", "rates per modality", "passes", "GFLOP", "seconds", "MiB over the model")
    return yardstick.Sheet(f"Matryoshka, {yardstick.machine(threads)}", columns, rows)


def measure(way: str, count: int) -> dict[str, float]:
    """The mean cost of a step of the LLM."""
    rates = {"audio_rates": list(AUDIO[:count]), "video_rates": list(VIDEO[:count])}
    chosen = {name: ",".join(map(str, values)) for name, values in rates.items()}
    step = Step(*yardstick.model_and_processor(**rates), **chosen, rates_in_a_step=way)
    features = step.training.model.encode(**step.batch["media"])
    step.batch["features"] = {name: (values.detach(), lengths) for name, (values, lengths) in features.items()}
    before = yardstick.resident_mib()
    step()
    wall = sum(yardstick.timed(lambda i=i: step(i))[0] for i in range(STEPS)) / STEPS
    mib = yardstick.peak_mib() - before
    with FlopCounterMode(display=False) as counter:
        for i in range(STEPS):
            step(i)
    passes = {"all": count + count + count * count}.get(way, 3)
    return {"wall": wall, "mib": mib, "gflops": counter.get_total_flops() / STEPS / 1e9, "passes": passes}


if __name__ == "__main__":
    typer.run(main)
