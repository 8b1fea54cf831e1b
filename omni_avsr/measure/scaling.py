"""The same method over LLMs of several sizes: trained, or found finished; measured; one table, one figure, one fit."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from omni_avsr.decode.decode import evaluate
from omni_avsr.measure.cost import inspect
from omni_avsr.measure.report import STYLE, TASK_LOOKS, as_svg, new_axes, publish, write_page
from omni_avsr.measure.results import Row, Setting, finest
from omni_avsr.run import Report, first_process, silent, write_text
from omni_avsr.settings import EvaluateSettings, TrainSettings
from omni_avsr.tasks import Task
from omni_avsr.train.fit import fit
from omni_avsr.train.resume import finished, refuse_other

LEAST = 0.1  # per cent of word errors that a logarithm can take
HEADS = (
    "LLM",
    *(f"{task.upper()} WER %" for task in Task),
    "parameters",
    "trainable",
    "active",
    "training TFLOPs of the LLM",
    "training seconds",
    "seconds of speech decoded in one",
)


@dataclass(frozen=True)
class Size:
    """What one size costs and gives; its WERs are of each task at its finest rates."""

    llm: str
    total: int
    trainable: int
    active: dict[str, int]  # of each task
    training_seconds: float
    training_tflops: float
    speed: dict[str, float]  # seconds of speech decoded in a second
    wer: dict[str, float]


def scale(settings: TrainSettings, report: Report = silent) -> list[Size]:
    """Trains and measures what is not done yet; returns all sizes."""
    for llm in sizes(settings):
        train_one(one(settings, llm), report)
    return collect(settings)


def sizes(settings: TrainSettings) -> list[str]:
    """The LLMs of a list such as tiny-s,tiny-m,tiny-l."""
    names = [name.strip() for name in settings.llm.split(",") if name.strip()]
    if len(names) < 2:
        raise ValueError(f"--llm {settings.llm} names {len(names)} LLM, two or more make a scaling study")
    return names


def one(settings: TrainSettings, llm: str) -> TrainSettings:
    """The settings of one size."""
    return replace(settings, llm=llm, out=str(Path(settings.out) / llm.strip("/.").replace("/", "--")))


def train_once(settings: TrainSettings, report: Report) -> None:
    """A finished run, trained unless it is there; one that was cut off goes on."""
    run = Path(settings.out)
    if (run / "run.json").is_file() and finished(run):
        refuse_other(run, settings)
    else:
        fit(settings, report)


def train_one(settings: TrainSettings, report: Report) -> None:
    """One finished and measured run."""
    run = Path(settings.out)
    if settings.data and not settings.test:
        raise ValueError(f"a scaling study on {settings.data} needs --test: label files to be measured on")
    train_once(settings, report)
    if first_process() and not (run / "evaluation" / "results.json").is_file():
        data = EvaluateSettings(data=settings.test, root=settings.root, format=settings.format, tokens=settings.tokens)
        toy = replace(data, toy_world=settings.toy_world, toy_clips=settings.toy_clips)
        grid = replace(toy, checkpoint=str(run), seed=settings.seed)
        publish(run / "evaluation", *evaluate(grid, report, run / "evaluation"), f"omni-avsr with {settings.llm}")


def commands(settings: TrainSettings) -> list[str]:
    """A command for each size, and one that gathers; for a cluster."""
    given = ["omni-avsr", "scale", "--llm", settings.llm, "--out", settings.out]
    for field in fields(TrainSettings):
        value = getattr(settings, field.name)
        if value != field.default and field.name not in ("llm", "out"):
            given += [f"--{field.name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return [shlex.join([*given, *last]) for last in [*(["--only", llm] for llm in sizes(settings)), ["--collect"]]]


def collect(settings: TrainSettings) -> list[Size]:
    """The sizes that are finished, written to scaling.json and scaling.html."""
    runs = {llm: Path(one(settings, llm).out) for llm in sizes(settings)}
    missing = [llm for llm, run in runs.items() if not (run / "evaluation" / "results.json").is_file()]
    if missing:
        raise ValueError(f"not finished in {settings.out}: {', '.join(missing)}")
    found = [measure(llm, run) for llm, run in runs.items()]
    fits = {task: power_law([(size.total, size.wer[task]) for size in found]) for task in found[0].wer}
    rows = {"sizes": [asdict(size) for size in found], "power_laws": fits}
    write_text(Path(settings.out) / "scaling.json", json.dumps(rows, indent=1) + "\n")
    write_page(Path(settings.out) / "scaling.html", "omni-avsr: LLM sizes", page(found, fits))
    return found


def page(found: list[Size], fits: dict[str, dict[str, float]]) -> str:
    """The figure and the table, as HTML."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figures = figure(found, fits)
    laws = [
        f"<li>{task.upper()}: doubling the parameters leaves {law['per_doubling']:.2f} of the word errors</li>"
        for task, law in fits.items()
    ]
    columns = [HEADS, *map(line, found)]
    rows = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in zip(*columns, strict=True)]
    table = f'<div class="wide"><table>{"".join(f"<tr>{row}</tr>" for row in rows)}</table></div>'
    return f"{figures}<ul>{''.join(laws)}</ul>{table}"


