"""Each threshold in docs/diagnose.md is where a finding begins: none below it, one above it, dated at the change."""

from dataclasses import replace

import numpy as np
import pytest

from entrostat.diagnosis import DETECTORS
from entrostat.diagnosis.history import History
from entrostat.diagnosis.statistics import noise

DETECTOR = {detector.kind: detector for detector in DETECTORS}
EVERY = 10  # steps between two rows, so that a step is never mistaken for a row


def look(kind, columns, end=None, **fields):
    """What a detector finds at the last row of the columns; the last values of each are in the last row."""
    history, n = History(), max(map(len, columns.values()))
    for row in range(n):
        values = {name: float(column[row - n]) for name, column in columns.items() if row - n >= -len(column)}
        history.append(EVERY * (row + 1), values)
    return replace(DETECTOR[kind], **fields).find(history, end or EVERY * n)


def level(n, value):
    return np.full(n, float(value))


def jump(before, after, n=10, late=10):
    """`n` values of one kind, then `late` of another: the change is at row n + 1."""
    return np.concatenate([level(n, before), level(late, after)])


def wobble(n, around, by):
    return around + by * (-1.0) ** np.arange(n)


LIVELY = wobble(12, 100, 10)  # lengths that vary as between batches

FOUND_ABOVE = {  # a quantity's threshold: the finding, and columns in which that quantity is x
    "clip-low": (0.2, "clip-saturation", lambda x: {"clip_low": level(8, x), "clip_high": level(8, 0)}),
    "clip-high": (0.2, "clip-saturation", lambda x: {"clip_high": level(8, x)}),
    "clip-either": (0.2, "clip-saturation", lambda x: {"clip": level(8, x)}),
    "truncated": (0.25, "truncation", lambda x: {"truncated": jump(0, x)}),
    "truncated-more": (0.35, "truncation", lambda x: {"truncated": jump(0.2, x)}),
    "truncated-always": (0.7, "truncation", lambda x: {"truncated": level(6, x)}),
    "longer": (250, "length-degeneration", lambda x: {"length": jump(100, x), "reward": level(20, 0.5)}),
    "shorter": (250, "length-degeneration", lambda x: {"length": jump(x, 100), "reward": level(20, 0.5)}),
    "repeated": (0.2, "repetition", lambda x: {"repetition": jump(0, x)}),
    "repeated-more": (0.4, "repetition", lambda x: {"repetition": jump(0.3, x)}),
    "template-entropy": (
        5,
        "template-collapse",
        lambda x: {"length": [*LIVELY, *level(12, 100)], "entropy": jump(1, 1 / x, 12, 12)},
    ),
    "template-length": (
        10,
        "template-collapse",
        lambda x: {"length": [*LIVELY, *wobble(12, 100, 10 / x)], "entropy": jump(1, 0.1, 12, 12)},
    ),
    "kl": (0.15, "kl-runaway", lambda x: {"kl": jump(0, x, 11, 5)}),
    "kl-growth": (0.5, "kl-runaway", lambda x: {"kl": jump(0.1, x, 11, 5)}),
    "sampler": (0.09, "sampler-mismatch", lambda x: {"kl_sampler": level(10, x)}),
    "sampler-difference": (0.09, "sampler-mismatch", lambda x: {"mismatch": level(10, -x)}),
    "sampler-growth": (0.05, "sampler-mismatch", lambda x: {"kl_sampler": jump(0.01, x)}),
    "sampler-least": (0.02, "sampler-mismatch", lambda x: {"kl_sampler": jump(0.001, x)}),
    "stale": (4, "staleness", lambda x: {"staleness": level(8, x)}),
    "slower": (30, "slow-steps", lambda x: {"step_time": jump(10, x, 12, 6)}),
    "fewer-per-second": (3, "slow-steps", lambda x: {"throughput": jump(6, 6 / x, 12, 6)}),
    "slower-and-longer": (60, "slow-steps", lambda x: {"step_time": jump(10, x, 12, 6), "length": jump(1, 2, 12, 6)}),
    "slower-and-shorter": (30, "slow-steps", lambda x: {"step_time": jump(10, x, 12, 6), "length": jump(2, 1, 12, 6)}),
    "gradient-grown": (20, "gradient-explosion", lambda x: {"grad_norm": jump(2, x, 10, 5)}),
    "groups": (0.85, "degenerate-groups", lambda x: {"equal_groups": level(10, x)}),
    "groups-by-kind": (
        0.85,
        "degenerate-groups",
        lambda x: {"all_right": level(10, 0.5), "all_wrong": level(10, x - 0.5)},
    ),
    "entropy-over-lowest": (2.5, "entropy-explosion", lambda x: {"entropy": jump(1, x)}),
    "entropy-over-start": (1.5, "entropy-explosion", lambda x: {"entropy": [*level(5, 1), *jump(0.4, x)]}),
    "no-entropy": (200, "entropy-collapse", lambda x: {"entropy": level(8, 1 / x)}),
    "gradient-fallen": (20, "gradient-fade", lambda x: {"grad_norm": jump(1, 1 / x)}),
    "score-fallen": (0.2, "rise-then-fall", lambda x: {"heldout": jump(0.8, 0.8 * (1 - x), 40, 20)}),
    "reward-fallen": (0.2, "rise-then-fall", lambda x: {"reward": jump(0.8, 0.8 * (1 - x), 40, 20)}),
    "signed-score-fallen": (
        0.2,
        "rise-then-fall",
        lambda x: {"heldout": [*np.linspace(-9, 1, 200), *jump(1, 1 - 10 * x, 100, 20)]},
    ),
}
AT_THE_THRESHOLD = {"gradient-fallen"}  # those found with equality; the others are not
ROUNDED = {
    *("template-length", "fewer-per-second", "groups-by-kind", "truncated-more", "truncated-always"),
    *("score-fallen", "reward-fallen", "signed-score-fallen"),
}


