"""The plots of a report, as inline SVG.

They are drawn in a stand-in for black that is replaced by the page's own text colour, so they
follow its light or dark scheme. Text becomes outlines and looks the same wherever it is opened.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import Any

import numpy as np

from omni_avsr.decode.confidence import Judged, calibration_error, reliability
from omni_avsr.measure.elastic import Curve
from omni_avsr.measure.results import Grid, finest, percent
from omni_avsr.tasks import Condition, Route, Task

INK = "#010203"  # stands in for the page's text colour
WIDTH = 4.6  # inches; a phone shows the text at about the size it was drawn in
STYLE = {
    "font.size": 10,
    "text.parse_math": False,  # the folder of a noise may have a $ in its name
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 6,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "axes.axisbelow": True,
}
# Tasks differ in hue (Okabe-Ito), lightness and marker.
TASK_LOOKS: dict[Task, dict[str, Any]] = {
    Task.ASR: {"color": "#3b82c4", "marker": "o"},
    Task.VSR: {"color": "#e07b1a", "marker": "s"},
    Task.AVSR: {"color": "#1b9e77", "marker": "^"},
}
LABEL_OFFSET = (4, 4)  # points to the right of and above a point
BAR_WIDTH = 0.25
BAR_DISTANCE = 0.27
ERROR_COLORS = {"substitutions": "#b072b5", "deletions": "#d9a21b", "insertions": "#4aa8c9"}
NO_METADATA = {"Creator": None, "Date": None, "Format": None, "Type": None}


def plot_style() -> AbstractContextManager[None]:
    """The context in which plots are drawn."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def new_axes(height: float) -> tuple[Any, Any]:
    """A figure as wide as the page and so many inches high, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")  # not one of pyplot's open ones
    return figure, figure.add_subplot()


def elastic_curve(grid: Grid, condition: Condition) -> str:
    """WER against the LLM's tokens: a line per task, each point with its rates."""
    figure, axes = new_axes(height=3.3)
    for task, look in TASK_LOOKS.items():
        routes = [route for route in grid.routes if route.task is task]
        routes.sort(key=lambda route: route.tokens_per_second)
        wers = known_wers(grid, condition, routes)
        if not wers:
            continue
        tokens = [route.tokens_per_second for route in wers]
        axes.plot(tokens, list(wers.values()), label=task.upper(), **look)
        for route, wer in wers.items():
            axes.annotate(
                route.rates,
                (route.tokens_per_second, wer),
                xytext=LABEL_OFFSET,
                textcoords="offset points",
                color=look["color"],
                fontsize=9,
            )
    axes.margins(0.12, 0.15)
    axes.set_xlim(left=0)
    axes.set_xlabel("LLM tokens per second of speech")
    _finish_wer_axis(figure, axes)
    caption = "WER against LLM tokens per second of speech, with the rates of each point"
    return as_svg(figure, f"{condition}: {caption}")


def noise_plot(grid: Grid, noise: str | None) -> str:
    """WER of each task at its finest rates: bars for clean and one SNR, lines for more."""
    kind = noise or "noise"
    conditions = [c for c in grid.conditions if c.snr is None or c.noise == noise]
    figure, axes = new_axes(height=3.0)
    if len(conditions) > 2:
        _noise_lines(axes, grid, conditions)
    else:
        _noise_bars(axes, grid, conditions)
    names = ["clean" if c.snr is None else f"{c.snr:g} dB" for c in conditions]
    axes.set_xticks(range(len(conditions)), names)
    axes.set_xlabel(f"signal-to-noise ratio, {kind}")
    axes.margins(y=0.12)
    _finish_wer_axis(figure, axes)
    caption = (
        "WER at each task's finest rates. Noise does not change VSR, whose WER is of clean clips."
    )
    return as_svg(figure, f"{kind}: {caption}")


def _noise_lines(axes: Any, grid: Grid, conditions: Sequence[Condition]) -> None:
    for route in finest(grid.routes):
        places, wers = _wers_by_place(grid, conditions, route)
        axes.plot(places, wers, label=str(route), **TASK_LOOKS[route.task])


def _noise_bars(axes: Any, grid: Grid, conditions: Sequence[Condition]) -> None:
    routes = finest(grid.routes)
    for number, route in enumerate(routes):
        places, wers = _wers_by_place(grid, conditions, route)
        from_middle = (number - (len(routes) - 1) / 2) * BAR_DISTANCE
        middles = np.array(places) + from_middle
        color = TASK_LOOKS[route.task]["color"]
        bars = axes.bar(middles, wers, width=BAR_WIDTH, label=str(route), color=color)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=9)


