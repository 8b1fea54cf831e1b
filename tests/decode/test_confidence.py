"""What is said of a word's probability holds, and what cannot be told is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omni_avsr.decode.confidence import (
    calibrated,
    calibration_error,
    doubt_of,
    evidence_of,
    fitted,
    probabilities,
    reliability,
    rows_of,
)
from omni_avsr.model.aligner import Place

WEIGHTS = [0.5, 1.0, -0.2, 0.8, 0.3, 0.1]


def transcripts(count, seed):
    """The rows of random words, and which are right, by the probabilities of WEIGHTS."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        said, found = rng.uniform(-6, -0.01, (2, 8))
        rows.append(rows_of(list(zip(said, found, strict=True))))
    rows = np.concatenate(rows)
    return rows, rng.random(len(rows)) < calibrated(rows, WEIGHTS)


def test_fitted_probabilities_hold_for_other_words():
    weights = fitted(*transcripts(400, seed=0))
    rows, right = transcripts(400, seed=1)
    words = list(zip(calibrated(rows, weights), right, strict=True))
    assert calibration_error(words) < 0.03
    raw = list(zip(np.exp(rows[:, 1]), right, strict=True))
    assert calibration_error(raw) > 0.1


def test_all_words_being_right_or_wrong_is_learned_without_overflow():
    rows, right = transcripts(5, seed=0)
    for all_of_them in (np.zeros(len(right)), np.ones(len(right))):
        sure = calibrated(rows, fitted(rows, all_of_them))
        assert np.abs(sure - all_of_them).max() < 0.1
    assert calibrated(1e6 * rows, WEIGHTS).max() <= 1


def test_evidence_is_finite_whatever_it_is_made_of():
    clear, vague = Place(0, 1, 0.0), Place(1, 2, -np.inf)
    said, found = evidence_of(0.0, [clear, vague])
    assert (said, found) == pytest.approx((np.log(1e-6), np.log(1e-6) / 2))
    assert np.isfinite(rows_of([(0.0, 0.0), (said, found)])).all()


@given(st.lists(st.none() | st.tuples(st.floats(-13, 0), st.floats(-13, 0)), max_size=8))
def test_each_word_with_evidence_has_a_probability_and_others_none(evidence):
    for weights in (None, WEIGHTS):
        found = probabilities(evidence, weights)
        assert [one is None for one in found] == [one is None for one in evidence]
        assert all(0 <= one <= 1 for one in found if one is not None)


def test_without_weights_a_word_is_as_likely_as_the_language_model_says():
    assert probabilities([(np.log(0.7), -3.0), None], None) == [0.7, None]


def test_the_calibration_error_is_the_distance_from_the_diagonal():
    words = [(0.9, True)] * 3 + [(0.9, False)] + [(0.1, False)] * 4
    assert reliability(words) == [
        (pytest.approx(0.1), 0.0, 4),
        (pytest.approx(0.9), 0.75, 4),
    ]
    assert calibration_error(words) == pytest.approx((0.1 + 0.15) / 2)
    assert calibration_error([(1.0, True)]) == 0.0
    assert calibration_error([]) == 0.0


def test_a_transcript_is_doubted_by_its_words_and_wholly_without_any():
    assert doubt_of([0.9, None, 0.7]) == pytest.approx(0.2)
    assert doubt_of([]) == doubt_of([None]) == doubt_of(None) == 1.0
