"""How often a 95 % interval misses the true difference between two simulated models.

    python -m benchmarks.intervals

Whether a word is wrong depends on a sum of normal variables: how hard word and clip are for any
model, how hard the clip is for this model, the training's seed, and chance. So errors of the same
clip are correlated between models and between seeds, as real ones are. The true difference is
known.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated

import numpy as np
import typer

from benchmarks import yardstick
from omni_avsr.measure.verdicts import T_QUANTILES, interval

WERS = (0.05, 0.055)  # true ones, of the two models
CLIPS = 200
WORDS = (4, 9)  # words in a clip, from and below
DRAWS = 400  # of the bootstrap
# Standard deviations; with the chance of a single pass their squares add up to 1
OF_WORD = 0.5
OF_CLIP = 0.6  # for any model
OF_CLIP_AND_MODEL = 0.2
OF_CLIP_AND_SEED = 0.3
OF_PASS = math.sqrt(1 - OF_WORD**2 - OF_CLIP**2 - OF_CLIP_AND_MODEL**2 - OF_CLIP_AND_SEED**2)
OF_SEEDS = (0.05, 0.1, 0.2)  # the WER of 5 % varies by 0.5, 1 and 2 points
SEEDS = (2, 3, 5, 10)
COLUMNS = ("WER varies by", "seeds", "bootstrap", "t over seeds", "ours", "ours is wide")


@dataclass(frozen=True)
class Measured:
    """What two models made more or fewer errors in."""

    more: np.ndarray  # errors (seeds, clips)
    words: np.ndarray  # (clips,)


def main(
    worlds: Annotated[int, typer.Option(help="Simulated studies per row.")] = 2000,
) -> None:
    """Prints a row for each spread of the seeds and number of seeds."""
    yardstick.show(sheet(worlds))


def sheet(worlds: int) -> yardstick.Sheet:
    """The shares of the intervals that miss, and the half-width of ours."""
    rows = []
    for of_seed in OF_SEEDS:
        for seeds in SEEDS:
            rows.append(row(of_seed, seeds, worlds))
    return yardstick.Sheet("95 % intervals that miss the true difference", COLUMNS, rows)


def row(of_seed: float, seeds: int, worlds: int) -> tuple[str, ...]:
    """A row of the table."""
    rng = np.random.default_rng(0)
    true = 100 * (WERS[1] - WERS[0])
    ways: tuple[Callable, ...] = (bootstrap, over_seeds, ours)
    misses = np.zeros(len(ways))
    width = 0.0
    for _ in range(worlds):
        measured = simulate(of_seed, seeds, rng)
        for place, way in enumerate(ways):
            low, high = way(measured, rng)
            misses[place] += not low < true < high
        width += (high - low) / 2 / worlds
    shares = [f"{100 * share:.1f} %" for share in misses / worlds]
    return (f"{spread(of_seed):.1f} points", str(seeds), *shares, f"±{width:.1f}")


def threshold(wer: float, of_seed: float) -> float:
    """Above which a word is wrong."""
    return NormalDist(sigma=math.hypot(1, of_seed)).inv_cdf(1 - wer)


def spread(of_seed: float) -> float:
    """By how many points the first model's WER varies from seed to seed, to first order."""
    density = NormalDist().pdf(threshold(WERS[0], of_seed))
    return 100 * density * of_seed


def simulate(of_seed: float, seeds: int, rng: np.random.Generator) -> Measured:
    """A study of two models with so many seeds each."""
    words = rng.integers(*WORDS, size=CLIPS)
    longest = WORDS[1] - 1
    is_word = np.arange(longest) < words[:, None]  # (clips, words)
    hard = OF_WORD * rng.standard_normal((CLIPS, longest))
    hard = hard + OF_CLIP * rng.standard_normal((CLIPS, 1))
    errors = []
    for wer in WERS:
        own = hard + OF_CLIP_AND_MODEL * rng.standard_normal((CLIPS, 1))
        luck = of_seed * rng.standard_normal((seeds, 1, 1))
        luck = luck + OF_CLIP_AND_SEED * rng.standard_normal((seeds, CLIPS, 1))
        chance = OF_PASS * rng.standard_normal((seeds, CLIPS, longest))
        wrong = own + luck + chance > threshold(wer, of_seed)
        errors.append((wrong & is_word).sum(axis=2))
    first, second = errors
    return Measured(second - first, words)


def ours(measured: Measured, _: np.random.Generator) -> tuple[float, float]:
    """The interval that verdicts go by."""
    found = interval(measured.more, measured.words)
    return found.low, found.high


def over_seeds(measured: Measured, _: np.random.Generator) -> tuple[float, float]:
    """Student's t over the differences of the seeds; the clips are taken for all there are."""
    of_seeds = 100 * measured.more.sum(axis=1) / measured.words.sum()
    seeds = len(of_seeds)
    half_width = T_QUANTILES[seeds - 2] * of_seeds.std(ddof=1) / math.sqrt(seeds)
    return of_seeds.mean() - half_width, of_seeds.mean() + half_width


def bootstrap(measured: Measured, rng: np.random.Generator) -> tuple[float, float]:
    """Quantiles of studies whose seeds and clips are drawn from those that there are."""
    seeds, clips = measured.more.shape
    drawn_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), DRAWS)
    drawn_clips = rng.multinomial(clips, np.full(clips, 1 / clips), DRAWS)
    more = ((drawn_seeds @ measured.more) * drawn_clips).sum(axis=1)
    low, high = np.quantile(100 * more / (drawn_clips @ measured.words) / seeds, (0.025, 0.975))
    return low, high


if __name__ == "__main__":
    typer.run(main)
