"""What commands print: sentences, progress bars and tables."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from omni_avsr.choice import is_toy
from omni_avsr.tasks import Task

if TYPE_CHECKING:  # these modules take long to import, and --help answers at once
    from omni_avsr.cli.doctor import Finding
    from omni_avsr.measure.compare import Difference
    from omni_avsr.measure.cost import ModelFacts, RouteCost
    from omni_avsr.measure.results import Result

TABLE_ONE = "Word errors in percent, in the layout of Omni-AVSR's Table I"


def complain(text: str) -> None:
    """Prints an error to the error stream."""
    console = Console(stderr=True, soft_wrap=True, emoji=False)
    console.print(f"[bold red]error:[/bold red] {escape(text)}", highlight=False)


def say(text: str) -> None:
    """Prints a line of rich's markup."""
    Console(soft_wrap=True, emoji=False).print(text, highlight=False)


def note(text: str) -> None:
    """Prints a line that is no result to the error stream."""
    console = Console(stderr=True, soft_wrap=True, emoji=False)
    console.print(escape(text), style="dim", highlight=False)


def name_model(model: str) -> None:
    """Says which model decodes, and warns of the toy."""
    note(f"model: {model}")
    if is_toy(model):
        note(
            "it only knows the sentences of the toy world; --checkpoint takes a model of real "
            "speech, and docs/weights.md says where to get one"
        )


class Bars:
    """A progress callback that shows one bar at a time, for each thing that is done.

    Nothing is shown where the error stream is not a terminal.
    """

    shown: ClassVar[Progress | None] = None  # there is one terminal

    def __call__(self, what: str, done: int, total: int) -> None:
        if Bars.shown is None:
            console = Console(stderr=True, emoji=False)
            Bars.shown = Progress(
                *Progress.get_default_columns(),
                MofNCompleteColumn(),
                console=console,
                disable=not console.is_terminal,
                redirect_stdout=_is_terminal(sys.stdout),  # what is piped is not for it
            )
            Bars.shown.add_task(escape(what))
            Bars.shown.start()
        Bars.shown.update(Bars.shown.task_ids[0], completed=done, total=total)
        if done >= total:
            stop_bars()


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether what is written there is shown; a stream that the caller has closed is None."""
    return stream is not None and stream.isatty()


def stop_bars() -> None:
    """Ends the bar that is shown, if there is one."""
    if Bars.shown is not None:
        Bars.shown.stop()
        Bars.shown = None


def table_one(results: Iterable["Result"], title: str | None = TABLE_ONE) -> Table:
    """The WER in percent: a column per route, a row per condition, as in Omni-AVSR's Table I."""
    from omni_avsr.measure.results import grid, percent

    cells = grid(results)
    table = Table(title=title, box=None, padding=(0, 1), header_style="bold")
    table.add_column("WER %", no_wrap=True)
    rows = {condition: [escape(str(condition))] for condition in cells.conditions}
    task: Task | None = None
    for route in cells.routes:
        name = ""
        if route.task is not task:
            name = route.task.upper()
            table.add_column("│\n│", style="dim", header_style="dim")
            for row in rows.values():
                row.append("│")
        task = route.task
        table.add_column(f"{name}\n{route.rates}", justify="right")
        for condition, row in rows.items():
            row.append(percent(cells.percent(condition, route)))
    for row in rows.values():
        table.add_row(*row)
    return table


def show_finding(finding: "Finding") -> None:
    """Prints a finding of the doctor, and what to do about it."""
    mark = "[green]good[/green]"
    if finding.fails:
        mark = "[red]fails[/red]"
    elif finding.remedy:
        mark = "[yellow]lacks[/yellow]"
    say(f"{mark} {finding.name}: {escape(finding.found)}")
    if finding.remedy:
        say(f"      [bold]{escape(finding.remedy)}[/bold]")


def show_differences(differences: Iterable["Difference"], first: Path, second: Path) -> None:
    """Prints the word error rates of two evaluations and their differences, in percent."""
    names = (escape(str(first)), escape(str(second)))
    table = Table("", "clips", *names, "difference", "95 % interval", "")
    for difference in differences:
        change = difference.second - difference.first
        table.add_row(
            escape(f"{difference.route}, {difference.condition}"),
            str(difference.clips),
            f"{100 * difference.first:.1f}",
            f"{100 * difference.second:.1f}",
            f"{100 * change:+.1f}",
            f"{100 * difference.low:+.1f} to {100 * difference.high:+.1f}",
            _verdict(difference),
        )
    Console().print(table)


def _verdict(difference: "Difference") -> str:
    if not difference.real:
        return "[dim]not sure[/dim]"
    return "[green]better[/green]" if difference.high < 0 else "[red]worse[/red]"


def show_info(facts: "ModelFacts") -> None:
    """Prints what a model is made of and what it costs."""
    say(f"[bold]{escape(facts.checkpoint)}[/bold]: {', '.join(facts.tasks)}")
    for kind, name in facts.towers.items():
        say(f"{kind}: {escape(str(name))}")
    say(f"adapters: {', '.join(facts.adapters) or 'none'}")
    parts = Table("part", "parameters")
    for part, count in facts.parameters.items():
        parts.add_row(part, f"{count:,}")
    Console().print(parts)
    _show_costs(facts.costs)
    for name, value in facts.trained.items():
        say(f"{name}: {escape(str(value))}")


def _show_costs(costs: Iterable["RouteCost"]) -> None:
    table = Table(title="A second of speech")
    for head in ("", "active parameters", "LLM tokens", "encoder GFLOPs", "LLM GFLOPs"):
        table.add_column(head)
    for cost in costs:
        table.add_row(
            str(cost.route),
            f"{cost.active_parameters:,}",
            f"{cost.route.tokens_per_second:.1f}",
            f"{cost.encoder_gflops_per_second:.3g}",
            f"{cost.llm_gflops_per_second:.3g}",
        )
    Console().print(table)


def show_sizes(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a scaling study with a column per size, as its heads are long."""
    names, *figures = zip(heads, *rows, strict=True)
    table = Table(*names)
    for figure in figures:
        table.add_row(*figure)
    Console().print(table)
