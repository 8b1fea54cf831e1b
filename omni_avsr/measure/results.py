"""What an evaluation measured: hypotheses, results rows, the grid of tasks, rates and noise, and its table and files.

A results row is a plain dict with the keys of result_row; its wer and cer are fractions, shown as percentages.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.markup import escape
from rich.table import Table

from omni_avsr.run import write_text
from omni_avsr.tasks import AUDIO_FPS, VERSION, VIDEO_FPS, Task
from omni_avsr.text import Errors, normalise, word_errors

Row = dict[str, Any]
RESAMPLES = 2000


class Setting(NamedTuple):
    """A task at its rates: one column of the table."""

    task: Task
    audio_rate: int | None  # None for vsr
    video_rate: int | None  # None for asr

    @property
    def rates(self) -> str:
        return f"({','.join(str(rate) for rate in self[1:] if rate is not None)})"

    def __str__(self) -> str:
        return f"{self.task.upper()} {self.rates}"

    @property
    def order(self) -> tuple[int, int, int]:
        return list(Task).index(self.task), self.audio_rate or 0, self.video_rate or 0


class Condition(NamedTuple):
    """What the voice is mixed with: one line of the table."""

    snr: float | None = None  # dB; None is clean
    noise: str | None = None

    def __str__(self) -> str:
        return "clean" if self.snr is None else f"{self.noise or 'noise'} {self.snr:g} dB"

    @property
    def order(self) -> tuple[bool, str, float]:
        return self.snr is not None, self.noise or "", -(self.snr or 0)


@dataclass(frozen=True)
class Hypothesis:
    """What was said in a clip and what was understood; the texts stand as they came and are scored normalised."""

    id: str
    reference: str
    hypothesis: str
    task: Task
    audio_rate: int | None = None
    video_rate: int | None = None
    confidence: float | None = None
    snr: float | None = None
    noise: str | None = None
    normaliser: str = "lower"

    @property
    def scored(self) -> tuple[str, str]:
        """The two texts as they are scored: `alignment(*hypothesis.scored)` shows the errors that are counted."""
        return normalise(self.reference, self.normaliser), normalise(self.hypothesis, self.normaliser)

    @cached_property
    def counts(self) -> Errors:
        return word_errors(*self.scored)

    @property
    def errors(self) -> int:
        return self.counts.errors

    @property
    def words(self) -> int:
        return self.counts.words

    @property
    def setting(self) -> Setting:
        return Setting(Task(self.task), self.audio_rate, self.video_rate)

    @property
    def condition(self) -> Condition:
        return _condition(self.snr, self.noise)

    def line(self) -> Row:
        """Its line of a hypothesis file."""
        keys = ("id", "reference", "hypothesis", "task", "audio_rate", "video_rate", "snr", "noise", "confidence")
        return {key: getattr(self, key) for key in (*keys, "errors", "words")}


@dataclass(frozen=True)
class Grid:
    """Results rows by condition and setting, both in the order of the table."""

    settings: list[Setting]
    conditions: list[Condition]
    rows: dict[tuple[Condition, Setting], Row]

    def wer(self, condition: Condition, setting: Setting) -> float | None:
        """The cell's WER in percent, None where nothing was measured."""
        row = self.rows.get((condition, setting))
        return None if row is None else 100 * row["wer"]


def tokens_per_second(task: Task | str, audio_rate: int | None, video_rate: int | None) -> float:
    """LLM tokens that a second of speech becomes."""
    task = Task(task)
    streams = [("audio", task.hears, AUDIO_FPS, audio_rate), ("video", task.sees, VIDEO_FPS, video_rate)]
    tokens = 0.0
    for name, used, fps, rate in streams:
        if used and not rate:
            raise ValueError(f"{task} needs a rate of 1 or more for {name}, not {rate}")
        tokens += fps / rate if used and rate else 0
    return tokens


def result_row(
    hypotheses: Sequence[Hypothesis],
    *,
    audio_seconds: float,
    decode_seconds: float,
    beams: int,
    seed: int | None,
    checkpoint: str,
    manifest: str,
) -> Row:
    """The results row of hypotheses that share one setting and one condition."""
    kinds = {(h.setting, h.condition) for h in hypotheses}
    if len(kinds) != 1:
        found = "; ".join(sorted(f"{setting} {condition}" for setting, condition in kinds)) or "none"
        raise ValueError(f"a results row is of one task, its rates and one noise, but the hypotheses are of: {found}")
    setting, condition = kinds.pop()
    return {
        "task": str(setting.task),
        "audio_rate": setting.audio_rate,
        "video_rate": setting.video_rate,
        "snr": condition.snr,
        "noise": condition.noise,
        **_scores(hypotheses),
        "clips": len(hypotheses),
        "audio_seconds": audio_seconds,
        "decode_seconds": decode_seconds,
        "llm_tokens_per_second_of_speech": tokens_per_second(*setting),
        "beams": beams,
        "normaliser": hypotheses[0].normaliser,
        "seed": seed,
        "checkpoint": checkpoint,
        "manifest": manifest,
    }


