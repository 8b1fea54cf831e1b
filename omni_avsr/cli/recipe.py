"""What the recipes share: their options, training that shows progress, and a table of results."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from omni_avsr.cli.terminal import Bars
from omni_avsr.measure import study
from omni_avsr.measure.results import Result, percent
from omni_avsr.run import silence_libraries
from omni_avsr.settings import EvaluateSettings, TrainSettings
from omni_avsr.tasks import CLEAN

Toy = Annotated[
    bool, typer.Option("--toy", help="Use the toy corpus and the tiny towers, instead of LRS3.")
]
Labels = Annotated[Path, typer.Option(help="Folder with the label files, such as lrs3_train.csv.")]
Out = Annotated[Path, typer.Option(help="Folder for the runs; finished runs are not repeated.")]
Steps = Annotated[
    int | None,
    typer.Option(help="Optimizer steps.", show_default="8 epochs as published, 300 for --toy"),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Dtype = Annotated[
    str, typer.Option(help="Type of the frozen towers: auto, float32, bfloat16 or float16.")
]


def train_and_measure(training: TrainSettings, measuring: EvaluateSettings) -> list[Result]:
    """The results of a run on its test clips; what has finished is not done again."""
    silence_libraries()
    return study.train_and_measure(training, measuring, Bars())


def show_results(
    title: str,
    measured: Mapping[str, Sequence[Result]],
    paper: Mapping[str, Mapping[str, float]],
    corpus: str = "LRS3",
) -> None:
    """Prints the measured WERs of each model, and beside them the published ones.

    Published WERs are given by what was measured, such as AVSR (4,2) or AVSR (4,2), babble 5 dB.
    """
    table = Table("WER %", title=f"{title}; paper: {corpus}")
    everything = list(chain(*measured.values()))
    everything.sort(key=lambda result: (result.condition, result.route))
    rows: dict[str, list[str]] = {_cell(result): [] for result in everything}
    for name, results in measured.items():
        _add_column(table, rows, name, {_cell(result): result.percent for result in results})
        if name in paper:
            _add_column(table, rows, "paper", paper[name])
    for cell, row in rows.items():
        table.add_row(cell, *row)
    Console().print(table)


def _add_column(
    table: Table, rows: dict[str, list[str]], head: str, wers: Mapping[str, float]
) -> None:
    table.add_column(head, overflow="fold")
    for cell, row in rows.items():
        row.append(percent(wers.get(cell)))


def _cell(result: Result) -> str:
    if result.condition == CLEAN:
        return str(result.route)
    return f"{result.route}, {result.condition}"
