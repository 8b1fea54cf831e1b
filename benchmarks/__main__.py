"""The benchmarks of this machine's CPU, one after another, or one of them.

python -m benchmarks --write docs/performance.md
python -m benchmarks --only step
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import cost, data, decode, matryoshka, step, stops, yardstick

END = "<!-- end -->\n"


def main(
    write: Annotated[
        Path | None, typer.Option(help="Write the tables to this page, between their marks.")
    ] = None,
    only: Annotated[
        str | None, typer.Option(help="One of step, decode, stops, matryoshka, data and cost.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads, where one number is used.")] = 2,
) -> None:
    """Prints each table when it is there."""
    if only is not None and only not in PARTS:
        raise typer.BadParameter(f"unknown part {only}; available: {', '.join(PARTS)}")
    for name in [only] if only else PARTS:
        sheets = PARTS[name](threads, write)
        for sheet in sheets:
            yardstick.show(sheet)
        if write:
            yardstick.write_tables(write, sheets, begin(name), END)


def begin(name: str) -> str:
    """The mark of a page before the tables of a part."""
    return f"<!-- written by make bench ONLY={name} -->\n"


def _cost(threads: int, page: Path | None) -> list[yardstick.Sheet]:
    """How the cost of a step grows; the page has a picture of it."""
    points = cost.points(threads)
    if page:
        cost.draw(points, page.with_suffix(".png"))
    return [cost.sheet(points, threads)]


Part = Callable[[int, Path | None], list[yardstick.Sheet]]

PARTS: dict[str, Part] = {
    "step": lambda *_: [step.sheet("32000,128000", "1")],
    "decode": lambda *_: [
        decode.sheet("32000", "asr,vsr,avsr", 1),
        decode.sheet("128000", "avsr", 1),
    ],
    "stops": lambda *_: [stops.sheet("asr,vsr,avsr", "15", 120, 1)],
    "matryoshka": lambda threads, _: [matryoshka.sheet(threads)],
    "data": lambda threads, _: [data.sheet(threads)],
    "cost": _cost,
}


if __name__ == "__main__":
    typer.run(main)
