"""Probabilities are calibrated so that as many words are right as they say."""

import numpy as np
import pytest

from omni_avsr.model.confidence import (
    calibrated,
    calibration_error,
    fitted_temperature,
    reliability,
)


def words(temperature, count=4000, seed=0):
    """Probabilities that are too sure by this temperature, and which words are right."""
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.05, 0.99, count)
    right = rng.random(count) < true
    return calibrated(true, 1 / temperature), right


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_spoils_probabilities_is_found(temperature):
    given, right = words(temperature)
    found = fitted_temperature(given, right)
    assert found == pytest.approx(temperature, rel=0.1)
    assert calibration_error(calibrated(given, found), right) < 0.02
    if temperature != 1:
        assert calibration_error(given, right) > 0.05


def test_the_order_of_words_is_kept():
    given = np.array([0.0, 0.2, 0.7, 0.999, 1.0])
    assert (np.diff(calibrated(given, 3.0)[1:-1]) > 0).all()
    assert calibrated([0.5], 7.0)[0] == pytest.approx(0.5)


def test_no_words_leave_probabilities_as_they_are():
    assert fitted_temperature([], []) == 1.0
    assert calibration_error([], []) == 0.0


def test_each_bin_has_its_share_of_right_words():
    rows = reliability([0.91, 0.93, 0.15, 1.0], [True, False, False, True])
    assert rows == [(0.15, 0.0, 1), (pytest.approx(2.84 / 3), pytest.approx(2 / 3), 3)]
    expected = (0.15 + 3 * (2.84 / 3 - 2 / 3)) / 4
    assert calibration_error([0.91, 0.93, 0.15, 1.0], [True, False, False, True]) == pytest.approx(
        expected
    )
