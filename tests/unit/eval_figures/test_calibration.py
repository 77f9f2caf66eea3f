"""Calibration: bins worked out by hand, and what chance alone gives."""

import random

import pytest

from tuneyard.eval.statistics.rates import calibration, wilson


def test_calibration_by_hand() -> None:
    """Two bins: 4 rows at 0.95 of which 3 are right, 6 at 0.55 of which 3 are: (4·0.2 + 6·0.05)/10."""
    found = calibration([0.95] * 4 + [0.55] * 6, [True] * 3 + [False] + [True, False] * 3)
    assert found.error == pytest.approx(0.11) and found.n == 10
    assert [(b.n, b.accuracy) for b in found.bins] == [(6, 0.5), (4, 0.75)]
    assert [b.confidence for b in found.bins] == pytest.approx([0.55, 0.95])
    assert [(b.low, b.high) for b in found.bins] == [wilson(3, 6), wilson(3, 4)]


def test_bins_are_tenths() -> None:
    sure = [0.05, 0.15, 0.85, 0.899, 0.9, 1.0]
    found = calibration(sure, [True] * 6)
    assert [(b.n, b.confidence) for b in found.bins] == [
        (1, 0.05), (1, 0.15), (2, pytest.approx(0.8745)), (2, pytest.approx(0.95)),
    ]  # fmt: skip


def test_calibration_by_chance_is_what_a_perfect_model_gets() -> None:
    draw = random.Random(0)
    errors = []
    for _ in range(150):
        sure = [draw.choice([0.52, 0.71, 0.93]) for _ in range(150)]
        errors.append(calibration(sure, [draw.random() < p for p in sure]))
    inside = sum(found.error <= found.chance for found in errors) / 150
    assert 0.91 < inside < 0.99
    assert calibration([1.0] * 5, [True] * 5).error == calibration([1.0] * 5, [True] * 5).chance == 0
