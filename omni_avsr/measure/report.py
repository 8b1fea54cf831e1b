"""The report of an evaluation: one HTML file with its table, plots and worst clips."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from omni_avsr.decode.confidence import Judged
from omni_avsr.decode.hypothesis import Hypothesis, worst
from omni_avsr.measure.elastic import Curve
from omni_avsr.measure.evaluate import Evaluation
from omni_avsr.measure.page import html_table, wide_table, write_page
from omni_avsr.measure.plots import (
    choice_plot,
    elastic_curve,
    error_types,
    noise_plot,
    plot_style,
    reliability_plot,
)
from omni_avsr.measure.results import Grid, Result, finest, grid, percent
from omni_avsr.tasks import Condition, Route, Task
from omni_avsr.text import AlignedWord, aligned_words

FILE = "report.html"
FACTS = (
    "checkpoint",
    "manifest",
    "clips",
    "unreadable",
    "without_text",
    "beams",
    "normaliser",
    "seed",
)
COLUMNS = (
    "",
    "WER %",
    "95 % interval",
    "CER %",
    "S",
    "D",
    "I",
    "words",
    "cut",
    "tokens/s",
    "seconds",
    "real-time factor",
    "calibration error %",
)
CUT = "Cut: transcripts that reached the limit of tokens without an end."
CHOSEN_COLUMNS = ("", "in doubt %", "WER %", "tokens/s", "GFLOPs/s", "of encoders")
CHOSEN = (
    "What is in doubt at the first rates is decoded at the second ones, too, and the surer "
    "transcript stays. How much doubt is too much was fitted by omni-avsr calibrate."
)
UNSURE = 0.5  # probability, below which a word is marked
MARKED = f"Words that the model gives less than {100 * UNSURE:.0f} % to be right are underlined."
EXPLANATION = "In brackets: frames per token, of 50 audio and 25 video frames per second."


def write_report(
    folder: Path,
    evaluation: Evaluation,
    title: str,
    notes: Sequence[str] = (),
    elastic: Sequence[Curve] = (),
) -> None:
    """Writes report.html; notes are paragraphs of plain text under the title."""
    cells = grid(evaluation.results)
    parts = [f"<p>{escape(note)}</p>" for note in notes]
    parts += ["<h2>Word error rate (%)</h2>", _table(cells)]
    parts += _plots(cells)
    parts += _chosen(elastic)
    parts += _sureness(evaluation.hypotheses, cells)
    parts += ["<h2>Worst clips</h2>", *_worst_clips(evaluation.hypotheses)]
    parts += ["<h2>What was measured</h2>", _facts(evaluation.results), _every_result(cells)]
    write_page(folder / FILE, title, "\n".join(parts))


def _table(cells: Grid) -> str:
    """Table I: a group of columns per task, a column per route, a row per condition."""
    by_task: dict[Task, list[Route]] = {}
    for route in cells.routes:
        by_task.setdefault(route.task, []).append(route)
    first_of_task = {routes[0] for routes in by_task.values()}

    def row(head: str, tag: str, texts: dict[Route, str]) -> str:
        html = [f"<tr><th>{escape(head)}</th>"]
        for route, text in texts.items():
            css = ' class="group"' if route in first_of_task else ""
            html.append(f"<{tag}{css}>{text}</{tag}>")
        return "".join([*html, "</tr>"])

    tasks = ["<tr><th></th>"]
    for task, routes in by_task.items():
        tasks.append(f'<th class="group task" colspan="{len(routes)}">{task.upper()}</th>')
    tasks.append("</tr>")
    rates = row("", "th", {route: route.rates for route in cells.routes})
    rows = []
    for condition in cells.conditions:
        wers = {route: percent(cells.percent(condition, route)) for route in cells.routes}
        rows.append(row(str(condition), "td", wers))
    table = wide_table("".join(tasks) + rates, "".join(rows))
    return f'{table}<p class="soft">{EXPLANATION}</p>'


def _plots(cells: Grid) -> Iterator[str]:
    """The curves and error types of the first and the last condition, and a plot per noise."""
    ends = list(dict.fromkeys([cells.conditions[0], cells.conditions[-1]]))
    noises = list(dict.fromkeys(c.noise for c in cells.conditions if c.snr is not None))
    with plot_style():
        yield "<h2>Elastic curve</h2>"
        for condition in ends:
            yield elastic_curve(cells, condition)
        if noises:
            yield "<h2>Noise</h2>"
        for noise in noises:
            yield noise_plot(cells, noise)
        yield "<h2>Error types</h2>"
        for condition in ends:
            yield error_types(cells, condition)


def _chosen(elastic: Sequence[Curve]) -> Iterator[str]:
    """What the model reaches if it chooses, against the LLM's tokens and against all FLOPs."""
    if not elastic:
        return
    yield "<h2>Where the model chooses</h2>"
    rows = []
    for curve in elastic:
        point = curve.fitted
        figures = (100 * point.share, 100 * point.wer, point.tokens, point.gflops)
        name = f"{curve.ladder}, {curve.condition}"
        rows.append([name, *map(percent, figures), percent(point.encoder_gflops)])
    yield html_table(CHOSEN_COLUMNS, rows) + f'<p class="soft">{CHOSEN}</p>'
    with plot_style():
        for condition in dict.fromkeys(curve.condition for curve in elastic):
            own = [curve for curve in elastic if curve.condition == condition]
            yield choice_plot(own, "tokens", "LLM tokens per second of speech")
            yield choice_plot(own, "gflops", "GFLOPs per second of speech")


