"""Scaling studies: one method with LLMs of several sizes, trained and measured.

A study is written as one table, one figure and one power law per task.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.files import write_text
from omni_avsr.measure.cost import inspect, training_step
from omni_avsr.measure.page import html_table, write_page
from omni_avsr.measure.plots import TASK_LOOKS, as_svg, new_axes, plot_style
from omni_avsr.measure.results import finest, grid, is_measured, percent, read_results
from omni_avsr.measure.study import measure_once, of_run, train_once
from omni_avsr.run import Progress, is_first_process, no_progress, read_run
from omni_avsr.settings import EvaluateSettings, TrainSettings
from omni_avsr.settings.base import flag
from omni_avsr.tasks import CLEAN, Task

EVALUATION = "evaluation"  # folder of a run
LEAST = 0.1  # per cent of word errors; a power law needs some
CAPTION = (
    "WER of each task at its finest rates with its 95 % interval; dotted: power laws; filled: on "
    "the Pareto front, which no other size beats"
)
HEADS = (
    "LLM",
    "ASR WER %",
    "VSR WER %",
    "AVSR WER %",
    "parameters",
    "trainable",
    "active",
    "LLM training TFLOPs",
    "training seconds",
    "times real time",
)


@dataclass(frozen=True)
class Size:
    """What one size costs and what it achieves, each task at its finest rates."""

    llm: str
    total: int  # parameters
    trainable: int
    active: dict[Task, int]
    training_seconds: float
    training_tflops: float
    speed: dict[Task, float]  # seconds of speech decoded per second
    wer: dict[Task, float]  # per cent
    interval: dict[Task, tuple[float, float]]  # of the WER, 95 %


@dataclass(frozen=True)
class PowerLaw:
    """WER = factor * parameters ** -exponent."""

    factor: float
    exponent: float
    per_doubling: float  # the share of the WER that remains with twice the parameters


Laws = dict[Task, PowerLaw]
Point = tuple[float, float]  # a cost, such as the number of parameters, and the WER


def scale(settings: TrainSettings, progress: Progress = no_progress) -> list[Size]:
    """Trains and measures every size that has not finished; returns all sizes."""
    for llm in sizes(settings):
        train_one(one(settings, llm), progress)
    return collect(settings)


def sizes(settings: TrainSettings) -> list[str]:
    """The LLMs of a study, which settings.llm lists, such as tiny-s,tiny-m,tiny-l."""
    given = [name.strip() for name in settings.llm.split(",") if name.strip()]
    if len(given) < 2:
        raise InputError(
            f"--llm {settings.llm} names {len(given)} LLM, a scaling study needs two or more"
        )
    if settings.from_ is not None:
        raise InputError("a scaling study trains new weights for each LLM: leave out --from")
    return given


def one(settings: TrainSettings, llm: str) -> TrainSettings:
    """The settings of the run of one size."""
    folder = llm.strip("/.").replace("/", "--")
    return replace(settings, llm=llm, out=settings.out / folder)


def train_one(settings: TrainSettings, progress: Progress = no_progress) -> None:
    """Trains and measures one size, unless that has finished."""
    if settings.data and not settings.test:
        raise InputError(f"a scaling study on {settings.data} needs --test, label files to measure")
    train_once(settings, progress)
    if is_first_process():
        measuring = of_run(settings, EvaluateSettings(seed=settings.seed), EVALUATION)
        measure_once(measuring, f"omni-avsr with {settings.llm}", progress)


def commands(settings: TrainSettings) -> list[str]:
    """A command per size, and one that collects them, for the jobs of a cluster."""
    shared = ["omni-avsr", "scale", "--llm", settings.llm, "--out", str(settings.out)]
    shared += _changed_options(settings)
    lines = []
    for llm in sizes(settings):
        lines.append(shlex.join([*shared, "--only", llm]))
    lines.append(shlex.join([*shared, "--collect"]))
    return lines


def _changed_options(settings: TrainSettings) -> list[str]:
    """The other options that are not at their defaults."""
    words = []
    for own in fields(TrainSettings):
        value = getattr(settings, own.name)
        if own.name in ("llm", "out") or value == own.default:
            continue
        words.append(flag(own))
        if isinstance(value, tuple):
            words.append(",".join(map(str, value)))
        elif value is not True:
            words.append(str(value))
    return words


def collect(settings: TrainSettings) -> list[Size]:
    """The sizes of a finished study, which is written to scaling.json and scaling.html."""
    runs = {llm: one(settings, llm).out for llm in sizes(settings)}
    missing = [llm for llm, run in runs.items() if not is_measured(run / EVALUATION)]
    if missing:
        raise InputError(f"not finished in {settings.out}: {', '.join(missing)}")
    found = [_size_of(llm, run) for llm, run in runs.items()]
    totals = [size.total for size in found]
    laws: Laws = {}
    for task in found[0].wer:
        laws[task] = power_law(totals, [size.wer[task] for size in found])
    content = {
        "sizes": list(map(asdict, found)),
        "power_laws": {task: asdict(law) for task, law in laws.items()},
    }
    write_text(settings.out / "scaling.json", json.dumps(content, indent=1) + "\n")
    write_page(settings.out / "scaling.html", "omni-avsr: LLM sizes", _page(found, laws))
    return found


def _size_of(llm: str, run: Path) -> Size:
    """What is known of one finished run."""
    record = read_run(run)
    assert record is not None, f"{run} has no run.json"
    assert record.trained is not None, f"{run} has not finished"
    facts = inspect(str(run))
    gflops, active_on = {}, {}
    for cost in facts.costs:
        gflops[cost.route] = cost.training_gflops_per_second
        active_on[cost.route] = cost.active_parameters
    rates_in_a_step = TrainSettings(**record.settings).step_rates
    gflops_per_second = training_step(gflops, rates_in_a_step)
    cells = grid(read_results(run / EVALUATION))
    active, speed, wer, interval = {}, {}, {}, {}
    for route in finest(cells.routes):
        result = cells.results[CLEAN, route]
        active[route.task] = active_on[route]
        speed[route.task] = result.speed
        wer[route.task] = result.percent
        interval[route.task] = (100 * result.wer_low, 100 * result.wer_high)
    return Size(
        llm=llm,
        total=facts.parameters["total"],
        trainable=facts.parameters["trainable"],
        active=active,
        training_seconds=record.trained["seconds"],
        training_tflops=gflops_per_second * record.trained["speech_seconds"] / 1000,
        speed=speed,
        wer=wer,
        interval=interval,
    )


def line(size: Size) -> list[str]:
    """A size's line of the table, whose columns are HEADS."""
    return [
        size.llm,
        *(_wer(size, task) for task in Task),
        f"{size.total:,}",
        f"{size.trainable:,}",
        f"{max(size.active.values()):,}",
        f"{size.training_tflops:.1f}",
        f"{size.training_seconds:.0f}",
        f"{min(size.speed.values()):.0f}",
    ]


