"""How sure a model is of a word, as a probability that holds: of 5 words with 0.8, 4 are right.

What the language model says of its own words is too high where it misreads lips or hears noise. So
it is weighed with how clearly the aligner finds a word's characters, and with the means of both
over the transcript. The weights of each task are fitted on validation clips, and kept in the
config.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # which imports torch, and whoever writes transcripts needs none
    from omni_avsr.model.aligner import Place

LEAST = 1e-6  # probability that evidence can have
MOST = 1 - 1e-4
RIDGE = 1e-3  # keeps weights small where few words are known
STEPS = 60  # of Newton's method
BINS = 10  # of probabilities that are looked at together

Evidence = tuple[float, float]  # a word's log-probability, and its characters', for the aligner
Judged = tuple[float, bool]  # a word's probability, and whether it is right


def evidence_of(probability: float, places: Sequence["Place"]) -> Evidence:
    """The evidence for a word: what the language model says, and what the aligner finds."""
    found = [max(place.log_prob, np.log(LEAST)) for place in places]
    return float(np.log(max(probability, LEAST))), float(np.mean(found))


def rows_of(evidence: Sequence[Evidence]) -> np.ndarray:
    """What the weights are for: a row for each word of a transcript (words, 6)."""
    if not evidence:
        return np.zeros((0, 6))
    said, found = np.array(evidence).T
    unsaid = np.log1p(-np.minimum(np.exp(said), MOST))
    same = np.ones_like(said)
    return np.stack([same, said, unsaid, found, same * said.mean(), same * found.mean()], 1)


def calibrated(rows: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """The probability that each word is right."""
    return (1 + np.tanh(rows @ np.asarray(weights) / 2)) / 2


def probabilities(
    evidence: Sequence[Evidence | None], weights: Sequence[float] | None
) -> list[float | None]:
    """The probability of each word of a transcript; None for words without evidence.

    Without weights it is what the language model says.
    """
    known = [own for own in evidence if own is not None]
    rows = rows_of(known)
    sure = iter(np.exp(rows[:, 1]) if weights is None else calibrated(rows, weights))
    return [None if own is None else round(float(next(sure)), 4) for own in evidence]


def doubt_of(probabilities: Sequence[float | None] | None) -> float:
    """The share of a transcript's words that are wrong, as far as it can be told: 1 if not at all.

    Nothing can be told of a transcript without words.
    """
    known = [one for one in probabilities or () if one is not None]
    return 1 - sum(known) / len(known) if known else 1.0


def fitted(rows: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The weights that make words likeliest to be as right as they are: a logistic regression."""
    weights = np.zeros(rows.shape[1])
    ridge = RIDGE * np.eye(rows.shape[1])
    for _ in range(STEPS):
        sure = calibrated(rows, weights)
        slope = rows.T @ (sure - right) / len(rows) + ridge @ weights
        curve = (rows * (sure * (1 - sure))[:, None]).T @ rows / len(rows) + ridge
        weights -= np.linalg.solve(curve, slope)
    return weights


def reliability(words: Sequence[Judged]) -> list[tuple[float, float, int]]:
    """The mean probability, the share of right words, and the number of words of each bin."""
    sure, right = np.array(words, float).reshape(-1, 2).T
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    found = []
    for number in np.unique(bins):
        own = bins == number
        found.append((float(sure[own].mean()), float(right[own].mean()), int(own.sum())))
    return found


def calibration_error(words: Sequence[Judged]) -> float:
    """The expected calibration error: how far the bins are from the diagonal, on average."""
    gaps = [abs(mean - share) * count for mean, share, count in reliability(words)]
    return sum(gaps) / max(1, len(words))
