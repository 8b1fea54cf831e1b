"""Whether the difference between two models lies where a claim has it.

A bootstrap decides that draws seeds, and then clips, the same for both models.
"""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from omni_avsr.measure.compare import Scores, counts
from omni_avsr.measure.results import CONFIDENCE

SeedScores = dict[int, Scores]  # the scores of a model by its seed
DRAWS = 2000
HOLDS, UNDECIDED, FAILS = "hold", "undecided", "do not hold"
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
        order = (HOLDS, UNDECIDED, FAILS)
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
    lowest, highest = claimed
    found = difference(first, second)
    if found.low > lowest and found.high < highest:
        verdict = HOLDS
    elif found.low >= highest or found.high <= lowest:
        verdict = FAILS
    else:
        verdict = UNDECIDED
    claim.verdicts.append(verdict)
    claim.lines.append(
        f"{name}: {wer(first):.1f} against {wer(second):.1f}, {found.points:+.1f} "
        f"({found.low:+.1f} to {found.high:+.1f}): {verdict}"
    )


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
    more = other_errors - errors  # (seeds, clips)
    rng = np.random.default_rng(0)
    seed_count, clip_count = words.shape
    draws = []
    for _ in range(DRAWS):
        seeds = rng.integers(seed_count, size=seed_count)
        clips = rng.integers(clip_count, size=clip_count)
        drawn = np.ix_(seeds, clips)
        draws.append(100 * more[drawn].sum() / words[drawn].sum())
    low, high = np.quantile(draws, CONFIDENCE)
    return PointDifference(100 * more.sum() / words.sum(), float(low), float(high))


def _as_arrays(scores: SeedScores) -> tuple[np.ndarray, np.ndarray]:
    """Errors and words (seeds, clips)."""
    errors, words = [], []
    for seed in sorted(scores):
        ids = sorted(scores[seed])
        seed_errors, seed_words = counts(scores[seed], ids)
        errors.append(seed_errors)
        words.append(seed_words)
    return np.array(errors), np.array(words)
