"""Whether a difference between two models lies where a claim has it: a bootstrap over seeds and clips."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

Clips = dict[int, dict[str, tuple[int, int]]]  # of each seed, errors and words of each clip
DRAWS = 2000
HOLDS, UNDECIDED, FAILS = "hold", "undecided", "do not hold"


@dataclass
class Claim:
    """What a paper says, what was measured, and whether it holds."""

    text: str
    lines: list[str] = field(default_factory=list)
    verdicts: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """How many of its comparisons hold."""
        counts = Counter(self.verdicts)
        return ", ".join(f"{counts[word]} {word}" for word in (HOLDS, UNDECIDED, FAILS) if counts[word])


def counts(clips: Clips) -> tuple[np.ndarray, np.ndarray]:
    """Errors and words (seeds, clips)."""
    both = np.array([[clips[seed][name] for name in sorted(clips[seed])] for seed in sorted(clips)])
    return both[..., 0], both[..., 1]


def wer(clips: Clips) -> float:
    """In percent."""
    errors, words = counts(clips)
    return float(100 * errors.sum() / words.sum())


def difference(first: Clips, second: Clips) -> tuple[float, float, float]:
    """Of the second's WER to the first's, in points, and its 95 % interval."""
    (errors, words), (others, same) = counts(first), counts(second)
    assert np.array_equal(words, same), "not the same clips"
    more, rng = others - errors, np.random.default_rng(0)
    draws = []
    for _ in range(DRAWS):
        seeds, clips = (rng.integers(size, size=size) for size in words.shape)
        chosen = np.ix_(seeds, clips)
        draws.append(100 * more[chosen].sum() / words[chosen].sum())
    return 100 * more.sum() / words.sum(), *map(float, np.quantile(draws, [0.025, 0.975]))


def judge(claim: Claim, name: str, first: Clips, second: Clips, least: float, most: float) -> None:
    """Adds whether the second's WER lies between so many points below and above the first's."""
    points, low, high = difference(first, second)
    verdict = HOLDS if low > least and high < most else FAILS if low >= most or high <= least else UNDECIDED
    claim.verdicts.append(verdict)
    claim.lines.append(
        f"{name}: {wer(first):.1f} against {wer(second):.1f}, {points:+.1f} ({low:+.1f} to {high:+.1f}): {verdict}"
    )


def better(claim: Claim, name: str, first: Clips, second: Clips, by: float = 0.0) -> None:
    """Whether the second is better, by more than so many points."""
    judge(claim, name, first, second, -np.inf, -by)


def no_worse(claim: Claim, name: str, first: Clips, second: Clips) -> None:
    """Whether the second is at most one point or a quarter of the errors worse."""
    judge(claim, name, first, second, -np.inf, max(1.0, wer(first) / 4))


def alike(claim: Claim, name: str, first: Clips, second: Clips) -> None:
    """Whether neither is more than one point or a quarter of the errors worse."""
    judge(claim, name, first, second, -max(1.0, wer(first) / 4), max(1.0, wer(first) / 4))
