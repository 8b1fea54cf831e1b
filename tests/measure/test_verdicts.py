"""The interval of the difference between two models of several seeds."""

import numpy as np
import pytest

from benchmarks import intervals
from omni_avsr.measure.compare import ClipScore
from omni_avsr.measure.verdicts import INFINITY, difference, interval

WORDS = np.full(40, 10)  # of each clip


def of_seeds(*errors):
    """As many more errors of each seed, the same in each clip."""
    return np.array(errors)[:, None] * np.ones((1, len(WORDS)))


def half_width(found):
    return (found.high - found.low) / 2


def test_over_seeds_it_is_students_t():
    found = interval(of_seeds(1, 2, 3), WORDS)
    assert found.points == pytest.approx(20)
    assert half_width(found) == pytest.approx(4.303 * 10 / 3**0.5)


def test_over_clips_it_is_the_normal_one():
    more = np.tile(np.arange(40) % 2, (3, 1))  # the same in each seed
    found = interval(more, WORDS)
    assert found.points == pytest.approx(5)
    deviation = 10 * np.std(more[0], ddof=1)
    assert half_width(found) == pytest.approx(1.96 * deviation / 40**0.5)


def test_both_add_up_as_squares():
    clips = np.tile(np.arange(40) % 2, (3, 1))
    both = half_width(interval(of_seeds(1, 2, 3) + clips, WORDS))
    over_seeds = half_width(interval(of_seeds(1, 2, 3), WORDS))
    over_clips = half_width(interval(clips, WORDS))
    assert both == pytest.approx(np.hypot(over_seeds, over_clips))


def test_a_single_seed_has_an_infinite_one():
    found = interval(of_seeds(1), WORDS)
    assert (found.points, found.low, found.high) == (10, -INFINITY, INFINITY)


def test_more_than_thirty_seeds_have_the_quantile_of_thirty_one():
    many = interval(of_seeds(*range(40)), WORDS)
    deviation = 10 * np.std(range(40), ddof=1)
    assert half_width(many) == pytest.approx(2.042 * deviation / 40**0.5)


def test_seeds_and_clips_are_matched_by_name():
    first = {
        1: {"a": ClipScore(0, 5), "b": ClipScore(1, 10)},
        2: {"b": ClipScore(2, 10), "a": ClipScore(0, 5)},
    }
    second = {
        2: {"a": ClipScore(3, 5), "b": ClipScore(2, 10)},
        1: {"a": ClipScore(0, 5), "b": ClipScore(1, 10)},
    }
    assert difference(first, second).points == pytest.approx(10)  # 3 errors in 30 words


def test_it_contains_the_true_difference_of_simulated_models():
    rng = np.random.default_rng(0)
    true = 100 * (intervals.WERS[1] - intervals.WERS[0])
    missed = 0
    for _ in range(100):
        measured = intervals.simulate(of_seed=0.1, seeds=3, rng=rng)
        found = interval(measured.more, measured.words)
        missed += not found.low < true < found.high
    assert missed <= 4  # 7 are expected of a bootstrap over seeds and clips
