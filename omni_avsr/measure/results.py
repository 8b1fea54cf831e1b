"""Results: the word error rate of one route in one condition, in a file and in a table."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omni_avsr.decode.confidence import calibration_error
from omni_avsr.decode.hypothesis import Hypothesis
from omni_avsr.errors import InputError
from omni_avsr.files import write_text
from omni_avsr.tasks import VERSION, Condition, Route, Row, Task
from omni_avsr.text import Errors

FILE = "results.json"
RESAMPLES = 2000
CONFIDENCE = (0.025, 0.975)  # quantiles of a 95 % interval


@dataclass(frozen=True)
class Result:
    """One row of a results file. Rates of errors are fractions; tables show per cent."""

    route: Route
    condition: Condition
    wer: float
    wer_low: float  # of the 95 % interval over clips
    wer_high: float
    cer: float
    words: int
    substitutions: int
    deletions: int
    insertions: int
    clips: int
    audio_seconds: float
    decode_seconds: float
    beams: int
    normaliser: str
    seed: int | None
    checkpoint: str
    manifest: str
    unreadable: int = 0  # clips that could not be read
    without_text: int = 0  # clips whose text is empty as it is scored: they are left out
    cut: int = 0  # hypotheses that reached the limit of tokens
    dtype: str = "float32"  # of the frozen towers
    quantize: str | None = None  # 8bit or 4bit: the LLM
    calibration_error: float | None = None  # of the words' probabilities, if they are known
    begun: str | None = (
        None  # the route of all clips, if the result's own is only of those in doubt
    )
    doubted: float | None = None  # the share of the speech that was in doubt

    @property
    def percent(self) -> float:
        """The word error rate in per cent."""
        return 100 * self.wer

    @property
    def speed(self) -> float:
        """Seconds of speech that are decoded in a second."""
        return self.audio_seconds / self.decode_seconds

    def as_row(self) -> Row:
        """Its object in a results file."""
        values = asdict(self)
        del values["route"], values["condition"]
        tokens = {"llm_tokens_per_second_of_speech": self.route.tokens_per_second}
        return {**self.route.as_row(), **self.condition.as_row(), **values, **tokens}

    @classmethod
    def from_row(cls, row: Row) -> "Result":
        """The result of an object in a results file."""
        known = {name: row[name] for name in cls.__dataclass_fields__ if name in row}
        return cls(route=Route.from_row(row), condition=Condition.from_row(row), **known)


def result_of(hypotheses: Sequence[Hypothesis], **facts: Any) -> Result:
    """The result of hypotheses that share one route and one condition, and have texts in part.

    `facts` are the fields of Result that hypotheses do not know, such as beams and checkpoint.
    """
    kinds = {(hypothesis.route, hypothesis.condition) for hypothesis in hypotheses}
    if len(kinds) != 1:
        found = "; ".join(sorted(f"{route} {condition}" for route, condition in kinds)) or "none"
        raise InputError(f"a result is of one route in one condition, not of: {found}")
    ((route, condition),) = kinds
    scored = [hypothesis for hypothesis in hypotheses if hypothesis.has_text]
    errors = sum((hypothesis.errors for hypothesis in scored), Errors())
    low, high = interval(scored)
    judged = [word for hypothesis in scored for word in hypothesis.judged]
    return Result(
        route=route,
        condition=condition,
        wer=errors.wer,
        wer_low=low,
        wer_high=high,
        cer=errors.cer,
        words=errors.words,
        substitutions=errors.substitutions,
        deletions=errors.deletions,
        insertions=errors.insertions,
        clips=len(scored),
        normaliser=hypotheses[0].normaliser,
        without_text=len(hypotheses) - len(scored),
        cut=sum(hypothesis.is_cut for hypothesis in hypotheses),
        calibration_error=calibration_error(judged) if judged else None,
        **facts,
    )


def interval(hypotheses: Sequence[Hypothesis]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the WER, over clips drawn with replacement."""
    errors = [hypothesis.errors.errors for hypothesis in hypotheses]
    words = [hypothesis.errors.words for hypothesis in hypotheses]
    low, high = np.quantile(resampled(errors, words), CONFIDENCE)
    return float(low), float(high)


def resampled(errors: Sequence[int], words: Sequence[int]) -> np.ndarray:
    """The WER (RESAMPLES,) of clips drawn with replacement.

    The same number of clips gives the same draws, so two models can be compared draw by draw.
    """
    rng = np.random.default_rng(0)
    share = np.full(len(words), 1 / len(words))
    counts = np.array([errors, words]).T  # (clips, 2)
    draws = rng.multinomial(len(words), share, size=RESAMPLES)  # (RESAMPLES, clips)
    sums = draws @ counts  # (RESAMPLES, 2)
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


@dataclass(frozen=True)
class Grid:
    """Results by condition and route, both in the order of the table."""

    routes: list[Route]
    conditions: list[Condition]
    results: dict[tuple[Condition, Route], Result]

    def percent(self, condition: Condition, route: Route) -> float | None:
        """The WER of a cell in per cent; None where nothing was measured."""
        result = self.results.get((condition, route))
        return None if result is None else result.percent


def grid(results: Iterable[Result]) -> Grid:
    """The results by condition and route; refuses two for one cell, as one would hide the other."""
    cells: dict[tuple[Condition, Route], Result] = {}
    for result in results:
        cell = result.condition, result.route
        if cell in cells:
            raise InputError(
                f"two results for {result.route}, {result.condition}: "
                "a table shows one checkpoint, seed and beam width at a time"
            )
        cells[cell] = result
    if not cells:
        raise InputError("no results: there is nothing to show")
    conditions = sorted({condition for condition, _ in cells})
    return Grid(sorted({route for _, route in cells}), conditions, cells)


def finest(routes: Iterable[Route]) -> list[Route]:
    """The route of each task with the most tokens."""
    first: dict[Task, Route] = {}
    for route in sorted(routes, key=lambda route: -route.tokens_per_second):
        first.setdefault(route.task, route)
    return sorted(first.values())


def percent(value: float | None) -> str:
    """A percentage with one decimal; a dash where nothing was measured."""
    return "-" if value is None else f"{value:.1f}"


def write_results(folder: Path, results: Sequence[Result]) -> None:
    """Writes results.json, which marks the evaluation in this folder as finished: write it last."""
    content = {"version": VERSION, "rows": [result.as_row() for result in results]}
    write_text(folder / FILE, json.dumps(content, indent=2, allow_nan=False) + "\n")


def unmark(folder: Path) -> None:
    """Removes the results of an earlier evaluation, whose other files are about to be replaced."""
    (folder / FILE).unlink(missing_ok=True)


def is_measured(folder: Path) -> bool:
    """Whether an evaluation has finished in this folder."""
    return (folder / FILE).is_file()


def read_results(path: Path) -> list[Result]:
    """The results of a results.json, or of the folder that holds it."""
    file = path / FILE if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"there is no {file}: `omni-avsr evaluate` writes it")
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return [Result.from_row(row) for row in rows]