@pytest.mark.parametrize("name", FOUND_ABOVE)
def test_a_finding_begins_at_its_threshold(name):
    threshold, kind, columns = FOUND_ABOVE[name]
    assert look(kind, columns(threshold * (1 - 1e-6))) is None
    assert look(kind, columns(threshold * (1 + 1e-6))).kind == kind
    if name not in ROUNDED:
        assert (look(kind, columns(threshold)) is not None) == (name in AT_THE_THRESHOLD)


WORSE_ABOVE = {
    "clip-low": (0.4, ("warning", "critical")),
    "truncated": (0.5, ("warning", "critical")),
    "longer": (625, ("warning", "critical")),
    "shorter": (625, ("warning", "critical")),
    "repeated": (0.5, ("warning", "critical")),
    "kl": (1.0, ("warning", "critical")),
    "sampler": (0.45, ("warning", "critical")),
    "stale": (16, ("note", "warning")),
    "gradient-grown": (200, ("warning", "critical")),
    "groups": (0.95, ("warning", "critical")),
    "entropy-over-lowest": (5, ("warning", "critical")),
    "gradient-fallen": (100, ("warning", "critical")),
    "score-fallen": (0.5, ("warning", "critical")),
}


@pytest.mark.parametrize("name", WORSE_ABOVE)
def test_a_finding_becomes_worse_at_its_second_threshold(name):
    threshold, severities = WORSE_ABOVE[name]
    _, kind, columns = FOUND_ABOVE[name]
    assert look(kind, columns(threshold * (1 - 1e-6))).severity == severities[0]
    assert look(kind, columns(threshold * (1 + 1e-6))).severity == severities[1]
    if name not in ROUNDED | {"longer", "shorter", "sampler"}:
        assert look(kind, columns(threshold)).severity == severities[name in AT_THE_THRESHOLD]


LEAST_ROWS = {  # rows that a finding needs, and columns of n rows in which nothing else is missing
    "clip-saturation": (8, lambda n: {"clip_low": level(n, 0.9)}),
    "truncation": (6, lambda n: {"truncated": level(n, 0.9)}),
    "truncation, of more": (12, lambda n: {"truncated": jump(0, 0.6, 6, n - 6)}),
    "length-degeneration": (13, lambda n: {"length": jump(100, 300, 8, n - 8), "reward": level(n, 0.5)}),
    "repetition": (12, lambda n: {"repetition": jump(0, 0.6, 6, n - 6)}),
    "template-collapse": (
        24,
        lambda n: {"length": [*LIVELY, *level(n - 12, 100)], "entropy": jump(1, 0.1, 12, n - 12)},
    ),
    "kl-runaway": (16, lambda n: {"kl": jump(0, 0.6, n - 5, 5)}),
    "sampler-mismatch": (10, lambda n: {"kl_sampler": level(n, 0.6)}),
    "staleness": (8, lambda n: {"staleness": level(n, 20)}),
    "slow-steps": (18, lambda n: {"step_time": jump(1, 9, n - 6, 6)}),
    "gradient-explosion": (15, lambda n: {"grad_norm": jump(1, 20, n - 5, 5)}),
    "gradient-fade": (20, lambda n: {"grad_norm": jump(1, 0.001, 10, n - 10)}),
    "gradient-fade, from the start": (8, lambda n: {"grad_norm": level(n, 0)}),
    "degenerate-groups": (10, lambda n: {"equal_groups": level(n, 0.9)}),
    "degenerate-groups, by spread": (9, lambda n: {"reward_std": level(n, 0)}),
    "degenerate-groups, by spread and reward": (6, lambda n: {"reward_std": level(n, 0), "reward": level(n, 0)}),
    "entropy-explosion": (10, lambda n: {"entropy": jump(1, 4, n - 4, 4)}),
    "entropy-collapse": (8, lambda n: {"entropy": jump(1, 0.01, 5, n - 5)}),
    "never-learned": (80, lambda n: {"reward": wobble(n, 0.1, 0.01)}),
    "never-learned, the same": (15, lambda n: {"reward": level(n, 0.3)}),
}


