"""Whether the difference between two models lies where a claim has it.

The 95 % interval of the difference decides. Its half-width is sqrt(a^2 + b^2): a is that of
Student's t over the differences of the seeds, b the normal one over the clips. So many of 2,000
intervals missed the true difference of simulated models with WERs of 5.0 % and 5.5 %, which vary
by so much from seed to seed (`python -m benchmarks.intervals`):

varies by     seeds   bootstrap over seeds and clips   t over seeds   this one
0.5 points        3                            3.0 %          5.6 %      1.1 %
                  5                            2.6 %          8.0 %      1.8 %
1.0 points        2                           11.4 %          4.9 %      2.1 %
                  3                            7.2 %          4.3 %      1.5 %
                  5                            5.7 %          7.0 %      3.2 %
2.0 points        3                           14.4 %          3.9 %      2.4 %
                  5                           11.9 %          5.9 %      4.0 %

A verdict with fewer than three seeds is undecided, wherever its interval lies.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from omni_avsr.measure.compare import Scores, counts

SeedScores = dict[int, Scores]  # the scores of a model by its seed
SEEDS = 3  # that a verdict needs
# Quantiles of Student's t for a 95 % interval, by degrees of freedom from 1 on
T_QUANTILES = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
NORMAL_QUANTILE = 1.960
HOLDS, UNDECIDED, FAILS = "hold", "undecided", "do not hold"
TOO_FEW = "undecided (too few seeds)"
MARGIN = 1.0  # points that "no worse" allows, or a quarter of the errors if that is more
INFINITY = float("inf")


@dataclass
class Claim:
    """What a paper says, what was measured, and whether it holds."""

    text: str
    lines: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """How many of the comparisons hold."""
        number = Counter(self.verdicts)
        order = (HOLDS, UNDECIDED, TOO_FEW, FAILS)
        return ", ".join(f"{number[word]} {word}" for word in order if number[word])


@dataclass(frozen=True)
class PointDifference:
    """By how many points the second model's WER is higher, with its 95 % interval."""

    points: float
    low: float
    high: float


def better(claim: Claim, name: str, first: SeedScores, second: SeedScores, by: float = 0.0) -> None:
    """Judges whether the second model is better, by more than so many points."""
    judge(claim, name, first, second, (-INFINITY, -by))


def no_worse(claim: Claim, name: str, first: SeedScores, second: SeedScores) -> None:
    """Judges whether the second model is worse by at most the margin."""
    judge(claim, name, first, second, (-INFINITY, margin(first)))


def alike(claim: Claim, name: str, first: SeedScores, second: SeedScores) -> None:
    """Judges whether neither model is worse by more than the margin."""
    judge(claim, name, first, second, (-margin(first), margin(first)))


def judge(
    claim: Claim,
    name: str,
    first: SeedScores,
    second: SeedScores,
    claimed: tuple[float, float],
) -> None:
    """Adds to the claim whether the difference in points is between the two that are claimed."""
    found = difference(first, second)
    verdict = _verdict(found, claimed) if len(first) >= SEEDS else TOO_FEW
    claim.verdicts.append(verdict)
    claim.lines.append(
        f"{name}: {wer(first):.1f} against {wer(second):.1f}, {found.points:+.1f} "
        f"({found.low:+.1f} to {found.high:+.1f}): {verdict}"
    )


def _verdict(found: PointDifference, claimed: tuple[float, float]) -> str:
    lowest, highest = claimed
    if found.low > lowest and found.high < highest:
        return HOLDS
    if found.low >= highest or found.high <= lowest:
        return FAILS
    return UNDECIDED


def margin(scores: SeedScores) -> float:
    """How many points worse still count as no worse."""
    return max(MARGIN, wer(scores) / 4)


def wer(scores: SeedScores) -> float:
    """The WER of all seeds in per cent."""
    errors, words = _as_arrays(scores)
    return float(100 * errors.sum() / words.sum())


def difference(first: SeedScores, second: SeedScores) -> PointDifference:
    """The difference between the WERs of two models that have the same seeds and clips."""
    errors, words = _as_arrays(first)
    other_errors, other_words = _as_arrays(second)
    assert np.array_equal(words, other_words), "not the same clips"
    return interval(other_errors - errors, words[0])


def interval(more: np.ndarray, words: np.ndarray) -> PointDifference:
    """The difference in points of `more` errors (seeds, clips) in so many words (clips,).

    Seeds and clips are both taken for random draws. Of a single seed the interval is infinite.
    """
    of_seeds = 100 * more.sum(axis=1) / words.sum()  # (seeds,)
    points = float(of_seeds.mean())
    seeds = len(of_seeds)
    if seeds == 1:
        return PointDifference(points, -INFINITY, INFINITY)
    t_quantile = T_QUANTILES[min(seeds - 1, len(T_QUANTILES)) - 1]
    over_seeds = t_quantile * float(of_seeds.std(ddof=1)) / math.sqrt(seeds)
    over_clips = NORMAL_QUANTILE * _deviation_over_clips(100 * more.mean(axis=0), words)
    half_width = math.hypot(over_seeds, over_clips)
    return PointDifference(points, points - half_width, points + half_width)


def _deviation_over_clips(errors: np.ndarray, words: np.ndarray) -> float:
    """The standard deviation of a ratio of sums over clips, errors to words."""
    total = words.sum()
    residuals = errors - errors.sum() / total * words
    return math.sqrt(len(words)) * float(residuals.std(ddof=1)) / total


def _as_arrays(scores: SeedScores) -> tuple[np.ndarray, np.ndarray]:
    """Errors and words (seeds, clips)."""
    errors, words = [], []
    for seed in sorted(scores):
        ids = sorted(scores[seed])
        seed_errors, seed_words = counts(scores[seed], ids)
        errors.append(seed_errors)
        words.append(seed_words)
    return np.array(errors), np.array(words)
