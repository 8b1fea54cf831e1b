"""What commands print: sentences, tables and progress bars."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from omni_avsr.tasks import VIDEO_FPS


def complain(text: str) -> None:
    """An error, on the error stream."""
    Console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/bold red] {escape(text)}", highlight=False)


def say(text: str) -> None:
    """A line of rich's markup."""
    Console(soft_wrap=True).print(text, highlight=False)


class Bars:
    """A progress bar for each thing that is reported, one after another."""

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


def show_renamed(renamed: list[tuple[str, str | None]], out: Path) -> None:
    """Prints what was renamed, a line for keys that differ only in numbers."""
    rows = Counter((re.sub(r"\b\d+\b", "N", old), re.sub(r"\b\d+\b", "N", new or "")) for old, new in renamed)
    for (old, new), count in rows.items():
        now = "as before" if new == old else escape(new) or "not needed"
        say(f"{escape(old)} [dim]->[/dim] {now} [dim]({count})[/dim]")
    say(f"{sum(new is not None for _, new in renamed)} tensors written to {escape(str(out))}")


def show_finding(finding) -> None:
    """A line of the doctor's."""
    mark = (
        "[green]good[/green]"
        if not finding.remedy
        else "[red]fails[/red]"
        if finding.fails
        else "[yellow]lacks[/yellow]"
    )
    say(f"{mark} {finding.name}: {escape(finding.found)}")
    if finding.remedy:
        say(f"      [bold]{escape(finding.remedy)}[/bold]")


def show_findings(findings) -> None:
    from omni_avsr.data.check import histogram

    clips, words = findings.manifest.clips, findings.words
    seconds = [clip.frames / VIDEO_FPS for clip in clips]
    table = Table(title=escape(str(findings.manifest.file)), title_justify="left", show_header=False)
    rows = {
        "format": findings.manifest.format,
        "clips": f"{len(clips):,}",
        "hours": f"{findings.hours:.2f}",
        "words": f"{sum(words):,}",
        "clips without text": f"{words.count(0):,}",
        "clips read": f"{findings.read:,}",
        "frames a second": _counts(findings.fps),
        "pixels": _counts({f"{h} x {w}": n for (h, w), n in findings.sizes.items()}),
        "sample rate": _counts(findings.sample_rates),
        "other number of frames than the file says": f"{findings.wrong_frames:,}",
        "problems": f"{len(findings.problems):,}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    Console().print(table)
    for name, lengths in (("seconds", seconds), ("words", words)):
        bars = Table("from", "to", "clips", "", title=f"Lengths in {name}", title_justify="left")
        bins = histogram(lengths)
        for low, high, count in bins:
            bars.add_row(f"{low:.1f}", f"{high:.1f}", f"{count:,}", "█" * round(30 * count / max(n for *_, n in bins)))
        Console().print(bars)


def _counts(counter) -> str:
    return ", ".join(f"{value} ({count:,})" for value, count in counter.items()) or "none"


def show_quality(records) -> None:
    table = Table("", "worst", "median", "best", title="Quality of the crops", title_justify="left")
    lines = {
        "detected": ("frames with the face", False),
        "jitter": ("jitter in pixels", True),
        "off_centre": ("largest distance of mouth and middle, in pixels", True),
        "eyes_apart": ("distance of the eyes in the video, in pixels", False),
    }
    for key, (name, low_is_good) in lines.items():
        values = sorted((record.quality[key] for record in records), reverse=low_is_good)
        if values:
            table.add_row(name, *(f"{values[i]:g}" for i in (0, len(values) // 2, -1)))
    Console().print(table)


def show_differences(differences: Sequence, first: Path, second: Path) -> None:
    """Prints the word error rates of two evaluations and their differences."""
    table = Table("", "clips", escape(str(first)), escape(str(second)), "difference", "95 % interval", "")
    for d in differences:
        cells = (f"{100 * d.first:.1f}", f"{100 * d.second:.1f}", f"{100 * (d.second - d.first):+.1f}")
        interval = f"{100 * d.low:+.1f} to {100 * d.high:+.1f}"
        verdict = ("[green]better[/green]" if d.high < 0 else "[red]worse[/red]") if d.real else "[dim]not sure[/dim]"
        table.add_row(escape(f"{d.setting}, {d.condition}"), str(d.clips), *cells, interval, verdict)
    Console().print(table)


def show_info(facts: dict) -> None:
    """Prints what a model is made of and what it costs."""
    say(f"[bold]{escape(facts['checkpoint'])}[/bold]: {', '.join(facts['tasks'])}")
    for kind, name in facts["towers"].items():
        say(f"{kind}: {escape(str(name))}")
    say(f"adapters: {', '.join(facts['adapters']) or 'none'}")
    parts = Table("part", "parameters")
    for part, count in facts["parameters"].items():
        parts.add_row(part, f"{count:,}")
    Console().print(parts)
    costs = Table("", "active parameters", "LLM tokens", "encoder GFLOPs", "LLM GFLOPs", title="A second of speech")
    for row in facts["costs"]:
        rates = ",".join(str(row[f"{name}_rate"]) for name in ("audio", "video") if row[f"{name}_rate"])
        figures = [
            f"{row['active_parameters']:,}",
            f"{row['llm_tokens_per_second']:.1f}",
            f"{row['encoder_gflops_per_second']:.3g}",
            f"{row['llm_gflops_per_second']:.3g}",
        ]
        costs.add_row(f"{row['task'].upper()} ({rates})", *figures)
    Console().print(costs)
    for name, value in facts["trained"].items():
        say(f"{name}: {escape(str(value))}")


def show_sizes(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Prints a scaling study, a column a size: the heads are long."""
    table = Table(heads[0], *(line[0] for line in lines))
    for row, head in enumerate(heads[1:], 1):
        table.add_row(head, *(line[row] for line in lines))
    Console().print(table)