def line(size: Size) -> list[str]:
    """A size's line of the table."""
    return [
        size.llm,
        *(f"{size.wer[task]:.1f}" if task in size.wer else "-" for task in Task),
        f"{size.total:,}",
        f"{size.trainable:,}",
        f"{max(size.active.values()):,}",
        f"{size.training_tflops:.1f}",
        f"{size.training_seconds:.0f}",
        f"{min(size.speed.values()):.0f}",
    ]


def figure(found: list[Size], fits: dict[str, dict[str, float]]) -> str:
    """WER against parameters, a line per task with its fit; what lies on the Pareto front is filled."""
    drawing, axes = new_axes(3.3)
    for task, law in fits.items():
        look = TASK_LOOKS[Task(task)]
        points = sorted((size.total, size.wer[task]) for size in found)
        xs, ys = np.array(points).T
        axes.plot(xs, law["factor"] * xs ** -law["exponent"], color=look["color"], linestyle=":")
        axes.plot(xs, ys, label=task.upper(), markerfacecolor="none", **look)
        front = [point for point, best in zip(points, pareto(points), strict=True) if best]
        axes.plot(*np.array(front).T, linestyle="none", **look)
    axes.set_xscale("log")
    ticks = sorted(size.total for size in found)
    axes.set_xticks(ticks, [f"{tick / 1e6:.3g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set(xlabel="parameters in all, millions", ylabel="WER (%)")
    axes.grid(True, axis="y")
    drawing.legend(loc="outside upper left", ncols=3)
    return as_svg(drawing, "WER of each task at its finest rates; dotted: power laws; filled: the Pareto front")


def measure(llm: str, run: Path) -> Size:
    """One run's facts."""
    rows: list[Row] = json.loads((run / "evaluation" / "results.json").read_text())["rows"]
    clean = {Setting(Task(r["task"]), r["audio_rate"], r["video_rate"]): r for r in rows if r["snr"] is None}
    facts: dict[str, Any] = inspect(str(run))
    costs = {Setting(Task(c["task"]), c["audio_rate"], c["video_rate"]): c for c in facts["costs"]}
    best = {str(setting.task): setting for setting in finest(clean)}
    known = json.loads((run / "run.json").read_text(encoding="utf-8"))
    trained = TrainSettings(**known["settings"])
    gflops = of_a_step(facts["costs"], trained.step_rates, "training_gflops") * known["trained"]["speech_seconds"]
    return Size(
        llm,
        facts["parameters"]["total"],
        facts["parameters"]["trainable"],
        {task: costs[setting]["active_parameters"] for task, setting in best.items()},
        known["trained"]["seconds"],
        gflops / 1000,
        {task: clean[s]["audio_seconds"] / clean[s]["decode_seconds"] for task, s in best.items()},
        {task: 100 * clean[setting]["wer"] for task, setting in best.items()},
    )


def of_a_step(costs: Sequence[dict[str, Any]], rates: str, what: str) -> float:
    """What all passes of a training step take together, a second of speech of its batch."""
    by_task: dict[str, list[float]] = {}
    for row in costs:
        by_task.setdefault(row["task"], []).append(row[f"{what}_per_second"])
    chosen = {name: values[:1] if rates == "fixed" else values for name, values in by_task.items()}
    return sum(sum(values) / (len(values) if rates == "sampled" else 1) for values in chosen.values())


def power_law(points: Sequence[tuple[float, float]]) -> dict[str, float]:
    """WER = factor * parameters ** -exponent, by least squares on the logarithms; and what a doubling leaves of it."""
    x, y = np.log([p for p, _ in points]), np.log([max(wer, LEAST) for _, wer in points])
    slope, level = np.polyfit(x, y, 1)
    return {"factor": float(np.exp(level)), "exponent": float(-slope), "per_doubling": float(2**slope)}


def pareto(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Of (cost, WER): whether no other is as cheap and better, or as good and cheaper."""
    return [not any((c <= cost and w < wer) or (c < cost and w <= wer) for c, w in points) for cost, wer in points]
