"""All benchmarks of this machine's CPU, one after another; their tables go into docs/performance.md.

python -m benchmarks --write docs/performance.md
"""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import cost, data, decode, matryoshka, step, yardstick

BEGIN, END = "<!-- written by make bench -->\n", "<!-- end -->\n"


def main(
    write: Annotated[Path | None, typer.Option(help="Write the tables here, between the two marks.")] = None,
    threads: Annotated[int, typer.Option(help="Threads, where one number is used.")] = 2,
) -> None:
    """Prints each table when it is there; half an hour on two cores."""
    sheets = []
    for sheet in (
        lambda: step.sheet("32000,128000", "1,2"),
        lambda: decode.sheet("32000", "asr,vsr,avsr", 1),
        lambda: decode.sheet("128000", "avsr", 1),
        lambda: matryoshka.sheet(threads),
        lambda: data.sheet(threads),
    ):
        sheets.append(sheet())
        yardstick.show(sheets[-1])
    points = cost.points(threads)
    sheets.append(cost.sheet(points, threads))
    yardstick.show(sheets[-1])
    if write:
        before, _, rest = write.read_text(encoding="utf-8").partition(BEGIN)
        tables = "\n\n".join(sheet.markdown() for sheet in sheets)
        write.write_text(f"{before}{BEGIN}\n{tables}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")
        cost.draw(points, write.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