def _scores(hypotheses: Sequence[Hypothesis]) -> Row:
    errors = sum((h.counts for h in hypotheses), Errors())
    low, high = interval([h.errors for h in hypotheses], [h.words for h in hypotheses])
    return {
        "wer": errors.wer,
        "wer_low": low,
        "wer_high": high,
        "cer": errors.cer,
        "words": errors.words,
        "substitutions": errors.substitutions,
        "deletions": errors.deletions,
        "insertions": errors.insertions,
    }


def interval(errors: Sequence[int], words: Sequence[int]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the WER: of clips drawn again and again from those that there are."""
    low, high = np.quantile(resampled(errors, words), [0.025, 0.975])
    return float(low), float(high)


def resampled(errors: Sequence[int], words: Sequence[int]) -> np.ndarray:
    """The WER of so many draws of clips; the same draws for the same number of clips, so that two models share them."""
    rng, share = np.random.default_rng(0), np.full(len(words), 1 / len(words))
    counts = np.array([errors, words]).T
    sums = np.array([rng.multinomial(len(words), share) @ counts for _ in range(RESAMPLES)])
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def grid(rows: Iterable[Row]) -> Grid:
    """The rows by condition and setting; a cell that two rows claim is refused, as neither may hide the other."""
    cells: dict[tuple[Condition, Setting], Row] = {}
    for row in rows:
        setting = Setting(Task(row["task"]), row["audio_rate"], row["video_rate"])
        key = _condition(row["snr"], row["noise"]), setting
        if key in cells:
            raise ValueError(f"two rows for {setting}, {key[0]}: a table shows one checkpoint, seed and beam at a time")
        cells[key] = row
    if not cells:
        raise ValueError("no results rows: there is nothing to show")
    settings = sorted({setting for _, setting in cells}, key=lambda setting: setting.order)
    return Grid(settings, sorted({condition for condition, _ in cells}, key=lambda condition: condition.order), cells)


def finest(settings: Iterable[Setting]) -> list[Setting]:
    """Each task's setting with the most tokens."""
    first: dict[Task, Setting] = {}
    for setting in sorted(settings, key=lambda s: (s.order[0], -tokens_per_second(*s))):
        first.setdefault(setting.task, setting)
    return list(first.values())


def table_one(rows: Iterable[Row], title: str | None = None) -> Table:
    """The WER in percent in the layout of Omni-AVSR's Table I: a column per task and rates, a line per noise."""
    cells = grid(rows)
    table = Table(title=title, box=None, padding=(0, 1), header_style="bold")
    lines = [[escape(str(condition))] for condition in cells.conditions]
    table.add_column("WER %", no_wrap=True)
    task = None
    for setting in cells.settings:
        if setting.task is not task:
            table.add_column("│\n│", style="dim", header_style="dim")
            lines = [[*line, "│"] for line in lines]
        table.add_column(
            f"{setting.task.upper() if setting.task is not task else ''}\n{setting.rates}", justify="right"
        )
        task = setting.task
        for line, condition in zip(lines, cells.conditions, strict=True):
            line.append(percent(cells.wer(condition, setting)))
    for line in lines:
        table.add_row(*line)
    return table


def percent(value: float | None) -> str:
    """A percentage with one decimal; a dash where nothing was measured."""
    return "-" if value is None else f"{value:.1f}"


def worst(hypotheses: Iterable[Hypothesis], n: int = 5) -> list[Hypothesis]:
    """The n hypotheses with the highest WER, of those that have errors; more errors and then the id break ties."""
    wrong = [h for h in hypotheses if h.errors]
    return sorted(wrong, key=lambda h: (-h.counts.wer, -h.errors, h.id))[:n]


def write_results(path: Path | str, rows: Sequence[Row]) -> None:
    """Writes the rows as {"version", "rows"} in JSON."""
    write_text(path, json.dumps({"version": VERSION, "rows": list(rows)}, indent=2, allow_nan=False) + "\n")


def write_hypotheses(path: Path | str, hypotheses: Iterable[Hypothesis]) -> None:
    """Writes one JSON object a line."""
    lines = (json.dumps(h.line(), ensure_ascii=False, allow_nan=False) + "\n" for h in hypotheses)
    write_text(path, "".join(lines))


def _condition(snr: float | None, noise: str | None) -> Condition:
    """The condition of a row or a hypothesis; without an SNR it is clean, whatever noise is named."""
    return Condition() if snr is None else Condition(snr, noise)
