"""The interval of an AUC over runs covers what it says, and single runs count as runs, not as steps."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "studies" / "early-warning"))

from announcing import Course, auc_of, interval


def course(random, seed, shift):
    """A run whose signal, with an offset of the run's own, is higher by `shift` before a fall at step 15."""
    passed = np.array([0.5] * 15 + [0.1] * 6)
    values = random.normal(size=20) + random.normal() + shift * (np.arange(1, 21) > 11)
    return Course("c", seed, passed, {"signal": values})


def test_the_interval_covers_the_auc_of_new_runs():
    random = np.random.default_rng(3)
    truth = auc_of([course(random, i, 1.0) for i in range(400)], "signal", "falling")
    covered = 0
    for _ in range(60):
        value, low, high = interval([course(random, i, 1.0) for i in range(16)], "signal", "falling", resamples=200)
        assert 0 <= low <= value <= high <= 1
        covered += low <= truth <= high
    assert covered >= 51  # of 57 expected at 95 %; 51 lies beyond three standard errors


def test_more_runs_narrow_the_interval_and_that_of_a_signal_without_order_includes_one_half():
    random = np.random.default_rng(4)
    few, many = ([course(random, i, 1.0) for i in range(n)] for n in (8, 64))
    widths = [high - low for _, low, high in (interval(runs, "signal", "falling") for runs in (few, many))]
    assert widths[1] < 0.6 * widths[0]
    _, low, high = interval([course(random, i, 0.0) for i in range(30)], "signal", "falling")
    assert low < 0.5 < high
