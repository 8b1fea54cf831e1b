"""How sure a model is of a word, as a probability that holds.

A probability of 0.8 holds if four words of five that have it are right. Those of language models do
not: their log-odds are divided by a temperature, which is fitted on validation clips.
"""

from collections.abc import Sequence

import numpy as np

TEMPERATURES = np.geomspace(0.2, 20, 201)  # that are tried
BINS = 10  # of probabilities that are looked at together
TINY = 1e-6  # the least probability of either answer


def calibrated(probabilities: Sequence[float], temperature: float) -> np.ndarray:
    """The probabilities with their log-odds divided by a temperature."""
    given = np.clip(np.asarray(probabilities, float), TINY, 1 - TINY)
    return 1 / (1 + ((1 - given) / given) ** (1 / temperature))


def fitted_temperature(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """The temperature at which words that are right, and words that are not, are likeliest."""
    if not len(right):
        return 1.0
    is_right = np.asarray(right)
    likelihoods = []
    for temperature in TEMPERATURES:
        given = calibrated(probabilities, temperature)
        likelihoods.append(np.log(np.where(is_right, given, 1 - given)).mean())
    return float(TEMPERATURES[np.argmax(likelihoods)])


def reliability(
    probabilities: Sequence[float], right: Sequence[bool]
) -> list[tuple[float, float, int]]:
    """The mean probability, the share of right words, and the number of words of each bin."""
    given, is_right = np.asarray(probabilities), np.asarray(right)
    bins = np.minimum((given * BINS).astype(int), BINS - 1)
    rows = []
    for number in np.unique(bins):
        own = bins == number
        rows.append((float(given[own].mean()), float(is_right[own].mean()), int(own.sum())))
    return rows


def calibration_error(probabilities: Sequence[float], right: Sequence[bool]) -> float:
    """The expected calibration error: how far the probabilities are from the shares, on average."""
    rows = reliability(probabilities, right)
    return sum(abs(mean - share) * words for mean, share, words in rows) / max(1, len(right))
