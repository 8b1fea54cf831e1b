"""Two evaluations side by side, and which of their differences are real.

A paired bootstrap over the clips that both have decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omni_avsr.errors import InputError
from omni_avsr.files import read_rows
from omni_avsr.measure import results
from omni_avsr.measure.evaluate import HYPOTHESES
from omni_avsr.measure.results import CONFIDENCE, resampled
from omni_avsr.tasks import Condition, Route, Row

Cell = tuple[Condition, Route]  # of a results table


@dataclass(frozen=True)
class ClipScore:
    """How one clip was transcribed."""

    errors: int
    words: int  # of the reference


Scores = dict[str, ClipScore]  # by the clip's id


@dataclass(frozen=True)
class Difference:
    """The WERs of two evaluations in one cell, as fractions."""

    route: Route
    condition: Condition
    clips: int
    first: float
    second: float
    low: float  # of the 95 % interval of second - first
    high: float

    @property
    def real(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


def compare(first: Path, second: Path) -> list[Difference]:
    """The difference in every cell that both evaluations have.

    Each is given by its results.json or by its folder.
    """
    ours = read_scores(first)
    theirs = read_scores(second)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        raise InputError(f"{first} and {second} have no task and rate in common")
    return [_difference(cell, ours[cell], theirs[cell]) for cell in shared]


def read_scores(evaluation: Path) -> dict[Cell, Scores]:
    """The score of each clip with a text in each cell, from the hypotheses beside the results."""
    if evaluation.name != results.FILE and not evaluation.is_dir():
        raise InputError(f"{evaluation} is neither a {results.FILE} nor the folder of one")
    folder = evaluation if evaluation.is_dir() else evaluation.parent
    file = folder / HYPOTHESES
    if not file.is_file():
        raise InputError(
            f"there is no {file}: clips can only be compared with what `omni-avsr evaluate` writes"
        )
    try:
        return _scores_of(read_rows(file))
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{file} holds other rows than `omni-avsr evaluate` writes") from None


def _scores_of(rows: Iterable[Row]) -> dict[Cell, Scores]:
    cells: dict[Cell, Scores] = {}
    for row in rows:
        cell = Condition.from_row(row), Route.from_row(row)
        scores = cells.setdefault(cell, {})
        if row["words"]:
            scores[row["id"]] = ClipScore(row["errors"], row["words"])
    return cells


def _difference(cell: Cell, first: Scores, second: Scores) -> Difference:
    condition, route = cell
    ids = sorted(first.keys() & second.keys())
    if not ids:
        raise InputError(f"{route}, {condition}: the two were measured on different clips")
    errors, words = counts(first, ids)
    other_errors, other_words = counts(second, ids)
    if words != other_words:
        raise InputError(
            f"{route}, {condition}: the two were scored on different texts, "
            "or with different normalisers"
        )
    draws = resampled(other_errors, words) - resampled(errors, words)
    low, high = np.quantile(draws, CONFIDENCE)
    total = max(sum(words), 1)
    return Difference(
        route=route,
        condition=condition,
        clips=len(ids),
        first=sum(errors) / total,
        second=sum(other_errors) / total,
        low=float(low),
        high=float(high),
    )


def counts(scores: Scores, ids: Iterable[str]) -> tuple[list[int], list[int]]:
    """Errors and words of these clips."""
    errors, words = [], []
    for id in ids:
        errors.append(scores[id].errors)
        words.append(scores[id].words)
    return errors, words