def _sureness(hypotheses: Sequence[Hypothesis], cells: Grid) -> Iterator[str]:
    """How far the words' probabilities hold, in each condition, if they are known."""
    judged: dict[Condition, dict[Task, list[Judged]]] = {}
    for hypothesis in hypotheses:
        of_condition = judged.setdefault(hypothesis.condition, {})
        of_condition.setdefault(hypothesis.route.task, []).extend(hypothesis.judged)
    if not any(words for of_task in judged.values() for words in of_task.values()):
        return
    yield "<h2>How sure, and how right</h2>"
    with plot_style():
        for condition in cells.conditions:
            yield reliability_plot(judged.get(condition, {}), condition)


def _worst_clips(hypotheses: Sequence[Hypothesis]) -> Iterator[str]:
    """The worst clips of each task, at its finest rates in its quietest condition."""
    if not hypotheses:
        yield "<p>No transcripts were given.</p>"
    if any(hypothesis.judged for hypothesis in hypotheses):
        yield f'<p class="soft">{MARKED}</p>'
    cells: dict[tuple[Condition, Route], list[Hypothesis]] = {}
    for hypothesis in hypotheses:
        cells.setdefault((hypothesis.condition, hypothesis.route), []).append(hypothesis)
    quietest: dict[Route, Condition] = {}
    for condition, route in sorted(cells):
        quietest.setdefault(route, condition)
    for route in finest(quietest):
        clips = cells[quietest[route], route]
        wrong = worst(clips)
        yield f"<h3>{route}, {escape(str(quietest[route]))}</h3>"
        if not wrong:
            yield f"<p>All {len(clips)} clips are right.</p>"
        for hypothesis in wrong:
            yield _clip(hypothesis)


def _clip(hypothesis: Hypothesis) -> str:
    """A clip's reference over its hypothesis, word under word, in pairs that wrap with the page."""
    errors = hypothesis.errors
    about = f"{hypothesis.id} · errors {errors.errors} · words {errors.words}"
    if hypothesis.confidence is not None:
        about += f" · confidence {hypothesis.confidence:.2f}"
    sure = iter(hypothesis.sure)
    pairs = ""
    for word in aligned_words(*hypothesis.scored):
        probability = None if word.mark == "D" else next(sure)
        pairs += _pair(word, is_unsure=probability is not None and probability < UNSURE)
    return f'<div class="clip"><span class="soft">{escape(about)}</span><br>{pairs}</div>'


def _pair(word: AlignedWord, is_unsure: bool) -> str:
    css = "pair wrong" if word.mark else "pair"
    css += " unsure" if is_unsure else ""
    return (
        f'<span class="{css}"><span>{escape(word.reference)}</span>'
        f"<span>{escape(word.hypothesis)}</span><span>{word.mark or '&nbsp;'}</span></span>"
    )


def _facts(results: Sequence[Result]) -> str:
    """What all results share, or each value of it."""
    lines = []
    for name in FACTS:
        values = dict.fromkeys(str(getattr(result, name)) for result in results)
        lines.append(f"<dt>{name.replace('_', ' ')}</dt><dd>{escape(', '.join(values))}</dd>")
    return f"<dl>{''.join(lines)}</dl>"


def _every_result(cells: Grid) -> str:
    """The figures of every result, folded up."""
    rows = []
    for condition in cells.conditions:
        for route in cells.routes:
            result = cells.results.get((condition, route))
            if result is not None:
                rows.append(_figures(result))
    table = html_table(COLUMNS, rows) + f'<p class="soft">{CUT}</p>'
    return f"<details><summary>Every result</summary>{table}</details>"


def _figures(result: Result) -> list[str]:
    low, high = percent(100 * result.wer_low), percent(100 * result.wer_high)
    error = result.calibration_error
    factor = "-"
    if result.audio_seconds:
        factor = f"{result.decode_seconds / result.audio_seconds:.3f}"
    return [
        f"{result.route}, {result.condition}",
        percent(result.percent),
        f"{low} to {high}",
        percent(100 * result.cer),
        str(result.substitutions),
        str(result.deletions),
        str(result.insertions),
        str(result.words),
        str(result.cut),
        f"{result.route.tokens_per_second:.1f}",
        f"{result.decode_seconds:.0f}",
        factor,
        percent(error and 100 * error),
    ]
