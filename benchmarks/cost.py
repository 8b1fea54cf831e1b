"""Time and memory of a training step as the work grows.

    python -m benchmarks.cost --figure docs/performance.png

What grows is the length of the clips, the batch, the width of the LLM, or the number of rates.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import yardstick
from benchmarks.step import Step

MODULE = "benchmarks.cost"
BASE = {"seconds": 5.0, "clips": 4, "width": 512, "rates": 2}
GROWING: dict[str, tuple[float, ...]] = {
    "seconds": (2.0, 5.0, 10.0, 20.0, 30.0),
    "clips": (1, 2, 4, 8, 16),
    "width": (256, 512, 1024),
    "rates": (1, 2, 3, 5),
}
NAMES = {
    "seconds": "seconds per clip",
    "clips": "clips",
    "width": "width of the LLM",
    "rates": "rates per modality",
}
AUDIO_RATES = (4, 6, 8, 12, 16)
VIDEO_RATES = (2, 3, 4, 5, 6)
COLUMNS = ("what grows", "size", "seconds per step", "MiB over the model")


@dataclass(frozen=True)
class Point:
    """What a step costs when one thing has some size."""

    size: float
    seconds: float
    mib: float


Points = dict[str, list[Point]]  # by what grows


def main(
    threads: Annotated[int, typer.Option(help="Threads.")] = 2,
    figure: Annotated[Path | None, typer.Option(help="Draw the figure to this file.")] = None,
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


def points(threads: int) -> Points:
    """Measures every size."""
    found: Points = {}
    for name, sizes in GROWING.items():
        found[name] = []
        for size in sizes:
            work = json.dumps({**BASE, name: size})
            cost = yardstick.apart(MODULE, "--one", work, threads=threads)
            found[name].append(Point(size, cost["wall"], cost["mib"]))
    return found


def sheet(found: Points, threads: int) -> yardstick.Sheet:
    """The points as a table."""
    rows = []
    for name, of_name in found.items():
        for point in of_name:
            row = (NAMES[name], f"{point.size:g}", f"{point.seconds:.2f}", f"{point.mib:.0f}")
            rows.append(row)
    base = ", ".join(f"{NAMES[name]} {value:g}" for name, value in BASE.items())
    title = f"Cost as work grows ({base}), {yardstick.machine(threads)}"
    return yardstick.Sheet(title, COLUMNS, rows)


def measure(seconds: float, clips: int, width: int, rates: int) -> dict[str, float]:
    """One step of all three tasks, encoders included, with rates sampled."""
    audio_rates = AUDIO_RATES[:rates]
    video_rates = VIDEO_RATES[:rates]
    model, processor = yardstick.model_and_processor(
        width=width, audio_rates=audio_rates, video_rates=video_rates
    )
    step = Step(
        model,
        processor,
        [seconds] * clips,
        audio_rates=audio_rates,
        video_rates=video_rates,
        rates_in_a_step="sampled",
    )
    before = yardstick.resident_mib()
    step()
    fastest = min(yardstick.timed(step) for _ in range(2))
    return {"wall": fastest.wall, "mib": yardstick.peak_mib() - before}


def draw(found: Points, file: Path) -> None:
    """Draws seconds and memory against each size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    axes: Any = figure.subplots(2, len(found), sharex="col", squeeze=False)
    for column, (name, of_name) in enumerate(found.items()):
        sizes = [point.size for point in of_name]
        _draw_curve(axes[0][column], sizes, [point.seconds for point in of_name])
        _draw_curve(axes[1][column], sizes, [point.mib for point in of_name])
        axes[1][column].set_xlabel(NAMES[name])
    axes[0][0].set_ylabel("seconds per step")
    axes[1][0].set_ylabel("MiB over the model")
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)


def _draw_curve(axes: Any, sizes: list[float], costs: list[float]) -> None:
    axes.plot(sizes, costs, "o-", color="C0")
    axes.set(xlim=(0, None), ylim=(0, 1.08 * max(costs)))
    axes.grid(alpha=0.3)


if __name__ == "__main__":
    typer.run(main)