def _wer(size: Size, task: Task) -> str:
    """The WER of a task with its interval."""
    if task not in size.wer:
        return percent(None)
    low, high = map(percent, size.interval[task])
    return f"{percent(size.wer[task])} ({low}-{high})"


def _page(found: Sequence[Size], laws: Laws) -> str:
    """The figure, the power laws and the table, as HTML."""
    with plot_style():
        figure = _figure(found, laws)
    items = []
    for task, law in laws.items():
        remaining = f"{law.per_doubling:.2f} of the word errors remain"
        items.append(f"<li>{task.upper()}: with twice the parameters {remaining}</li>")
    # A column per size, as the heads are long
    head, *rows = zip(HEADS, *map(line, found), strict=True)
    return f"{figure}<ul>{''.join(items)}</ul>{html_table(head, rows)}"


def _figure(found: Sequence[Size], laws: Laws) -> str:
    """WER against parameters: a line per task and its power law; the Pareto front is filled."""
    figure, axes = new_axes(height=3.3)
    ordered = sorted(found, key=lambda size: size.total)
    totals = np.array([size.total for size in ordered])
    for task, law in laws.items():
        look = TASK_LOOKS[task]
        wers = [size.wer[task] for size in ordered]
        fitted = law.factor * totals**-law.exponent
        axes.plot(totals, fitted, color=look["color"], linestyle=":")
        axes.plot(totals, wers, label=task.upper(), markerfacecolor="none", **look)
        low, high = zip(*(size.interval[task] for size in ordered), strict=True)
        axes.vlines(totals, low, high, color=look["color"], linewidth=1)
        for total, wer in pareto_front(list(zip(totals, wers, strict=True))):
            axes.plot([total], [wer], **look)
    axes.set_xscale("log")
    axes.set_xticks(totals, [f"{total / 1e6:.3g}" for total in totals])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel="millions of parameters in total", ylabel="WER (%)")
    axes.grid(True, axis="y")
    figure.legend(loc="outside upper left", ncols=3)
    return as_svg(figure, CAPTION)


def power_law(parameters: Sequence[float], wers: Sequence[float]) -> PowerLaw:
    """The power law from parameters to WERs, by least squares on their logarithms."""
    at_least = np.maximum(wers, LEAST)
    slope, level = np.polyfit(np.log(parameters), np.log(at_least), 1)
    return PowerLaw(float(np.exp(level)), float(-slope), float(2**slope))


def pareto_front(points: Sequence[Point]) -> list[Point]:
    """The (cost, WER) points that no other point beats."""
    return [point for point in points if not _is_beaten(point, points)]


def _is_beaten(point: Point, points: Sequence[Point]) -> bool:
    """Whether another point costs no more and is no worse, and is not the same."""
    cost, wer = point
    for other in points:
        other_cost, other_wer = other
        if other_cost <= cost and other_wer <= wer and other != point:
            return True
    return False
