"""Time and memory of a training step as the work grows: length of the clips, batch, width of the LLM, rates.

python -m benchmarks.cost --figure docs/performance.png
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import yardstick
from benchmarks.step import Step

MODULE = "benchmarks.cost"
BASE = {"seconds": 5.0, "clips": 4, "width": 512, "rates": 2}
GROWING = {
    "seconds": (2.0, 5.0, 10.0, 20.0, 30.0),
    "clips": (1, 2, 4, 8, 16),
    "width": (256, 512, 1024),
    "rates": (1, 2, 3, 5),
}
NAMES = {"seconds": "seconds a clip", "clips": "clips", "width": "width of the LLM", "rates": "rates per modality"}


def main(
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
    figure: Annotated[Path | None, typer.Option(help="Draw the figure here.")] = None,
    one: Annotated[str | None, typer.Option(hidden=True)] = None,
) -> None:
    """Prints a row for each size, all else being equal."""
    if one:
        print(json.dumps(measure(**json.loads(one))))
        return
    found = points(threads)
    yardstick.show(sheet(found, threads))
    if figure:
        draw(found, figure)


Points = dict[str, list[tuple[float, dict[str, float]]]]


def points(threads: int) -> Points:
    """Each measured cost, by what grew."""
    return {
        name: [
            (size, yardstick.apart(MODULE, "--one", json.dumps({**BASE, name: size}), threads=threads))
            for size in sizes
        ]
        for name, sizes in GROWING.items()
    }  # fmt: skip


def sheet(found: Points, threads: int) -> yardstick.Sheet:
    """The points as a table."""
    rows = [
        (NAMES[name], f"{size:g}", f"{cost['wall']:.2f}", f"{cost['mib']:.0f}")
        for name, costs in found.items()
        for size, cost in costs
    ]
    base = ", ".join(f"{NAMES[name]} {value:g}" for name, value in BASE.items())
    columns = ("what grows", "size", "seconds a step", "MiB over the model")
    return yardstick.Sheet(f"Cost as work grows ({base}), {yardstick.machine(threads)}", columns, rows)


def measure(seconds: float, clips: int, width: int, rates: int) -> dict[str, float]:
    """One step of all three tasks, encoders included, with rates sampled."""
    audio, video = [4, 6, 8, 12, 16][:rates], [2, 3, 4, 5, 6][:rates]
    chosen = {"audio_rates": ",".join(map(str, audio)), "video_rates": ",".join(map(str, video))}
    model = yardstick.model_and_processor(width=width, audio_rates=audio, video_rates=video)
    step = Step(*model, (seconds,) * clips, **chosen, rates_in_a_step="sampled")
    before = yardstick.resident_mib()
    step()
    return {"wall": min(yardstick.timed(step)[0] for _ in range(2)), "mib": yardstick.peak_mib() - before}


def draw(found: Points, file: Path) -> None:
    """Seconds and memory against each size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes: Sequence[Any] = figure.subplots(2, len(found), sharex="col")
    for column, (name, costs) in enumerate(found.items()):
        sizes = [size for size, _ in costs]
        for row, (what, label) in enumerate((("wall", "seconds a step"), ("mib", "MiB over the model"))):
            axis = axes[row][column]
            axis.plot(sizes, [cost[what] for _, cost in costs], "o-", color="C0")
            highest = max(cost[what] for _, cost in costs)
            axis.set(xlim=(0, None), ylim=(0, 1.08 * highest), ylabel=label if not column else "")
            axis.grid(alpha=0.3)
        axes[1][column].set_xlabel(NAMES[name])
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    typer.run(main)
