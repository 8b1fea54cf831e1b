"""What commands print: sentences, progress bars, tables and alignments."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from omni_avsr.tasks import Task

if TYPE_CHECKING:  # these modules take long to import, and --help answers at once
    from omni_avsr.cli.doctor import Finding
    from omni_avsr.measure.compare import Difference
    from omni_avsr.measure.cost import ModelFacts, RouteCost
    from omni_avsr.measure.results import Result
    from omni_avsr.text import AlignedWord

TABLE_ONE = "Word errors in percent, in the layout of Omni-AVSR's Table I"
HEADS = ("REF: ", "HYP: ", "     ")  # of the lines of an alignment


def complain(text: str) -> None:
    """Prints an error to the error stream."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(f"[bold red]error:[/bold red] {escape(text)}", highlight=False)


def say(text: str) -> None:
    """Prints a line of rich's markup."""
    Console(soft_wrap=True).print(text, highlight=False)


class Bars:
    """A progress callback that shows one bar at a time, for each thing that is done."""

    def __init__(self) -> None:
        self.bar: Progress | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        if self.bar is None:
            columns = (*Progress.get_default_columns(), MofNCompleteColumn())
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.bar.add_task(what)
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=done, total=total)
        if done >= total:
            self.bar.stop()
            self.bar = None


def show_result(result: "Result") -> None:
    """Prints the word errors of one route, and how fast it was decoded."""
    say(
        f"[bold]{result.route}: WER {result.percent:.1f} %[/bold] "
        f"of {result.words} words ({result.substitutions} substituted, {result.deletions} deleted, "
        f"{result.insertions} inserted), CER {100 * result.cer:.1f} %, {result.clips} clips, "
        f"{result.speed:.0f} times as fast as speech; checkpoint {escape(result.checkpoint)}"
    )


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


def alignment(reference: str, hypothesis: str, width: int = 80) -> str:
    """The reference over the hypothesis, word under word, with a line that marks the errors.

    Text that is wider than the terminal is continued in a further block.
    """
    from omni_avsr.text import aligned_words

    words = aligned_words(reference, hypothesis)
    blocks = _split_to_fit(words, width - len(HEADS[0]))
    return "\n".join(map(_as_lines, blocks))


def _as_lines(words: Sequence["AlignedWord"]) -> str:
    """The lines REF and HYP, and the marks under them if there are any."""
    lines = list(HEADS)
    for word in words:
        for number, text in enumerate(word):
            lines[number] += text.ljust(_width(word)) + " "
    stripped = [line.rstrip() for line in lines]
    return "\n".join(line for line in stripped if line)


def _split_to_fit(words: Sequence["AlignedWord"], width: int) -> Iterator[list["AlignedWord"]]:
    """The words in blocks that fit the width, with at least one word each."""
    block: list[AlignedWord] = []
    used = 0  # characters, with a space between two words
    for word in words:
        used += _width(word) + (1 if block else 0)
        if block and used > width:
            yield block
            block = []
            used = _width(word)
        block.append(word)
    yield block


def _width(word: "AlignedWord") -> int:
    return max(len(word.reference), len(word.hypothesis))


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
