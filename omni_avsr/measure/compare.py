"""Two evaluations side by side: which differences are real, by the paired bootstrap over the clips that both have."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omni_avsr.measure.results import Condition, Setting, resampled
from omni_avsr.tasks import Task

Cell = tuple[Condition, Setting]


@dataclass(frozen=True)
class Difference:
    """Of the second's WER to the first's, in one cell of the table."""

    condition: Condition
    setting: Setting
    clips: int
    first: float
    second: float
    low: float  # of the difference, 95 % interval
    high: float

    @property
    def real(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def compare(first: Path, second: Path) -> list[Difference]:
    """The difference in every cell that both results have; of results.json files or the folders that hold them."""
    one, two = read(first), read(second)
    shared = sorted(one.keys() & two.keys(), key=lambda cell: (cell[0].order, cell[1].order))
    found = [_difference(cell, one[cell], two[cell]) for cell in shared]
    if not found:
        raise ValueError(f"{first} and {second} have no task and rate in common")
    return found


def read(results: Path) -> dict[Cell, dict[str, tuple[int, int]]]:
    """Errors and words of each clip, by cell; from the hypotheses beside the results."""
    folder = results if results.is_dir() else results.parent
    file = folder / "hypotheses.jsonl"
    if results.name != "results.json" and not results.is_dir():
        raise ValueError(f"{results} is neither a results.json nor the folder of one")
    if not file.is_file():
        raise ValueError(f"there is no {file}: comparing clip by clip needs what `omni-avsr evaluate` writes")
    cells: dict[Cell, dict[str, tuple[int, int]]] = {}
    for line in file.read_text(encoding="utf-8").split("\n"):
        if line:
            row: dict[str, Any] = json.loads(line)
            condition = Condition() if row["snr"] is None else Condition(row["snr"], row["noise"])
            cell = condition, Setting(Task(row["task"]), row["audio_rate"], row["video_rate"])
            cells.setdefault(cell, {})[row["id"]] = row["errors"], row["words"]
    return cells


def _difference(cell: Cell, one: dict[str, tuple[int, int]], two: dict[str, tuple[int, int]]) -> Difference:
    ids = sorted(one.keys() & two.keys())
    if not ids:
        raise ValueError(f"{cell[1]}, {cell[0]}: the two were measured on different clips")
    (errors, words), (others, same) = (np.array([scores[i] for i in ids]).T for scores in (one, two))
    if (words != same).any():
        raise ValueError(f"{cell[1]}, {cell[0]}: the two were scored on different texts, or by different normalisers")
    draws = resampled(others, words) - resampled(errors, words)
    low, high = np.quantile(draws, [0.025, 0.975])
    total = max(int(words.sum()), 1)
    return Difference(*cell, len(ids), errors.sum() / total, others.sum() / total, float(low), float(high))
