"""All benchmarks of this machine's CPU, one after another.

python -m benchmarks --write docs/performance.md
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import cost, data, decode, matryoshka, step, yardstick

BEGIN = "<!-- written by make bench -->\n"
END = "<!-- end -->\n"


def main(
    write: Annotated[
        Path | None, typer.Option(help="Write the tables to this page, between its two marks.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads, where one number is used.")] = 2,
) -> None:
    """Prints each table when it is there; half an hour on two cores."""
    sheets = []
    for sheet in _sheets(threads):
        yardstick.show(sheet)
        sheets.append(sheet)
    points = cost.points(threads)
    growing = cost.sheet(points, threads)
    yardstick.show(growing)
    if write:
        yardstick.write_tables(write, [*sheets, growing], BEGIN, END)
        cost.draw(points, write.with_suffix(".png"))


def _sheets(threads: int) -> Iterator[yardstick.Sheet]:
    yield step.sheet("32000,128000", "1,2")
    yield decode.sheet("32000", "asr,vsr,avsr", 1)
    yield decode.sheet("128000", "avsr", 1)
    yield matryoshka.sheet(threads)
    yield data.sheet(threads)


if __name__ == "__main__":
    typer.run(main)
