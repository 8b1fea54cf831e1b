"""An evaluation as one HTML file that opens offline: table, plots and the worst clips.

The plots are inline SVG, drawn with a stand-in for black that is swapped for the page's own colour of text, so that
they follow its light or dark scheme. Their text is outlines: it looks the same wherever it is opened.
"""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from omni_avsr.measure.results import (
    Condition,
    Grid,
    Hypothesis,
    Row,
    Setting,
    finest,
    grid,
    percent,
    tokens_per_second,
    worst,
    write_hypotheses,
    write_results,
)
from omni_avsr.run import write_text
from omni_avsr.tasks import VERSION, Task
from omni_avsr.text import aligned_words

INK = "#010203"  # stands in for the page's colour of text
STYLE = {
    "font.size": 10,
    "text.parse_math": False,  # a noise may be a folder with a $ in its name
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK),
    **dict.fromkeys(["axes.spines.top", "axes.spines.right", "legend.frameon"], False),
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "axes.axisbelow": True,
}
WIDTH = 4.6  # inches; a phone shows the text at about the size it was drawn in
TASK_LOOKS: dict[Task, dict[str, Any]] = {  # told apart by hue (Okabe-Ito), lightness and marker
    Task.ASR: {"color": "#3b82c4", "marker": "o"},
    Task.VSR: {"color": "#e07b1a", "marker": "s"},
    Task.AVSR: {"color": "#1b9e77", "marker": "^"},
}
ERROR_COLORS = {"substitutions": "#b072b5", "deletions": "#d9a21b", "insertions": "#4aa8c9"}
LABEL_SIDES = [  # of its point, best first: direction and anchor
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
    (1, 1, "left", "bottom"),
    (-1, 1, "right", "bottom"),
    (1, -1, "left", "top"),
    (-1, -1, "right", "top"),
]
LABEL_PLACES = [(distance, *side) for distance in (6, 18, 30) for side in LABEL_SIDES]  # distances in points
TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; --page: #fff; --ink: #1c2026; --soft: #667; --line: #ccd; --bad: #b3261e; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --page: #15181d; --ink: #e4e7ec; --soft: #9aa3b2; --line: #3a4150; --bad: #ff8a80; }}
}}
body {{ margin: 0 auto; max-width: 44rem; padding: 1rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }}
h1 {{ font-size: 1.5rem; line-height: 1.25; }} h2 {{ font-size: 1.2rem; margin-top: 2.2rem; }} h3 {{ font-size: 1rem; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .25rem .55rem; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; position: sticky; left: 0; background: var(--page); }}
thead th {{ white-space: normal; }}
thead {{ border-bottom: 1px solid var(--ink); }} tbody tr {{ border-bottom: 1px solid var(--line); }}
.group {{ border-left: 1px solid var(--line); }} thead .task {{ text-align: center; }}
figure {{ margin: 1rem 0; }} figure svg {{ width: 100%; max-width: 34rem; height: auto; display: block; }}
figcaption, .soft {{ color: var(--soft); font-size: .85rem; }}
.clip {{ margin: 1rem 0; padding-left: .7rem; border-left: 3px solid var(--line); }}
.pair {{ display: inline-block; max-width: 100%; margin: .15rem .5rem .15rem 0;
  font: .85rem/1.3 ui-monospace, monospace; }}