def _wers_by_place(
    grid: Grid, conditions: Sequence[Condition], route: Route
) -> tuple[list[int], list[float]]:
    """Where on the x axis a route has a WER, and the WERs."""
    places, wers = [], []
    for place, condition in enumerate(conditions):
        wer = wer_in(grid, condition, route)
        if wer is not None:
            places.append(place)
            wers.append(wer)
    return places, wers


def error_types(grid: Grid, condition: Condition) -> str:
    """Substitutions, deletions and insertions of each route as one stacked bar."""
    routes = [route for route in grid.routes if (condition, route) in grid.results]
    results = [grid.results[condition, route] for route in routes]
    rows = range(len(routes))
    figure, axes = new_axes(height=1.0 + 0.25 * len(routes))
    ends = np.zeros(len(routes))
    for kind, color in ERROR_COLORS.items():
        shares = [100 * getattr(result, kind) / max(result.words, 1) for result in results]
        bars = axes.barh(rows, shares, left=ends, height=0.7, color=color, label=kind)
        ends = ends + shares
    totals = [percent(end) for end in ends]
    axes.bar_label(bars, totals, padding=3, fontsize=9)
    axes.set_yticks(rows, list(map(str, routes)))
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel("errors per 100 words of the reference")
    figure.legend(loc="outside upper left", ncols=3)
    return as_svg(figure, f"{condition}: substitutions, deletions and insertions")


def choice_plot(curves: Sequence[Curve], cost: str, label: str) -> str:
    """WER against what it costs, from no doubt to doubting all; a star is the fitted doubt."""
    figure, axes = new_axes(height=3.6)
    for curve in curves:
        color = TASK_LOOKS[curve.ladder.cheap.task]["color"]
        changes = curve.ladder.cheap.task is not curve.ladder.better.task
        style = "--" if changes else "-"
        costs = [getattr(point, cost) for point in curve.points]
        wers = [100 * point.wer for point in curve.points]
        axes.plot(costs, wers, style, color=color, label=str(curve.ladder))
        axes.plot(getattr(curve.fitted, cost), 100 * curve.fitted.wer, "*", color=color, ms=11)
    axes.margins(0.05, 0.1)
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("WER (%)")
    axes.grid(True, axis="y")
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    caption = "from no doubt to doubting all; the star is where the fitted doubt leads"
    return as_svg(figure, f"{curves[0].condition}: WER against {label}, {caption}")


def reliability_plot(judged: Mapping[Task, Sequence[Judged]], condition: Condition) -> str:
    """The share of right words against their probability, of each task at all its rates."""
    figure, axes = new_axes(height=3.0)
    axes.plot([0, 1], [0, 1], color=INK, alpha=0.3, linewidth=1)
    for task, look in TASK_LOOKS.items():
        words = judged.get(task)
        if words:
            sure, right, _ = zip(*reliability(words), strict=True)
            name = f"{task.upper()}, off by {100 * calibration_error(words):.1f} %"
            axes.plot(sure, right, label=name, **look)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("probability of words")
    axes.set_ylabel("share of them that is right")
    axes.grid(True)
    figure.legend(loc="outside upper left", ncols=2, fontsize=9)
    return as_svg(figure, f"{condition}: how often words are right that have a probability")


def known_wers(grid: Grid, condition: Condition, routes: Sequence[Route]) -> dict[Route, float]:
    """The WER in per cent of those routes that have one."""
    known = {}
    for route in routes:
        wer = wer_in(grid, condition, route)
        if wer is not None:
            known[route] = wer
    return known


def wer_in(grid: Grid, condition: Condition, route: Route) -> float | None:
    """The WER of a cell in per cent; of VSR, which hears no noise, the clean one if need be."""
    wer = grid.percent(condition, route)
    if wer is None and not route.task.hears:
        return grid.percent(Condition(), route)
    return wer


def _finish_wer_axis(figure: Any, axes: Any) -> None:
    axes.set_ylim(bottom=0)
    axes.set_ylabel("WER (%)")
    axes.grid(True, axis="y")
    figure.legend(loc="outside upper left", ncols=3)


def as_svg(figure: Any, caption: str) -> str:
    """The figure as inline SVG with its caption.

    It has no address, comment, name, fixed size or fixed text colour. The same figure gives the
    same text, and no id occurs twice on a page.
    """
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": caption}):  # ids are hashes of this and a shape
        figure.savefig(buffer, format="svg", transparent=True, metadata=NO_METADATA)
    _, start, rest = buffer.getvalue().partition("<svg")
    svg = start + rest
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    svg = re.sub(r'(?<=^<svg) width="[^"]*" height="[^"]*"', "", svg)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    svg = svg.replace(INK, "currentColor")
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"
