"""What it costs and what it brings to decode coarsely, and again what is in doubt.

All of it follows from the transcripts of the single routes: nothing is decoded for it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omni_avsr.decode.elastic import Ladder, ladders
from omni_avsr.decode.hypothesis import Hypothesis
from omni_avsr.files import write_text
from omni_avsr.measure.cost import RouteCost
from omni_avsr.tasks import VERSION, Condition, Route, Row

FILE = "elastic.json"
POINTS = 21  # of a curve


@dataclass(frozen=True)
class Climbs:
    """Clips that were decoded on both routes of a ladder, the most doubtful first."""

    doubts: np.ndarray  # (clips,) of the cheap route
    errors: np.ndarray  # (clips + 1,) of all clips, if so many of them climb
    words: int
    shares: np.ndarray  # (clips + 1,) of the speech, if so many clips climb

    @classmethod
    def of(cls, cheap: Sequence[Hypothesis], better: Sequence[Hypothesis]) -> "Climbs":
        """Those of clips with a text that both routes could decode."""
        known = {(own.id, own.condition): own for own in better}
        given = [own for own in cheap if (own.id, own.condition) in known and own.has_text]
        given.sort(key=lambda own: -own.doubt)
        gains, seconds = [0], [0.0]
        for own in given:
            other = known[own.id, own.condition]
            surest = other if other.doubt <= own.doubt else own
            gains.append(surest.errors.errors - own.errors.errors)
            seconds.append(own.seconds)
        errors = sum(own.errors.errors for own in given) + np.cumsum(gains)
        spoken = np.cumsum(seconds)
        doubts = np.array([own.doubt for own in given])
        words = sum(own.errors.words for own in given)
        return cls(doubts, errors, words, spoken / max(spoken[-1], 1e-9))

    def above(self, doubt: float) -> int:
        """How many clips climb if this doubt is too much."""
        return int((self.doubts > doubt).sum())

    def doubt_worth(self, tolerance: float) -> float:
        """The most doubt that can be left, at so many more errors per word than without any."""
        allowed = self.errors[-1] + tolerance * self.words
        too_many = np.flatnonzero(self.errors > allowed)
        enough = int(too_many[-1]) + 1 if len(too_many) else 0
        if enough == len(self.doubts):
            return float(self.doubts[-1]) / 2 if enough else 0.0
        return float(self.doubts[enough])


@dataclass(frozen=True)
class Point:
    """What a ladder reaches if a share of the speech climbs, and what that costs."""

    share: float
    wer: float
    tokens: float  # of the LLM, per second of speech
    gflops: float  # of the encoders and the LLM, per second of speech
    encoder_gflops: float


@dataclass(frozen=True)
class Curve:
    """All that a ladder can reach in a condition, and where its fitted doubt leads."""

    ladder: Ladder
    condition: Condition
    points: list[Point]
    fitted: Point

    def as_row(self) -> Row:
        """Its object in elastic.json."""
        return {
            "cheap": self.ladder.cheap.as_row(),
            "better": self.ladder.better.as_row(),
            **self.condition.as_row(),
            "points": list(map(vars, self.points)),
            "fitted": vars(self.fitted),
        }


def curves(
    hypotheses: Sequence[Hypothesis], fitted: Mapping[str, float], costs: Sequence[RouteCost]
) -> list[Curve]:
    """The curve of each ladder that was fitted, in each condition that has both its routes."""
    cells: dict[Condition, dict[Route, list[Hypothesis]]] = {}
    for own in hypotheses:
        cells.setdefault(own.condition, {}).setdefault(own.route, []).append(own)
    cost_of = {cost.route: cost for cost in costs}
    found = []
    for condition, routes in sorted(cells.items()):
        for ladder in ladders(list(routes)):
            if ladder.key not in fitted:
                continue
            climbs = Climbs.of(routes[ladder.cheap], routes[ladder.better])
            pair = cost_of[ladder.cheap], cost_of[ladder.better]
            counts = np.linspace(0, len(climbs.doubts), POINTS).round().astype(int).tolist()
            points = [_point(ladder, climbs, count, *pair) for count in dict.fromkeys(counts)]
            count = climbs.above(fitted[ladder.key])
            found.append(Curve(ladder, condition, points, _point(ladder, climbs, count, *pair)))
    return found


def _point(
    ladder: Ladder, climbs: Climbs, count: int, cheap: RouteCost, better: RouteCost
) -> Point:
    share = float(climbs.shares[count])
    encoders = cheap.encoder_gflops_per_second + share * better.encoder_gflops_per_second
    llm = cheap.llm_gflops_per_second + share * better.llm_gflops_per_second
    return Point(
        share=share,
        wer=float(climbs.errors[count] / max(1, climbs.words)),
        tokens=ladder.tokens_per_second(share),
        gflops=encoders + llm,
        encoder_gflops=encoders,
    )


def write_curves(folder: Path, found: Sequence[Curve]) -> None:
    """Writes elastic.json."""
    rows = [curve.as_row() for curve in found]
    write_text(folder / FILE, json.dumps({"version": VERSION, "rows": rows}, indent=2) + "\n")