.pair span {{ display: block; }} .wrong {{ color: var(--bad); font-weight: 600; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .85rem; }}
dt {{ color: var(--soft); }} dd {{ margin: 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
{body}
<p class="soft">omni-avsr {version}</p>
</body>
</html>
"""


def publish(
    out: Path | str, rows: Sequence[Row], hypotheses: Sequence[Hypothesis], title: str, notes: list[str] | None = None
) -> None:
    """Writes results.json, hypotheses.jsonl and report.html."""
    write_results(Path(out) / "results.json", rows)
    write_hypotheses(Path(out) / "hypotheses.jsonl", hypotheses)
    write_report(Path(out) / "report.html", rows, hypotheses, title, notes)
    (Path(out) / "hypotheses.jsonl.part").unlink(missing_ok=True)  # what an evaluation goes on from


def write_report(
    path: Path | str,
    rows: Sequence[Row],
    hypotheses: Iterable[Hypothesis],
    title: str,
    notes: list[str] | None = None,
) -> None:
    """Writes the report; notes are paragraphs of plain text under the title."""
    cells = grid(rows)
    body = "\n".join(
        [
            *(f"<p>{escape(note)}</p>" for note in notes or []),
            "<h2>Word error rate (%)</h2>",
            _table(cells),
            *_plots(cells),
            "<h2>Worst clips</h2>",
            *_worst_clips(hypotheses),
            "<h2>What was measured</h2>",
            _facts(rows),
            _all_rows(cells),
        ]
    )
    write_page(path, title, body)


def write_page(path: Path | str, title: str, body: str) -> None:
    """Writes a page that opens offline."""
    write_text(path, TEMPLATE.format(title=escape(title), body=body, version=VERSION))


def _table(cells: Grid) -> str:
    """Table I: a group of columns per task, a column per rates, a line per noise."""
    groups = {setting.task: [s for s in cells.settings if s.task is setting.task] for setting in cells.settings}
    heads = [f'<th class="group task" colspan="{len(group)}">{task.upper()}</th>' for task, group in groups.items()]
    first = {group[0] for group in groups.values()}
    css = {setting: ' class="group"' if setting in first else "" for setting in cells.settings}
    lines = [
        f"<tr><th>{escape(str(condition))}</th>"
        + "".join(f"<td{css[setting]}>{percent(cells.wer(condition, setting))}</td>" for setting in cells.settings)
        for condition in cells.conditions
    ]
    rates = "".join(f"<th{css[setting]}>{setting.rates}</th>" for setting in cells.settings)
    return (
        f'<div class="wide"><table><thead><tr><th></th>{"".join(heads)}</tr><tr><th></th>{rates}</tr></thead>'
        f'<tbody>{"".join(lines)}</tbody></table></div><p class="soft">In brackets: frames per token, audio at 50 and '
        "video at 25 frames a second.</p>"
    )


def _plots(cells: Grid) -> Iterator[str]:
    """The elastic curve and the error types of the first and the last condition, the noise plot of each noise."""
    import matplotlib

    ends = list(dict.fromkeys([cells.conditions[0], cells.conditions[-1]]))
    with matplotlib.rc_context(STYLE):
        yield "<h2>Elastic curve</h2>"
        for condition in ends:
            yield _elastic(cells, condition)
        noises = list(dict.fromkeys(c.noise for c in cells.conditions if c.snr is not None))
        if noises:
            yield "<h2>Noise</h2>"
        for noise in noises:
            yield _noise(cells, noise)
        yield "<h2>Error types</h2>"
        for condition in ends:
            yield _error_types(cells, condition)


def _elastic(cells: Grid, condition: Condition) -> str:
    """WER against the LLM's tokens, a line per task, each point with its rates."""
    figure, axes = new_axes(3.3)
    labels = []
    for task, look in TASK_LOOKS.items():
        points = sorted(
            (tokens_per_second(*setting), wer, setting.rates)
            for setting in cells.settings
            if setting.task is task and (wer := _heard(cells, condition, setting)) is not None
        )
        if points:
            axes.plot([x for x, _, _ in points], [y for _, y, _ in points], label=task.upper(), **look)
        labels += [(x, y, rates, look["color"]) for x, y, rates in points]
    axes.margins(0.12, 0.15)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set(xlabel="LLM tokens per second of speech", ylabel="WER (%)")
    axes.grid(True, axis="y")
    figure.legend(loc="outside upper left", ncols=3)
    _place_labels(figure, axes, labels)
    return as_svg(figure, f"{condition}: WER against LLM tokens per second of speech, with the rates of each point")


def _place_labels(figure: Any, axes: Any, labels: list[tuple[float, float, str, str]]) -> None:
    """Writes each label beside its point where it covers the least of lines, points and other labels."""
    figure.draw_without_rendering()  # the layout must be known
    lines = [axes.transData.transform(line.get_path().interpolated(50).vertices) for line in axes.lines]
    frame = axes.get_window_extent()
    placed: list[Any] = []

    def box_at(text: Any, place: tuple[int, int, int, str, str]) -> Any:
        r, dx, dy, ha, va = place
        text.set(position=(r * dx, r * dy), ha=ha, va=va)
        return text.get_window_extent().padded(1)

    def cost(box: Any) -> float:
        outside = not (frame.contains(*box.min) and frame.contains(*box.max))
        return 100 * box.count_overlaps(placed) + 50 * outside + sum(map(box.count_contains, lines))

    for x, y, label, color in labels:
        text = axes.annotate(label, (x, y), (0, 0), textcoords="offset points", color=color, in_layout=False)
        costs = {place: cost(box_at(text, place)) + place[0] / 6 for place in LABEL_PLACES}
        placed.append(box_at(text, min(costs, key=lambda place: costs[place])))


def _noise(cells: Grid, noise: str | None) -> str:
    """WER per task at its finest rates: bars for clean and one SNR, lines over more."""
    conditions = [condition for condition in cells.conditions if condition.snr is None or condition.noise == noise]
    figure, axes = new_axes(3.0)
    settings = finest(cells.settings)
    for i, setting in enumerate(settings):
        points = [(x, wer) for x, c in enumerate(conditions) if (wer := _heard(cells, c, setting)) is not None]
        places, wers = [x for x, _ in points], [wer for _, wer in points]
        look = TASK_LOOKS[setting.task]
        if len(conditions) > 2:
            axes.plot(places, wers, label=str(setting), **look)
        else:
            shifted = [x + (i - (len(settings) - 1) / 2) * 0.27 for x in places]
            bars = axes.bar(shifted, wers, width=0.25, label=str(setting), color=look["color"])
            axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)
    ticks = ["clean" if condition.snr is None else f"{condition.snr:g} dB" for condition in conditions]
    axes.set_xticks(range(len(conditions)), ticks)
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.grid(True, axis="y")
    axes.set(xlabel=f"signal-to-noise ratio, {noise or 'noise'}", ylabel="WER (%)")
    figure.legend(loc="outside upper left", ncols=3)
    return as_svg(
        figure,
        f"{noise or 'noise'}: WER at each task's finest rates. VSR hears no noise: what was measured on clean clips "
        "only stands for all.",
    )


def _heard(cells: Grid, condition: Condition, setting: Setting) -> float | None:
    """The WER, for a task that does not hear its clean one if need be."""
    wer = cells.wer(condition, setting)
    return cells.wer(Condition(), setting) if wer is None and not setting.task.hears else wer


def _error_types(cells: Grid, condition: Condition) -> str:
    """Substitutions, deletions and insertions of each setting as one stacked bar."""
    settings = [setting for setting in cells.settings if (condition, setting) in cells.rows]
    rows = [cells.rows[condition, setting] for setting in settings]
    figure, axes = new_axes(1.0 + 0.25 * len(rows))
    left = [0.0] * len(rows)
    for kind, color in ERROR_COLORS.items():
        share = [100 * row[kind] / max(row["words"], 1) for row in rows]
        bars = axes.barh(range(len(rows)), share, left=left, height=0.7, color=color, label=kind)
        left = [total + part for total, part in zip(left, share, strict=True)]
    axes.bar_label(bars, [percent(total) for total in left], padding=3, fontsize=9)
    axes.set_yticks(range(len(rows)), [str(setting) for setting in settings])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("errors per 100 words of the reference")
    figure.legend(loc="outside upper left", ncols=3)
    return as_svg(figure, f"{condition}: substitutions, deletions and insertions")


def new_axes(height: float) -> tuple[Any, Any]:
    """A figure of the page's width, outside pyplot's list of open ones, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def as_svg(figure: Any, caption: str) -> str:
    """The figure as inline SVG with its caption, without addresses, comments, names and fixed colours and size."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": caption}):  # the same file each time, no id twice on the page
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(["Creator", "Date", "Format", "Type"])
        )
    svg = buffer.getvalue()
    svg = re.sub(r"<!--.*?-->\s*", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'(?<=^<svg) width="[^"]*" height="[^"]*"', "", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{svg.replace(INK, 'currentColor')}<figcaption>{escape(caption)}</figcaption></figure>"


def _worst_clips(hypotheses: Iterable[Hypothesis]) -> Iterator[str]:
    """The five worst clips of each task, in its quietest condition at its finest rates."""
    everything = list(hypotheses)
    for setting in finest({h.setting for h in everything}):
        quietest = min({h.condition for h in everything if h.setting == setting}, key=lambda c: c.order)
        clips = [h for h in everything if h.setting == setting and h.condition == quietest]
        wrong = worst(clips)
        yield f"<h3>{setting}, {escape(str(quietest))}</h3>"
        yield "".join(map(_clip, wrong)) or f"<p>All {len(clips)} clips are right.</p>"
    if not everything:
        yield "<p>No transcripts were given.</p>"


def _clip(hypothesis: Hypothesis) -> str:
    """A clip's reference over its hypothesis, word under word, in pairs that wrap with the page."""
    pairs = "".join(
        f'<span class="pair{" wrong" if mark else ""}"><span>{escape(said)}</span><span>{escape(heard)}</span>'
        f"<span>{mark or '&nbsp;'}</span></span>"
        for said, heard, mark in aligned_words(*hypothesis.scored)
    )
    about = f"{hypothesis.id} · errors {hypothesis.errors} · words {hypothesis.words}"
    if hypothesis.confidence is not None:
        about += f" · confidence {hypothesis.confidence:.2f}"
    return f'<div class="clip"><span class="soft">{escape(about)}</span><br>{pairs}</div>'


def _facts(rows: Sequence[Row]) -> str:
    """What all rows share, or each value of it."""
    lines = []
    for key in ("checkpoint", "manifest", "clips", "beams", "normaliser", "seed"):
        values = dict.fromkeys(str(row[key]) for row in rows)
        lines.append(f"<dt>{key}</dt><dd>{escape(', '.join(values))}</dd>")
    return f"<dl>{''.join(lines)}</dl>"


def _all_rows(cells: Grid) -> str:
    """Every row's figures."""
    heads = ["", "WER %", "95 % interval", "CER %", "S", "D", "I", "words", "tokens/s", "real-time factor"]
    lines = []
    for (condition, setting), row in sorted(cells.rows.items(), key=lambda item: (item[0][0].order, item[0][1].order)):
        figures = [
            f"{setting}, {condition}",
            percent(100 * row["wer"]),
            f"{percent(100 * row['wer_low'])} to {percent(100 * row['wer_high'])}",
            percent(100 * row["cer"]),
            *(str(row[key]) for key in ("substitutions", "deletions", "insertions", "words")),
            f"{row['llm_tokens_per_second_of_speech']:.1f}",
            f"{row['decode_seconds'] / row['audio_seconds']:.3f}" if row["audio_seconds"] else "-",
        ]
        lines.append("<tr>" + "".join(f"<td>{escape(figure)}</td>" for figure in figures) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in heads)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<details><summary>Every row</summary><div class="wide">{table}</div></details>'