@pytest.mark.parametrize("name", LEAST_ROWS)
def test_a_finding_needs_its_rows(name):
    rows, columns = LEAST_ROWS[name]
    kind = name.split(",")[0]
    assert look(kind, columns(rows - 1)) is None
    assert look(kind, columns(rows)).kind == kind


DATED = {  # columns that change after `n` rows, wherever the limit of the finding is
    "clip-saturation": lambda n: {"clip_low": jump(0.1, 0.5, n)},
    "truncation": lambda n: {"truncated": jump(0, 0.6, n)},
    "length-degeneration": lambda n: {"length": jump(100, 300, n), "reward": level(n + 10, 0.5)},
    "repetition": lambda n: {"repetition": jump(0, 0.6, n)},
    "kl-runaway": lambda n: {"kl": jump(0.01, 0.6, n)},
    "sampler-mismatch": lambda n: {"kl_sampler": jump(0.01, 0.6, n)},
    "staleness": lambda n: {"staleness": jump(1, 20, n)},
    "slow-steps": lambda n: {"step_time": jump(1, 9, n)},
    "gradient-explosion": lambda n: {"grad_norm": jump(1, 20, n)},
    "gradient-fade": lambda n: {"grad_norm": jump(1, 0.001, n)},
    "degenerate-groups": lambda n: {"equal_groups": jump(0.3, 0.9, n)},
    "entropy-explosion": lambda n: {"entropy": jump(1, 4, n)},
    "entropy-collapse": lambda n: {"entropy": jump(1, 0.01, n)},
    "rise-then-fall": lambda n: {"heldout": jump(0.8, 0.0, n)},
}


@pytest.mark.parametrize("kind", DATED)
@pytest.mark.parametrize("n", [15, 40])
def test_a_jump_is_dated_to_its_first_row(kind, n):
    assert look(kind, DATED[kind](n)).onset == EVERY * (n + 1)


SLOW = {  # columns that grow by a hundredth of the change per row, and where that change begins: a fraction of it
    "truncation": (0.3, lambda part: {"truncated": 0.6 * part}),
    "repetition": (0.3, lambda part: {"repetition": 0.6 * part}),
    "sampler-mismatch": (0.3, lambda part: {"kl_sampler": 0.01 + 0.6 * part}),
    "slow-steps": (0.3, lambda part: {"step_time": 1 + 9 * part}),
    "entropy-explosion": (0.2, lambda part: {"entropy": 1 + 9 * part}),
    "entropy-collapse": (0.2, lambda part: {"entropy": 1 - 0.99 * part}),
    "gradient-fade": (0.5, lambda part: {"grad_norm": 1 - 0.999 * part}),
    "kl-runaway": (0.2, lambda part: {"kl": part}),
    "length-degeneration": (0.25, lambda part: {"length": 100 * 9.0**part, "reward": level(len(part), 0.5)}),
}


@pytest.mark.parametrize("kind", SLOW)
def test_a_slow_change_is_dated_where_a_fraction_of_it_is_done(kind):
    fraction, columns = SLOW[kind]
    part = np.concatenate([level(150, 0), np.arange(101) / 100, level(20, 1)])
    expected = EVERY * (int(np.argmax(part > fraction + 1e-9)) + 1)
    assert abs(look(kind, columns(part)).onset - expected) <= EVERY


NOISY = {  # columns of 60 rows that stray by `s` to either side, whose last ten are higher by x
    "kl-runaway": ("kl", {}, lambda x, s: wobble(60, 0, s) + jump(0, x, 50)),
    "sampler-mismatch": ("kl_sampler", {"limit": 1e9}, lambda x, s: 0.001 + s + wobble(60, 0, s) + jump(0, x, 50)),
    "entropy-explosion": ("entropy", {}, lambda x, s: 0.1 + s + wobble(60, 0, s) + jump(0, x, 50)),
}


@pytest.mark.parametrize("kind", NOISY)
def test_a_change_of_seven_noises_is_found_and_one_of_five_is_not(kind):
    column, fields, values = NOISY[kind]
    for s in (0.02, 0.3, 5.0):
        sigma = noise(values(12 * s, s))
        assert look(kind, {column: values(5 * sigma, s)}, **fields) is None
        assert look(kind, {column: values(7 * sigma, s)}, **fields).kind == kind
