"""What the commands that decode print: results, and the worst clips with their errors."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omni_avsr.cli.terminal import say

if TYPE_CHECKING:  # these modules take long to import, and --help answers at once
    from omni_avsr.decode.hypothesis import Hypothesis
    from omni_avsr.measure.elastic import Curve
    from omni_avsr.measure.live import LiveResult
    from omni_avsr.measure.results import Result
    from omni_avsr.text import AlignedWord

HEADS = ("REF: ", "HYP: ", "     ")  # of the lines of an alignment


def show_result(result: "Result") -> None:
    """Prints the word errors of one route, or of two of a ladder, and how fast it was decoded."""
    name = str(result.route)
    if result.begun is not None and result.doubted is not None:
        name = f"{result.begun}, and {name} for the {100 * result.doubted:.0f} % in doubt"
    say(
        f"[bold]{name}: WER {result.percent:.1f} %[/bold] "
        f"of {result.words} words ({result.substitutions} substituted, {result.deletions} deleted, "
        f"{result.insertions} inserted), CER {100 * result.cer:.1f} %, {counted([result])}, "
        f"{result.speed:.0f} times as fast as speech; checkpoint {escape(result.checkpoint)}"
    )


def show_choice(curve: "Curve") -> None:
    """Prints what a model reaches that chooses its route."""
    point = curve.fitted
    say(
        f"{curve.condition}, {curve.ladder} ({100 * point.share:.0f} %): WER {100 * point.wer:.1f} "
        f"% at {point.tokens:.1f} tokens per second"
    )


def show_live(results: Iterable["LiveResult"]) -> None:
    """Prints how captions were while the clips played."""
    title = "Seconds until words settle after their end: mean and 95th percentile"
    heads = ("WER %", "first", "last", "all", "all, as heard", "changed", "of real time")
    table = Table("", *heads, title=title, box=None, header_style="bold")
    for result in results:
        delays = []
        for delay in (result.first, result.last, result.all, result.without_computing):
            delays.append("-" if delay is None else f"{delay.mean:.2f} {delay.most:.2f}")
        changed = "-" if result.changed is None else f"{100 * result.changed:.0f} %"
        figures = (f"{100 * result.wer:.1f}", *delays, changed, f"{result.real_time:.2f}")
        table.add_row(str(result.route), *figures)
    Console().print(table)
    say(
        "First and last: the words of a caption. As heard: if computing took no time. Changed: "
        "words that were shown, and did not settle as they were"
    )


def counted(results: Sequence["Result"]) -> str:
    """How many clips were scored, how many have no text, and how many transcripts were cut."""
    first = results[0]
    parts = [f"{first.clips} clips"]
    if first.without_text:
        parts.append(f"{first.without_text} more without a text")
    if cut := sum(result.cut for result in results):
        parts.append(f"{cut} transcripts cut at their limit of tokens")
    return ", ".join(parts)


def show_worst(hypotheses: Iterable["Hypothesis"]) -> None:
    """Prints the worst clips, each with its reference over its hypothesis."""
    from omni_avsr.decode.hypothesis import worst

    for hypothesis in worst(hypotheses):
        say(f"[dim]{escape(hypothesis.id)}[/dim]")
        print(alignment(*hypothesis.scored), end="\n\n")


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
